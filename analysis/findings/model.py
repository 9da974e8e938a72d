"""Scores of chosen models, and what can be said of two of them while runs are missing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from analysis.choice import TOLERANCE
from analysis.findings.finding import NAN, Outcome

NO_MODEL = f"no model within {100 * TOLERANCE:g} points of the baseline"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A score of a model that was chosen on validation, on test; a difference of two such."""

    value: float
    """NaN if unknown, -inf if all is known and there is no such model."""
    accuracy: float = NAN
    """Its F1 or mAP."""
    complete: bool = True
    """Whether all runs that it was to be chosen from have finished."""
    results: tuple[str, ...] = ()
    why: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a model with a score, chosen from all."""
        return self.complete and math.isfinite(self.value)

    def minus(self, other: Model) -> Model:
        """The gain over another."""
        return Model(
            value=self.value - other.value,
            accuracy=self.accuracy - other.accuracy,
            complete=self.complete and other.complete,
            results=(*self.results, *other.results),
            why=self.why or other.why,
        )


def exceeds(own: Model, rival: Model, by: float = 0.0) -> Outcome:
    """Whether a score is above another; open unless both were chosen from all.

    A missing run may change either side in either direction: a model that is better on validation
    takes the place of the chosen one and may be worse on test.
    """
    value, other = own.value, rival.value + by
    unknown = math.isnan(value) or math.isnan(other) or value == other == -math.inf
    verdict = None if unknown or not (own.complete and rival.complete) else value > other
    return Outcome(
        verdict=verdict,
        why="" if verdict is not None else own.why or rival.why,
        value=own.value,
        against=rival.value,
        accuracy=own.accuracy - rival.accuracy,
        results=(*own.results, *rival.results),
    )


def moved(own: Model, rival: Model, within: float) -> Outcome:
    """Whether two scores differ by no more than this; both must be known."""
    found = exceeds(own, rival)
    if not (own.known and rival.known):
        return replace(found, verdict=None, why=own.why or rival.why)
    return replace(found, verdict=abs(own.value - rival.value) <= within, why="")
