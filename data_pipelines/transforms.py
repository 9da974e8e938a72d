"""Transforms: from published image bytes to pixels of one size."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

PIXEL_LIMIT = 89_478_485
"""Pixels of the largest image that is decoded: Pillow's warning limit (ImageNet has 61 million)."""


def decode(image: bytes, size_px: int) -> NDArray[np.uint8]:
    """The picture as RGB, resized to exactly size_px x size_px (bilinear, aspect ignored).

    Source: Rao et al., 2023, the authors' code: Pillow's resize to a square, no augmentation.

    Args:
        image: a published JPEG (or PNG) file.
        size_px: side of the result.

    Returns:
        (size_px, size_px, 3) in [0, 255].

    Raises:
        ValueError: the file is damaged, truncated, not an image, or larger than PIXEL_LIMIT.
    """
    rgb = picture_of(image)
    if rgb.size != (size_px, size_px):
        rgb = rgb.resize((size_px, size_px), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def damage(image: bytes) -> str:
    """Why ``decode`` would refuse the file; empty where it is sound."""
    try:
        picture_of(image)
    except ValueError as error:
        return str(error)
    return ""


def picture_of(image: bytes) -> Image.Image:
    """The whole picture as RGB; see ``decode``."""
    try:
        with Image.open(io.BytesIO(image)) as picture:
            if picture.width * picture.height > PIXEL_LIMIT:
                raise ValueError(f"{picture.width}x{picture.height} exceeds {PIXEL_LIMIT} pixels")
            picture.load()
            return picture if picture.mode == "RGB" else picture.convert("RGB")
    except UnidentifiedImageError:
        raise ValueError(f"not an image ({len(image)} bytes)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(str(error)) from None
    except (OSError, SyntaxError, struct.error) as error:  # Pillow's ways to say that bytes are bad
        raise ValueError(f"damaged image: {error}") from None


def decode_batch(images: Sequence[bytes], size_px: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Decode several files; a damaged one yields black and its error and does not stop the rest.

    Returns:
        Pixels (n, size_px, size_px, 3), and n error messages, empty where the picture is sound.
    """
    pixels = np.zeros((len(images), size_px, size_px, 3), dtype=np.uint8)
    errors = [""] * len(images)
    for position, image in enumerate(images):
        try:
            pixels[position] = decode(image, size_px)
        except ValueError as error:
            errors[position] = str(error)
    return pixels, errors
