"""Regions against pycocotools and values by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data_pipelines.coco_layout import polygons, run_length_encoding
from data_pipelines.regions import check_region, draw, region_mask, run_lengths

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]
"""9 pixels of an image of 6 x 5."""


def random_masks():
    rng = np.random.default_rng(0)
    shares = (0.0, 0.02, 0.3, 0.5, 0.9, 1.0)
    return [rng.random((37, 53)) < share for share in shares for _ in range(3)]


@pytest.mark.parametrize("form", ["polygons", "compressed", "plain"])
def test_every_published_form_is_drawn_exactly(form):
    for mask in random_masks():
        region = polygons(mask)
        if form != "polygons":
            region = run_length_encoding(mask, compressed=form == "compressed")
        if region:
            check_region(region, 53, 37)
            np.testing.assert_array_equal(region_mask(region, 53, 37), mask)


def test_compressed_runs_are_those_of_the_mask():
    for mask in random_masks():
        plain = run_length_encoding(mask, compressed=False)["counts"]
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert run_lengths(encoded) == plain


@pytest.mark.parametrize(
    ("region", "why"),
    [
        ([[1, 1, 4, 4]], "at least three pairs"),  # pycocotools takes it for a box
        ([[1, 1, 4, 1, 4, 4, 1]], "at least three pairs"),
        ([1, 1, 4, 1, 4, 4], "at least three pairs"),
        ([[1, 1, 4, 1, 4, "4"]], "no number"),
        ({"counts": [10, 5], "size": [5, 6]}, r"15 pixels and size \[5, 6\]: the image has 30"),
        ({"counts": [10, 20], "size": [6, 5]}, r"30 pixels and size \[6, 5\]"),
        ({"counts": [40, -10], "size": [5, 6]}, "at least 0"),
        ({"counts": "00", "size": [5, 6]}, "0 pixels and size"),  # would show what lies in memory
        ({"counts": "PPP", "size": [5, 6]}, "0 pixels and size"),
        ({"size": [5, 6]}, "polygons, or counts and size"),
        ("polygon", "polygons, or counts and size"),
    ],
)
def test_what_is_no_region_of_the_image_is_refused(region, why):
    with pytest.raises(ValueError, match=why):
        check_region(region, 6, 5)


def test_smaller_objects_lie_on_larger_ones_and_all_on_crowds():
    everything = {"counts": [0, 30], "size": [5, 6]}
    pixel = [[2, 2, 3, 2, 3, 3, 2, 3]]
    drawn = draw(json.dumps([[7, 0, pixel], [3, 0, SQUARE], [255, 1, everything]]), 6, 5)
    assert drawn[2, 2] == 7
    assert (drawn == 3).sum() == 8
    assert (drawn == 255).sum() == 21
    # a crowd is beneath even where it is the smaller
    drawn = draw(json.dumps([[7, 1, pixel], [3, 0, SQUARE]]), 6, 5)
    assert set(np.unique(drawn)) == {0, 3}
