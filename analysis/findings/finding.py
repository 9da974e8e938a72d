"""A finding: a sentence of a paper, the comparisons it rests on, and what they say together."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from analysis.findings.evidence import Evidence, Setting

HOLDS, WEAK, FAILS, UNDECIDED = "holds", "weak", "fails", "undecided"
NAN = float("nan")


class Key(NamedTuple):
    """What a comparison is about, in the words of the paper's grid."""

    dataset: str
    kind: str
    """Kind of network: vanilla, xdnn, bcos, or a network's own name."""
    layer: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one seed says about a comparison; scores are fractions, on test."""

    verdict: bool | None
    """None: this seed cannot say."""
    why: str = ""
    """Why it cannot."""
    value: float = NAN
    against: float = NAN
    effect: float | None = None
    """``value - against`` unless given."""
    accuracy: float = NAN
    """What it costs or gains in F1 or mAP."""
    results: tuple[str, ...] = ()
    """The runs that this rests on."""
    covers: float = NAN
    """C(A, B): share of the other front that this one weakly dominates."""
    covered: float = NAN
    """C(B, A), the other way round."""

    @property
    def difference(self) -> float:
        """The effect; NaN where a side has no model."""
        found = self.value - self.against if self.effect is None else self.effect
        return found if math.isfinite(found) else NAN


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One comparison at one setting, over seeds: means, and the deviation (n - 1) of the effect."""

    key: Key
    metric: str
    verdict: str
    why: str = ""
    network: str = ""
    attribution: str = ""
    variant: str = ""
    seeds: int = 0
    value: float = NAN
    against: float = NAN
    effect: float = NAN
    sd: float = NAN
    accuracy: float = NAN
    covers: float = NAN
    covered: float = NAN
    published: str = ""
    """What the paper has here, to stand beside."""
    results: tuple[str, ...] = ()
    decides: bool = True
    """Whether the verdict of the finding rests on it; others are shown only."""

    @classmethod
    def of(
        cls, key: Key, metric: str, outcomes: Mapping[Any, Outcome], setting: Setting, **more: Any
    ) -> Comparison:
        """Decided if all seeds say the same; one seed decides, without a deviation."""
        found = list(outcomes.values())
        said = {outcome.verdict for outcome in found}
        why = "; ".join(dict.fromkeys(outcome.why for outcome in found if outcome.why))
        if len(said) == 1 and said != {None}:
            verdict, why = (HOLDS if said.pop() else FAILS), ""
        else:
            verdict = UNDECIDED
            holding = sum(bool(outcome.verdict) for outcome in found)
            if None not in said and found:
                why = f"seeds differ: {holding} of {len(found)} hold"
        effects = _finite([outcome.difference for outcome in found])
        results = dict.fromkeys(result for outcome in found for result in outcome.results)
        return cls(
            key=key,
            metric=metric,
            verdict=verdict,
            why=why or ("no run to compare" if verdict == UNDECIDED else ""),
            network=setting.network,
            attribution=setting.attribution,
            variant=setting.rest,
            seeds=len(found),
            value=_mean([outcome.value for outcome in found]),
            against=_mean([outcome.against for outcome in found]),
            effect=_mean(effects),
            sd=float(np.std(effects, ddof=1)) if len(effects) > 1 else NAN,
            accuracy=_mean([outcome.accuracy for outcome in found]),
            covers=_mean([outcome.covers for outcome in found]),
            covered=_mean([outcome.covered for outcome in found]),
            results=tuple(results),
            **more,
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a finding comes to, on the runs that are there and on the grid that the paper ran."""

    on_runs: str
    """From the comparisons that these runs were made for; a partial grid can decide it."""
    on_grid: str
    """As the paper says it, from trainings of its own networks with all lambdas and nothing else
    varied: what is missing leaves it undecided unless it can no longer hold."""
    comparisons: tuple[Comparison, ...]
    missing: tuple[Key, ...] = ()
    """Comparisons of the paper's grid that no such training was made for."""
    expected: int = 0
    """How many comparisons the paper's grid has."""
    note: str = ""

    @property
    def deciding(self) -> list[Comparison]:
        """The comparisons that the verdict rests on."""
        return [comparison for comparison in self.comparisons if comparison.decides]


@dataclass(frozen=True)
class Finding(ABC):
    """A sentence of a paper that runs can bear out or contradict."""

    id: ClassVar[str]
    claim: ClassVar[str]
    """The sentence in a few words of ours."""
    says: ClassVar[str]
    """The sentence with its conditions, in our words."""
    source: ClassVar[str]
    """Section and figure of the paper."""

    @abstractmethod
    def expected(self) -> list[Key]:
        """The comparisons of the paper's grid."""

    @abstractmethod
    def compare(self, evidence: Evidence) -> Iterator[Comparison]:
        """The comparisons that these runs were made for, whether they have finished or not."""

    def judge(self, comparisons: Sequence[Comparison]) -> str:
        """What comparisons say together: all must hold, one that fails is enough."""
        return every([comparison.verdict for comparison in comparisons])

    def verdict(self, evidence: Evidence) -> Verdict:
        """Both verdicts, with all they rest on."""
        found, expected = tuple(self.compare(evidence)), self.expected()
        papers = evidence.of_papers_grid
        there = found if papers is evidence else tuple(self.compare(papers))
        deciding = [comparison for comparison in found if comparison.decides]
        of_grid = [c for c in there if c.decides and c.key in set(expected)]
        present = {comparison.key for comparison in of_grid}
        missing = tuple(key for key in expected if key not in present)
        absent = [Comparison(key=key, metric="", verdict=UNDECIDED) for key in missing]
        return Verdict(
            on_runs=self.judge(deciding),
            on_grid=self.judge([*of_grid, *absent]),
            comparisons=found,
            missing=missing,
            expected=len(expected),
            note=self.note(found),
        )

    def note(self, comparisons: Sequence[Comparison]) -> str:
        """What else is to be said; empty as a rule."""
        return ""


def every(verdicts: Sequence[str]) -> str:
    """All hold, or one fails, or neither is known; nothing at all is undecided."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and set(verdicts) == {HOLDS} else UNDECIDED


def at_least(share: float, verdicts: Sequence[str]) -> str:
    """Whether this share of the comparisons holds, however the undecided ones turn out."""
    if not verdicts:
        return UNDECIDED
    needed = share * len(verdicts) - 1e-9
    if verdicts.count(HOLDS) >= needed:
        return HOLDS
    return FAILS if len(verdicts) - verdicts.count(FAILS) < needed else UNDECIDED


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _mean(values: Sequence[float]) -> float:
    finite = _finite(values)
    return float(np.mean(finite)) if finite else NAN
