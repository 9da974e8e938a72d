"""Resized crops: random parts of images, brought to one size, mirrored or not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

TRIES = 10
"""Rectangles that are tried before the image is taken whole."""
DRAWS = 2 * TRIES + 3
"""Uniform numbers of a crop: area and aspect of each try, then row, column, mirroring."""


@dataclass(frozen=True, eq=False)
class ResizedCrops:
    """A rectangle of each of N images, resized to a square, mirrored left to right or not."""

    size_px: int
    """Side of the results."""
    top: NDArray[np.int64]
    """(N,) first row."""
    left: NDArray[np.int64]
    """(N,) first column."""
    height: NDArray[np.int64]
    """(N,) rows, at least 1."""
    width: NDArray[np.int64]
    """(N,) columns, at least 1."""
    mirrored: NDArray[np.bool_]
    """(N,)"""

    def of(self, pictures: NDArray[np.uint8], indices: ArrayLike) -> NDArray[np.uint8]:
        """What the crops show of pictures: bilinear and antialiased, as Pillow resizes.

        Args:
            pictures: (B, 3, H, W).
            indices: (B,) crop of each picture, in [0, N).

        Returns:
            (B, 3, size_px, size_px), a copy.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        seen = np.empty((len(pictures), 3, self.size_px, self.size_px), dtype=np.uint8)
        for position, crop in enumerate(chosen.tolist()):
            rows = slice(self.top[crop], self.top[crop] + self.height[crop])
            columns = slice(self.left[crop], self.left[crop] + self.width[crop])
            part = np.ascontiguousarray(pictures[position, :, rows, columns].transpose(1, 2, 0))
            square = Image.fromarray(part).resize(
                (self.size_px, self.size_px), Image.Resampling.BILINEAR
            )
            turned = np.asarray(square)[:, ::-1] if self.mirrored[crop] else np.asarray(square)
            seen[position] = turned.transpose(2, 0, 1)
        return seen


def random_resized_crops(
    draws: NDArray[np.float64],
    image_px: int,
    size_px: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> ResizedCrops:
    """Rectangles of random area and aspect, every second one mirrored.

    The area is uniform, the aspect log-uniform; the first of the tries that lies within the image
    is taken, anywhere in it, or the largest central one that the ratio allows.

    Source: Szegedy et al., 2015, as torchvision's RandomResizedCrop and RandomHorizontalFlip draw.
    Departs: the images are squares already, so aspects are those of the squashed picture; the draws
        are given, so that a crop is a function of seed, epoch and image.

    Args:
        draws: (N, DRAWS) uniform in [0, 1).
        image_px: side of the images.
        size_px: side of the results.
        scale: least and largest share of the image's area.
        ratio: least and largest width over height.

    Raises:
        ValueError: scale or ratio is no range of positive numbers.
    """
    for name, (low, high) in (("scale", scale), ("ratio", ratio)):
        if not 0 < low <= high:
            raise ValueError(f"{name} = ({low}, {high}): must be positive and ascending")
    n = len(draws)
    tries = draws[:, : 2 * TRIES].reshape(n, TRIES, 2)
    area = image_px**2 * (scale[0] + tries[..., 0] * (scale[1] - scale[0]))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = np.exp(low + tries[..., 1] * (high - low))
    widths = np.round(np.sqrt(area * aspect)).astype(np.int64)
    heights = np.round(np.sqrt(area / aspect)).astype(np.int64)
    fits = (widths > 0) & (widths <= image_px) & (heights > 0) & (heights <= image_px)
    first, images = fits.argmax(1), np.arange(n)
    width, height = widths[images, first], heights[images, first]
    whole = ~fits.any(1)
    width[whole] = round(image_px * min(ratio[1], 1))
    height[whole] = round(image_px / max(ratio[0], 1))
    top = np.floor(draws[:, -3] * (image_px - height + 1)).astype(np.int64)
    left = np.floor(draws[:, -2] * (image_px - width + 1)).astype(np.int64)
    top[whole] = (image_px - height[whole]) // 2
    left[whole] = (image_px - width[whole]) // 2
    return ResizedCrops(size_px, top, left, height, width, draws[:, -1] < 0.5)
