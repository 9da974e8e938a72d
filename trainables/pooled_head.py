"""Heads on means over places: where the last layer is linear, it and the mean commute."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.frozen_features import BatchFeatures, Kind, pooled
from trainables.models.probe import ProbeHead

Linear = nn.Linear | nn.Conv2d
"""A convolution is one of 1 x 1, which on pooled features is the same."""


class PooledHead:
    """A head in the order that costs least: the mean over places before a linear last layer.

    Its logits are those of the head but for rounding, from as many products less as there are
    places (49 in a ResNet-50 at 224 px). B-cos layers depend on each place: they stay in front.

    Attributes:
        module: the head.
        last: its last layer where that is linear, else None.
        kind: the features that it takes.
    """

    def __init__(self, module: nn.Module):
        self.module, self.last, self._hidden = module, None, list[nn.Module]()
        if isinstance(module, ProbeHead) and isinstance(module.last, nn.Linear | nn.Conv2d):
            parts = list(module.children())
            self.last, self._hidden = module.last, parts[: parts.index(module.last)]
        alone = self.last is not None and not self._hidden
        self.kind: Kind = "pooled" if alone else "whole"

    def __call__(self, features: BatchFeatures) -> Tensor:
        """Logits (B, K)."""
        if self.last is None:
            logits: Tensor = self.module(features.whole)
            return logits
        return self.logits(functional.linear(self._means(features), *matrix(self.last)))

    def logits(self, outputs: Tensor) -> Tensor:
        """Logits from the outputs of the last layer: a constant is added."""
        logits: Tensor = self.module.get_submodule("logits")(outputs)
        return logits

    def _means(self, features: BatchFeatures) -> Tensor:
        if self.kind == "pooled":
            return features.pooled
        hidden = features.whole
        for part in self._hidden:
            hidden = part(hidden)
        return pooled(hidden)


class LinearBank:
    """Linear layers of equal shape as one matrix; their weights become views of it.

    So their own optimizers move the bank, and nothing is copied between steps. The features are
    frozen, so the backward is the one product that is written here.
    """

    def __init__(self, layers: Sequence[Linear]):
        self.layers = tuple(layers)
        matrices = [matrix(layer) for layer in layers]
        self.outputs = len(matrices[0][0])
        self.weight = torch.cat([weight.detach() for weight, _ in matrices])
        biases = [bias.detach() for _, bias in matrices if bias is not None]
        self.bias = torch.cat(biases) if biases else None
        for layer, rows in zip(self.layers, self._rows(), strict=True):
            layer.weight.data = self.weight[rows].view_as(layer.weight)
            if self.bias is not None and layer.bias is not None:
                layer.bias.data = self.bias[rows]

    def __call__(self, features: Tensor) -> list[Tensor]:
        """Outputs (B, K) of each layer for features (B, D); their gradients go to `spread`."""
        product = functional.linear(features, self.weight, self.bias)
        parts = [part.detach() for part in product.split(self.outputs, 1)]
        return [part.requires_grad_(torch.is_grad_enabled()) for part in parts]

    def spread(self, features: Tensor, outputs: Sequence[Tensor]) -> None:
        """Give the layers the gradients that arrived at their outputs; none counts as zero."""
        arrived = [torch.zeros_like(o) if o.grad is None else o.grad for o in outputs]
        gradient = torch.cat(arrived, 1)
        weight, bias = gradient.T @ features, gradient.sum(0)
        for layer, rows in zip(self.layers, self._rows(), strict=True):
            layer.weight.grad = weight[rows].view_as(layer.weight)
            if layer.bias is not None:
                layer.bias.grad = bias[rows]

    def _rows(self) -> list[slice]:
        ends = range(self.outputs, self.outputs * len(self.layers) + 1, self.outputs)
        return [slice(end - self.outputs, end) for end in ends]


def matrix(layer: Linear) -> tuple[Tensor, Tensor | None]:
    """Weight (K, D) and bias (K,)."""
    return layer.weight.flatten(1), layer.bias


def shape_of(layer: Linear) -> tuple[int, ...]:
    """What layers of one bank have in common: outputs, inputs, whether they have a bias."""
    return (*matrix(layer)[0].shape, layer.bias is not None)
