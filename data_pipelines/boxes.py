"""Boxes: rectangles in pixels, scaled, dilated and drawn as masks the way the reference does.

Corners are xmin, ymin, xmax, ymax. A mask takes rows ymin:ymax and columns xmin:xmax, so the last
row and column of an image are never inside, and a box that shrinks below a pixel is empty.

Source: Rao et al., 2023 (Model Guidance), the authors' code: data preparation and box utilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_pipelines.dataset import Box


def scale_boxes(corners: ArrayLike, width: int, height: int, size_px: int) -> NDArray[np.int32]:
    """Corners in the published image -> corners in the image resized to a square.

    Args:
        corners: (M, 4) int or float, pixels of the published image; VOC's 1-based ones as they are.
        width: of the published image in pixels.
        height: of the published image in pixels.
        size_px: side of the resized image.

    Returns:
        (M, 4) in [0, size_px - 1], truncated toward zero.
    """
    published = np.asarray(corners, dtype=np.float64).reshape(-1, 4)
    # Multiplied before divided, as in the reference: the other order can fall below a whole pixel.
    scaled = published * size_px / np.array([width, height, width, height])
    return np.clip(scaled, 0, size_px - 1).astype(np.int32)


def dilate_boxes(corners: ArrayLike, fraction: float, size_px: int) -> NDArray[np.int32]:
    """Boxes with int(fraction * side) pixels added on each side, clipped to [0, size_px - 1].

    Source: Rao et al., 2023, section 5.5 and the authors' code.
    Departs: from the paper's words, "dilated by p percent": a side grows by 2p, as in the code.

    Args:
        corners: (M, 4) int in pixels.
        fraction: share of width and height that is added on each side, at least 0.
        size_px: side of the image.

    Returns:
        (M, 4).

    Raises:
        ValueError: a negative fraction.
    """
    if fraction < 0:
        raise ValueError(f"dilation {fraction}: expected a fraction of at least 0")
    boxes = np.asarray(corners, dtype=np.int32).reshape(-1, 4)
    if fraction == 0:
        return boxes
    margin = (fraction * (boxes[:, 2:] - boxes[:, :2])).astype(np.int32)
    dilated = np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)
    return np.clip(dilated, 0, size_px - 1)


def box_mask(corners: ArrayLike, size_px: int) -> NDArray[np.bool_]:
    """Union of boxes, (size_px, size_px); overhanging parts are cut off, inverted boxes are empty.

    Args:
        corners: (M, 4) int in pixels; M may be 0.
        size_px: side of the image.
    """
    mask = np.zeros((size_px, size_px), dtype=bool)
    # A negative corner would count from the far end in a slice.
    for xmin, ymin, xmax, ymax in np.maximum(np.asarray(corners, dtype=int).reshape(-1, 4), 0):
        mask[ymin:ymax, xmin:xmax] = True
    return mask


def boxes_of_class(boxes: NDArray[np.integer], class_index: int) -> NDArray[np.integer]:
    """Corners (m, 4) of those rows of (M, 5) [class, corners] that bear the class, in order."""
    return boxes[boxes[:, 0] == class_index, 1:]


def clip_boxes(
    boxes: Sequence[Box], width: int, height: int
) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    """Boxes cut to the image, those with nothing inside dropped, and a note on each touched one.

    Args:
        boxes: as published.
        width: of the image in pixels.
        height: of the image in pixels.

    Returns:
        The kept boxes, and notes that count boxes from 1 in published order.
    """
    kept, notes = [], []
    for position, (class_index, *corners, flags) in enumerate(boxes, start=1):
        xmin, xmax = (min(max(v, 0), width) for v in corners[::2])
        ymin, ymax = (min(max(v, 0), height) for v in corners[1::2])
        if xmin >= xmax or ymin >= ymax:
            notes.append(f"box {position} dropped: {corners} is empty or outside {width}x{height}")
            continue
        if [xmin, ymin, xmax, ymax] != corners:
            notes.append(f"box {position} clipped: {corners} overhangs {width}x{height}")
        kept.append((class_index, xmin, ymin, xmax, ymax, flags))
    return tuple(kept), tuple(notes)


def annotated_subset(n: int, fraction: float, seed: int) -> NDArray[np.int64]:
    """Indices of the images that keep their boxes when annotations are limited, ascending.

    For one seed a smaller fraction is nested in a larger one.

    Source: Rao et al., 2023, section 5.4 and the authors' code.

    Args:
        n: images in the split.
        fraction: share in [0, 1] that keeps its boxes.
        seed: of the drawing.

    Returns:
        (int(fraction * n),)

    Raises:
        ValueError: the fraction lies outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"annotated fraction {fraction}: expected a value between 0 and 1")
    # The legacy generator is the reference's; another one would draw other images.
    return np.sort(np.random.RandomState(seed).permutation(n)[: int(fraction * n)])
