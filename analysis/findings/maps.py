"""Which maps are guided: Grad-CAM and the layers between, R11 and R12 here, B.2 and B.3 there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from analysis.findings.annotations import alone
from analysis.findings.evidence import Evidence
from analysis.findings.finding import Comparison, Finding, Key, Outcome
from analysis.findings.model import Model, exceeds, moved
from analysis.findings.networks import LOCALIZATION
from analysis.findings.paper_grid import DATASETS, GRAD_CAM, KINDS, VOC, is_paired, keys
from analysis.guidance import LAYERS, LOSSES, METRICS
from analysis.pareto import ROUNDING_SLACK
from analysis.styles import label

SAME_OURS = 0.02
"""Scores within this are the same up to the noise of training; the threshold is ours."""
TREND_OURS = 0.02
"""A step against the trend of at most this is noise; the threshold is ours."""


def of(loss: str, metric: str) -> str:
    """A loss and a metric, for people."""
    return f"{label(loss)} {METRICS[metric].removesuffix(' tuned')}"


@dataclass(frozen=True)
class GradCamIsTheSame(Finding):
    """R11."""

    id: ClassVar[str] = "R11"
    claim: ClassVar[str] = "Grad-CAM guides as well at final"
    says: ClassVar[str] = (
        "At the final layer, guidance by Grad-CAM reaches the same best EPG and IoU (within 2 "
        "points, ours) as guidance by the network's own method, for every loss."
    )
    source: ClassVar[str] = "section B.2, figures B4, X5 and X6"

    def expected(self) -> list[Key]:
        return keys(
            DATASETS, KINDS, ["final"], [of(loss, m) for loss in LOSSES for m in LOCALIZATION]
        )

    def compare(self, evidence: Evidence) -> Iterator[Comparison]:
        there = evidence.settings(["final"], paired=False)
        for setting in (s for s in there if s.attribution == GRAD_CAM):
            own = [
                s
                for s in there
                if is_paired(s.network, s.attribution)
                and s._replace(attribution=GRAD_CAM) == setting
            ]
            for paired in own:
                both = evidence.asked(paired, evidence.asked(setting, LOSSES))
                for loss in both:
                    for metric in LOCALIZATION:
                        outcomes = {
                            seed: moved(
                                evidence.best(setting, [loss], seed, metric),
                                evidence.best(paired, [loss], seed, metric),
                                SAME_OURS + ROUNDING_SLACK,
                            )
                            for seed in evidence.seeds((setting, loss), (paired, loss))
                        }
                        key = Key(setting.dataset, setting.kind, "final", of(loss, metric))
                        yield Comparison.of(key, metric, outcomes, setting)


@dataclass(frozen=True)
class LayersFollowTheTrend(Finding):
    """R12."""

    id: ClassVar[str] = "R12"
    claim: ClassVar[str] = "Layers between follow the trend"
    says: ClassVar[str] = (
        "From the input over mid1, mid2 and mid3 to the final layer, the best EPG and IoU of each "
        "loss rise (or fall) with depth; no step back by more than 2 points (ours)."
    )
    source: ClassVar[str] = "section B.3, figures B5 and X8"

    def expected(self) -> list[Key]:
        return keys(
            [VOC], KINDS, ["all layers"], [of(loss, m) for loss in LOSSES for m in LOCALIZATION]
        )

    def compare(self, evidence: Evidence) -> Iterator[Comparison]:
        there = evidence.settings(LAYERS)
        for first in (s for s in there if s.layer == "input"):
            way = sorted(
                (s for s in there if s._replace(layer="input") == first),
                key=lambda s: LAYERS.index(s.layer),
            )
            if len(way) < 3 or way[-1].layer != "final":
                continue
            for loss in LOSSES:
                if not all(evidence.asked(step, [loss]) for step in way):
                    continue
                for metric in LOCALIZATION:
                    outcomes = {
                        seed: follows([evidence.best(s, [loss], seed, metric) for s in way])
                        for seed in evidence.seeds(*((step, loss) for step in way))
                    }
                    what = of(loss, metric) + alone((s.layer for s in way), LAYERS)
                    key = Key(first.dataset, first.kind, "all layers", what)
                    yield Comparison.of(key, metric, outcomes, first)


def follows(way: Sequence[Model]) -> Outcome:
    """Whether scores go from the first to the last without a step back; these two are shown."""
    if not all(model.known for model in way):
        why = dict.fromkeys(model.why for model in way if model.why)
        return Outcome(verdict=None, why="; ".join(why))
    found = exceeds(way[-1], way[0])
    sign = 1.0 if way[-1].value >= way[0].value else -1.0
    values = [sign * model.value for model in way]
    back = max(max(values[: i + 1]) - value for i, value in enumerate(values))
    return replace(found, verdict=back <= TREND_OURS + ROUNDING_SLACK, why="")
