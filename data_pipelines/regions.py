"""Regions: COCO's outlines of objects, polygons or run lengths, and the class map they make."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

BACKGROUND, VOID = 0, 255
"""Values of a class map, as VOC publishes them: class k is k + 1, void is undecided."""
MOST_CLASSES = VOID - 1
"""Classes that a class map has room for."""


def draw(regions: str, width: int, height: int) -> NDArray[np.uint8]:
    """The class map of regions, (height, width).

    Crowds come first, then objects from the largest to the smallest: COCO's regions overlap (a
    table's holds the cups on it) and have no order of depth, and what lies within a larger object
    is mostly before it. Of equal ones the later is on top.

    Args:
        regions: JSON of [value, crowd (0 or 1), region] for each object in published order; the
            regions have passed ``check_region``.
        width: of the image in pixels.
        height: of the image in pixels.
    """
    drawn = [
        (value, crowd, region_mask(region, width, height))
        for value, crowd, region in json.loads(regions)
    ]
    drawn.sort(key=lambda one: (not one[1], -int(one[2].sum())))
    pixels = np.full((height, width), BACKGROUND, dtype=np.uint8)
    for value, _, mask in drawn:
        pixels[mask] = value
    return pixels


def region_mask(region: Any, width: int, height: int) -> NDArray[np.bool_]:
    """One region's pixels, (height, width)."""
    # Imported here: only COCO's regions need it.
    from pycocotools import mask as coco_mask

    encoded = coco_mask.frPyObjects(as_runs(region), height, width)
    if isinstance(region, list):
        encoded = coco_mask.merge(encoded)
    mask: NDArray[np.bool_] = coco_mask.decode(encoded).astype(bool)
    return mask


def as_runs(region: Any) -> Any:
    """The region, its run lengths uncompressed; polygons as they are."""
    if isinstance(region, dict) and isinstance(region["counts"], str):
        return region | {"counts": run_lengths(region["counts"])}
    return region


def check_region(region: Any, width: int, height: int) -> None:
    """Refuse what is no region of an image of that size.

    pycocotools takes a polygon of four numbers for a box, and fills what run lengths leave out with
    whatever lies in memory.

    Raises:
        ValueError: says what is expected.
    """
    if isinstance(region, list):
        for polygon in region:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                raise ValueError("a polygon has at least three pairs of numbers")
            if not all(isinstance(value, int | float) for value in polygon):
                raise ValueError("a polygon holds what is no number")
    elif isinstance(region, dict) and isinstance(region.get("counts"), str | list):
        runs, size = as_runs(region)["counts"], region.get("size")
        if not all(isinstance(run, int) and run >= 0 for run in runs):
            raise ValueError("run lengths are whole numbers of at least 0")
        if size != [height, width] or sum(runs) != height * width:
            raise ValueError(
                f"run lengths of {sum(runs)} pixels and size {size}: the image has "
                f"{height * width} and [{height}, {width}]"
            )
    else:
        raise ValueError("expected a list of polygons, or counts and size")


def run_lengths(compressed: str) -> list[int]:
    """The runs of a compressed encoding, background first, column by column.

    Source: COCO's mask API: five bits a character from 48 on, a sixth says that more follow; from
        the third run on it holds the difference to the run before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in compressed:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
