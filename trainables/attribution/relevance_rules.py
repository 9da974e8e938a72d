"""Rules by which relevance goes down through the parts of a transformer block.

Relevance R of an output is shared among what made it, in the ratio of the parts. Samples are the
first dimension of every tensor and do not mix.

Source: Chefer et al., CVPR 2021, equations 1 to 10, with the constants of the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

TINY = 1e-9


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """A / (b + 1e-9), and 0 where b is 0."""
    shifted = b + TINY
    shifted = torch.where(shifted == 0, TINY, shifted)
    return torch.where(b == 0, 0, a / shifted)


def through_linear(relevance: Tensor, x: Tensor, layer: nn.Linear) -> Tensor:
    """To a linear layer's input x: in the ratio of positive products x w; the bias gets nothing."""
    weight = layer.weight
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    high, low = x.clamp(min=0), x.clamp(max=0)
    share = ratio(relevance, high @ up.mT + low @ down.mT)
    return high * (share @ up) + low * (share @ down)


def through_sum(relevance: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """To both summands of a + b, scaled so that their absolute sums keep their ratio.

    Sums are over all of a sample, so that a batch equals its samples one by one.
    """
    share = ratio(relevance, a + b)
    to_a, to_b = a * share, b * share
    total, sum_a, sum_b = (each.sum((1, 2), keepdim=True) for each in (relevance, to_a, to_b))
    size = sum_a.abs() + sum_b.abs()
    to_a = to_a * ratio(ratio(sum_a.abs(), size) * total, sum_a)
    to_b = to_b * ratio(ratio(sum_b.abs(), size) * total, sum_b)
    return to_a, to_b


def through_copies(x: Tensor, *relevances: Tensor) -> Tensor:
    """To x, which several branches took."""
    return x * sum(ratio(relevance, x) for relevance in relevances)


def through_product(relevance: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """To both factors of the matrix product a b, half to each."""
    share = ratio(relevance, a @ b)
    return a * (share @ b.mT) / 2, b * (a.mT @ share) / 2
