"""A class map: the class that each pixel of an image shows, as far as the annotation says."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError

from data_pipelines.regions import VOID, draw

PUBLISHED = ("segmentation", "regions", "width", "height")
"""Columns of the manifest that a class map is made of."""
ZLIB_LEVEL = 1


def is_wanted(split: str) -> bool:
    """Whether decoded images of a split come with class maps: none are judged in training."""
    return split != "train"


def published_png(folder: Path, row: Mapping[str, Any]) -> bytes | None:
    """An image's class map as PNG: the published file, or drawn where regions are published.

    Args:
        folder: of the dataset, which paths are relative to.
        row: of the manifest, the columns PUBLISHED.

    Returns:
        None where the image is not annotated.

    Raises:
        FileNotFoundError: the file is gone.
    """
    if row["segmentation"]:
        return (folder / str(row["segmentation"])).read_bytes()
    return drawn_png(row)


def drawn_png(row: Mapping[str, Any]) -> bytes | None:
    """The class map of published regions as PNG; None where there are none."""
    if not row["regions"]:
        return None
    written = io.BytesIO()
    drawn = Image.fromarray(draw(row["regions"], row["width"], row["height"]))
    drawn.save(written, "PNG", compress_level=ZLIB_LEVEL)
    return written.getvalue()


def pack(
    png: bytes | None, width: int, height: int, classes: int, size_px: int
) -> tuple[bytes, str]:
    """A class map resized as the image is, to a square by the nearest pixel, and compressed.

    Compressed, because a map of 224 x 224 px has 50,176 bytes and says as much in one thousand.

    Args:
        png: as published; None where the image is not annotated.
        width: of the image in pixels.
        height: of the image in pixels.
        classes: K; values beyond it are an error.
        size_px: side of the result.

    Returns:
        The packed map, empty where there is none, and what is wrong with it, empty where nothing.
    """
    if png is None:
        return b"", ""
    try:
        with Image.open(io.BytesIO(png)) as picture:
            if picture.size != (width, height):
                raise ValueError(f"is {picture.size}, its image {(width, height)}")
            if picture.mode not in ("P", "L"):
                raise ValueError(f"has mode {picture.mode}: expected one channel of class numbers")
            resized = np.asarray(picture.resize((size_px, size_px), Image.Resampling.NEAREST))
    except UnidentifiedImageError:
        return b"", f"segmentation is not an image ({len(png)} bytes)"
    except (OSError, SyntaxError) as error:  # Pillow's ways to say that bytes are bad
        return b"", f"segmentation is damaged: {error}"
    except ValueError as error:
        return b"", f"segmentation {error}"
    unknown = np.setdiff1d(resized, [*range(classes + 1), VOID])
    if len(unknown):
        return b"", f"segmentation holds {unknown[0]}, which is none of {classes} classes"
    return zlib.compress(resized.tobytes(), ZLIB_LEVEL), ""


def pack_batch(
    pngs: Sequence[bytes | None], sides: Sequence[tuple[int, int]], classes: int, size_px: int
) -> tuple[list[bytes], list[str]]:
    """``pack`` of several: the packed maps, and what is wrong with each."""
    packed = [
        pack(png, width, height, classes, size_px)
        for png, (width, height) in zip(pngs, sides, strict=True)
    ]
    return [one for one, _ in packed], [error for _, error in packed]


def unpack(packed: bytes, size_px: int) -> NDArray[np.uint8]:
    """A packed class map as (size_px, size_px); all void where there is none."""
    if not packed:
        return np.full((size_px, size_px), VOID, dtype=np.uint8)
    return np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(size_px, size_px)


def segments(
    packed: Sequence[bytes], size_px: int, image_index: ArrayLike, targets: ArrayLike
) -> NDArray[np.int8]:
    """Pixels of each target, (N, size_px, size_px): 1 on the class, 0 elsewhere, -1 undecided.

    Args:
        packed: class map of each image, empty where it is not annotated.
        size_px: side of the maps.
        image_index: which image each target is about, (N,).
        targets: class indices, (N,).
    """
    index, classes = np.atleast_1d(image_index), np.atleast_1d(targets)
    result = np.empty((len(index), size_px, size_px), dtype=np.int8)
    for image in np.unique(index):
        pixels = unpack(packed[image], size_px)
        mine = index == image
        found = pixels == classes[mine, None, None] + 1
        result[mine] = np.where(pixels == VOID, -1, found)
    return result
