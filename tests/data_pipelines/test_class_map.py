"""Class maps: resized as images are, packed, asked for as segments."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from data_pipelines.class_map import VOID, pack, segments, unpack


def png(pixels: np.ndarray, mode: str = "L") -> bytes:
    """Encoded."""
    written = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(written, "PNG")
    return written.getvalue()


MAP = np.repeat(np.repeat(np.array([[0, 3], [1, VOID]], dtype=np.uint8), 4, 0), 6, 1)


def test_a_map_is_resized_by_the_nearest_pixel_without_new_values():
    packed, error = pack(png(MAP), 12, 8, 3, 10)
    assert error == ""
    assert len(packed) < 100
    expected = np.repeat(np.repeat(np.array([[0, 3], [1, VOID]]), 5, 0), 5, 1)
    np.testing.assert_array_equal(unpack(packed, 10), expected)


def test_segments_are_1_on_the_class_0_elsewhere_and_minus_1_where_undecided():
    packed, _ = pack(png(MAP), 12, 8, 3, 2)
    found = segments([packed, b""], 2, [0, 0, 1, 0], [2, 0, 2, 1])
    assert found.dtype == np.int8
    assert found.tolist() == [
        [[0, 1], [0, -1]],
        [[0, 0], [1, -1]],
        [[-1, -1], [-1, -1]],
        [[0, 0], [0, -1]],
    ]
    assert segments([packed], 2, [], []).shape == (0, 2, 2)


def test_an_image_without_a_map_has_an_empty_one():
    assert pack(None, 12, 8, 3, 10) == (b"", "")


@pytest.mark.parametrize(
    ("published", "why"),
    [
        (b"gone", r"segmentation is not an image \(4 bytes\)"),
        (png(MAP)[:60], "segmentation is damaged"),
        (png(MAP[:-1]), r"segmentation is \(12, 7\), its image \(12, 8\)"),
        (png(MAP, "RGB"), "segmentation has mode RGB"),
        (png(MAP + 1), "segmentation holds 4, which is none of 3 classes"),
    ],
)
def test_what_is_no_map_of_the_image_says_so(published, why):
    packed, error = pack(published, 12, 8, 3, 10)
    assert packed == b""
    assert re.search(why, error)
