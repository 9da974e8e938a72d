"""The layout of COCO 2014, written for scenes: train2014, val2014 and their instances files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.layout import NumberedScene, write_image, write_lines
from data_pipelines.scene import Scene

SPLIT_FILE = "validation.txt"
"""Which images of train2014 are validation: COCO's own two sets have no third."""
FOLDERS = {"train": "train2014", "val": "train2014", "test": "val2014"}
CATEGORY_STEP = 3
"""Between the ids of two categories: COCO's have gaps, too."""
CROWD_EVERY = 4
"""Of the digits that are published as run lengths, one in so many is called a crowd."""


def write_coco(folder: Path, classes: Sequence[str], scenes: Iterable[NumberedScene]) -> None:
    """Write annotations/instances_{train2014,val2014}.json, the images and the split file.

    Regions come in all published forms by turns: polygons, compressed and plain run lengths.

    Args:
        folder: becomes the data root.
        classes: class names.
        scenes: split by split.
    """
    (folder / "annotations").mkdir(parents=True)
    # Not in the order of their ids, which a reader must not rely on.
    categories = [
        {"supercategory": "digit", "id": category_id(index), "name": name}
        for index, name in reversed(list(enumerate(classes)))
    ]
    images: dict[str, list[dict[str, Any]]] = {name: [] for name in FOLDERS.values()}
    annotations: dict[str, list[dict[str, Any]]] = {name: [] for name in FOLDERS.values()}
    validation = []
    for split, number, scene in scenes:
        home = FOLDERS[split]
        file_name = f"COCO_{home}_{number:012d}.jpg"
        (folder / home).mkdir(exist_ok=True)
        write_image(folder / home / file_name, scene)
        height, width = scene.instances.shape
        sides = {"width": width, "height": height}
        images[home].append({"id": number, "file_name": file_name, **sides})
        annotations[home] += annotations_of(scene, number)
        if split == "val":
            validation.append(file_name)
    for home in images:
        content = {
            "images": images[home], "annotations": annotations[home], "categories": categories
        }  # fmt: skip
        (folder / "annotations" / f"instances_{home}.json").write_text(json.dumps(content))
    write_lines(folder / SPLIT_FILE, validation)


def category_id(class_index: int) -> int:
    """The published id of a class."""
    return CATEGORY_STEP * class_index + 1


def annotations_of(scene: Scene, number: int) -> list[dict[str, Any]]:
    """The scene's digits as published objects; the forms of their regions go round."""
    objects = []
    digits = zip(scene.labels, scene.boxes, strict=True)
    for position, (label, (xmin, ymin, xmax, ymax)) in enumerate(digits):
        mask = scene.instances == position + 1
        form = (number + position) % 3
        region: Any = polygons(mask)
        if form:
            region = run_length_encoding(mask, compressed=form == 1)
        objects.append(
            {
                "id": 10 * number + position,
                "image_id": number,
                "category_id": category_id(label),
                "bbox": [float(v) for v in (xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1)],
                "area": int(mask.sum()),
                "iscrowd": int(form == 2 and number % CROWD_EVERY == 0),
                "segmentation": region,
            }
        )
    return objects


def polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """A rectangle for each vertical run of pixels: exact, also where the digit has a hole."""
    rectangles = []
    steps = np.diff(np.pad(mask, ((1, 1), (0, 0))).astype(np.int8), axis=0)
    for x in np.flatnonzero(mask.any(0)).tolist():
        starts, ends = np.flatnonzero(steps[:, x] > 0), np.flatnonzero(steps[:, x] < 0)
        for top, bottom in zip(starts.tolist(), ends.tolist(), strict=True):
            corners = (x, top, x + 1, top, x + 1, bottom, x, bottom)
            rectangles.append([float(value) for value in corners])
    return rectangles


def run_length_encoding(mask: NDArray[np.bool_], *, compressed: bool) -> dict[str, Any]:
    """COCO's run lengths, column by column, background first; crowds have them uncompressed."""
    size = list(mask.shape)
    if compressed:
        from pycocotools import mask as coco_mask

        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": size, "counts": encoded["counts"].decode()}
    flat = mask.flatten(order="F")
    ends = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    runs = np.diff(ends).tolist()
    return {"size": size, "counts": [0, *runs] if flat[0] else runs}
