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
        for linear, norm in _merges_in(part):
            yield part.get_submodule(linear), part.get_submodule(norm)


_known: WeakKeyDictionary[nn.Module, tuple[object, list[tuple[str, str]]]] = WeakKeyDictionary()


def _merges_in(part: nn.Module) -> list[tuple[str, str]]:
    """Names of the pairs among a module's own steps; remembered while its children are of a kind.

    Tracing takes a millisecond a block, too much for every batch.
    """
    kinds = [(name, type(child)) for name, child in part.named_children()]
    if not any(issubclass(kind, _BatchNorm) for _, kind in kinds):
        return []
    if part not in _known or _known[part][0] != kinds:
        graph = traced(part)
        steps = [node for node in graph.nodes if node.op == "call_module"] if graph else []
        pairs = [
            (last_of(part, str(node.args[0].target)), str(node.target))
            for node in steps
            if node.args and node.args[0] in steps and len(node.args[0].users) == 1
        ]
        _known[part] = kinds, [pair for pair in pairs if _can_merge(part, *pair)]
    return _known[part][1]


def last_of(part: nn.Module, path: str) -> str:
    """The layer below a path that gives its output: that itself, or the last of a sequence."""
    layer = part.get_submodule(path)
    while isinstance(layer, nn.Sequential) and len(layer):
        (name, layer) = list(layer.named_children())[-1]
        path = f"{path}.{name}"
    return path


def _can_merge(part: nn.Module, linear: str, norm: str) -> bool:
    """Whether these are a linear layer and a norm that has statistics of its own."""
    layer = part.get_submodule(norm)
    return (
        isinstance(part.get_submodule(linear), LINEARS)
        and forward_name(layer) in NORMS
        and getattr(layer, "running_var", None) is not None
    )


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
