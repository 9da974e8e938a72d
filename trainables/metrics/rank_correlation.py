"""Rank correlation of many rows at once, on the device of the values."""

from __future__ import annotations

import torch
from torch import Tensor


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's correlation of each row of two (N, P) tensors, (N,), float64, within [-1, 1].

    Ties share their mean rank; infinities are ranked. NaN where a side is constant or holds a NaN.
    Sums of ranks are whole numbers, so that equal orders give exactly 1 on every device.

    Source: Spearman, 1904, with mean ranks as in scipy.stats.spearmanr.

    Raises:
        ValueError: the shapes differ or are not (N, P).
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(
            f"rows {tuple(first.shape)} and {tuple(second.shape)}: expected (N, P) both"
        )
    sides = torch.stack([first, second])
    one, other = centered_ranks(sides).double()
    spread = one.square().sum(1) * other.square().sum(1)
    correlation = (one * other).sum(1) / spread.sqrt()  # 0 / 0 where a side is constant
    return correlation.masked_fill(sides.isnan().any(2).any(0), torch.nan)


def centered_ranks(values: Tensor) -> Tensor:
    """Twice the mean rank of each value of (..., P) in its row, less P + 1, int64; the sum is 0."""
    ordered, order = values.sort(dim=-1)
    # looked up in order: several times as fast as the values as they come
    below = torch.searchsorted(ordered, ordered)
    not_above = torch.searchsorted(ordered, ordered, right=True)
    ranks = below + not_above - values.shape[-1]
    return torch.empty_like(order).scatter_(-1, order, ranks)
