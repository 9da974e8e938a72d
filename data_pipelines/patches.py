"""Patches: the cells of a square grid on an image, one of which is deleted at a time.

Cells are numbered row by row. Their sides are whole pixels, rounded down: where the grid does not
divide the image, the last rows and columns belong to no cell and are never deleted.

Source: IDSDS (Hesse et al., 2024), section 3 and the authors' code.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Patches = Literal[4, 16, 64]
"""Cells of a grid: 2 x 2, 4 x 4 (the paper's default) or 8 x 8."""


def grid_side(patches: int) -> int:
    """Cells along one side of the grid.

    Raises:
        ValueError: not a positive square number.
    """
    side = math.isqrt(max(patches, 0))
    if side == 0 or side * side != patches:
        raise ValueError(f"patches = {patches}: expected a square number such as 4, 16 or 64")
    return side


def cell_sides(patches: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a cell in pixels, rounded down.

    Raises:
        ValueError: the image has fewer pixels along a side than the grid has cells.
    """
    side = grid_side(patches)
    if min(height, width) < side:
        raise ValueError(
            f"an image of {height} x {width} px has no grid of {side} x {side} cells: "
            "take larger images or fewer patches"
        )
    return height // side, width // side


def cell_of_pixel(patches: int, height: int, width: int) -> NDArray[np.int64]:
    """Number of the cell that each pixel lies in, (height, width), -1 outside all cells."""
    cell_height, cell_width = cell_sides(patches, height, width)
    side = grid_side(patches)
    row, column = np.arange(height) // cell_height, np.arange(width) // cell_width
    inside = (row < side)[:, None] & (column < side)
    return np.where(inside, row[:, None] * side + column, -1)


def deleted_pixels(
    cells: ArrayLike, kept_whole: ArrayLike, patches: int, height: int, width: int
) -> NDArray[np.bool_]:
    """Which pixels of each image a fine-tuning replaces, (B, height, width).

    Args:
        cells: the cell drawn for each image, (B,), in [0, patches).
        kept_whole: whether the image stays as it is all the same, (B,).
        patches: cells of the grid.
        height: of the images in pixels.
        width: of the images in pixels.
    """
    drawn = np.asarray(cells, dtype=np.int64)[:, None, None]
    changed = ~np.asarray(kept_whole, dtype=bool)[:, None, None]
    return (cell_of_pixel(patches, height, width) == drawn) & changed
