"""Metrics that look at smoothed maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from trainables.metrics.metric import Metric

Kernel = Literal["mean", "gaussian"]


@dataclass(frozen=True, kw_only=True)
class SmoothedMetric(Metric):
    """A metric whose maps first pass a filter, signed as they are.

    Source: How to Probe (ICLR 2025): the mean over 5 px, in its code also a Gaussian over 129 px
        for the fine-grained maps of input times gradient and integrated gradients.

    Raises:
        ValueError: the side is even or negative, or a Gaussian has none.
    """

    smooth_px: int = field(default=0, metadata={"short": "smooth"})
    """Side of the filter, an odd number; 0: the maps stay as they are."""
    smooth_kernel: Kernel = "mean"
    """``mean``: beyond the border lie zeros. ``gaussian``: its standard deviation is a quarter of
    the side, and the map is mirrored at the border."""

    def __post_init__(self) -> None:
        """Check the filter."""
        super().__post_init__()
        side = self.smooth_px
        if side != 0 and (side < 3 or side % 2 == 0):
            raise ValueError(f"{self.name}.smooth_px = {side}: expected 0 or an odd number from 3")
        if side == 0 and self.smooth_kernel == "gaussian":
            raise ValueError(f"{self.name}.smooth_kernel = 'gaussian': say smooth_px, 129 for one")

    def smoothed(self, maps: Tensor) -> Tensor:
        """Maps (N, H, W) after the filter, of the same shape.

        Raises:
            ValueError: the images are too small for the mirrored border.
        """
        if self.smooth_px == 0:
            return maps
        kernel = {"mean": smooth_mean, "gaussian": smooth_gaussian}[self.smooth_kernel]
        return kernel(maps, self.smooth_px)


def smooth_mean(maps: Tensor, side_px: int) -> Tensor:
    """Mean over a square around each pixel; what lies beyond the border counts as 0."""
    return functional.avg_pool2d(maps.unsqueeze(1), side_px, stride=1, padding=side_px // 2)[:, 0]


def smooth_gaussian(maps: Tensor, side_px: int) -> Tensor:
    """Gaussian over a square around each pixel, mirrored at the border.

    Rows and columns one after the other: 2 * side products a pixel instead of side * side.

    Raises:
        ValueError: half of the side reaches beyond the mirrored image.
    """
    reach = side_px // 2
    if min(maps.shape[1:]) <= reach:
        raise ValueError(
            f"smooth_px = {side_px} mirrors {reach} px at each border: images of "
            f"{tuple(maps.shape[1:])} px are too small; take larger images or a smaller filter"
        )
    weights = torch.tensor(gaussian(side_px), dtype=maps.dtype, device=maps.device)
    mirrored = functional.pad(maps.unsqueeze(1), (reach,) * 4, mode="reflect")
    columns = functional.conv2d(mirrored, weights.view(1, 1, -1, 1))
    return functional.conv2d(columns, weights.view(1, 1, 1, -1))[:, 0]


@cache
def gaussian(side_px: int) -> tuple[float, ...]:
    """Weights along one axis, with the sum 1; the standard deviation is a quarter of the side."""
    offsets = torch.arange(side_px, dtype=torch.float64) - side_px // 2
    weights = torch.exp(-0.5 * (offsets / (side_px / 4)).square())
    return tuple((weights / weights.sum()).tolist())
