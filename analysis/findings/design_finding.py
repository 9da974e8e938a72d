"""A sentence on designs: comparisons of two means on shared images, and what they say together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from analysis.findings.finding import FAILS, HOLDS, NAN, UNDECIDED, every
from analysis.probing_rows import Gain

if TYPE_CHECKING:
    from analysis.findings.design_evidence import DesignEvidence

LEAST_IMAGES = 20
"""An interval over fewer says too often that there is a difference where there is none."""
LEAST_DEFINED = 0.5
"""Share of the images that a score must be defined on: the mean over a few that a method chose for
itself stands beside no other."""


@dataclass(frozen=True, kw_only=True)
class DesignContrast:
    """One comparison: what should be higher, and by how much it is."""

    what: str
    protocol: str
    verdict: str
    why: str = ""
    """Why it is undecided."""
    network: str = ""
    method: str = ""
    seeds: int = 0
    images: int = 0
    """On which both are defined, the least over seeds."""
    of_images: int = 0
    """That both were scored on."""
    value: float = NAN
    against: float = NAN
    effect: float = NAN
    low: float = NAN
    high: float = NAN
    p: float = NAN
    decides: bool = True
    """Whether the verdict of the finding rests on it; others are shown only."""

    @property
    def reason(self) -> str:
        """Why it is undecided, readable by itself."""
        return f"{self.what}: {self.why}" if self.of_images else self.why

    @classmethod
    def of(
        cls,
        gain: Gain,
        what: str,
        protocol: str,
        *,
        of_images: int,
        network: str = "",
        method: str = "",
        decides: bool = True,
    ) -> DesignContrast:
        """Judge a gain over ``of_images`` images by its interval, which 0 leaves open."""
        low, high = gain.interval
        few = min(gain.units, of_images) < max(LEAST_IMAGES, LEAST_DEFINED * of_images)
        verdict, why = UNDECIDED, f"defined on {gain.units} of {of_images} images, too few"
        if not few:
            verdict = HOLDS if low > 0 else FAILS if high < 0 else UNDECIDED
            why = f"the interval {low:+.3f} to {high:+.3f} includes 0"
        return cls(
            what=what,
            protocol=protocol,
            verdict=verdict,
            why=why if verdict == UNDECIDED else "",
            network=network,
            method=method,
            seeds=len(gain.each),
            images=gain.units,
            of_images=of_images,
            value=gain.value,
            against=gain.against,
            effect=gain.effect,
            low=low,
            high=high,
            decides=decides,
        )


@dataclass(frozen=True)
class DesignFinding(ABC):
    """A sentence of the paper that runs can bear out or contradict."""

    id: ClassVar[str]
    claim: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def compare(self, evidence: DesignEvidence) -> Iterator[DesignContrast]:
        """All comparisons of the sentence that any network is there for.

        What is missing is among them, undecided, with the reason.
        """

    def judge(self, contrasts: Sequence[DesignContrast]) -> str:
        """All that decide must hold, one that fails is enough."""
        return every([contrast.verdict for contrast in contrasts])


def counted(
    each: Sequence[DesignContrast],
    what: str,
    why: str = "",
    *,
    members: int | None = None,
    decides: bool = True,
) -> DesignContrast:
    """What the majority of some comparisons says; the undecided count for neither side.

    Args:
        each: the comparisons.
        what: is compared.
        why: why nothing can be said, whatever was found.
        members: how many there should be, if not all are known.
        decides: whether the verdict of the finding rests on it.
    """
    members = len(each) if members is None else members
    verdicts = [contrast.verdict for contrast in each]
    holding, failing = verdicts.count(HOLDS), verdicts.count(FAILS)
    verdict = UNDECIDED
    if not why:
        half = members / 2
        verdict = HOLDS if holding > half else FAILS if failing > half else UNDECIDED
        why = "neither has a majority"
    effects = [contrast.effect for contrast in each if contrast.effect == contrast.effect]
    judged = [contrast for contrast in each if contrast.of_images]
    return DesignContrast(
        what=f"{what} ({holding} of {members} methods for, {failing} against)",
        protocol=each[0].protocol if each else "",
        verdict=verdict,
        why=why if verdict == UNDECIDED else "",
        network=each[0].network if each else "",
        seeds=min((contrast.seeds for contrast in judged), default=0),
        images=min((contrast.images for contrast in judged), default=0),
        of_images=min((contrast.of_images for contrast in judged), default=0),
        effect=float(np.median(effects)) if effects else NAN,
        decides=decides,
    )
