"""What probes and their evaluations say together: partners, controls, gains over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.findings.probing_numbers import kind_of
from analysis.probing import (
    AS_TRAINED,
    BCE,
    BCE_UNIFORM,
    CE,
    EVALUATIONS,
    LOSSES,
    OWN,
    OWN_HEAD,
    PROBE,
    SCORED,
    UNTRAINED,
    cross_entropies,
    evaluated,
    trained,
    values,
)
from analysis.probing_rows import Column, Gain, RowScores, gain, over_seeds, share_gain, wilson
from analysis.runs import Runs
from analysis.tables import percent

GAUSSIAN = ("input_x_gradient", "integrated_gradients")
"""Methods whose maps are so fine that the paper's code smooths them over 129 px: of several keys of
a protocol the Gaussian one counts for them."""


class Probe(NamedTuple):
    """The columns of ``probing.PROBE``: probes that differ in their seeds alone."""

    dataset: str
    backbone: str
    pretraining: str
    probe: str
    loss: str
    variant: str

    @property
    def kind(self) -> str:
        """The paper's kind of the backbone."""
        return kind_of(self.backbone)

    @property
    def named(self) -> dict[str, str]:
        """The fields of a contrast."""
        return self._asdict()


class Scored(NamedTuple):
    """The columns of ``probing.SCORED``: how a probe's maps were scored."""

    method: str
    gauge: str
    images: str
    choice: str


class Way(NamedTuple):
    """A way of scoring under one protocol, and whether findings rest on it."""

    scored: Scored
    protocol: str
    decides: bool


@dataclass(frozen=True, kw_only=True)
class ProbeEvidence:
    """All probes of a report and what their maps score; frames as ``probing`` gives them."""

    trained: pd.DataFrame
    evaluated: pd.DataFrame
    values: pd.DataFrame
    losses: pd.DataFrame
    """Cross-entropies that evaluations logged: result_id, value."""
    rows: RowScores

    @classmethod
    def of(cls, runs: Runs) -> ProbeEvidence:
        """Everything that these runs say of probes."""
        known = trained(runs)
        asked = evaluated(runs, known)
        return cls(
            trained=known,
            evaluated=asked,
            values=values(runs, asked),
            losses=cross_entropies(runs),
            rows=RowScores(runs),
        )

    @cached_property
    def _trainings(self) -> dict[Probe, list[dict[Any, Any]]]:
        """Runs of each probe, by seed; probes in the order of tables."""
        found: dict[Probe, list[dict[Any, Any]]] = {}
        for row in self.trained.sort_values("seed", kind="stable").to_dict("records"):
            found.setdefault(Probe(*(str(row[name]) for name in PROBE)), []).append(row)
        return {probe: found[probe] for probe in sorted(found, key=_place)}

    @cached_property
    def _evaluations(self) -> dict[tuple[Probe, Scored], list[dict[Any, Any]]]:
        """Evaluations of each way of scoring, by seed."""
        found: dict[tuple[Probe, Scored], list[dict[Any, Any]]] = {}
        rows = self.evaluated.sort_values(["method", "seed"], kind="stable")
        for row in rows.to_dict("records"):
            probe = Probe(*(str(row[name]) for name in PROBE))
            scored = Scored(*(str(row[name]) for name in SCORED))
            found.setdefault((probe, scored), []).append(row)
        return found

    @cached_property
    def _reasons(self) -> dict[Probe, str]:
        """What ``why_unread`` has said."""
        return {}

    @cached_property
    def _ways(self) -> dict[Probe, list[Scored]]:
        found: dict[Probe, list[Scored]] = {}
        for probe, scored in self._evaluations:
            found.setdefault(probe, []).append(scored)
        return found

    @cached_property
    def _whole(self) -> dict[tuple[str, str], float]:
        """Means over boxes of all sizes, by result id and key."""
        rows = self.values[self.values["area"] == ""]
        keys = zip(rows["result_id"], rows["protocol"], strict=True)
        return dict(zip(keys, rows["value"], strict=True))

    @cached_property
    def _protocols(self) -> dict[str, dict[str, list[str]]]:
        """Keys of each family that an evaluation was scored by, by result id."""
        found: dict[str, dict[str, list[str]]] = {}
        whole = self.values[self.values["area"] == ""]
        columns = (whole[name] for name in ("result_id", "family", "protocol"))
        for result_id, family, key in zip(*columns, strict=True):
            found.setdefault(result_id, {}).setdefault(family, []).append(key)
        return found

    def probes(self, *, control: bool = False) -> list[Probe]:
        """Every probe that was asked for, on a backbone that has learned something.

        Args:
            control: those on untrained backbones, too.
        """
        return [
            probe
            for probe in self._trainings
            if probe.probe != OWN_HEAD and (control or probe.pretraining != UNTRAINED)
        ]

    def whole(self) -> list[Probe]:
        """Networks that were trained as a whole."""
        return [probe for probe in self._trainings if probe.probe == OWN_HEAD]

    def first(self, probe: Probe, name: str) -> Any:
        """A column of ``trained`` that all runs of a probe share."""
        return self._trainings[probe][0][name]

    def metric(self, probe: Probe) -> str:
        """What the probe is judged by: accuracy, or F1 with several classes an image."""
        return "f1" if self.first(probe, "several") else "accuracy"

    def ids(self, probe: Probe) -> tuple[str, ...]:
        """The result ids of a probe's runs."""
        return tuple(row["result_id"] for row in self._trainings.get(probe, ()))

    def share(self, probe: Probe) -> tuple[float, float, tuple[float, ...]]:
        """Mean accuracy (or F1) over seeds, the images of a seed, and each seed's; NaN if none."""
        done = [row for row in self._trainings.get(probe, ()) if row["status"] == "FINISHED"]
        metric = self.metric(probe) if done else ""
        done = [row for row in done if row[metric] == row[metric]]
        if not done:
            return np.nan, np.nan, ()
        each = tuple(float(row[metric]) for row in done)
        return float(np.mean(each)), float(np.min([row["units"] for row in done])), each

    def control(self, probe: Probe) -> Probe:
        """The same probe on the same network without any training."""
        return probe._replace(pretraining=UNTRAINED)

    def chance(self, probe: Probe) -> tuple[float, float]:
        """Wilson's interval of what the control reaches; NaN without one.

        F1 is taken for a share of the images, which is a rough but wide interval.
        """
        value, units, _ = self.share(self.control(probe))
        return wilson(value, units)

    def why_unread(self, probe: Probe) -> str:
        """Why a probe says nothing: it does not exceed its control, or has none; empty if it does.

        A probe that learns from an untrained backbone what it learns here reads no training.
        """
        if probe not in self._reasons:
            self._reasons[probe] = self._why_unread(probe)
        return self._reasons[probe]

    def _why_unread(self, probe: Probe) -> str:
        value, _, _ = self.share(probe)
        if value != value:
            return f"no finished {probe.probe} {probe.loss} trained alike"
        control, units, _ = self.share(self.control(probe))
        where = f"{probe.probe} {probe.loss} on {probe.backbone}"
        if control != control:
            return f"no control: no finished {where} without training"
        low, high = wilson(control, units)
        if high != high:
            return f"no control: no run says how many images the {where} was tested on"
        if value > high:
            return ""
        what = "accuracy" if self.metric(probe) == "accuracy" else "F1"
        return (
            f"{what} {percent(value)} of {probe.loss} does not exceed its untrained control's "
            f"interval {percent(low)} to {percent(high)}"
        )

    def unread(self, *probes: Probe) -> str:
        """The first reason why one of these says nothing."""
        return next(filter(None, map(self.why_unread, probes)), "")

    def partner(self, probe: Probe) -> Probe:
        """The probe that was trained by CE and is otherwise the same."""
        return probe._replace(loss=CE)

    def by_bce(self, **wanted: Any) -> Iterator[tuple[Probe, bool]]:
        """Probes trained by BCE, and whether they decide: where both are, the paper's text does.

        Args:
            wanted: columns of ``trained`` and their values.
        """
        for probe in self.probes():
            if probe.loss not in (BCE, BCE_UNIFORM):
                continue
            if all(self.first(probe, name) == value for name, value in wanted.items()):
                yield probe, probe.loss == BCE or probe._replace(loss=BCE) not in self._trainings

    def against_ce(self, **wanted: Any) -> Iterator[tuple[Probe, bool]]:
        """Those of ``by_bce`` that were asked for by CE, too, in the same way or in another."""
        by_ce = {probe[:-2] for probe in self._trainings if probe.loss == CE}
        yield from ((p, decides) for p, decides in self.by_bce(**wanted) if p[:-2] in by_ce)

    def scored(self, probe: Probe, family: str, gauge: str = AS_TRAINED) -> list[Way]:
        """How a probe's maps were scored by a family of protocols: every way and key, one a row.

        For each method and choice of images one key decides, the Gaussian for methods with fine
        maps, else the shortest; and where images are common or all, those that a probe chose for
        itself do not: there it is its own judge.
        """
        found: list[tuple[Scored, str]] = []
        for scored in self._ways.get(probe, ()):
            if scored.gauge == gauge:
                found += [(scored, key) for key in self._keys(probe, scored, family)]
        ways = []
        for scored, key in found:
            alike = [(s, k) for s, k in found if s.method == scored.method]
            shared = any(s.images != OWN for s, _ in alike)
            keys = {k for s, k in alike if s.images == scored.images}
            fine = self.attribution(probe, scored) in GAUSSIAN
            first = min(keys, key=lambda k: (("gaussian" in k) != fine, len(k), k))
            ways.append(Way(scored, key, key == first and (scored.images != OWN or not shared)))
        return ways

    def _keys(self, probe: Probe, scored: Scored, family: str) -> list[str]:
        """The keys of a family; of mosaics that nobody scored yet, the family's own name."""
        part = self._evaluations[probe, scored]
        known = [self._protocols.get(row["result_id"], {}) for row in part]
        keys = sorted({key for one in known for key in one.get(family, ())})
        if keys or any(known) or EVALUATIONS[part[0]["kind"]] != "mosaics":
            return keys
        return [family] if family == "grid_pg" else []

    def attribution(self, probe: Probe, scored: Scored) -> str:
        """The name of the method that was scored."""
        return str(self._evaluations[probe, scored][0]["attribution"])

    def columns(self, probe: Probe, scored: Scored, protocol: str) -> dict[str, Column]:
        """The scores of each seed."""
        found = {
            row["seed"]: self.rows.column(row["result_id"], protocol)
            for row in self._evaluations.get((probe, scored), ())
            if row["status"] == "FINISHED"
        }
        return {seed: one for seed, one in found.items() if one is not None and len(one.scores)}

    def mean(self, probe: Probe, scored: Scored, protocol: str) -> float:
        """Mean over seeds of what the evaluations logged; NaN if none did."""
        rows = self._whole
        ids = self.evaluation_ids(probe, scored)
        logged = [rows[one, protocol] for one in ids if (one, protocol) in rows]
        return float(np.mean(logged)) if logged else float("nan")

    def evaluation_ids(self, probe: Probe, scored: Scored) -> tuple[str, ...]:
        """The result ids of a way of scoring."""
        return tuple(row["result_id"] for row in self._evaluations.get((probe, scored), ()))

    def gain(
        self,
        own: tuple[Probe, Scored],
        rival: tuple[Probe, Scored],
        protocol: str,
        chosen: Callable[[Column], np.ndarray] | None = None,
        dead: float = np.nan,
    ) -> Gain | None:
        """What one probe's maps score more than another's, over the seeds that both have.

        Args:
            own: a probe and how it was scored.
            rival: what it is compared with.
            protocol: key.
            chosen: which explanations count, (N,) bool; all if None.
            dead: what undefined ones count as; they are left out if NaN.
        """
        sides = [self.columns(*side, protocol) for side in (own, rival)]
        gains = []
        for seed in sides[0].keys() & sides[1].keys():
            pair = [side[seed] for side in sides]
            if chosen is not None:
                pair = [one.where(chosen(one)) for one in pair]
            if all(np.isfinite(one.scores).any() for one in pair):
                gains.append((seed, gain(*(one.filled(dead) for one in pair))))
        return over_seeds([g for _, g in sorted(gains, key=lambda one: one[0])]) if gains else None

    def accuracy_gain(self, own: Probe, rival: Probe) -> Gain | None:
        """What one probe's accuracy (or F1) is above another's."""
        (value, units, each), (against, others, rivals) = self.share(own), self.share(rival)
        if value != value or against != against:
            return None
        least = min(units, others) if units == units and others == others else np.nan
        pairs = len(each) == len(rivals)
        seeds = tuple(a - b for a, b in zip(each, rivals, strict=True)) if pairs else ()
        return share_gain(value, against, least, seeds)


def _place(probe: Probe) -> tuple[object, ...]:
    """Where a probe stands in tables: controls after what they control, losses as LOSSES."""
    losses = list(LOSSES)
    loss = losses.index(probe.loss) if probe.loss in losses else len(losses)
    control = probe.pretraining == UNTRAINED
    name = probe.probe
    return (
        probe.dataset,
        probe.backbone,
        probe.variant,
        control,
        probe.pretraining,
        not name.startswith("conventional"),
        name,
        loss,
    )


def layered(evidence: ProbeEvidence, probes: Sequence[Probe]) -> list[list[Probe]]:
    """Probes that differ in their layers alone, each group from the fewest on."""
    groups: dict[tuple[str, ...], list[Probe]] = {}
    for probe in probes:
        rest = str(evidence.first(probe, "rest"))
        groups.setdefault((*probe._replace(probe=rest),), []).append(probe)
    ordered = [sorted(g, key=lambda p: float(evidence.first(p, "layers"))) for g in groups.values()]
    return [group for group in ordered if len(group) > 1]


def area_bins(column: Column, low: float, high: float) -> np.ndarray:
    """Which explanations have boxes of this share of the image; the last bin holds its end."""
    return (column.areas >= low) & ((column.areas < high) | ((column.areas == high) & (high == 1)))
