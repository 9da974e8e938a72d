"""Cells of a grid: the authors' deleted pixels, plain loops, what no grid fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.patches import cell_of_pixel, cell_sides, deleted_pixels, grid_side

GOLDEN = Path(__file__).parents[1] / "golden" / "idsds" / "train_aug.npz"


def test_the_authors_delete_the_same_pixels() -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        side = int(golden["grid"])
        cells = golden["rows"] * side + golden["cols"]
        mask = deleted_pixels(cells, golden["keep_clean"], side * side, 224, 224)
        assert np.array_equal(mask, golden["deleted_mask"])
        assert 0 < golden["keep_clean"].sum() < len(cells)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 11), (10, 8), (64, 64)])
@pytest.mark.parametrize("patches", [4, 16, 64])
def test_cells_are_numbered_row_by_row(patches: int, height: int, width: int) -> None:
    side = grid_side(patches)
    tall, wide = height // side, width // side
    expected = np.full((height, width), -1)
    for number in range(patches):
        row, column = divmod(number, side)
        for y in range(row * tall, (row + 1) * tall):
            for x in range(column * wide, (column + 1) * wide):
                expected[y, x] = number
    assert np.array_equal(cell_of_pixel(patches, height, width), expected)
    assert cell_sides(patches, height, width) == (tall, wide)


def test_one_cell_is_deleted_where_the_image_is_not_kept_whole() -> None:
    mask = deleted_pixels([0, 3, 2], [False, True, False], 4, 4, 4)
    assert mask[0].nonzero()[0].tolist() == [0, 0, 1, 1]
    assert not mask[1].any()
    assert mask[2].nonzero()[0].tolist() == [2, 2, 3, 3]
    assert mask[2].nonzero()[1].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("patches", [0, -4, 15])
def test_a_number_that_is_no_square_is_refused(patches: int) -> None:
    with pytest.raises(ValueError, match=rf"patches = {patches}: expected a square number"):
        grid_side(patches)


def test_an_image_with_fewer_pixels_than_cells_is_refused() -> None:
    with pytest.raises(ValueError, match=r"7 x 9 px has no grid of 8 x 8 cells"):
        cell_of_pixel(64, 7, 9)
