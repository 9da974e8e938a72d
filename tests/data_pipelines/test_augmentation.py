"""Windows that images, boxes and masks go through together."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.augmentation import Windows, central_windows, random_windows, view
from data_pipelines.boxes import box_mask
from data_pipelines.image_set import ImageSet

IMAGE_PX, CROP_PX = 32, 24


@pytest.fixture
def painted() -> ImageSet:
    """60 images, white exactly where their one box is."""
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, IMAGE_PX, (60, 2, 2)), axis=1).reshape(60, 4)
    corners = corners.astype(np.int32)
    masks = np.stack([box_mask(row[None], IMAGE_PX) for row in corners])
    return ImageSet(
        classes=("bird",),
        size_px=IMAGE_PX,
        image_ids=np.array([f"{k:02d}" for k in range(60)]),
        labels=np.ones((60, 1), dtype=np.uint8),
        boxes=np.concatenate([np.zeros((60, 1), np.int32), corners], axis=1),
        box_offsets=np.arange(61),
        blocks=[np.repeat(masks[..., None] * np.uint8(255), 3, axis=3)],
        rows=np.arange(60),
    )


def drawn(seed: int = 0) -> Windows:
    return random_windows(np.random.default_rng(seed).random((60, 3)), IMAGE_PX, CROP_PX)


@pytest.mark.parametrize("outside", [False, True])
def test_pixels_and_masks_move_together_exactly(painted, outside):
    windows = drawn()
    assert 0 < windows.mirrored.sum() < 60
    seen = view(painted, windows, outside=outside)
    everything = np.arange(60)
    white = seen.images(everything)[:, 0] == 255
    masks = seen.masks(everything, np.zeros(60, dtype=int))
    np.testing.assert_array_equal(masks, ~white if outside else white)
    assert seen.images(everything).shape == (60, 3, CROP_PX, CROP_PX)


def test_a_window_shows_what_plain_slices_show(painted):
    windows = drawn()
    pictures = np.random.default_rng(1).integers(0, 256, (60, 3, IMAGE_PX, IMAGE_PX), np.uint8)
    for k, seen in enumerate(windows.of(pictures, np.arange(60))):
        top, left = windows.top[k], windows.left[k]
        plain = pictures[k][:, top : top + CROP_PX, left : left + CROP_PX]
        np.testing.assert_array_equal(seen, plain[:, :, ::-1] if windows.mirrored[k] else plain)


def test_an_image_has_the_same_window_whatever_batch_it_is_in(painted):
    seen, order = view(painted, drawn()), np.random.default_rng(2).permutation(60)
    whole = seen.images(np.arange(60))
    for batch in np.array_split(order, 7):
        np.testing.assert_array_equal(seen.images(batch), whole[batch])


def test_windows_reach_every_place_and_stay_inside():
    draws = np.random.default_rng(0).random((4000, 3))
    windows = random_windows(draws, IMAGE_PX, CROP_PX)
    for start in (windows.top, windows.left):
        assert set(start) == set(range(IMAGE_PX - CROP_PX + 1))
    assert windows.mirrored.mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 4000))


def test_a_box_outside_the_window_is_empty_and_one_across_its_side_is_cut():
    windows = Windows(8, np.array([4]), np.array([2]), np.array([True]))
    boxes = np.array([[0, 0, 3, 3], [0, 0, 6, 8], [4, 5, 9, 11]], dtype=np.int32)
    moved = windows.boxes(boxes, [0, 0, 0])
    assert moved.tolist() == [[7, 0, 8, 0], [4, 0, 8, 4], [1, 1, 6, 7]]
    assert not box_mask(moved[:1], 8).any()


def test_evaluation_sees_the_middle_unmirrored(painted):
    seen = view(painted, central_windows(60, IMAGE_PX, CROP_PX))
    middle = painted.images(np.arange(60))[:, :, 4:-4, 4:-4]
    np.testing.assert_array_equal(seen.images(np.arange(60)), middle)
    assert seen.size_px == CROP_PX


def test_a_window_as_large_as_the_image_shows_it_all(painted):
    windows = random_windows(np.zeros((60, 3)) + 0.9, IMAGE_PX, IMAGE_PX)
    seen = view(painted, windows)
    np.testing.assert_array_equal(seen.images([3, 4]), painted.images([3, 4]))
    np.testing.assert_array_equal(seen.boxes, painted.boxes)
