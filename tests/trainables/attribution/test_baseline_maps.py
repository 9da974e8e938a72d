"""Baseline maps: they see the image at most, and are what their names say."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from tests.trainables.networks import pictures, tiny_model
from trainables.attribution.attribution import Attribution
from trainables.attribution.baseline_maps import (
    BaselineMap,
    CenterGaussian,
    Edges,
    RandomMap,
    UniformMap,
)
from trainables.batch import Batch
from trainables.passes import Passes

ALL = [UniformMap(), RandomMap(), CenterGaussian(), Edges()]


def maps_of(method: Attribution, images: Tensor, index: list[int], *ids: str) -> Tensor:
    batch = Batch(
        images=images,
        image_ids=ids or [f"image {i}" for i in range(len(images))],
        image_index=torch.tensor(index),
        targets=torch.arange(len(index)) % 4,
    )
    with Passes(tiny_model(), batch) as passes:
        maps = method(passes)
    assert passes.counts.forwards == 0
    return maps


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_no_model_is_asked_and_no_target_matters(method):
    maps = maps_of(method, pictures(2)[..., :10], [1, 0, 1])
    assert maps.shape == (3, 12, 10)
    assert torch.equal(maps[0], maps[2])
    assert (maps >= 0).all()
    assert isinstance(method, BaselineMap)
    assert method.reference_line


def test_there_are_four_of_them_by_name():
    found = {name for name, cls in Attribution.registered.items() if issubclass(cls, BaselineMap)}
    assert found >= {"uniform", "random", "center_gaussian", "edges"}


def test_uniform_is_one_everywhere():
    assert (maps_of(UniformMap(), pictures(2), [0, 1]) == 1).all()


def test_random_belongs_to_seed_and_image():
    images = pictures(1).expand(2, -1, -1, -1)
    maps = maps_of(RandomMap(), images, [0, 1], "a", "b")
    assert torch.equal(maps.flip(0), maps_of(RandomMap(), images, [0, 1], "b", "a"))
    assert not torch.equal(maps[0], maps[1])
    assert not torch.equal(maps, maps_of(RandomMap(seed=1), images, [0, 1], "a", "b"))
    assert maps.max() < 1
    assert maps.mean() == pytest.approx(0.5, abs=0.1)


def test_center_gaussian_falls_off_with_the_distance_from_the_center():
    maps = maps_of(CenterGaussian(sigma=0.3), pictures(1)[..., :9], [0])[0]
    for row, column in product(range(12), range(9)):
        y, x = (row + 0.5) / 12 - 0.5, (column + 0.5) / 9 - 0.5
        expected = torch.exp(torch.tensor(-(x * x + y * y) / (2 * 0.3**2)))
        torch.testing.assert_close(maps[row, column], expected.double(), rtol=1e-5, atol=1e-8)
    with pytest.raises(ValueError, match="sigma 0: expected more than 0"):
        CenterGaussian(sigma=0)


def test_edges_are_where_the_mean_color_changes():
    images = torch.zeros(1, 3, 12, 12, dtype=torch.float64)
    images[..., 6:] = 0.5
    maps = maps_of(Edges(), images, [0])[0]
    assert (maps[:, 5:7] == 2).all()  # 4 times the step
    assert maps.sum() == 2 * 2 * 12  # the border is no edge
    assert torch.equal(maps_of(Edges(), images.mT, [0])[0], maps.mT)
    # where encoding adds the inverted colors, they would cancel
    assert torch.equal(maps_of(Edges(), torch.cat([images, 1 - images], 1), [0])[0], maps)
    assert (maps_of(Edges(), torch.ones_like(images), [0]) == 0).all()
