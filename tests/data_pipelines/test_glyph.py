"""Glyphs and where they are put."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.glyph import (
    LUMINANCE,
    VISIBLE,
    covered_patches,
    enlarged,
    free_place,
    paint,
    shuffled_quarters,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def bitmap(rng):
    """A random bitmap in [0, 1] with an empty border."""
    bitmap = np.zeros((8, 8), dtype=np.float32)
    bitmap[1:7, 2:6] = rng.random((6, 4))
    return bitmap


def test_a_glyph_is_cut_to_visible_pixels_on_all_sides(bitmap):
    glyph = enlarged(bitmap, 24)
    assert glyph.shape[0] <= 24
    assert all(edge.any() for edge in (glyph[0], glyph[-1], glyph[:, 0], glyph[:, -1]))
    assert glyph[glyph > 0].min() >= VISIBLE
    assert glyph.max() <= 1


def test_shuffled_quarters_keep_the_ink_and_lose_the_shape(bitmap, rng):
    shuffled = shuffled_quarters(bitmap, rng)
    np.testing.assert_array_equal(np.sort(shuffled, axis=None), np.sort(bitmap, axis=None))
    for top in (0, 4):
        for left in (0, 4):
            quarter = slice(top, top + 4), slice(left, left + 4)
            assert not np.array_equal(shuffled[quarter], bitmap[quarter].T)


def test_the_only_free_place_is_found(rng):
    taken = np.ones((20, 30), dtype=bool)
    taken[3:8, 11:18] = False
    assert free_place((5, 7), taken, rng) == (slice(3, 8), slice(11, 18))
    assert free_place((5, 8), taken, rng) is None
    taken[7, 17] = True
    assert free_place((5, 7), taken, rng) is None


def test_free_places_reach_every_corner_of_an_empty_image(rng):
    taken = np.zeros((4, 4), dtype=bool)
    found = {(p[0].start, p[1].start) for p in (free_place((3, 3), taken, rng) for _ in range(99))}
    assert found == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_patches_count_where_the_glyph_is_visible():
    glyph = np.zeros((32, 32), dtype=np.float32)
    glyph[0, 0] = glyph[31, 31] = 1
    assert covered_patches(glyph, (slice(0, 32), slice(0, 32)), 64) == 2
    assert covered_patches(np.ones((64, 64)), (slice(0, 64), slice(0, 64)), 64) == 16


def test_a_glyph_is_painted_only_where_it_is_visible_and_stands_out(rng):
    canvas = np.full((16, 16, 3), 0.5, dtype=np.float32)
    glyph = np.zeros((8, 8), dtype=np.float32)
    glyph[2:6, 2:6] = 1
    place = slice(4, 12), slice(0, 8)
    paint(canvas, glyph, place, 0.3, rng)
    changed = (canvas != 0.5).any(axis=-1)
    assert np.argwhere(changed).min(axis=0).tolist() == [6, 2]
    assert changed.sum() == 16
    assert abs((canvas[6, 2] - 0.5) @ LUMINANCE) >= 0.3
