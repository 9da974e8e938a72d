"""What a sentence on probes rests on: two sides, their difference with its interval, a verdict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from analysis.findings.finding import FAILS, HOLDS, NAN, UNDECIDED, every
from analysis.probing import unit_of
from analysis.probing_rows import Gain
from analysis.statistics import ALPHA, holm

if TYPE_CHECKING:
    from analysis.findings.probe_evidence import ProbeEvidence

Rule = Literal["above", "below", "not_below", "within"]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One comparison at one setting: fractions, the interval over images or mosaics."""

    what: str
    metric: str
    verdict: str
    why: str = ""
    """Why it is undecided."""
    dataset: str = ""
    backbone: str = ""
    pretraining: str = ""
    probe: str = ""
    loss: str = ""
    method: str = ""
    images: str = ""
    """own or common; empty where no maps are scored."""
    variant: str = ""
    seeds: int = 0
    units: int = 0
    """Images or mosaics of a seed."""
    paired: bool = False
    value: float = NAN
    against: float = NAN
    effect: float = NAN
    low: float = NAN
    high: float = NAN
    sd: float = NAN
    """Over seeds, n - 1."""
    p: float = NAN
    p_holm: float = NAN
    """Corrected for all comparisons that the finding rests on."""
    published: str = ""
    """What the paper has here, to stand beside."""
    results: tuple[str, ...] = ()
    read: bool = True
    """Whether both sides exceed their controls, so that their difference says something."""
    claimed: bool = True
    """Whether the paper says so here; else it is an exception or of no sentence."""
    decides: bool = True
    """Whether the verdict of the finding rests on it; others are shown only."""

    @classmethod
    def of(
        cls,
        gain: Gain | None,
        rule: Rule,
        *,
        margin: float = 0.0,
        why: str = "",
        **more: Any,
    ) -> Contrast:
        """Judge a gain by its interval.

        Args:
            gain: what was found; None where a side is missing.
            rule: what the sentence says of the effect.
            margin: above, below: to be passed; not_below: what counts as equal; within: half of
                the width.
            why: why nothing can be said, whatever was found.
            more: the other fields.
        """
        if gain is None:
            why, read = why or "no run to compare", not why
            return cls(verdict=UNDECIDED, why=why, read=read, **more)
        low, high = gain.interval
        verdict, read = UNDECIDED if why else ruled(rule, low, high, margin), not why
        if verdict == UNDECIDED and not why:
            unit = unit_of(str(more.get("metric", "")))
            why = unsettled(rule, unit * low, unit * high, unit * margin)
        return cls(
            verdict=verdict,
            why=why,
            read=read,
            seeds=len(gain.each),
            units=gain.units,
            paired=gain.paired,
            value=gain.value,
            against=gain.against,
            effect=gain.effect,
            low=low,
            high=high,
            sd=float(np.std(gain.each, ddof=1)) if len(gain.each) > 1 else NAN,
            p=gain.p_value,
            **more,
        )


def ruled(rule: Rule, low: float, high: float, margin: float = 0.0) -> str:
    """What an interval of an effect says of a rule; undecided where it leaves both open."""
    if low != low:
        return UNDECIDED
    if rule == "below":
        return ruled("above", -high, -low, margin)
    if rule == "within":
        inside = -margin <= low and high <= margin
        return HOLDS if inside else FAILS if low > margin or high < -margin else UNDECIDED
    if rule == "not_below":
        return HOLDS if low >= -margin else FAILS if high < 0 else UNDECIDED
    return HOLDS if low > margin else FAILS if high <= margin else UNDECIDED


def unsettled(rule: Rule, low: float, high: float, margin: float) -> str:
    """Why an interval, in the units of tables, leaves a rule open."""
    if low != low:
        return "no interval: a single image, or no defined score"
    if rule == "within":
        return f"the interval {low:+.1f} to {high:+.1f} is neither within ±{margin:g} nor outside"
    digits = 1 if max(abs(low), abs(high)) >= 1 else 2
    least = f"-{margin:g}" if rule == "not_below" and margin else f"{margin:g}"
    return f"the interval {low:+.{digits}f} to {high:+.{digits}f} includes {least}"


@dataclass(frozen=True, kw_only=True)
class ProbeVerdict:
    """What a finding comes to on these runs."""

    verdict: str
    contrasts: tuple[Contrast, ...]
    note: str = ""

    @property
    def deciding(self) -> list[Contrast]:
        """The comparisons that the verdict rests on."""
        return [contrast for contrast in self.contrasts if contrast.decides]


@dataclass(frozen=True)
class ProbeFinding(ABC):
    """A sentence of How to Probe that runs can bear out or contradict."""

    id: ClassVar[str]
    claim: ClassVar[str]
    """The sentence in a few words of ours."""
    says: ClassVar[str]
    """The sentence with its conditions, in our words."""
    source: ClassVar[str]
    """Section and table of the paper."""

    @abstractmethod
    def compare(self, evidence: ProbeEvidence) -> Iterator[Contrast]:
        """The comparisons that these runs were made for, whether they have finished or not."""

    def judge(self, contrasts: Sequence[Contrast]) -> str:
        """What comparisons say together: all must hold, one that fails is enough."""
        return every([contrast.verdict for contrast in contrasts])

    def note(self, contrasts: Sequence[Contrast], evidence: ProbeEvidence) -> str:
        """What else is to be said; empty as a rule."""
        return ""

    def verdict(self, evidence: ProbeEvidence) -> ProbeVerdict:
        """What these runs say, with all it rests on."""
        found = corrected(list(self.compare(evidence)))
        return ProbeVerdict(
            verdict=self.judge([contrast for contrast in found if contrast.decides]),
            contrasts=tuple(found),
            note=self.note(found, evidence),
        )


def corrected(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The comparisons with ``p_holm``, over those that decide, are read and have a p-value."""
    family = [i for i, c in enumerate(contrasts) if c.decides and c.read and c.p == c.p]
    p_values = holm(np.array([contrasts[i].p for i in family]))
    found = list(contrasts)
    for i, p in zip(family, p_values, strict=True):
        found[i] = replace(found[i], p_holm=float(p))
    return found


def standing(contrasts: Sequence[Contrast]) -> str:
    """How many differences are left after the correction for their number."""
    family = [c for c in contrasts if c.decides and c.p_holm == c.p_holm]
    left = sum(c.p_holm < ALPHA for c in family)
    return f"{left} of {len(family)} effects differ from 0 after Holm" if family else ""
