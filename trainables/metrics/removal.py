"""Removal: an image loses its pixels in the order of a map, and the model is asked on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from trainables.metrics.perturbation import EachAlone, Fill, Held, fill_images

if TYPE_CHECKING:
    from trainables.passes import Passes

Order = Literal["ascending", "descending"]
"""Least or most important first."""
Feature = Literal["pixel", "value"]
"""What is removed at once: a pixel with all its channels, or a single value of the encoded image,
which then has its pixel's importance."""


@dataclass(frozen=True, kw_only=True)
class Removals:
    """A request: what the model says of every explained image without its first features.

    Metrics that agree on maps, order, fill and feature share an answer, and each share of the
    features is run once, whoever asks for it.
    """

    maps: Held
    order: Order
    fill: Fill
    feature: Feature = "pixel"

    def compute(self, passes: Passes) -> Removed:
        """Nothing is run before shares are asked for."""
        return Removed(self, passes)


class Removed:
    """The answer to `Removals`: logits by the share of features that is removed.

    Always from the whole image, never from the step before. A share q takes the first floor(q D)
    of D features, exactly; ties in the order go by index.

    Args:
        request: maps, order, fill and kind of feature.
        passes: of the whole images.
    """

    def __init__(self, request: Removals, passes: Passes) -> None:
        self.request, self.passes = request, passes
        self.known: dict[int, Tensor] = {0: passes.logits[passes.batch.image_index]}

    def logits(self, shares: Sequence[Fraction]) -> Tensor:
        """Logits (N, S, K) after each share is removed; share 0 is the clean forward."""
        images, wanted = self.passes.batch.images, self.request.feature
        channels = images.shape[1] if wanted == "value" else 1
        counts = [int(share * channels * images.shape[2:].numel()) for share in shares]
        missing = sorted(set(counts) - self.known.keys())
        if missing:
            self._run(missing, channels)
        return torch.stack([self.known[count] for count in counts], 1)

    def _run(self, counts: list[int], channels: int) -> None:
        """One forward an explanation and count, in slabs of the byte budget."""
        alone = self.passes.get(EachAlone())
        images, maps = alone.batch.images, self.request.maps.tensor
        fill = fill_images(alone, self.request.fill)
        place = places(maps[:, None].expand(-1, channels, -1, -1), self.request.order)
        sizes = torch.tensor(counts, device=images.device)
        nobody = torch.empty(0, dtype=torch.long, device=images.device)
        answers = [torch.empty_like(self.known[0]) for _ in counts]
        answer = torch.stack(answers, 1)
        for slab in alone.slabs(len(counts)):
            gone = place[slab.image] < sizes[slab.sample].view(-1, 1, 1, 1)
            copies = torch.where(gone, fill[slab.image], images[slab.image])
            child = alone.on(copies, image_index=nobody, of=nobody)
            answer[slab.image, slab.sample] = child.logits
        self.known.update(zip(counts, answer.unbind(1), strict=True))


def places(maps: Tensor, order: Order) -> Tensor:
    """When each feature's turn comes, counted from 0; maps (N, ...) to int64 of the same shape.

    Equal features go by index, whatever the order: a sort that leaves this open makes the score of
    a map with many ties a matter of the machine.
    """
    turn = maps.flatten(1).argsort(dim=1, descending=order == "descending", stable=True)
    count = torch.arange(turn.shape[1], device=turn.device).expand_as(turn)
    return torch.empty_like(turn).scatter_(1, turn, count).view(maps.shape)
