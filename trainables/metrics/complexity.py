"""Complexity: on how few pixels the positive importance lies, wherever they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from trainables.metrics.metric import Metric
from trainables.metrics.smoothing import SmoothedMetric

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes


@dataclass(frozen=True, kw_only=True)
class Gini(Metric):
    """Gini index of the positive importance of all pixels: 0 for a uniform map, 1 for one pixel.

    One pixel of n alone scores 1 - 1/n. Undefined where no importance is positive.

    Source: Chalasani et al., 2020; How to Probe (ICLR 2025), appendix E, and its code for the
        positive part and ``epsilon``. Undefined rows: the code gives them 0, the worst (``zero``);
        the paper does not say; dropped here.
    Departs: in float64.
    """

    name: ClassVar[str] = "gini"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    epsilon: float = field(default=1e-7, metadata={"short": "eps"})
    """Added to each pixel. 1e-7 in the authors' code: fainter maps count as uniform."""
    unit_sum: bool = False
    """Whether maps are brought to the sum 1 first: the control that no difference between two
    networks is one of scale."""

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """Sum over ranks k of (2k - n - 1) v_k / (n sum v)."""
        positive, dead = positive_part(maps, unit_sum=self.unit_sum)
        values = (positive + self.epsilon).sort(dim=1).values
        n = values.shape[1]
        weights = 2 * torch.arange(1, n + 1, dtype=values.dtype, device=values.device) - n - 1
        index = (values * weights).sum(1) / (n * values.sum(1))
        return torch.where(dead, torch.nan, index.clamp(0, 1)).to(maps.dtype)


@dataclass(frozen=True, kw_only=True)
class Entropy(SmoothedMetric):
    """Entropy of the positive importance over the pixels, in bits: 0 for one pixel alone.

    A uniform map of n pixels scores log2(n). Undefined where no importance is positive.

    Source: How to Probe (ICLR 2025), appendix E, and its code for filter, base and ``epsilon``.
        Undefined rows: the code gives them 0, which would be the best of all scores; the paper does
        not say; dropped here.
    Departs: in float64, and never below 0 by a rounding.
    """

    name: ClassVar[str] = "entropy"
    higher_is_better: ClassVar[bool] = False
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    smooth_px: int = field(default=5, metadata={"short": "smooth"})
    """Side of the filter, an odd number, or 0. 5 in the authors' code, for all methods."""
    epsilon: float = field(default=1e-10, metadata={"short": "eps"})
    """Added to the sum and within the logarithm. 1e-10 in the authors' code."""
    unit_sum: bool = False
    """Whether maps are brought to the sum 1 first: the control that no difference between two
    networks is one of scale."""

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """Minus the sum of p log2 p."""
        positive, dead = positive_part(self.smoothed(maps), unit_sum=self.unit_sum)
        p = positive / (positive.sum(1, keepdim=True) + self.epsilon)
        bits = -torch.special.xlogy(p, p + self.epsilon).sum(1) / torch.log(p.new_tensor(2.0))
        return torch.where(dead, torch.nan, bits.clamp(min=0)).to(maps.dtype)


def positive_part(maps: Tensor, *, unit_sum: bool) -> tuple[Tensor, Tensor]:
    """Positive parts (N, H * W), float64, and whether there is none, (N,).

    Args:
        maps: (N, H, W), float.
        unit_sum: whether each is brought to the sum 1.
    """
    positive = maps.relu().flatten(1).double()
    total = positive.sum(1, keepdim=True)
    dead = total[:, 0] == 0
    return (positive / total.where(total > 0, 1.0) if unit_sum else positive), dead
