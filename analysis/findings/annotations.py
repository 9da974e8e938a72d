"""How many boxes guidance needs, and how exact: R7 and R8 of Model Guidance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

from analysis.findings.evidence import Evidence
from analysis.findings.finding import Comparison, Finding, Key, Outcome
from analysis.findings.model import Model, exceeds, moved
from analysis.findings.networks import LOCALIZATION
from analysis.findings.paper_grid import BCOS, KINDS, VOC, keys
from analysis.guidance import METRICS
from analysis.pareto import ROUNDING_SLACK

BOTH = ("energy", "l1")
"""The losses of these two studies."""
FEW, SOME, ALL = 0.01, 0.1, 1.0
"""The shares of training images that keep their boxes."""
CLEAR_GAIN_OURS = 0.02
"""A gain in EPG of at least this is clearly positive; the threshold is ours."""
SIMILAR_OURS = 0.03
"""Results within this of full annotation are very similar; the tolerance is ours."""
DILATIONS = (0.1, 0.25, 0.5)
UNAFFECTED_OURS = 0.02
"""What moves less than this is unaffected by the dilation; the threshold is ours."""


def alone(present: Iterable[Any], wanted: Sequence[Any]) -> str:
    """Says so if not all that the paper ran was there: such a comparison is not the paper's."""
    found = list(present)
    return "" if set(found) >= set(wanted) else f" ({', '.join(map(str, found))} alone)"


@dataclass(frozen=True)
class FewAnnotationsDo(Finding):
    """R7."""

    id: ClassVar[str] = "R7"
    claim: ClassVar[str] = "Few annotated images are enough"
    says: ClassVar[str] = (
        "B-cos at the input: with 1 % of the boxes the best EPG within 5 points of the baseline's "
        "F1 gains clearly (2 points, ours), and with 10 % it is within 3 points (ours) of that "
        "with all boxes."
    )
    source: ClassVar[str] = "section 5.4, figure 10; section B.5, figure B8"
    gains: ClassVar[str] = "1 % annotated gains EPG"
    similar: ClassVar[str] = "10 % annotated as good as all"

    def expected(self) -> list[Key]:
        return keys([VOC], [BCOS], ["input"], [self.gains, self.similar])

    def compare(self, evidence: Evidence) -> Iterator[Comparison]:
        there = evidence.settings(kinds=KINDS, plain=False)
        for setting in there:
            losses = evidence.asked(setting, BOTH)
            if setting.dilation or not losses:
                continue
            full = setting._replace(annotated_fraction=ALL)
            of, decides = alone(losses, BOTH), (setting.kind, setting.layer) == (BCOS, "input")
            key = Key(setting.dataset, setting.kind, setting.layer, self.gains + of)
            if setting.annotated_fraction == FEW:
                outcomes = {
                    seed: exceeds(
                        evidence.best(setting, losses, seed, "epg"),
                        evidence.baseline(setting, seed, "epg"),
                        CLEAR_GAIN_OURS - ROUNDING_SLACK,
                    )
                    for seed in evidence.seeds(*((setting, loss) for loss in losses))
                }
                yield Comparison.of(
                    key,
                    "epg",
                    outcomes,
                    setting,
                    published="VOC: up to 23.0 points (from memory)",
                    decides=decides,
                )
            common = evidence.asked(full, losses)
            if setting.annotated_fraction == SOME and common:
                pools = [(where, loss) for where in (setting, full) for loss in common]
                outcomes = {
                    seed: moved(
                        evidence.best(setting, common, seed, "epg"),
                        evidence.best(full, common, seed, "epg"),
                        SIMILAR_OURS + ROUNDING_SLACK,
                    )
                    for seed in evidence.seeds(*pools)
                }
                key = key._replace(what=self.similar + alone(common, BOTH))
                yield Comparison.of(key, "epg", outcomes, setting, decides=decides)


@dataclass(frozen=True)
class EnergyBearsCoarseBoxes(Finding):
    """R8."""

    id: ClassVar[str] = "R8"
    claim: ClassVar[str] = "Energy, not L1, bears coarse boxes"
    says: ClassVar[str] = (
        "At the input, with boxes dilated by 10, 25 and 50 % in training, the best EPG and IoU of "
        "Energy move by less than 2 points (ours), while those of L1 fall with every step, and by "
        "more than those of Energy. Best: within 5 points of the baseline's F1, on boxes as they "
        "are."
    )
    source: ClassVar[str] = "section 5.4, figure 8; section B.6, figure B9"

    def expected(self) -> list[Key]:
        whats = [what for metric in LOCALIZATION for what in self.whats(metric)]
        return keys([VOC], KINDS, ["input"], whats)

    def whats(self, metric: str) -> tuple[str, str, str]:
        """What the three comparisons by a metric are called."""
        name = METRICS[metric].removesuffix(" tuned")
        return f"Energy's {name} unaffected", f"L1's {name} falls", f"L1's {name} falls more"

    def compare(self, evidence: Evidence) -> Iterator[Comparison]:
        there = evidence.settings(kinds=KINDS, plain=False)
        for exact in there:
            dilated = sorted(s for s in there if s.dilation and s._replace(dilation=0.0) == exact)
            if exact.dilation or exact.annotated_fraction != ALL or not dilated:
                continue
            steps = sorted([exact, *dilated], key=lambda setting: setting.dilation)
            trained = [loss for loss in BOTH if all(evidence.asked(step, [loss]) for step in steps)]
            pools = [(step, loss) for step in steps for loss in trained]
            for metric in LOCALIZATION:
                ways = {
                    seed: {
                        loss: [evidence.best(step, [loss], seed, metric) for step in steps]
                        for loss in trained
                    }
                    for seed in evidence.seeds(*pools)
                }
                judged = {
                    "energy": lambda way: unaffected(way["energy"]),
                    "l1": lambda way: falls(way["l1"]),
                }
                of = alone((step.dilation for step in dilated), DILATIONS)
                *single, more = self.whats(metric)
                found = [
                    (what, {seed: judged[loss](way) for seed, way in ways.items()})
                    for loss, what in zip(BOTH, single, strict=True)
                    if loss in trained
                ]
                if len(trained) == len(BOTH):
                    outcomes = {seed: falls_more(w["l1"], w["energy"]) for seed, w in ways.items()}
                    found.append((more, outcomes))
                for what, outcomes in found:
                    key = Key(exact.dataset, exact.kind, exact.layer, what + of)
                    yield Comparison.of(
                        key, metric, outcomes, exact, decides=exact.layer == "input"
                    )


def unaffected(way: Sequence[Model]) -> Outcome:
    """Whether the scores stay near the first, that of exact boxes; the farthest one is shown."""
    exact, *dilated = way
    if not all(model.known for model in way):
        return _unknown(way)
    farthest = max(dilated, key=lambda model: abs(model.value - exact.value))
    found = exceeds(farthest, exact)
    return replace(found, verdict=abs(farthest.value - exact.value) < UNAFFECTED_OURS, why="")


def falls(way: Sequence[Model]) -> Outcome:
    """Whether no score is above the one before; first and last are shown."""
    if not all(model.known for model in way):
        return _unknown(way)
    values = [model.value for model in way]
    verdict = all(b <= a + ROUNDING_SLACK for a, b in pairwise(values))
    return replace(exceeds(way[-1], way[0]), verdict=verdict, why="")


def falls_more(way: Sequence[Model], than: Sequence[Model]) -> Outcome:
    """Whether one falls by more from first to last than the other does."""
    if not all(model.known for model in (*way, *than)):
        return _unknown((*way, *than))
    return exceeds(way[0].minus(way[-1]), than[0].minus(than[-1]))


def _unknown(models: Sequence[Model]) -> Outcome:
    why = dict.fromkeys(model.why for model in models if model.why)
    return Outcome(verdict=None, why="; ".join(why))
