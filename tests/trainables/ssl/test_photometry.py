"""Photometry: each image by its own amount, as torchvision changes it by one."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as torchvision

from trainables.ssl.photometry import (
    blur,
    brighten,
    contrast,
    gray,
    posterize,
    saturate,
    solarize,
    turn_hue,
)

FACTORS = torch.tensor([0.4, 1.0, 1.5], dtype=torch.float64)
TURNS = torch.tensor([-0.5, 0.0, 0.13], dtype=torch.float64)


@pytest.fixture
def images():
    """One without any color, one with a channel at a bound, one of noise."""
    made = torch.rand(3, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made[0] = made[0, :1]
    made[1, 2] = 1.0
    return made


@pytest.mark.parametrize(
    ("change", "expected", "amounts"),
    [
        (brighten, torchvision.adjust_brightness, FACTORS),
        (contrast, torchvision.adjust_contrast, FACTORS),
        (saturate, torchvision.adjust_saturation, FACTORS),
        (turn_hue, torchvision.adjust_hue, TURNS),
    ],
)
def test_colors_change_as_in_torchvision(change, expected, amounts, images):
    before = images.clone()
    changed = change(images, amounts)
    assert torch.equal(images, before)
    for image, amount, found in zip(images, amounts, changed, strict=True):
        torch.testing.assert_close(found, expected(image, float(amount)), atol=1e-6, rtol=0)


def test_other_changes_are_torchvisions(images):
    expected = torchvision.rgb_to_grayscale(images)
    torch.testing.assert_close(gray(images), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(solarize(images), torchvision.solarize(images, 0.5))
    whole = (images * 255).round().byte()
    kept = (posterize(whole / 255) * 255).round().byte()
    assert torch.equal(kept, torchvision.posterize(whole, 1))


def test_each_image_is_blurred_by_its_own_deviation(images):
    sigmas = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    blurred = blur(images, sigmas, 3)
    for image, sigma, found in zip(images, sigmas, blurred, strict=True):
        expected = torchvision.gaussian_blur(image, [7, 7], [float(sigma)] * 2)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
