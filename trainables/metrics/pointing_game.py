"""The pointing game: whether a map's maximum lies on the object."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from trainables.metrics.localization import LocalizationMetric


@dataclass(frozen=True, kw_only=True)
class PointingGame(LocalizationMetric):
    """1 where the map's maximum lies inside the mask, else 0; of equal maxima the share that does.

    A uniform map scores the mask's share of the image. Undefined where no importance is positive.

    Source: Zhang et al., 2016 (Excitation Backprop). Undefined rows: it does not say; dropped here.
    Departs: TorchRay, which carries it on, allows less than 15 px beside the object, on images of
        a few hundred px; no tolerance here by default, for it would span half of a small image. It
        takes one of equal maxima and averages classes; here all maxima count in part, and pairs are
        averaged as in the other protocols.

    Raises:
        ValueError: the tolerance is negative.
    """

    name: ClassVar[str] = "pointing_game"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    tolerance_px: int = field(default=0, metadata={"short": "tol"})
    """Distance from the mask, in pixels, up to which a maximum is a hit. Below 15 in TorchRay."""

    def __post_init__(self) -> None:
        """Check the tolerance."""
        super().__post_init__()
        if self.tolerance_px < 0:
            raise ValueError(
                f"pointing_game.tolerance_px = {self.tolerance_px}: expected 0 or more pixels"
            )

    def per_map(self, maps: Tensor, masks: Tensor) -> Tensor:
        """|maxima inside| / |maxima|."""
        highest = maps.amax((1, 2), keepdim=True)
        maxima = maps == highest
        hits = maxima & dilated(masks, self.tolerance_px)
        share = hits.sum((1, 2)) / maxima.sum((1, 2)).to(maps.dtype)
        return torch.where(highest[:, 0, 0] > 0, share, torch.nan)


def dilated(masks: Tensor, distance_px: int) -> Tensor:
    """Pixels within a distance of the masks (N, H, W), bool."""
    if distance_px == 0:
        return masks
    grown, lines = masks, masks.flatten(0, 1).float().unsqueeze(1)
    for rows in range(-distance_px, distance_px + 1):
        reach = math.isqrt(distance_px**2 - rows**2)
        wide = functional.max_pool1d(lines, 2 * reach + 1, stride=1, padding=reach)
        grown = grown | shifted(wide.view_as(masks) > 0, rows)
    return grown


def shifted(masks: Tensor, rows: int) -> Tensor:
    """Masks (N, H, W) moved down by some rows, up if negative."""
    height = masks.shape[1]
    padded = functional.pad(masks, (0, 0, max(rows, 0), max(-rows, 0)))
    return padded[:, max(-rows, 0) : max(-rows, 0) + height]
