"""The order of an epoch: each image once, windows of neighbours, and nothing but its numbers."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.order import Windows

WINDOWS = Windows(group_images=4, groups=3)


def order(rows: np.ndarray, *seed: int) -> np.ndarray:
    return WINDOWS.shuffled(rows, np.random.default_rng(seed))


@pytest.mark.parametrize("images", [1, 3, 4, 12, 13, 61])
def test_each_image_comes_once(images):
    assert sorted(order(np.arange(images), 0)) == list(range(images))


def test_each_image_comes_once_where_some_are_missing():
    rows = np.flatnonzero(np.random.default_rng(0).random(90) < 0.6)
    assert sorted(order(rows, 0)) == list(range(len(rows)))


def test_the_order_is_a_function_of_seed_and_epoch():
    rows = np.arange(61)
    np.testing.assert_array_equal(order(rows, 3, 1), order(rows, 3, 1))
    assert not np.array_equal(order(rows, 3, 1), order(rows, 3, 2))
    assert not np.array_equal(order(rows, 3, 1), order(rows, 4, 1))


def test_a_window_holds_whole_groups_from_anywhere():
    rows = np.arange(60)
    found = np.split(order(rows, 7), 5)
    groups = [set((window // WINDOWS.group_images).tolist()) for window in found]
    assert [len(one) for one in groups] == [WINDOWS.groups] * 5
    assert set.union(*groups) == set(range(15))
    assert any(max(one) - min(one) > WINDOWS.groups for one in groups)
    assert any(window.tolist() != sorted(window) for window in found)


def test_a_reader_finds_the_windows_again():
    rows = np.flatnonzero(np.arange(90) % 7)
    shuffled = rows[order(rows, 5)]
    windows = WINDOWS.of(shuffled)
    np.testing.assert_array_equal(np.concatenate(windows), shuffled)
    assert len(windows) == int(np.ceil(23 / WINDOWS.groups))  # of 23 groups


def test_rows_in_their_order_are_read_once():
    windows = WINDOWS.of(np.arange(50))
    assert [len(window) for window in windows] == [12, 12, 12, 12, 2]


def test_an_order_that_reads_the_shards_over_and_over_is_refused():
    shuffled = np.random.default_rng(0).permutation(600)
    with pytest.raises(ValueError, match=r"reads each part of the shards 4 times.*windows"):
        WINDOWS.of(shuffled)


def test_rows_must_ascend():
    with pytest.raises(ValueError, match="must ascend"):
        order(np.array([0, 2, 1]), 0)
