"""What metrics share that perturb images by maps: the map in a request, what is filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from trainables.baselines import Baseline

if TYPE_CHECKING:
    from trainables.passes import Passes

Fill = Baseline | Literal["black"]
"""What stands where pixels are taken away: a baseline of the encoded space, or black pixels as the
network encodes them."""
Output = Literal["probability", "hit"]
"""Probability of a class as the model means it, or 1 where it ranks first and 0 elsewhere."""


@dataclass(frozen=True, eq=False)
class Held:
    """A tensor as a part of a request: equal where memory, shape and state are the same.

    Detaching makes no difference, a change in place does. Values are never compared: metrics that
    were given the same maps share what they ask the model.
    """

    tensor: Tensor
    _identity: tuple[Any, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Note which tensor it is, and in which state; holding it keeps the address its own."""
        t = self.tensor
        identity = (t.data_ptr(), t.shape, t.stride(), t.dtype, t._version)
        object.__setattr__(self, "_identity", identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


@dataclass(frozen=True)
class EachAlone:
    """A request: the batch with an image of its own for every explanation, (N, C, H, W).

    Maps differ between the explanations of one image, so what is perturbed by them does too. Slabs
    of these passes run over explanations; asking them for nothing costs no forward.
    """

    def compute(self, passes: Passes) -> Passes:
        """Passes whose explanation n is about their image n."""
        index = passes.batch.image_index
        each = torch.arange(len(index), device=index.device)
        return passes.on(passes.batch.images[index], image_index=each, of=each)


def fill_images(passes: Passes, fill: Fill) -> Tensor:
    """What stands where the pixels of each image are taken away, encoded, (B, C, H, W).

    Black is encoded, not zero: it is (0 - mean) / deviation of a channel, and (0, 0, 0, 1, 1, 1)
    for a B-cos network.
    """
    images = passes.batch.images
    if isinstance(fill, Baseline):
        return fill.images(passes.batch)
    pixels = torch.zeros(1, 3, *images.shape[2:], dtype=torch.uint8, device=images.device)
    return passes.model.encode(pixels).to(images).expand_as(images)


def said_of(
    passes: Passes, logits: Tensor, classes: Tensor, output: Output = "probability"
) -> Tensor:
    """What logits (N, ..., K) say of a class a row, classes (N,): within [0, 1], (N, ...).

    The model of the passes knows what they mean.
    """
    index = classes.view(-1, *[1] * (logits.ndim - 1)).expand(*logits.shape[:-1], 1)
    if output == "hit":
        own, first = passes.model.own_logits(logits, classes)
        index = index - first.view(-1, *[1] * (logits.ndim - 1))
        return (own.argmax(-1, keepdim=True) == index).squeeze(-1).to(logits.dtype)
    return passes.model.probabilities(logits).gather(-1, index).squeeze(-1)
