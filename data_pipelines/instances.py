"""Instances: the JSON file that COCO publishes for one set of images."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.regions import check_region

LEAST = 6
"""Numbers of a polygon: three points."""


@dataclass(frozen=True)
class Instance:
    """One object of an image."""

    category: int
    """Id of its category."""
    corners: tuple[float, float, float, float]
    """xmin, ymin, xmax, ymax in pixels, 0-based: the published x, y, x + width, y + height."""
    crowd: bool
    region: Any
    """Polygons or a run-length encoding as published; None where there is none."""
    note: str = ""
    """What was left out of the region."""


@dataclass(frozen=True)
class InstanceImage:
    """One image and its objects, in published order."""

    file_name: str
    width: int
    height: int
    objects: tuple[Instance, ...]


@dataclass(frozen=True)
class Instances:
    """One file."""

    path: Path
    categories: dict[int, str]
    """Name by id, ascending."""
    images: tuple[InstanceImage, ...]


def read_instances(path: Path) -> Instances:
    """Parse one file and put each object to its image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is broken, lacks a field, or names an image or a category that it does not
            list; one line that names file, entry and field.
    """
    try:
        return instances_of(path, json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise FileNotFoundError(f"annotations missing: {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"broken JSON ({error}): {path}; unpack the published file again"
        ) from None
    except ValueError as error:
        raise ValueError(f"{error}: {path}") from None


def instances_of(path: Path, content: Any) -> Instances:
    """What a parsed file says."""
    categories = {}
    for where, entry in entries(content, "categories"):
        categories[whole(entry, "id", where)] = text(entry, "name", where)
    listed: dict[int, tuple[str, int, int]] = {}
    for where, entry in entries(content, "images"):
        image = whole(entry, "id", where)
        if image in listed:
            raise ValueError(f"{where}.id = {image}: listed twice")
        sides = whole(entry, "width", where), whole(entry, "height", where)
        if min(sides) < 1:
            raise ValueError(f"{where}: image size {sides[0]} x {sides[1]}")
        listed[image] = (file_name(entry, where), *sides)
    objects: dict[int, list[Instance]] = defaultdict(list)
    for where, entry in entries(content, "annotations"):
        image, category = whole(entry, "image_id", where), whole(entry, "category_id", where)
        if image not in listed:
            raise ValueError(f"{where}.image_id = {image}: no such image in 'images'")
        if category not in categories:
            raise ValueError(f"{where}.category_id = {category}: no such id in 'categories'")
        crowd = entry.get("iscrowd", 0) == 1
        region, note = region_of(entry, where, listed[image][1:])
        objects[image].append(Instance(category, corners(entry, where), crowd, region, note))
    return Instances(
        path,
        dict(sorted(categories.items())),
        tuple(InstanceImage(*image, tuple(objects[number])) for number, image in listed.items()),
    )


def entries(content: Any, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Entries of a list of the file, each with what an error calls it."""
    listed = content.get(name) if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise ValueError(f"lacks the list {name!r}")
    named = [(f"{name}[{position}]", entry) for position, entry in enumerate(listed)]
    for where, entry in named:
        if not isinstance(entry, dict):
            raise ValueError(f"{where} is {entry!r}, not an object")
    return named


def whole(entry: dict[str, Any], field: str, where: str) -> int:
    """An integer field."""
    value = published(entry, field, where)
    if not isinstance(value, int):
        raise ValueError(f"{where}.{field} = {value!r}: expected an integer")
    return value


def text(entry: dict[str, Any], field: str, where: str) -> str:
    """A field of at least one character."""
    value = published(entry, field, where)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}.{field} = {value!r}: expected a name")
    return value


def file_name(entry: dict[str, Any], where: str) -> str:
    """The name of an image file; never one that leads out of its folder."""
    name = text(entry, "file_name", where)
    if Path(name).name != name:
        raise ValueError(f"{where}.file_name = {name!r}: expected a name without folders")
    return name


def corners(entry: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    """The box, from x, y, width and height."""
    box = published(entry, "bbox", where)
    if not (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, int | float) and math.isfinite(v) for v in box)
    ):
        raise ValueError(f"{where}.bbox = {box!r}: expected x, y, width, height")
    x, y, width, height = map(float, box)
    return x, y, x + width, y + height


def region_of(entry: dict[str, Any], where: str, sides: tuple[int, int]) -> tuple[Any, str]:
    """Polygons or run lengths, None where the object has no region; and a note.

    A polygon of fewer than three points, which has no inside, is left out and noted.
    """
    region, note = entry.get("segmentation"), ""
    if isinstance(region, list):
        areas = [one for one in region if not (isinstance(one, list) and len(one) < LEAST)]
        if len(areas) < len(region):
            note = f"{where}.segmentation: {len(region) - len(areas)} polygons without an inside"
        region = areas
    if not region:
        return None, note
    try:
        check_region(region, *sides)
    except ValueError as error:
        raise ValueError(f"{where}.segmentation: {error}") from None
    return region, note


def published(entry: dict[str, Any], field: str, where: str) -> Any:
    """A field that must be there."""
    if field not in entry:
        raise ValueError(f"{where} lacks {field!r}")
    return entry[field]
