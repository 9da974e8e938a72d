"""Networks that see an image through small windows only, and their answer for every window."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional

Stage = tuple[Callable[[Tensor], Tensor], int]
"""A part of a network that pads nothing, and its stride: shifting its input (B, C, H, W) by the
stride shifts its output by one."""


class WindowNet(nn.Module, ABC):
    """Features of every window, their mean over the image, and a linear head.

    Because the head is linear, the logits are the mean of those that the windows have alone.

    Attributes:
        window_px: side of a window: what one position of the features sees.
        fc: the linear head.
    """

    window_px: int
    fc: nn.Linear

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """The network before the mean, first to last."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) with sides of at least ``window_px``."""
        for stage, _ in self.stages():
            x = stage(x)
        return self.fc(x.mean((2, 3)))

    def at_every_pixel(self, images: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
        """What the head makes of the window around each pixel, with zeros outside the image.

        Shift and stitch, stage by stage: a stage of stride t runs once on each of the t x t shifts
        of its input, so that every feature of every pixel is computed once. Only one path of shifts
        is held at a time.

        Args:
            images: encoded images, (B, C, H, W), of any size.
            head: maps features (B, D, h, w) to (..., h, w), each position by itself.

        Returns:
            The head's values, (..., H, W).
        """
        stages, (height, width) = self.stages(), images.shape[2:]
        stride, before = math.prod(stride for _, stride in stages), self.window_px // 2
        after = [
            -(-side // stride) * stride - side + self.window_px - 1 - before
            for side in (height, width)
        ]
        padded = functional.pad(images, (before, after[1], before, after[0]))
        stitched = padded
        for row, column, features in _shifted(stages, padded):
            values = head(features)
            if row == column == 0:
                stitched = values.new_empty(*values.shape[:-2], height, width)
            part = stitched[..., row::stride, column::stride]
            part.copy_(values[..., : part.shape[-2], : part.shape[-1]])
        return stitched

    def logits_at_every_pixel(self, images: Tensor) -> Tensor:
        """All logits of the window around each pixel, (B, K, H, W)."""
        return self.at_every_pixel(images, lambda f: self.fc(f.movedim(1, -1)).movedim(-1, 1))


def _shifted(
    stages: Sequence[Stage], x: Tensor, row: int = 0, column: int = 0, apart: int = 1
) -> Iterator[tuple[int, int, Tensor]]:
    """Row and column of the first window, and the features, for all shifts; ``apart`` in pixels."""
    if not stages:
        yield row, column, x
        return
    (stage, stride), *rest = stages
    for i in range(stride):
        for j in range(stride):
            yield from _shifted(
                rest, stage(x[..., i:, j:]), row + apart * i, column + apart * j, apart * stride
            )
