"""Metrics that follow an output along a series of ever more perturbed images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from trainables.metrics.metric import Metric

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes


@dataclass(frozen=True, kw_only=True)
class CurveMetric(Metric):
    """A metric whose score is an area under a curve; the mean curves are kept beside the scores."""

    @property
    @abstractmethod
    def steps(self) -> tuple[float, ...]:
        """Where the curve is sampled: share of the image that is removed, S numbers, ascending."""

    @abstractmethod
    def curve(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """The output at every step, (N, S); a row of NaN where it is undefined."""

    @abstractmethod
    def area(self, curves: Tensor) -> Tensor:
        """Curves (N, S) to scores (N,), as the paper integrates."""

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """Area of the curve."""
        return self.area(self.curve(passes, maps, explain))

    def traced(
        self, passes: Passes, maps: Tensor, explain: Explain | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores (N,) with the curves (N, S) that they are the areas of."""
        curves = self.curve(passes, self.checked(passes, maps), explain)
        return self.area(curves), curves
