"""A network in canonical form, for the length of a ``with`` block."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainables.attribution.canonization.form import FORMS, Add, Forward, forward_name
from trainables.attribution.canonization.norm import NORMS, merged, merges
from trainables.models.bcos_layers import UnitConv2d, UnitLinear

Residual = Literal["sum", "duplicate"]


@contextmanager
def canonized(module: nn.Module, residual: Residual = "sum") -> Iterator[None]:
    """Batch norms merged, additions made layers, unit weights plain ones; undone at the end.

    Also after an exception.

    The network, in eval mode, computes the same function. No tensor of it is written to: merged
    parameters are others, and the own ones come back.

    Args:
        module: the network.
        residual: ``sum`` shares relevance between shortcut and branch by their values;
            ``duplicate`` adds plainly, so that both get all of it.
    """
    with ExitStack() as undo:
        for linear, norm in list(merges(module)):
            _merge(linear, norm, undo)
        for part in module.modules():
            if isinstance(part, UnitLinear | UnitConv2d):
                undo.callback(setattr, part, "weight", part.weight)
                part.weight = nn.Parameter(part.unit.detach(), requires_grad=False)
        for block in list(module.modules()):
            if forward_name(block) in FORMS:
                add = operator.add if residual == "duplicate" else _addition_of(block, undo)
                _set_forward(block, partial(_run, FORMS[forward_name(block)], block, add), undo)
        yield


def _run(form: Forward, block: nn.Module, add: Add, x: Tensor) -> Tensor:
    """The form's forward as one of the input alone."""
    return form(block, x, add)


def _merge(linear: Any, norm: Any, undo: ExitStack) -> None:
    """Give the linear layer the norm's scale and shift, and take them from the norm."""
    weight, bias = merged(linear, norm)
    for name, new in (("weight", weight), ("bias", bias)):
        undo.callback(setattr, linear, name, getattr(linear, name))
        setattr(linear, name, new)
    _set_forward(norm, partial(NORMS[forward_name(norm)], norm), undo)


def _addition_of(block: nn.Module, undo: ExitStack) -> Any:
    """An addition that is a layer of the block, where a rule can be attached."""
    from zennit.layer import Sum  # only here: most processes never explain by LRP

    total = Sum(dim=-1)
    undo.callback(block.__delattr__, "canonical_sum")
    block.add_module("canonical_sum", total)

    def add(shortcut: Tensor, branch: Tensor) -> Tensor:
        stacked: Tensor = total(torch.stack([shortcut, branch], dim=-1))
        return stacked

    return add


def _set_forward(module: nn.Module, forward: Any, undo: ExitStack) -> None:
    undo.callback(module.__delattr__, "forward")
    module.forward = forward
