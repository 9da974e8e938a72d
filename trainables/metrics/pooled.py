"""Metrics whose value over a data set is that of sums over it, not the mean of the rows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trainables.metrics.metric import Metric

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes


@dataclass(frozen=True, kw_only=True)
class PooledMetric(Metric):
    """A metric that adds up whole numbers over the data set and divides once, at the end.

    A row's score is what a data set of this row alone would score; rows are compared by it. The
    numbers themselves are the traces beside the scores.

    Raises:
        ValueError: ``undefined`` is not ``drop``: an undefined row has nothing to add.
    """

    def __post_init__(self) -> None:
        """Check the policy for undefined rows."""
        super().__post_init__()
        if self.undefined != "drop":
            raise ValueError(
                f"{self.name}.undefined = {self.undefined!r}: sums over the data set have no place "
                "for a row without anything to add; say drop"
            )

    @abstractmethod
    def parts(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """What each explanation adds to the sums, (N, S), float64 of whole numbers from 0."""

    @abstractmethod
    def value(self, sums: Tensor) -> Tensor:
        """Sums (..., S) to values (...), NaN where undefined."""

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """The value of each row alone."""
        return self.value(self.parts(passes, maps, explain)).to(maps.dtype)

    def traced(
        self, passes: Passes, maps: Tensor, explain: Explain | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores (N,) with the numbers (N, S) that add up."""
        parts = self.parts(passes, self.checked(passes, maps), explain)
        return self.value(parts).to(maps.dtype), parts

    def reduce(self, scores: np.ndarray, traces: np.ndarray | None = None) -> float:
        """The value of the sums of the traces (N, S); NaN without any defined row.

        Whole numbers of up to 2^24 may be kept in float32.

        Raises:
            ValueError: there are scores and no traces: their mean would be another number.
        """
        if len(scores) == 0:
            return float("nan")
        if traces is None or len(traces) != len(scores):
            raise ValueError(
                f"{self.key} adds up its traces over the data set, one for each of the "
                f"{len(scores)} scores; hand over what traced() gave beside them"
            )
        sums = np.asarray(traces, dtype=np.float64).sum(0)
        return float(self.value(torch.from_numpy(sums)))
