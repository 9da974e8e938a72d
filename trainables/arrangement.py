"""Which row of a forward answers which explanation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BACKWARD_COST = {"input": 1.0, "mid1": 0.8, "mid2": 0.56, "mid3": 0.2, "final": 0.0}
"""Cost of a backward down to a depth over that of one forward (ResNet-50 at 224 px, counted FLOPs).
Decides only whether images are repeated, never a result; an unknown layer counts as the input."""


@dataclass(frozen=True, eq=False)
class Arrangement:
    """R rows of a forward for B images and N explanations.

    Attributes:
        image: image of each row, (R,), or None where the rows are the images.
        row: row of each explanation, (N,).
        turn: the round in which its gradient is taken, (N,): in one round each row has one target
            at most.
        first: a row of each image, (B,), or None where the rows are the images.
    """

    image: Tensor | None
    row: Tensor
    turn: Tensor
    first: Tensor | None

    @classmethod
    def in_rounds(cls, image_index: Tensor) -> Arrangement:
        """Every image once; round k takes the k-th target of every image."""
        order = torch.argsort(image_index, stable=True)
        ordered = image_index[order]
        turn = torch.empty_like(image_index)
        turn[order] = torch.arange(len(order), device=order.device) - torch.searchsorted(
            ordered, ordered
        )
        return cls(None, image_index, turn, None)

    @classmethod
    def repeated(cls, image_index: Tensor, images: int) -> Arrangement:
        """One row per explanation, then one for each image without any; a single round."""
        silent = (torch.bincount(image_index, minlength=images) == 0).nonzero().squeeze(1)
        image = torch.cat([image_index, silent])
        rows = torch.arange(len(image), device=image.device)
        first = torch.empty(images, dtype=torch.long, device=image.device)
        first[image.flip(0)] = rows.flip(0)
        return cls(image, rows[: len(image_index)], torch.zeros_like(image_index), first)

    @classmethod
    def cheapest(cls, image_index: Tensor, images: int, layers: list[str]) -> Arrangement:
        """The cheaper of both: rounds cost B (1 + K b), repeats N (1 + b).

        K is most targets of one image, b the cost of a backward over that of a forward.
        """
        in_rounds = cls.in_rounds(image_index)
        b = max((BACKWARD_COST.get(layer, 1.0) for layer in layers), default=0.0)
        repeated = cls.repeated(image_index, images)
        rows = images if repeated.image is None else len(repeated.image)
        return repeated if images * (1 + in_rounds.rounds * b) > rows * (1 + b) else in_rounds

    @property
    def rounds(self) -> int:
        """How many backwards the gradients of all explanations take."""
        return int(self.turn.max()) + 1 if len(self.turn) else 0

    def of_explanations(self, rows: Tensor) -> Tensor:
        """Each explanation's row of (R, ...), as (N, ...).

        The tensor itself where that is every row in order: the graph stays as it is.
        """
        every = torch.arange(len(rows), device=rows.device)
        return rows if torch.equal(self.row, every) else rows[self.row]

    def of_images(self, rows: Tensor) -> Tensor:
        """Each image's row of (R, ...), as (B, ...)."""
        return rows if self.first is None else rows[self.first]
