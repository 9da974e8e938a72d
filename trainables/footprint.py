"""How many bytes one more image in a forward costs, measured on a forward that runs anyway."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HELD = 4
"""Tensors of the largest kind that a forward without a graph holds at once: the residual, a
layer's input and output, and what the layer needs meanwhile."""

_known: WeakKeyDictionary[nn.Module, dict[Any, tuple[int, int]]] = WeakKeyDictionary()


class Footprint(TorchDispatchMode):
    """Sums the bytes of everything that the operations inside the ``with`` block make.

    That is what a forward with its graph holds at most.

    Attributes:
        bytes: the sum so far.
        largest: bytes of the largest tensor so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.largest = 0, 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation; count what it made, but not views of what it was given."""
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves(args) if isinstance(t, Tensor)}
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in given:
                self.bytes += made.nbytes
                self.largest = max(self.largest, made.nbytes)
        return out


def measured_forward(module: nn.Module, images: Tensor) -> Tensor:
    """The module's logits; afterwards `bytes_per_image` knows images of this kind."""
    with Footprint() as footprint:
        logits: Tensor = module(images)
    count = max(1, len(images))
    cost = max(1, footprint.bytes // count), max(1, HELD * footprint.largest // count)
    _known.setdefault(module, {})[_kind(images)] = cost
    return logits


def bytes_per_image(module: nn.Module, images: Tensor, *, graph: bool = True) -> int | None:
    """Bytes that a forward takes an image, with its graph or without; None if unmeasured."""
    cost = _known.get(module, {}).get(_kind(images))
    return cost and (cost[0] if graph else min(cost))


def _kind(images: Tensor) -> tuple[torch.Size, torch.dtype]:
    return images.shape[1:], images.dtype
