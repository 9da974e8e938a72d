"""Which loss is best at what: R1, R2, R3 and the sentence on PPCE of Model Guidance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analysis.findings.evidence import Evidence, Setting
from analysis.findings.finding import (
    FAILS,
    HOLDS,
    UNDECIDED,
    WEAK,
    Comparison,
    Finding,
    Key,
    Outcome,
    at_least,
    every,
)
from analysis.findings.model import exceeds
from analysis.findings.paper_grid import BCOS, DATASETS, ENDS, KINDS, VOC, keys
from analysis.guidance import LOSSES
from analysis.pareto import coverage
from analysis.styles import label

WEAK_SHARE = 0.9
"""Share of comparisons that R1 must win to hold weakly."""
FEW_EXCEPTIONS = 0.8
"""Share of comparisons that R2, which admits exceptions, must win."""
NOTICEABLE_OURS = 0.02
"""A gain in IoU below this is not noticeable; the paper names no number, the threshold is ours."""
ON_OBJECT = "on_object_epg"


def dominance(
    evidence: Evidence, setting: Setting, loss: str, rival: str, metric: str
) -> Comparison:
    """Whether the front of a loss dominates that of another in accuracy and a metric.

    It does if C(A, B) = 1 and C(B, A) < 1, after rounding to 0.005. Fronts are chosen on
    validation and compared on test; a missing run of either leaves it open. Value, rival's and
    effect are, on test, of the member of each front that is highest on validation.

    Source: Model Guidance (Rao et al., ICCV 2023), section 5, figures 5 and 6.
    Departs: the paper compares fronts by eye, on the split that it draws; here by coverage, seed by
        seed, and nothing that was chosen is dropped on test.
    """
    outcomes = {}
    for seed in evidence.seeds((setting, loss), (setting, rival)):
        (a, best_of_a, of_a), (b, best_of_b, of_b) = (
            evidence.points(setting, name, seed, metric) for name in (loss, rival)
        )
        lacking = [evidence.unfinished(setting, name, seed) for name in (loss, rival)]
        why = "; ".join(filter(None, lacking))
        results = (*of_a, *of_b)
        if not (len(a) and len(b) and np.isfinite(a).all() and np.isfinite(b).all()):
            said = why or "no finite scores on validation and test"
            outcomes[seed] = Outcome(verdict=None, why=said, results=results)
            continue
        covers, covered = coverage(a, b), coverage(b, a)
        outcomes[seed] = Outcome(
            verdict=None if why else covers == 1 and covered < 1,
            why=why,
            value=float(a[best_of_a, 1]),
            against=float(b[best_of_b, 1]),
            results=results,
            covers=covers,
            covered=covered,
        )
    key = Key(setting.dataset, setting.kind, setting.layer, over(loss, rival))
    return Comparison.of(key, metric, outcomes, setting)


def over(loss: str, rival: str) -> str:
    """What a comparison of two losses is called."""
    return f"{label(loss)} over {label(rival)}"


def rivals(loss: str) -> list[str]:
    """The paper's other losses."""
    return [name for name in LOSSES if name != loss]


def of_losses(losses: Sequence[str]) -> str:
    """Says so if not all of the paper's losses were there: such a comparison is not the paper's."""
    return "" if set(losses) == set(LOSSES) else f" of {', '.join(map(label, losses))} alone"


@dataclass(frozen=True)
class EnergyLeadsEpg(Finding):
    """R1."""

    id: ClassVar[str] = "R1"
    claim: ClassVar[str] = "Energy leads EPG"
    says: ClassVar[str] = (
        "Trained with the Energy loss, the front of F1 and EPG dominates those of the other three "
        "losses, for every dataset, network and layer. Weak: in 90 % of the comparisons, none "
        "open, and the model that promises most EPG on validation is Energy's everywhere on test."
    )
    source: ClassVar[str] = "section 5.1, figure 5"

    def expected(self) -> list[Key]:
        whats = [over("energy", rival) for rival in rivals("energy")]
        return keys(DATASETS, KINDS, ENDS, whats)

    def compare(self, evidence: Evidence) -> Iterator[Comparison]:
        for setting in evidence.settings(ENDS):
            if evidence.asked(setting, ["energy"]):
                for rival in evidence.asked(setting, rivals("energy")):
                    yield dominance(evidence, setting, "energy", rival, "epg")

    def judge(self, comparisons: Sequence[Comparison]) -> str:
        """All dominate; or most do, none is open, and no rival has a higher EPG.

        Only what is decided can make it fail.
        """
        verdicts = [comparison.verdict for comparison in comparisons]
        if FAILS not in verdicts:
            return every(verdicts)
        share = at_least(WEAK_SHARE, verdicts)
        decided = [comparison for comparison in comparisons if comparison.verdict != UNDECIDED]
        if share == FAILS or any(comparison.effect < 0 for comparison in decided):
            return FAILS
        return WEAK if share == HOLDS and UNDECIDED not in verdicts else UNDECIDED


@dataclass(frozen=True)
class L1LeadsIou(Finding):
    """R2."""

    id: ClassVar[str] = "R2"
    claim: ClassVar[str] = "L1 leads IoU at the final layer"
    says: ClassVar[str] = (
        "At the final layer the front of F1 and IoU of the L1 loss dominates those of the others, "
        "with few exceptions (at most 20 %). At the input only B-cos gains IoU noticeably (2 "
        "points, ours)."
    )
    source: ClassVar[str] = "section 5.1, figure 6; section B.1, figures B1 and B2"
    metric: ClassVar[str] = "box_iou_tuned"

    def expected(self) -> list[Key]:
        final = [over("l1", rival) for rival in rivals("l1")]
        at_input = [
            key for kind in KINDS for key in keys(DATASETS, [kind], ["input"], [self.gain(kind)])
        ]
        return [*keys(DATASETS, KINDS, ["final"], final), *at_input]

    def gain(self, kind: str) -> str:
        """What is said of a kind's gain at the input."""
        bound = "at least" if kind == BCOS else "less than"
        return f"IoU gains {bound} {100 * NOTICEABLE_OURS:g} points"

    def compare(self, evidence: Evidence) -> Iterator[Comparison]:
        for setting in evidence.settings(["final"]):
            if evidence.asked(setting, ["l1"]):
                for rival in evidence.asked(setting, rivals("l1")):
                    yield dominance(evidence, setting, "l1", rival, self.metric)
        for setting in evidence.settings(["input"], KINDS):
            losses = evidence.asked(setting, LOSSES)
            if losses:
                yield self.at_input(evidence, setting, losses)

    def at_input(self, evidence: Evidence, setting: Setting, losses: Sequence[str]) -> Comparison:
        """The best gain in IoU of any loss, against what is noticeable."""
        outcomes = {}
        for seed in evidence.seeds(*((setting, loss) for loss in losses)):
            best = evidence.best(setting, losses, seed, self.metric)
            baseline = evidence.baseline(setting, seed, self.metric)
            outcome = exceeds(best, baseline, NOTICEABLE_OURS - 1e-9)
            if setting.kind != BCOS and outcome.verdict is not None:
                outcome = exceeds_not(outcome)
            outcomes[seed] = outcome
        what = self.gain(setting.kind) + of_losses(losses)
        key = Key(setting.dataset, setting.kind, setting.layer, what)
        return Comparison.of(key, self.metric, outcomes, setting)

    def judge(self, comparisons: Sequence[Comparison]) -> str:
        """Both parts, of those that are there."""
        final = [c.verdict for c in comparisons if c.key.layer == "final"]
        at_input = [c.verdict for c in comparisons if c.key.layer == "input"]
        parts = [at_least(FEW_EXCEPTIONS, final)] if final else []
        return every([*parts, *([every(at_input)] if at_input else [])])


def exceeds_not(outcome: Outcome) -> Outcome:
    """The same outcome for the opposite sentence."""
    return Outcome(
        verdict=not outcome.verdict,
        value=outcome.value,
        against=outcome.against,
        accuracy=outcome.accuracy,
        results=outcome.results,
    )


@dataclass(frozen=True)
class EnergyStaysOnObjects(Finding):
    """R3."""

    id: ClassVar[str] = "R3"
    claim: ClassVar[str] = "Energy is more on-object than L1"
    says: ClassVar[str] = (
        "Of the models with the highest EPG within 5 points of the baseline's F1, the one trained "
        "with Energy has more of the attribution inside the box on the object itself than that "
        "of L1, on VOC, for every network and layer. Other data stand beside."
    )
    source: ClassVar[str] = "section 5.1; section B.4, figure B6"

    def expected(self) -> list[Key]:
        return keys([VOC], KINDS, ENDS, [over("energy", "l1")])

    def compare(self, evidence: Evidence) -> Iterator[Comparison]:
        column, frame = f"test_{ON_OBJECT}", evidence.candidates
        if column not in frame:
            return
        measured = set(frame.loc[frame[column].notna(), "dataset"])
        for setting in evidence.settings(ENDS):
            both = evidence.asked(setting, ["energy", "l1"])
            if setting.dataset not in measured or len(both) < 2:
                continue
            outcomes = {
                seed: exceeds(
                    evidence.best(setting, ["energy"], seed, "epg", ON_OBJECT),
                    evidence.best(setting, ["l1"], seed, "epg", ON_OBJECT),
                )
                for seed in evidence.seeds((setting, "energy"), (setting, "l1"))
            }
            key = Key(setting.dataset, setting.kind, setting.layer, over("energy", "l1"))
            decides = setting.dataset == VOC
            yield Comparison.of(key, ON_OBJECT, outcomes, setting, decides=decides)


@dataclass(frozen=True)
class PpceChangesLeast(Finding):
    """R13."""

    id: ClassVar[str] = "R13"
    claim: ClassVar[str] = "PPCE changes final maps least"
    says: ClassVar[str] = (
        "At the final layer the best EPG that PPCE reaches within 5 points of the baseline's F1 "
        "gains less over the baseline than that of each other loss."
    )
    source: ClassVar[str] = "section A.1, figures A2 and A4"

    def expected(self) -> list[Key]:
        whats = [over(rival, "ppce") for rival in rivals("ppce")]
        return keys(DATASETS, KINDS, ["final"], whats)

    def compare(self, evidence: Evidence) -> Iterator[Comparison]:
        for setting in evidence.settings(["final"]):
            if not evidence.asked(setting, ["ppce"]):
                continue
            for rival in evidence.asked(setting, rivals("ppce")):
                outcomes = {}
                for seed in evidence.seeds((setting, rival), (setting, "ppce")):
                    baseline = evidence.baseline(setting, seed, "epg")
                    gain, least = (
                        evidence.best(setting, [loss], seed, "epg").minus(baseline)
                        for loss in (rival, "ppce")
                    )
                    outcome = exceeds(gain, least)
                    if -math.inf in (gain.value, least.value):
                        why = outcome.why or "a loss has no model that keeps enough F1"
                        outcome = Outcome(verdict=None, why=why, results=outcome.results)
                    outcomes[seed] = outcome
                key = Key(setting.dataset, setting.kind, setting.layer, over(rival, "ppce"))
                yield Comparison.of(key, "epg", outcomes, setting)
