"""Which operations LRP has a rule for."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from trainables.attribution.canonization.form import FORMS, forward_name
from trainables.attribution.canonization.norm import LINEARS, NORMS
from trainables.attribution.canonization.trace import traced

IDLE = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
IDLE_ELSEWHERE = {"timm.layers.drop.DropPath"}
"""What does nothing in eval mode, or only reshapes."""
STEPS = {
    torch.flatten, functional.max_pool2d, functional.dropout,
    torch._assert, operator.eq, operator.getitem,
    "flatten", "view", "reshape", "squeeze", "contiguous", "size",
}  # fmt: skip
"""Calls between layers whose gradient is the rule: relevance goes where the value came from."""


def refusal(module: nn.Module) -> str | None:
    """Why LRP has no rule for some part of the network, in one line; None where it has all.

    Only the kinds of the parts are looked at, never their weights.
    """
    for path, part in module.named_modules():
        name = forward_name(part)
        if name in FORMS or name in NORMS or name in IDLE_ELSEWHERE or _has_rule(part, name):
            continue
        graph = traced(part)
        why = "its forward cannot be traced" if graph is None else _unruled(graph)
        if why:
            return (
                f"LRP knows no rule for {type(part).__name__} ({path or 'the whole network'}): "
                f"{why}; a canonical forward would give one (trainables/attribution/canonization)"
            )
    return None


def _has_rule(part: nn.Module, name: str) -> bool:
    """Whether it is a layer of torch that keeps torch's forward, and of a kind with a rule."""
    from zennit.types import Activation, AvgPool, MaxPool

    if not name.startswith("torch.nn.modules.") or isinstance(part, nn.MultiheadAttention):
        return False
    return isinstance(part, (*LINEARS, *IDLE, Activation, AvgPool, MaxPool))


def _unruled(graph: fx.Graph) -> str:
    """The first step that is neither a layer nor a reshaping, or nothing."""
    for node in graph.nodes:
        if node.op in ("call_function", "call_method") and node.target not in STEPS:
            target: Any = node.target
            return f"it calls {getattr(target, '__name__', target)}"
    return ""
