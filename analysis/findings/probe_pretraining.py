"""Pre-trainings beside losses, and boxes by size: P3 and P5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import ClassVar

import numpy as np

from analysis.findings.contrast import Contrast, ProbeFinding
from analysis.findings.finding import FAILS, HOLDS, UNDECIDED, at_least, every
from analysis.findings.probe_evidence import Probe, ProbeEvidence, Scored, area_bins
from analysis.findings.probe_losses import LINEAR, beside, loss_contrasts, named
from analysis.findings.probing_numbers import BCOS_CNN, CNN, epg_beside, kind_of
from analysis.probing import CE, LOSSES
from analysis.probing_rows import Gain, level, over_seeds

EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of box sizes, as shares of the image; ours, as the paper does not say."""
SHARES = {BCOS_CNN: 11 / 12, CNN: 9 / 12}
"""How many of its comparisons the paper finds positive, by kind."""


@dataclass(frozen=True)
class LossMattersMore(ProbeFinding):
    """P3."""

    id: ClassVar[str] = "P3"
    claim: ClassVar[str] = "The loss matters more than the pre-training"
    says: ClassVar[str] = (
        "For one backbone, linear probe and method, the mean absolute change of GridPG from CE to "
        "BCE is larger than the range over pre-trainings at one loss (mean of both losses); and no "
        "pre-training is best for all methods. Pre-trainings are drawn as samples of their own."
    )
    source: ClassVar[str] = "section 5.1, figures 3 and 4"

    def compare(self, evidence: ProbeEvidence) -> Iterator[Contrast]:
        places: dict[tuple[Probe, Scored, str], dict[str, tuple[Probe, bool]]] = {}
        for probe, first in evidence.against_ce(**LINEAR):
            for scored, protocol, decides in evidence.scored(probe, "grid_pg"):
                cell = (probe._replace(pretraining=""), scored, protocol)
                places.setdefault(cell, {})[probe.pretraining] = (probe, first and decides)
        levels: dict[tuple[Probe, str], dict[str, dict[str, Gain]]] = {}
        for (place, scored, protocol), of in places.items():
            if len(of) < 2:
                continue
            pairs = {name: (p, evidence.partner(p)) for name, (p, _) in of.items()}
            why = evidence.unread(*(p for pair in pairs.values() for p in pair))
            found = {
                name: [mean_of(evidence, p, scored, protocol) for p in pair]
                for name, pair in pairs.items()
            }
            known = {
                name: (one, other)
                for name, (one, other) in found.items()
                if one is not None and other is not None
            }
            decides = all(decides for _, decides in of.values())
            yield Contrast.of(
                spread_gain(known) if len(known) == len(of) else None,
                "above",
                why=why or ("" if len(known) == len(of) else "scores are missing"),
                what=f"change by loss over range of {len(of)} pre-trainings",
                metric=protocol,
                method=scored.method,
                images=scored.images,
                results=tuple(
                    r
                    for pair in pairs.values()
                    for p in pair
                    for r in evidence.evaluation_ids(p, scored)
                ),
                decides=decides,
                **{**named(place, scored), "pretraining": ", ".join(of)},
            )
            if decides and not why and len(known) == len(of):
                for side, loss in enumerate((place.loss, CE)):
                    methods = levels.setdefault((place._replace(loss=loss), scored.images), {})
                    methods[scored.method] = {n: pair[side] for n, pair in known.items()}
        for (judged, images), by_method in levels.items():
            if len(by_method) > 1:
                yield no_best(judged, images, by_method)


def mean_of(evidence: ProbeEvidence, probe: Probe, scored: Scored, protocol: str) -> Gain | None:
    """The mean score of a probe over its seeds."""
    columns = evidence.columns(probe, scored, protocol)
    return over_seeds([level(columns[seed]) for seed in sorted(columns)]) if columns else None


def spread_gain(levels: Mapping[str, tuple[Gain, Gain]]) -> Gain:
    """Mean absolute change by loss minus the mean range over pre-trainings.

    Args:
        levels: (BCE, CE) of each pre-training; draws of different ones are put in other orders,
            so that these are samples of their own.
    """
    order = np.random.default_rng(0)
    draws = []
    for bce, ce in levels.values():
        shuffled = order.permutation(len(bce.draws))
        draws.append(np.stack([bce.draws[shuffled], ce.draws[shuffled]]))
    table = np.stack(draws)  # (P, 2, R)
    points = np.array([[bce.effect, ce.effect] for bce, ce in levels.values()])

    def changes(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(values[:, 0] - values[:, 1]).mean(0))

    def ranges(values: np.ndarray) -> np.ndarray:
        return np.asarray((values.max(0) - values.min(0)).mean(0))

    value, against = float(changes(points)), float(ranges(points))
    return Gain(
        value=value,
        against=against,
        effect=value - against,
        draws=changes(table) - ranges(table),
        units=min(g.units for pair in levels.values() for g in pair),
        paired=False,
        each=(value - against,),
    )


def no_best(place: Probe, images: str, by_method: Mapping[str, Mapping[str, Gain]]) -> Contrast:
    """Whether no pre-training is best for all methods, as far as intervals tell."""
    names = set.intersection(*(set(levels) for levels in by_method.values()))

    def beaten(name: str, levels: Mapping[str, Gain]) -> bool:
        """Whether another pre-training is above this one, by all of the interval."""
        return any(above(levels[other], levels[name]) for other in names - {name})

    unbeaten = [n for n in names if not any(beaten(n, levels) for levels in by_method.values())]
    winners = [
        n
        for n in unbeaten
        if all(
            above(levels[n], levels[other])
            for levels in by_method.values()
            for other in names - {n}
        )
    ]
    leaders = {m: max(names, key=lambda n: levels[n].effect) for m, levels in by_method.items()}
    return Contrast(
        what="no pre-training is best for all: "
        + ", ".join(f"{method} {leader}" for method, leader in sorted(leaders.items())),
        metric="grid_pg",
        verdict=HOLDS if not unbeaten else FAILS if winners else UNDECIDED,
        why="" if not unbeaten or winners else f"{', '.join(sorted(unbeaten))} may be best for all",
        images=images,
        seeds=1,
        **{**named(place), "pretraining": ", ".join(sorted(names))},
    )


def above(one: Gain, other: Gain) -> bool:
    """Whether one mean is above another, as samples of their own, by all of the interval."""
    order = np.random.default_rng(1).permutation(len(other.draws))
    apart = replace(one, effect=one.effect - other.effect, draws=one.draws - other.draws[order])
    return apart.interval[0] > 0


@dataclass(frozen=True)
class SmallBoxesGainMost(ProbeFinding):
    """P5."""

    id: ClassVar[str] = "P5"
    claim: ClassVar[str] = "BCE helps EPG, most for small boxes"
    says: ClassVar[str] = (
        "EPG gains by BCE in 11 of 12 comparisons on B-cos networks (not Grad-CAM by DINO), in 9 "
        "of 12 on conventional ones (not Grad-CAM); and the gain falls with the size of the boxes: "
        "that of the smallest quarter with boxes is above that of the largest. The edges of the "
        "bins are ours."
    )
    source: ClassVar[str] = "section 5.1, figure 5, table C2"

    def compare(self, evidence: ProbeEvidence) -> Iterator[Contrast]:
        for probe, scored, found in loss_contrasts(evidence, "epg", "above", **LINEAR):
            method = evidence.attribution(probe, scored)
            exempt = method == "grad_cam" and (probe.kind == CNN or probe.pretraining == "dino")
            there = epg_beside(probe.kind, probe.pretraining, method)
            yield beside(found, there, not exempt)
            if found.decides:
                yield self.by_size(evidence, probe, scored, found.metric, exempt)

    def by_size(
        self, evidence: ProbeEvidence, probe: Probe, scored: Scored, protocol: str, exempt: bool
    ) -> Contrast:
        """The gain in the smallest bin that has boxes, over that in the largest."""
        rival, bins = evidence.partner(probe), []
        for low, high in pairwise(EDGES):
            gain = evidence.gain(
                (probe, scored),
                (rival, scored),
                protocol,
                partial(area_bins, low=low, high=high),
            )
            if gain is not None and gain.units > 1:
                bins.append(((low, high), gain))
        why = evidence.unread(probe, rival)
        difference, where = None, ""
        if len(bins) > 1:
            (small, first), (large, last) = bins[0], bins[-1]
            # bins hold other images: their draws are samples of their own
            order = np.random.default_rng(2).permutation(len(last.draws))
            difference = first.minus(replace(last, draws=last.draws[order]))
            where = f" {small[0]:g}-{small[1]:g} over {large[0]:g}-{large[1]:g}"
        return Contrast.of(
            difference,
            "above",
            why=why or ("" if difference is not None else "boxes of one size bin at most"),
            what=f"gain by {LOSSES[probe.loss]} of boxes{where}",
            metric=protocol,
            method=scored.method,
            images=scored.images,
            results=(
                *evidence.evaluation_ids(probe, scored),
                *evidence.evaluation_ids(rival, scored),
            ),
            decides=not exempt,
            **named(probe, scored),
        )

    def judge(self, contrasts: Sequence[Contrast]) -> str:
        """The share of gains that the paper has of each kind, and all of the falls with size."""
        falls = [c.verdict for c in contrasts if c.what.startswith("gain by")]
        said = [every(falls)] if falls else []
        for kind in {kind_of(c.backbone) for c in contrasts}:
            gains = [
                c.verdict
                for c in contrasts
                if kind_of(c.backbone) == kind and not c.what.startswith("gain by")
            ]
            if gains:
                said.append(at_least(SHARES.get(kind, 1.0), gains))
        return every(said)
