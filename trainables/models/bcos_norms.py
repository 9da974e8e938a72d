"""Normalization whose deviation is a dynamic weight: constant while a network is explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables.models.bcos_layers import Dynamic, mul


class BatchNormUncentered2d(Dynamic):
    """Channels divided by their deviation over the batch; nothing is subtracted.

    The variance itself is the ordinary one, about the mean, biased, and so is the running one. The
    buffer running_mean is there for the state-dict keys alone and stays zero.

    Source: B-cos v2 (Boehle et al., 2024), the norm of its ResNets, there without a bias.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1, bias: bool = False
    ):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), the same shape."""
        if self.training:
            variance = x.var((0, 2, 3), correction=0)
            self.num_batches_tracked += 1
            self.running_var.lerp_(variance.detach(), self.momentum)
            x = mul(_channels((variance + self.eps).rsqrt()), x, self) * _channels(self.weight)
        else:
            x = x * _channels(self.weight * (self.running_var + self.eps).rsqrt())
        return x if self.bias is None else x + _channels(self.bias)


class BatchNormUncentered1d(BatchNormUncentered2d):
    """`BatchNormUncentered2d` of vectors (..., C); all of them share their statistics.

    Source: How to Probe (Gairola et al., ICLR 2025), the authors' code.
    """

    def forward(self, x: Tensor) -> Tensor:
        vectors = x.flatten(0, -2)[:, :, None, None]
        return super().forward(vectors).view_as(x)


def _channels(values: Tensor) -> Tensor:
    return values[:, None, None]


class Norm(Dynamic):
    """Values minus their mean, divided by their deviation over some dimensions; no bias.

    A subclass says over which. The mean is linear in the input and stays in an explanation; an
    uncentered norm subtracts none, its variance is the ordinary one all the same.

    Source: B-cos v2 (Boehle et al., 2024), norms of its vision transformers and ablations.
    """

    dimensions: ClassVar[Sequence[int]]
    """Dimensions that share a mean and a deviation."""
    channel: ClassVar[int]
    """The dimension that the weight goes along, from the end."""

    def __init__(self, channels: int, *, eps: float = 1e-5, centered: bool = True):
        super().__init__()
        self.eps, self.centered = eps, centered
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, tuple(self.dimensions), correction=0, keepdim=True)
        weight = self.weight.view(-1, *(1,) * (-self.channel - 1))
        x = x - mean if self.centered else x
        return mul((variance + self.eps).rsqrt(), x, self) * weight


class LayerNorm(Norm):
    """Each token by itself, (B, T, D)."""

    dimensions: ClassVar[Sequence[int]] = (-1,)
    channel: ClassVar[int] = -1


class LayerNorm2d(Norm):
    """Each image by itself, (B, C, H, W)."""

    dimensions: ClassVar[Sequence[int]] = (1, 2, 3)
    channel: ClassVar[int] = -3


class PositionNorm2d(Norm):
    """Each pixel by itself, (B, C, H, W)."""

    dimensions: ClassVar[Sequence[int]] = (1,)
    channel: ClassVar[int] = -3
