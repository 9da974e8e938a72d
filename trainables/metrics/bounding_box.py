"""The box that a map draws around what it marks, against the object's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from trainables.metrics.localization import LocalizationMetric
from trainables.metrics.metric import Undefined

FLAT_SHARE = 1e-6
"""Spread, as a share of its maximum, below which a positive map counts as constant. Ours."""


@dataclass(frozen=True, kw_only=True)
class BoundingBoxIou(LocalizationMetric):
    """Intersection over union of the mask and the box around all pixels that reach a threshold.

    The positive part is brought to [0, 1] by its own smallest and largest value. A map that is
    constant and positive marks the whole image and scores the mask's share of it. Undefined where
    no importance is positive.

    Source: How to Probe (ICLR 2025), its code alone: filter, scaling, comparison and threshold are
        the code's. Undefined rows: there the box is one pixel in the corner, about 0; 0 here.
    Departs: the code's box ends before its last row and column, so that one pixel or line has no
        box, and adds 1e-12 to the spread, so that maps below some 1e-12 mark nothing; both are
        fields. It rounds each score to two decimals, which is left out.

    Raises:
        ValueError: the threshold is outside (0, 1], or the epsilon is negative.
    """

    name: ClassVar[str] = "bounding_box_iou"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    undefined: Undefined = "zero"
    """What a map without positive importance counts as. 0 in the authors' code, off the corner."""
    smooth_px: int = field(default=5, metadata={"short": "smooth"})
    """Side of the filter, an odd number, or 0. 5 in the authors' code; 129, a Gaussian, for the
    fine-grained maps of some methods."""
    threshold: float = field(default=0.3, metadata={"short": "t"})
    """Share of the map's range that a pixel must reach. 0.3 in the authors' code."""
    half_open: bool = False
    """Leave the last row and column out of the map's box, as the authors' code does."""
    epsilon: float = field(default=0.0, metadata={"short": "eps"})
    """Added to the spread that is divided by. 1e-12 in the authors' code."""

    def __post_init__(self) -> None:
        """Check the threshold and the epsilon."""
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise ValueError(
                f"bounding_box_iou.threshold = {self.threshold}: expected a number in (0, 1]"
            )
        if self.epsilon < 0:
            raise ValueError(f"bounding_box_iou.epsilon = {self.epsilon}: expected 0 or more")

    def per_map(self, maps: Tensor, masks: Tensor) -> Tensor:
        """|box and mask| / |box or mask|."""
        positive = maps.relu()
        low, high = positive.amin((1, 2), keepdim=True), positive.amax((1, 2), keepdim=True)
        flat = high - low <= FLAT_SHARE * high
        scaled = (positive - low) / (high - low + self.epsilon)
        boxes = bounding_boxes((scaled >= self.threshold) | flat, half_open=self.half_open)
        union = (boxes | masks).sum((1, 2)).clamp(min=1).to(maps.dtype)
        share = (boxes & masks).sum((1, 2)) / union
        return torch.where(high[:, 0, 0] > 0, share, torch.nan)


def bounding_boxes(marked: Tensor, *, half_open: bool = False) -> Tensor:
    """Smallest box around all marked pixels of each row of (N, H, W), bool; empty around none.

    Args:
        marked: (N, H, W), bool.
        half_open: leave out the box's last row and column.
    """
    rows, columns = (spans(marked.any(axis), half_open=half_open) for axis in (2, 1))
    return rows.unsqueeze(2) & columns.unsqueeze(1)


def spans(marked: Tensor, *, half_open: bool) -> Tensor:
    """From the first to the last marked place of each row of (N, L), bool."""
    begun = marked.cumsum(1)
    left = begun[:, -1:] - begun  # marked places that are still to come
    return (begun > 0) & (left > 0 if half_open else left + marked.long() > 0)
