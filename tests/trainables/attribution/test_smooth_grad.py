"""SmoothGrad against plain loops, captum's samples and arrays made by the authors' code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainables.attribution.idsds_golden import NETWORKS, arrays, full_size
from tests.trainables.networks import gradient_of, pictures, tiny_model
from trainables import noise
from trainables.attribution.attribution import Attribution
from trainables.attribution.gradient import InputXGradient, Saliency, SignedGradient
from trainables.attribution.smooth_grad import (
    Noise,
    SmoothGrad,
    SmoothGradInputXGradient,
    SmoothGradSaliency,
)
from trainables.batch import Batch
from trainables.models.network import evaluating
from trainables.passes import Passes

METHODS = [SmoothGrad, SmoothGradSaliency, SmoothGradInputXGradient]
AS_RUN = {"samples": 4, "std": 1.0, "relative": False}
"""As IDSDS ran it."""


def maps_of(method: Attribution, images: Tensor, targets: Tensor) -> Tensor:
    model = tiny_model()
    with evaluating(model.module), Passes(model, Batch.single(images, targets)) as passes:
        return method(passes)


@pytest.fixture
def given_noise(monkeypatch):
    """The stored noise of IDSDS in place of drawn noise; row 4 b + s is sample s of image b."""

    def give(stored: Tensor) -> None:
        def rows(like, seed, image_ids, samples, purpose):
            return torch.stack(
                [stored[4 * int(b) + s] for b, s in zip(image_ids, samples, strict=True)]
            ).to(like)

        monkeypatch.setattr(noise, "normal", rows)

    return give


@pytest.mark.parametrize("name", NETWORKS)
def test_map_is_that_of_idsds(name, given_noise):
    golden = arrays(f"idsds/{name}")
    given_noise(golden["sg_noise"])
    maps = full_size(SmoothGradInputXGradient(**AS_RUN), name, images=2)
    expected = golden["map2.IxG-SG"][:, 0]
    assert (maps - expected).abs().max() <= 2e-5 * expected.abs().max()


def noisy(images: Tensor, samples: int, std: float, *, relative: bool, seed: int) -> Tensor:
    """(samples, B, C, H, W), by the definition."""
    copies = []
    for s in range(samples):
        for b, image in enumerate(images):
            deviation = std * float(image.max() - image.min()) if relative else std
            drawn = noise.normal(images, seed, [str(b)], [s], "smooth_grad")[0]
            copies.append(image + deviation * drawn)
    return torch.stack(copies).view(samples, *images.shape)


@pytest.mark.parametrize("relative", [True, False])
def test_maps_are_the_plain_averages(relative):
    model, images, targets = tiny_model(), pictures(3), torch.tensor([2, 0, 3])
    fields = {"samples": 6, "std": 0.3, "relative": relative, "seed": 5}
    copies = noisy(images, 6, 0.3, relative=relative, seed=5)
    gradients = torch.stack([gradient_of(model, copy, targets, "input") for copy in copies])
    products = gradients * copies
    expected = {
        SmoothGrad(**fields): gradients.mean(0).sum(1),
        SmoothGrad(**fields, squared=True): gradients.square().mean(0).sum(1),
        SmoothGradSaliency(**fields): gradients.mean(0).abs().amax(1),
        SmoothGradSaliency(**fields, channels="sum"): gradients.mean(0).sum(1).abs(),
        SmoothGradSaliency(**fields, squared=True): gradients.square().mean(0).amax(1),
        SmoothGradInputXGradient(**fields): products.mean(0).sum(1),
        SmoothGradInputXGradient(**fields, squared=True): products.square().mean(0).sum(1),
    }
    for method, plain in expected.items():
        torch.testing.assert_close(
            maps_of(method, images, targets), plain, rtol=1e-9, atol=1e-12, msg=method.key
        )


def test_without_noise_each_is_the_plain_method():
    images, targets = pictures(3), torch.tensor([2, 0, 3])
    for smooth, plain in (
        (SmoothGrad, SignedGradient),
        (SmoothGradSaliency, Saliency),
        (SmoothGradInputXGradient, InputXGradient),
    ):
        maps = maps_of(smooth(samples=3, std=0.0), images, targets)
        expected = maps_of(plain(), images, targets)
        torch.testing.assert_close(maps, expected, rtol=1e-10, atol=1e-13)


def test_absolute_is_taken_after_the_sum_over_channels_and_samples():
    model, images, targets = tiny_model(), pictures(2), torch.tensor([2, 0])
    raw, absolute = SmoothGrad(samples=3), SmoothGrad(samples=3, absolute=True)
    with evaluating(model.module), Passes(model, Batch.single(images, targets)) as passes:
        signed, unsigned = (m.at_image_size(m(passes), passes) for m in (raw, absolute))
    assert signed.min() < 0
    assert torch.equal(unsigned, signed.abs())


def test_all_read_one_request():
    model, images, targets = tiny_model(), pictures(3), torch.tensor([2, 0, 3])
    with evaluating(model.module), Passes(model, Batch.single(images, targets)) as passes:
        for cls in METHODS:
            for changes in ({}, {"absolute": True}, {"squared": True}):
                cls(**AS_RUN, **changes)(passes)
        assert passes.counts.forwards == 4 * 3
        assert passes.counts.backwards["input"] == 4 * 3
        SmoothGrad(**AS_RUN | {"seed": 1})(passes)
        assert passes.counts.forwards == 8 * 3


def test_several_targets_of_an_image_share_its_noise_and_forwards():
    model, images = tiny_model(), pictures(1)
    batch = Batch(
        images=images,
        image_ids=["0"],
        image_index=torch.zeros(3, dtype=torch.long),
        targets=torch.tensor([0, 1, 3]),
    )
    method = SmoothGrad(samples=5)
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = method(passes)
        assert passes.counts.forwards == 5
        assert passes.counts.backwards["input"] == 15
    for n, target in enumerate(batch.targets):
        alone = maps_of(method, images, target[None])
        torch.testing.assert_close(alone, maps[[n]], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("cls", METHODS)
def test_the_seed_the_image_id_and_the_deviation_matter(cls):
    images, targets = pictures(1).repeat(2, 1, 1, 1), torch.tensor([1, 1])
    maps = maps_of(cls(samples=2), images, targets)
    assert not torch.allclose(maps[0], maps[1])  # other id, other noise
    for other in (cls(samples=2, seed=1), cls(samples=2, std=0.2), cls(samples=3)):
        assert not torch.allclose(maps, maps_of(other, images, targets))


def test_a_relative_deviation_is_of_each_image_s_own_range():
    images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    images[1, 0, 0, 0] = -3.0  # ranges 0 and 4
    batch = Batch.single(images, torch.tensor([0, 0]))
    both, first = torch.tensor([0, 1]), torch.tensor([0, 0])
    added = Noise(samples=1, std=0.5, relative=True, seed=0).copies(batch, both, first) - images
    drawn = noise.normal(images, 0, ["0", "1"], [0, 0], "smooth_grad")
    assert torch.equal(added[0], torch.zeros(3, 4, 4))
    torch.testing.assert_close(added[1], 2 * drawn[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"std": -0.1}])
def test_a_range_is_checked_at_construction(wrong):
    with pytest.raises(ValueError, match=r"SmoothGrad: samples = .* at least one sample"):
        SmoothGrad(**wrong)


def test_keys_are_short():
    assert SmoothGrad().key == "smooth_grad"
    assert SmoothGradInputXGradient(**AS_RUN, absolute=True).key == (
        "smooth_grad_input_x_gradient_abs_n4_std1_no_relative"
    )
    assert SmoothGrad(squared=True).key == "smooth_grad_sq"
