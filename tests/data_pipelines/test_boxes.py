"""Boxes against the reference's arrays and hand values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.boxes import (
    annotated_subset,
    box_mask,
    boxes_of_class,
    clip_boxes,
    dilate_boxes,
    scale_boxes,
)

REFERENCE_SIZE_PX = 224


def test_voc_boxes_scale_as_in_the_reference(golden):
    arrays = golden("preprocess_boxes")
    published, expected = arrays["voc_in_img_name_x0y0x1y1"], arrays["voc_out_img_cls_x0y0x1y1"]
    for image, (width, height) in enumerate(arrays["voc_sizes_wh"]):
        corners = published[published[:, 0] == image, 2:]
        scaled = scale_boxes(corners, width, height, REFERENCE_SIZE_PX)
        np.testing.assert_array_equal(scaled, expected[expected[:, 0] == image, 2:])


def test_a_mask_of_boxes_is_that_of_how_to_probe():
    path = Path(__file__).parents[1] / "golden" / "probing" / "metrics.npz"
    with np.load(path, allow_pickle=False) as arrays:
        corners = scale_boxes(arrays["boxes_xyxy"], *arrays["box_base_wh"], 48)
        np.testing.assert_array_equal(box_mask(corners, 48), arrays["box_mask"] > 0)


def test_coco_boxes_with_fractions_of_pixels_scale_as_in_the_reference(golden):
    arrays = golden("preprocess_boxes")
    published, expected = arrays["coco_in_img_cat_x_y_w_h"], arrays["coco_out_img_cls_x0y0x1y1"]
    for image, (width, height) in enumerate(arrays["voc_sizes_wh"]):
        x, y, w, h = published[published[:, 0] == image, 2:].T
        scaled = scale_boxes(np.stack([x, y, x + w, y + h], 1), width, height, REFERENCE_SIZE_PX)
        np.testing.assert_array_equal(scaled, expected[expected[:, 0] == image, 2:])


def test_a_corner_on_a_whole_pixel_does_not_fall_below_it_by_rounding():
    # 45 * (224 / 80) is 125.99999999999999 in floating point.
    assert scale_boxes([[45, 45, 80, 80]], 80, 80, 224).tolist() == [[126, 126, 223, 223]]


@pytest.mark.parametrize(("fraction", "key"), [(0.1, "10"), (0.25, "25"), (0.5, "50")])
def test_boxes_dilate_as_in_the_reference(golden, fraction, key):
    arrays = golden("boxes")
    dilated = dilate_boxes(arrays["boxes"], fraction, REFERENCE_SIZE_PX)
    np.testing.assert_array_equal(dilated, arrays[f"dilated_{key}"])


def test_boxes_of_a_class_are_those_of_the_reference(golden):
    arrays = golden("boxes")
    for class_index in range(5):
        chosen = boxes_of_class(arrays["labelled_boxes"], class_index)
        np.testing.assert_array_equal(chosen, arrays[f"filter_class_{class_index}"])


@pytest.mark.parametrize("n", [100, 2501])
@pytest.mark.parametrize(("fraction", "key"), [(0.01, "0p01"), (0.1, "0p1")])
@pytest.mark.parametrize("seed", [0, 1])
def test_annotated_subset_is_that_of_the_reference(golden, n, fraction, key, seed):
    expected = golden("sampling")[f"N{n}_f{key}_seed{seed}"]
    np.testing.assert_array_equal(annotated_subset(n, fraction, seed), expected)


def test_a_smaller_annotated_subset_is_nested_in_a_larger_one():
    assert set(annotated_subset(1000, 0.01, 3)) < set(annotated_subset(1000, 0.1, 3))
    assert len(annotated_subset(1000, 1.0, 3)) == 1000
    assert len(annotated_subset(1000, 0.0, 3)) == 0


def test_a_mask_is_half_open_so_that_the_last_row_and_column_are_never_inside():
    mask = box_mask(scale_boxes([[1, 1, 500, 375]], 500, 375, 64), 64)
    assert mask[:63, :63].all()
    assert not mask[63].any()
    assert not mask[:, 63].any()


def test_a_mask_takes_rows_from_y_and_columns_from_x():
    mask = box_mask([[1, 2, 4, 3]], 5)
    assert np.argwhere(mask).tolist() == [[2, 1], [2, 2], [2, 3]]


def test_a_mask_of_several_boxes_is_their_union():
    separate = box_mask([[0, 0, 2, 2]], 6) | box_mask([[1, 1, 4, 5]], 6)
    np.testing.assert_array_equal(box_mask([[0, 0, 2, 2], [1, 1, 4, 5], [0, 0, 2, 2]], 6), separate)


@pytest.mark.parametrize("corners", [[], [[3, 3, 3, 5]], [[5, 5, 2, 2]], [[-4, -4, -1, -1]]])
def test_a_mask_without_area_is_empty(corners):
    assert not box_mask(corners, 8).any()


def test_a_mask_cuts_off_what_overhangs():
    mask = box_mask([[-3, 4, 2, 99]], 8)
    assert mask.sum() == 2 * 4
    assert mask[4:, :2].all()


def test_no_dilation_changes_nothing_and_a_negative_one_is_refused():
    np.testing.assert_array_equal(dilate_boxes([[1, 2, 30, 40]], 0.0, 64), [[1, 2, 30, 40]])
    with pytest.raises(ValueError, match=r"dilation -0\.1: expected a fraction of at least 0"):
        dilate_boxes([[1, 2, 30, 40]], -0.1, 64)


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_an_annotated_fraction_outside_zero_and_one_is_refused(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        annotated_subset(10, fraction, 0)


def test_clipping_names_each_box_that_was_cut_or_dropped():
    boxes = [(0, 1, 1, 50, 40, 0), (1, -5, 2, 60, 30, 1), (2, 70, 1, 80, 9, 0), (3, 9, 9, 9, 20, 0)]
    kept, notes = clip_boxes(boxes, 50, 40)
    assert kept == ((0, 1, 1, 50, 40, 0), (1, 0, 2, 50, 30, 1))
    assert [note.split(":")[0] for note in notes] == [
        "box 2 clipped",
        "box 3 dropped",
        "box 4 dropped",
    ]
