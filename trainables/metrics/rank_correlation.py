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
    one, other = centered_ranks(first), centered_ranks(second)
    spread = one.square().sum(1) * other.square().sum(1)
    correlation = (one * other).sum(1) / spread.double().sqrt()
    undefined = (spread == 0) | first.isnan().any(1) | second.isnan().any(1)
    return torch.where(undefined, torch.nan, correlation)


def centered_ranks(values: Tensor) -> Tensor:
    """Twice the mean rank of each value in its row of (N, P), less P + 1: whole, with the sum 0."""
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values.contiguous())
    not_above = torch.searchsorted(ordered, values.contiguous(), right=True)
    return below + not_above - values.shape[1]
