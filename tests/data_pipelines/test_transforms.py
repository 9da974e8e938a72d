"""Decoding of sound and damaged images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines import transforms
from data_pipelines.transforms import decode, decode_batch


def picture(mode: str = "RGB", width: int = 50, height: int = 30) -> Image.Image:
    """Noise, always the same."""
    noise = np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    """The file's bytes."""
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_an_image_becomes_a_square_by_bilinear_resizing_whatever_its_aspect():
    jpeg = encoded(picture())
    with Image.open(io.BytesIO(jpeg)) as opened:
        expected = np.asarray(opened.resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode(jpeg, 64), expected)


def test_an_image_of_the_right_size_keeps_its_pixels():
    np.testing.assert_array_equal(
        decode(encoded(picture(width=32, height=32), "PNG"), 32), picture(width=32, height=32)
    )


@pytest.mark.parametrize(("mode", "kind"), [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG")])
def test_every_color_mode_becomes_rgb(mode, kind):
    pixels = decode(encoded(picture(mode), kind), 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda jpeg: jpeg[: len(jpeg) // 2], "damaged image: .*truncated"),
        (lambda jpeg: b"", r"not an image \(0 bytes\)"),
        (lambda jpeg: b"<html>not found</html>", r"not an image \(22 bytes\)"),
        (lambda jpeg: jpeg[:3], "not an image|damaged image"),
    ],
)
def test_a_damaged_file_is_refused_with_a_reason_that_repeats(damage, reason):
    damaged = damage(encoded(picture()))
    with pytest.raises(ValueError, match=reason) as first:
        decode(damaged, 16)
    with pytest.raises(ValueError, match=reason) as second:
        decode(damaged, 16)
    assert str(first.value) == str(second.value)


def test_an_image_of_too_many_pixels_is_refused(monkeypatch):
    monkeypatch.setattr(transforms, "PIXEL_LIMIT", 1499)
    with pytest.raises(ValueError, match="50x30 exceeds 1499 pixels"):
        decode(encoded(picture()), 16)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [1000, 100])
def test_a_decompression_bomb_is_refused_whether_pillow_warns_or_raises(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(transforms, "PIXEL_LIMIT", limit)
    with pytest.raises(ValueError, match="pixels"):
        decode(encoded(picture()), 16)


def test_a_damaged_file_in_a_batch_leaves_the_others_alone():
    jpeg = encoded(picture())
    pixels, errors = decode_batch([jpeg, jpeg[:100], jpeg], 16)
    assert [bool(error) for error in errors] == [False, True, False]
    np.testing.assert_array_equal(pixels[[0, 2]], np.stack([decode(jpeg, 16)] * 2))
    assert not pixels[1].any()


def test_an_empty_batch_is_empty():
    pixels, errors = decode_batch([], 16)
    assert pixels.shape == (0, 16, 16, 3)
    assert errors == []
