"""What scenes are made of."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from data_pipelines.sources import grid, partitioned_sources


@pytest.fixture(scope="module")
def sources():
    return partitioned_sources(0)


def test_no_two_splits_share_a_digit(sources):
    for first, second in combinations(sources.values(), 2):
        for one, other in zip(first.bitmaps, second.bitmaps, strict=True):
            assert not {b.tobytes() for b in one} & {b.tobytes() for b in other}


def test_no_two_splits_share_a_region_of_a_photograph(sources):
    for first, second in combinations(sources.values(), 2):
        assert not {t.tobytes() for t in first.tiles} & {t.tobytes() for t in second.tiles}


def test_tiles_are_disjoint_regions():
    pixels = np.arange(43 * 62 * 3).reshape(43, 62, 3)
    tiles = grid(pixels)
    assert tiles.shape == (24, 10, 10, 3)
    assert len(np.unique(tiles)) == tiles.size


def test_every_split_draws_from_all_classes_and_both_photographs(sources):
    assert {split: len(s.tiles) for split, s in sources.items()} == {
        "train": 28,
        "val": 10,
        "test": 10,
    }
    for s in sources.values():
        assert min(len(pool) for pool in s.bitmaps) >= 30


def test_all_handwritten_digits_are_used(sources):
    unique = len(np.unique(load_digits().images, axis=0))
    assert sum(len(pool) for s in sources.values() for pool in s.bitmaps) == unique


def test_another_seed_divides_otherwise(sources):
    again, other = partitioned_sources(0), partitioned_sources(1)
    np.testing.assert_array_equal(again["val"].bitmaps[3], sources["val"].bitmaps[3])
    assert not np.array_equal(other["val"].tiles[0], sources["val"].tiles[0])
