"""Baselines: by their definition, and the blur against the authors' code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.device_literals import device_literals
from trainables.baselines import Baseline, Blur, ColorAndInverse, Random, Uniform, Zero, _line
from trainables.batch import Batch

GOLDEN = Path(__file__).parent.parent / "golden" / "idsds" / "blur.npz"
BASELINES = [cls() for _, cls in sorted(Baseline.registered.items())]
OF_THREE = [baseline for baseline in BASELINES if not isinstance(baseline, ColorAndInverse)]
of_three_channels = pytest.mark.parametrize("baseline", OF_THREE, ids=lambda one: one.key)
each_baseline = pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.key)


def batch_of(images: Tensor, ids: list[str] | None = None) -> Batch:
    none = torch.zeros(0, dtype=torch.long)
    ids = ids or [f"image {i}" for i in range(len(images))]
    return Batch(images=images, image_ids=ids, image_index=none, targets=none)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 20, 16, generator=torch.Generator().manual_seed(0))


class TestContract:
    """What every baseline promises."""

    @of_three_channels
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_one_image_an_image_in_its_type(self, baseline, images, dtype):
        found = baseline.images(batch_of(images.to(dtype)))
        assert found.shape == images.shape
        assert found.dtype == dtype
        assert torch.isfinite(found).all()

    @of_three_channels
    def test_each_is_that_of_its_image_alone_and_the_images_stay(self, baseline, images):
        before, random = images.clone(), torch.get_rng_state()
        together = baseline.images(batch_of(images))
        for i in range(4):
            alone = baseline.images(batch_of(images[[i]], [f"image {i}"]))
            torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-6)
        assert torch.equal(images, before)
        assert torch.equal(torch.get_rng_state(), random)

    @each_baseline
    def test_six_channels_are_as_good_as_three(self, baseline, images):
        six = torch.cat([images, 1 - images], dim=1)
        assert baseline.images(batch_of(six)).shape == six.shape

    @each_baseline
    def test_says_where_it_is_from_and_names_no_device(self, baseline):
        assert "Source:" in type(baseline).__doc__
        assert device_literals(type(baseline)) == []


def test_zero_is_zero(images):
    assert torch.equal(Zero().images(batch_of(images)), torch.zeros_like(images))


def test_uniform_is_one_image_for_all(images):
    found = Uniform().images(batch_of(images))
    assert all(torch.equal(found[0], one) for one in found)
    assert torch.equal(found[0], Uniform().images(batch_of(images[:1], ["another"]))[0])
    assert not torch.equal(found, Uniform(seed=1).images(batch_of(images)))


def test_random_is_a_function_of_seed_and_image_id(images):
    found = Random().images(batch_of(images, ["a", "b", "a", "c"]))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[3], Random().images(batch_of(images[:1], ["c"]))[0])
    assert not torch.equal(found, Random(seed=1).images(batch_of(images, ["a", "b", "a", "c"])))


@pytest.mark.parametrize("baseline", [Uniform(), Random()], ids=lambda baseline: baseline.key)
def test_values_are_uniform_from_minus_one_to_one(baseline):
    values = baseline.images(batch_of(torch.zeros(1, 3, 100, 100)))
    assert values.min() >= -1
    assert values.max() <= 1
    assert abs(values.mean()) < 4 * (1 / 3 / 30_000) ** 0.5
    assert abs(values.square().mean() - 1 / 3) < 4 * (4 / 45 / 30_000) ** 0.5


class TestBlur:
    """A wide Gaussian with zero padding."""

    @pytest.fixture
    def golden(self) -> dict[str, Tensor]:
        with np.load(GOLDEN, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}

    def test_kernel_and_images_are_those_of_idsds(self, golden):
        line = _line(51, 41.0)
        kernel = torch.outer(line, line)
        assert (kernel - golden["kernel"]).abs().max() <= 1e-6
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-12)
        blurred = Blur().images(batch_of(golden["images"]))
        assert (blurred - golden["blurred"]).abs().max() <= 1e-5

    def test_two_lines_equal_the_whole_kernel(self, images):
        blur = Blur(size_px=7, sigma=1.5)
        offset = torch.arange(-3.0, 4.0, dtype=torch.float64)
        square = offset[:, None] ** 2 + offset**2
        kernel = torch.exp(-square / (2 * 1.5) ** 2)
        kernel /= kernel.sum()
        double = images.double()
        whole = functional.conv2d(double, kernel.expand(3, 1, 7, 7), padding=3, groups=3)
        torch.testing.assert_close(blur.images(batch_of(double)), whole, rtol=1e-12, atol=1e-14)

    def test_it_darkens_towards_the_border(self):
        blurred = Blur().images(batch_of(torch.ones(1, 1, 101, 101)))[0, 0]
        assert float(blurred[50, 50]) == pytest.approx(1, abs=1e-6)
        assert 0.2 < float(blurred[0, 0]) < 0.3

    def test_its_deviation_is_sigma_times_the_root_of_two(self):
        line, offset = _line(2001, 41.0), torch.arange(-1000.0, 1001.0, dtype=torch.float64)
        variance = float((line * offset**2).sum())
        assert variance == pytest.approx(2 * 41**2, rel=1e-6)


class TestColorAndInverse:
    """What B-cos networks read where something is deleted."""

    @pytest.mark.parametrize("of", [Zero(), Random(seed=2), Blur(size_px=5), Uniform()])
    def test_it_is_the_baseline_of_the_color_and_one_minus_it(self, images, of):
        six = torch.cat([images, 1 - images], dim=1)
        found = ColorAndInverse(of=of).images(batch_of(six))
        color = of.images(batch_of(images))
        assert torch.equal(found, torch.cat([color, 1 - color], 1))

    def test_of_zero_it_is_black(self, images):
        six = torch.cat([images, 1 - images], dim=1)
        found = ColorAndInverse().images(batch_of(six))
        assert found[0, :, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]

    def test_three_channels_are_refused(self, images):
        with pytest.raises(ValueError, match="six channels, and these have 3: take zero"):
            ColorAndInverse().images(batch_of(images))
