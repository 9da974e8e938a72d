"""Which blocks have a canonical forward: the same function, with its addition made a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Add = Callable[[Tensor, Tensor], Tensor]
Forward = Callable[[Any, Tensor, Add], Tensor]
"""Block, input, and the addition to call once: ``add(shortcut, branch)``."""
FORMS: dict[str, Forward] = {}
"""Canonical forwards by the `forward_name` that they replace."""


def canonical_of(*blocks: str | type[nn.Module]) -> Callable[[Forward], Forward]:
    """Register the decorated function as the canonical forward of these blocks.

    It must compute what the block computes in eval mode, call every layer as a module, and add
    with ``add``. Subclasses that keep the block's forward are covered; those that change it not.

    Args:
        blocks: classes, or their full names where importing them takes long.
    """

    def register(forward: Forward) -> Forward:
        for block in blocks:
            name = block if isinstance(block, str) else f"{block.__module__}.{block.__qualname__}"
            FORMS[name] = forward
        return forward

    return register


def forward_name(module: nn.Module) -> str:
    """Full name of the class whose forward runs for the module, its own or an inherited one."""
    owner = next(cls for cls in type(module).__mro__ if "forward" in vars(cls))
    return f"{owner.__module__}.{owner.__qualname__}"


def passed(x: Tensor, y: Tensor) -> Tensor:
    """The value of y, an elementwise function of x, through which relevance goes unchanged.

    For canonical forwards of blocks with bare scales and shifts.
    """
    return x + (y - x).detach()
