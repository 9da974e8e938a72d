"""The contract of every metric of maps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from data_pipelines.configuration import Configuration

if TYPE_CHECKING:
    from trainables.passes import Passes

    Explain = Callable[[Passes], Tensor]

Undefined = Literal["drop", "zero", "chance", "worst"]
Annotation = Literal["boxes", "cells", "segments", "labels"]


@dataclass(frozen=True, kw_only=True)
class Metric(Configuration, ABC, family=True):
    """Scores maps, one number an explanation; NaN where the score is undefined.

    A metric judges maps at image size and never upsamples, normalizes or chooses a method by
    itself, so that all methods and losses that are compared pass through one and the same protocol.

    Raises:
        ValueError: ``undefined`` asks for a value that the metric does not have.
    """

    higher_is_better: ClassVar[bool]
    range: ClassVar[tuple[float, float]]
    """Smallest and largest possible score; infinite where there is none."""
    chance: ClassVar[float | None] = None
    """What a map without information scores, where that is one number."""

    requires: ClassVar[tuple[Annotation, ...]] = ()
    """What a batch must know: boxes or a mosaic's cells (``masks``), ``segments``, ``labels``."""

    leaves_traces: ClassVar[bool] = False
    """Whether what lies behind the scores is kept for other results to read."""

    undefined: Undefined = "drop"
    """What an undefined row counts as: nothing, 0, the chance level, the worst of the range."""

    def __post_init__(self) -> None:
        """Check that the policy for undefined rows has a value."""
        super().__post_init__()
        if self.undefined == "chance" and self.chance is None:
            raise ValueError(
                f"{self.name}.undefined = 'chance': there is no one chance level; "
                "say zero, worst or drop"
            )
        if self.undefined == "worst" and not math.isfinite(self.worst):
            raise ValueError(
                f"{self.name}.undefined = 'worst': its range has no end; say zero, chance or drop"
            )

    @property
    def worst(self) -> float:
        """The worst possible score."""
        return self.range[0] if self.higher_is_better else self.range[1]

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose outputs it reads; they are announced before the forward."""
        return ()

    def __call__(self, passes: Passes, maps: Tensor, explain: Explain | None = None) -> Tensor:
        """Scores, (N,), float, NaN where undefined.

        Args:
            passes: the model's shared passes over the batch that was explained.
            maps: one map an explanation at image size, (N, H, W), float; only read.
            explain: how to explain again, (passes) -> maps at image size; for metrics that perturb.

        Raises:
            ValueError: the maps are not of image size (both shapes are named), or not finite: a
                broken map is not an undefined score.
        """
        return self.score(passes, self.checked(passes, maps), explain)

    def traced(
        self, passes: Passes, maps: Tensor, explain: Explain | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores (N,), and the curves (N, S) behind them where the metric has any."""
        return self(passes, maps, explain), None

    def checked(self, passes: Passes, maps: Tensor) -> Tensor:
        """The maps (N, H, W), detached, if they are at image size and finite; ValueError else."""
        size = passes.batch.images.shape[-2:]
        if maps.ndim != 3 or maps.shape[1:] != size:
            raise ValueError(
                f"{self.key}: maps {tuple(maps.shape)} for images of {tuple(size)} px; "
                "expected (N, H, W): upsample the maps first"
            )
        finite = torch.isfinite(maps).flatten(1).all(1)
        if not bool(finite.all()):
            raise ValueError(
                f"{self.key}: {int((~finite).sum())} of {len(maps)} maps hold a NaN or an infinity"
            )
        return maps.detach()

    @abstractmethod
    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """The equation: maps (N, H, W), already checked, to (N,)."""

    def reduce(self, scores: np.ndarray, traces: np.ndarray | None = None) -> float:
        """Mean of the scores (N,) under the policy for undefined rows; NaN if no row is left.

        Args:
            scores: of all rows, in any order.
            traces: what ``traced`` gave beside them, (N, S); some metrics reduce these instead.
        """
        rows = np.asarray(scores, dtype=np.float64)
        undefined = np.isnan(rows)
        if self.undefined == "drop":
            rows = rows[~undefined]
        else:
            values = {"zero": 0.0, "chance": self.chance, "worst": self.worst}
            rows = np.where(undefined, np.float64(values[self.undefined]), rows)
        return float(rows.mean()) if len(rows) else math.nan

    def defined_fraction(self, scores: np.ndarray) -> float:
        """Share of the scores (N,) that are defined, within [0, 1]; NaN without any row."""
        rows = np.asarray(scores, dtype=np.float64)
        return float(1 - np.isnan(rows).mean()) if len(rows) else math.nan
