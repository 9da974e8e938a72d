"""Resized crops: torchvision's rectangles and pixels from given draws, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipelines.resized_crops import DRAWS, TRIES, random_resized_crops


@pytest.fixture
def draws():
    return np.random.default_rng(0).random((400, DRAWS))


@pytest.fixture
def pictures():
    return np.random.default_rng(1).integers(0, 256, (6, 3, 20, 20), dtype=np.uint8)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.7, 1.0), (1.0, 1.0)])
def test_rectangles_are_those_of_torchvision_given_the_same_draws(scale, draws, monkeypatch):
    """Its uniform numbers and its places are answered from ours."""
    from torchvision.transforms import RandomResizedCrop

    crops = random_resized_crops(draws, 32, 16, scale)
    for index, row in enumerate(draws[:60]):
        numbers = iter(row[: 2 * TRIES].tolist())
        places = iter(row[-3:-1].tolist())

        def uniform(tensor, low, high, numbers=numbers):
            return tensor.fill_(low + next(numbers) * (high - low))

        def randint(low, high, size, places=places):
            return torch.tensor([int(next(places) * (high - low)) + low])

        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "uniform_", uniform)
            patch.setattr(torch, "randint", randint)
            i, j, h, w = RandomResizedCrop.get_params(
                torch.zeros(3, 32, 32), list(scale), [3 / 4, 4 / 3]
            )
        ours = (crops.top[index], crops.left[index], crops.height[index], crops.width[index])
        assert ours == (i, j, h, w)


def test_crops_lie_within_the_image_and_fill_the_range_of_areas(draws):
    crops = random_resized_crops(draws, 64, 64, (0.08, 1.0))
    assert (crops.top >= 0).all()
    assert (crops.left >= 0).all()
    assert (crops.top + crops.height <= 64).all()
    assert (crops.left + crops.width <= 64).all()
    share = crops.height * crops.width / 64**2
    assert share.min() < 0.12
    assert share.max() > 0.9
    ratio = crops.width / crops.height
    assert 0.7 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.4
    assert 0.4 < crops.mirrored.mean() < 0.6


def test_an_image_that_no_try_fits_is_taken_whole():
    draws = np.full((1, DRAWS), 0.999)  # nearly the whole area, far from square
    crops = random_resized_crops(draws, 32, 16, (0.99, 1.0))
    assert (crops.top[0], crops.left[0], crops.height[0], crops.width[0]) == (0, 0, 32, 32)


def test_pixels_are_the_part_resized_by_pillow_and_mirrored(draws, pictures):
    crops = random_resized_crops(draws[:6], 20, 12, (0.1, 0.5))
    seen = crops.of(pictures, np.arange(6))
    assert crops.mirrored.any()
    assert not crops.mirrored.all()
    for k in range(6):
        box = (crops.left[k], crops.top[k])
        box += (box[0] + crops.width[k], box[1] + crops.height[k])
        part = Image.fromarray(pictures[k].transpose(1, 2, 0)).crop(tuple(map(int, box)))
        expected = np.asarray(part.resize((12, 12), Image.Resampling.BILINEAR))
        if crops.mirrored[k]:
            expected = expected[:, ::-1]
        assert np.array_equal(seen[k], expected.transpose(2, 0, 1))


def test_the_whole_image_at_its_size_is_the_image(pictures):
    draws = np.full((6, DRAWS), 0.5)
    crops = random_resized_crops(draws, 20, 20, (1.0, 1.0), (1.0, 1.0))
    assert np.array_equal(crops.of(pictures, np.arange(6)), pictures)


def test_a_crop_belongs_to_its_image_whatever_the_batch(draws, pictures):
    crops = random_resized_crops(draws[:6], 20, 12)
    together = crops.of(pictures, np.arange(6))
    some = np.array([4, 1])
    assert np.array_equal(crops.of(pictures[some], some), together[some])


@pytest.mark.parametrize("wrong", [{"scale": (0.0, 1.0)}, {"ratio": (2.0, 1.0)}])
def test_ranges_must_be_positive_and_ascending(wrong, draws):
    with pytest.raises(ValueError, match="must be positive and ascending"):
        random_resized_crops(draws, 20, 12, **wrong)
