"""A glyph: a digit's bitmap at the size it is drawn, as opacity (height, width) in [0, 1]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VISIBLE = 0.3
"""Least opacity of a pixel; the fainter rim is cut off, so that boxes and masks are exact."""
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
COLORS = 32
"""Random colors among which one that stands out is looked for."""

Place = tuple[slice, slice]
"""Rows and columns of a rectangle."""


def enlarged(bitmap: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The bitmap (8, 8) at that side, cut to its visible pixels; invisible ones are 0."""
    picture = Image.fromarray(bitmap).resize((side, side), Image.Resampling.BICUBIC)
    opacity = np.asarray(picture).clip(0, 1)
    opacity[opacity < VISIBLE] = 0
    rows, columns = np.nonzero(opacity)
    return opacity[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def shuffled_quarters(bitmap: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The bitmap with its quarters transposed and moved on: a digit's strokes, not its shape."""
    quarters = bitmap.reshape(2, 4, 2, 4).transpose(0, 2, 3, 1).reshape(4, 4, 4)
    moved = np.roll(quarters, rng.integers(1, 4), axis=0)
    return moved.reshape(2, 2, 4, 4).transpose(0, 2, 1, 3).reshape(8, 8)


def free_place(
    shape: tuple[int, ...], taken: NDArray[np.bool_], rng: np.random.Generator
) -> Place | None:
    """A random rectangle of that shape without a taken pixel; None where there is none."""
    height, width = shape
    # Taken pixels inside every rectangle at once, from sums over the corners.
    sums = np.zeros((taken.shape[0] + 1, taken.shape[1] + 1), dtype=np.int32)
    sums[1:, 1:] = taken.cumsum(axis=0).cumsum(axis=1)
    rows = sums[height:] - sums[:-height]
    free = np.argwhere(rows[:, width:] == rows[:, :-width])
    if not len(free):
        return None
    top, left = (int(v) for v in free[rng.integers(len(free))])
    return slice(top, top + height), slice(left, left + width)


def covered_patches(glyph: NDArray[np.float32], place: Place, size_px: int) -> int:
    """How many patches of a 4 x 4 grid hold visible pixels of the glyph at that place."""
    visible = np.zeros((size_px, size_px), dtype=bool)
    visible[place] = glyph > 0
    return int(visible.reshape(4, size_px // 4, 4, size_px // 4).any(axis=(1, 3)).sum())


def paint(
    canvas: NDArray[np.float32],
    glyph: NDArray[np.float32],
    place: Place,
    contrast: float,
    rng: np.random.Generator,
) -> None:
    """Blend the glyph into the canvas (H, W, 3) in a random color that stands out.

    Its luminance differs from the mean under the glyph by the contrast at least, or, should no
    drawn color do so, by as much as any.
    """
    colors = rng.random((COLORS, 3), dtype=np.float32)
    difference = np.abs((colors - canvas[place][glyph > 0].mean(axis=0)) @ LUMINANCE)
    enough = difference >= contrast
    color = colors[np.argmax(enough) if enough.any() else np.argmax(difference)]
    canvas[place] += glyph[..., None] * (color - canvas[place])
