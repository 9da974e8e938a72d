"""Batch norms of eval mode, merged into the linear layer before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.attribution.canonization.form import forward_name
from trainables.attribution.canonization.trace import traced

NORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "torch.nn.modules.batchnorm._BatchNorm": lambda _norm, x: x,
    "timm.layers.norm_act.BatchNormAct2d": lambda norm, x: norm.act(norm.drop(x)),
}
"""By `forward_name`: what a norm still does when its scale and shift are merged away."""
LINEARS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def merges(module: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Each linear layer whose output goes to a batch norm and nowhere else, with that norm.

    Found in the steps of the forwards, so that neither the order in which layers are defined nor
    their names matter.
    """
    for part in module.modules():
        for before, after in _pairs_in(part):
            linear, norm = last_of(part.get_submodule(before)), part.get_submodule(after)
            if isinstance(linear, LINEARS) and getattr(norm, "running_var", None) is not None:
                yield linear, norm


_known: WeakKeyDictionary[nn.Module, tuple[object, list[tuple[str, str]]]] = WeakKeyDictionary()


def _pairs_in(part: nn.Module) -> list[tuple[str, str]]:
    """Names of each norm and the step before it, which gives its output to the norm alone.

    Remembered while the module's children are of a kind: tracing takes a millisecond a block, too
    much for every batch.
    """
    kinds = [(name, type(child)) for name, child in part.named_children()]
    if not any(issubclass(kind, _BatchNorm) for _, kind in kinds):
        return []
    if part not in _known or _known[part][0] != kinds:
        graph = traced(part)
        steps = [node for node in graph.nodes if node.op == "call_module"] if graph else []
        _known[part] = (
            kinds,
            [
                (str(node.args[0].target), str(node.target))
                for node in steps
                if node.args and node.args[0] in steps and len(node.args[0].users) == 1
                if forward_name(part.get_submodule(str(node.target))) in NORMS
            ],
        )
    return _known[part][1]


def last_of(layer: nn.Module) -> nn.Module:
    """The layer that gives the output: itself, or the last of a sequence."""
    while isinstance(layer, nn.Sequential) and len(layer):
        layer = layer[-1]
    return layer


@torch.no_grad()
def merged(linear: Any, norm: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias of the one layer that computes the norm of the linear layer."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    weight = linear.weight * scale.view(-1, *[1] * (linear.weight.ndim - 1))
    bias = -norm.running_mean if linear.bias is None else linear.bias - norm.running_mean
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    return nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
