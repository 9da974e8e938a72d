"""Layers that scale what they compute by how well input and weight align, and their explanation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_lock = Lock()


class Dynamic(nn.Module):
    """A layer that multiplies its input by a *dynamic weight*, which depends on the input itself.

    Attributes:
        explained: how many explanation modes are open on the layer.
    """

    explained: int = 0


@contextmanager
def explanation_mode(module: nn.Module) -> Iterator[None]:
    """Backwards inside the ``with`` block take all dynamic weights of the module as constants.

    The mode is read when a backward runs, not when the forward does. It belongs to the module, not
    to a thread: modes may be nested and may overlap, and each ends with its own block.
    """
    layers = [part for part in module.modules() if isinstance(part, Dynamic)]
    _add(layers, 1)
    try:
        yield
    finally:
        _add(layers, -1)


def _add(layers: list[Dynamic], count: int) -> None:
    with _lock:
        for layer in layers:
            layer.explained += count


def mul(weight: Tensor, x: Tensor, layer: Dynamic) -> Tensor:
    """The product of a dynamic weight of the layer and its input, element by element; broadcasts.

    While the layer is explained, no gradient goes to the weight. The weight itself is kept with its
    graph, so that a backward through the gradient (``create_graph``) is the true second derivative:
    dynamic weights are constants in the first derivative only.
    """
    product: Tensor = _Product.apply(weight, x, layer, False)
    return product


def matmul(weight: Tensor, x: Tensor, layer: Dynamic) -> Tensor:
    """`mul` for a dynamic matrix, (..., T, S) by (..., S, D)."""
    product: Tensor = _Product.apply(weight, x, layer, True)
    return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, layer: Dynamic, matrix: bool) -> Tensor:
        ctx.save_for_backward(weight, x)
        ctx.layer, ctx.matrix = layer, matrix
        return weight @ x if matrix else weight * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        weight, x = ctx.saved_tensors
        to_weight = to_x = None
        if ctx.needs_input_grad[0] and not ctx.layer.explained:
            to_weight = gradient @ x.mT if ctx.matrix else gradient * x
            to_weight = to_weight.sum_to_size(weight.shape)
        if ctx.needs_input_grad[1]:
            to_x = weight.mT @ gradient if ctx.matrix else gradient * weight
            to_x = to_x.sum_to_size(x.shape)
        return to_weight, to_x, None, None


class UnitLinear(nn.Linear):
    """A linear layer whose rows count with length 1, whatever their length is."""

    @property
    def unit(self) -> Tensor:
        """The rows that count."""
        return functional.normalize(self.weight, dim=1)

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.unit, self.bias)


class UnitConv2d(nn.Conv2d):
    """A convolution whose filters count with length 1, whatever their length is."""

    @property
    def unit(self) -> Tensor:
        """The filters that count."""
        return functional.normalize(self.weight.flatten(1), dim=1).view_as(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return functional.conv2d(
            input, self.unit, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class BcosLinear(Dynamic):
    """|cos|^(B-1) times the projection on unit weights: w'x |w'x / n|^(B-1), no bias.

    The norm n is |x| + 1e-12. At B other than 2, 1e-6 is added to |cos|; at B = 1 the layer is
    linear. With MaxOut each unit is the largest of ``max_out`` consecutive rows, before the
    scaling.

    Source: Boehle et al., CVPR 2022, equation 3; constants of B-cos v2 (Boehle et al., 2024).
    """

    def __init__(self, in_features: int, out_features: int, *, b: float = 2, max_out: int = 1):
        super().__init__()
        self.b, self.max_out = b, max_out
        self.linear = UnitLinear(in_features, out_features * max_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return self.scaled(self.projection(x), x)

    def projection(self, x: Tensor) -> Tensor:
        """On the unit weights: linear, or the largest of several linear ones."""
        projection: Tensor = self.linear(x)
        if self.max_out > 1:
            projection = projection.unflatten(-1, (-1, self.max_out)).max(-1).values
        return projection

    def scaled(self, projection: Tensor, x: Tensor) -> Tensor:
        """The projection of x times |cos|^(B-1)."""
        if self.b == 1:
            return projection
        return _scaled(projection, torch.linalg.vector_norm(x, dim=-1, keepdim=True) + 1e-12, self)


class BcosConv2d(Dynamic):
    """`BcosLinear` of every patch; its norm n is sqrt(sum of squares over the patch + 1e-6).

    The patch is padded with zeros; with groups, each has its own norm.

    Source: Boehle et al., CVPR 2022, equation 3; constants of B-cos v2 (Boehle et al., 2024).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        b: float = 2,
        max_out: int = 1,
    ):
        super().__init__()
        self.b, self.max_out = b, max_out
        self.linear = UnitConv2d(
            in_channels, out_channels * max_out, kernel_size, stride, padding, 1, groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, h, w)."""
        return self.scaled(self.projection(x), x)

    def projection(self, x: Tensor) -> Tensor:
        """On the unit filters: linear, or the largest of several linear ones."""
        projection: Tensor = self.linear(x)
        if self.max_out > 1:
            projection = projection.unflatten(1, (-1, self.max_out)).max(2).values
        return projection

    def scaled(self, projection: Tensor, x: Tensor) -> Tensor:
        """The projection of x times |cos|^(B-1)."""
        if self.b == 1:
            return projection
        return _scaled(projection, self._norm(x, projection.shape[1]), self)

    def _norm(self, x: Tensor, channels: int) -> Tensor:
        """Length of each patch, (B, 1, h, w), or (B, out, h, w) with groups."""
        conv = self.linear
        squares = x.square().unflatten(1, (conv.groups, -1)).sum(2)
        if conv.kernel_size != (1, 1) or conv.stride != (1, 1):
            padding = (int(conv.padding[0]), int(conv.padding[1]))
            squares = functional.avg_pool2d(
                squares, conv.kernel_size, conv.stride, padding, divisor_override=1
            )
        norm = (squares + 1e-6).sqrt()
        return norm if conv.groups == 1 else norm.repeat_interleave(channels // conv.groups, 1)


def _scaled(projection: Tensor, norm: Tensor, layer: BcosLinear | BcosConv2d) -> Tensor:
    cosine = projection.abs() / norm
    return mul(cosine if layer.b == 2 else (cosine + 1e-6) ** (layer.b - 1), projection, layer)


class TokenMean(nn.Module):
    """Tokens (B, T, D) to their mean, (B, D)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


class LogitLayer(nn.Module):
    """Logits divided by a temperature, plus one constant: the part that no pixel explains.

    Source: B-cos v2 (Boehle et al., 2024): with -log(K - 1) every class starts improbable.
    """

    def __init__(self, *, temperature: float = 1, bias: float = 0):
        super().__init__()
        self.temperature, self.bias = temperature, bias

    def forward(self, logits: Tensor) -> Tensor:
        return logits / self.temperature + self.bias

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:g}, bias={self.bias:g}"
