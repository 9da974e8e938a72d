"""Integrated gradients: completeness, plain loops, captum and arrays made by the authors' code."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import Tensor, nn

from tests.trainables.attribution.idsds_golden import NETWORKS, arrays, network
from tests.trainables.attribution.lrp_tiny_golden import lrp_tiny
from tests.trainables.networks import gradient_of, pictures, tiny_model
from trainables import noise
from trainables.attribution.attribution import Attribution
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.integrated_gradients import (
    IntegratedGradients,
    PathGradient,
    SmoothGradIntegratedGradients,
    quadrature,
)
from trainables.attribution.smooth_grad import SmoothGradInputXGradient
from trainables.baselines import Baseline, Blur, Random, Uniform, Zero
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.passes import Passes

AS_RUN = {"samples": 4, "std": 1.0, "relative": False}
"""The noise as IDSDS ran it."""
BASELINES = [Zero(), Uniform(), Random(), Blur(size_px=5, sigma=2.0)]
each_baseline = pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.key)


def explained(
    method: Attribution, images: Tensor, targets: Tensor, model: Model | None = None
) -> tuple[Tensor, Tensor]:
    """Maps, and the targets' logits."""
    model = model or tiny_model()
    with evaluating(model.module), Passes(model, Batch.single(images, targets)) as passes:
        return method(passes), passes.logits.gather(1, targets[:, None]).squeeze(1)


@pytest.fixture
def given_baseline(monkeypatch):
    """A stored image in place of the uniform one."""

    def give(stored: Tensor) -> None:
        monkeypatch.setattr(
            Uniform, "images", lambda self, batch: stored.to(batch.images).expand_as(batch.images)
        )

    return give


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


def golden_maps(method: Attribution, name: str, images: int, *, after: bool = False) -> Tensor:
    """Maps of a golden network as the arrays were made: in float32.

    In float64 some nodes come to lie on the other side of a kink, which moves single pixels by up
    to 2e-3 of the largest value.
    """
    golden, model = arrays(f"idsds/{name}"), network(name)
    model = replace(model, module=deepcopy(model.module).float())
    model = model.with_probabilities() if after else model
    pixels, targets = golden["images"][:images].float(), golden["targets"][:images]
    return explained(method, pixels, targets, model)[0]


def deviation(maps: Tensor, golden: Tensor) -> float:
    """Largest difference over the largest golden value."""
    return float((maps - golden[:, 0]).abs().max() / golden.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
class TestIdsds:
    """Arrays made by the authors' code."""

    def test_maps_are_theirs(self, name, given_baseline):
        golden = arrays(f"idsds/{name}")
        given_baseline(golden["ig_u_baseline"])
        for baseline, key in ((Zero(), "map.IG"), (Uniform(), "map.IG-U")):
            maps = golden_maps(IntegratedGradients(baseline=baseline), name, 6)
            assert deviation(maps, golden[key]) <= 2e-5

    def test_smooth_maps_are_theirs(self, name, given_noise):
        golden = arrays(f"idsds/{name}")
        given_noise(golden["sg_noise"])
        for squared, key in ((False, "map2.IG-SG"), (True, "map2.IG-SG-SQ")):
            method = SmoothGradIntegratedGradients(**AS_RUN, squared=squared)
            assert deviation(golden_maps(method, name, 2), golden[key]) <= 2e-5

    def test_maps_after_the_softmax_are_theirs(self, name):
        golden = arrays(f"idsds/{name}")["post.map.IG"]
        maps = golden_maps(IntegratedGradients(), name, 6, after=True)
        assert deviation(maps, golden) <= 2e-5


class TestHowToProbe:
    """Arrays made by captum for the residual network."""

    def test_channels_are_theirs(self):
        model, golden = lrp_tiny()
        images, targets = golden["input_normalised"], torch.tensor([1, 1])
        with evaluating(model.module), Passes(model, Batch.single(images, targets)) as passes:
            found = passes.get(PathGradient(baseline=Zero(), steps=50)).mean
            product, _ = explained(InputXGradient(), images, targets, model)
        torch.testing.assert_close(found, golden["intgrad50_class1"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(product, golden["ixg_class1"].sum(1), rtol=1e-4, atol=1e-5)


class TestQuadrature:
    """Gauss and Legendre on the unit interval."""

    @pytest.mark.parametrize("steps", [1, 2, 7, 50])
    def test_polynomials_up_to_twice_the_steps_are_exact(self, steps):
        nodes, weights = quadrature(steps)
        assert ((nodes > 0) & (nodes < 1)).all()
        for power in range(2 * steps):
            integral = float((weights * nodes**power).sum())
            assert integral == pytest.approx(1 / (power + 1), rel=1e-11)

    def test_the_next_polynomial_is_not(self):
        nodes, weights = quadrature(2)
        assert float((weights * nodes**4).sum()) == pytest.approx(7 / 36)  # 1/5 would be exact

    def test_nodes_are_made_once(self):
        assert quadrature(50)[0] is quadrature(50)[0]


class Smooth(nn.Module):
    """Logits without kinks, so that the quadrature converges fast; different in each class."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.Parameter(
            0.1 * torch.randn(4, 432, generator=generator, dtype=torch.float64)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.weights.T).sin().exp()


class TestCompleteness:
    """A map sums to the difference of two logits."""

    @each_baseline
    def test_to_machine_precision_without_kinks(self, baseline):
        model = Model(Smooth(), {"input": ""}, lambda images: images)
        self.check(model, baseline, steps=50, tolerance=1e-11)

    @each_baseline
    def test_to_the_error_of_the_quadrature_with_relus(self, baseline):
        self.check(tiny_model(), baseline, steps=50, tolerance=2e-3)
        self.check(tiny_model(), baseline, steps=800, tolerance=1e-4)

    def check(self, model: Model, baseline: Baseline, steps: int, tolerance: float) -> None:
        images, targets = pictures(3), torch.tensor([2, 0, 3])
        batch = Batch.single(images, targets)
        method = IntegratedGradients(baseline=baseline, steps=steps)
        maps, logits = explained(method, images, targets, model)
        with torch.no_grad():
            empty = model.module(baseline.images(batch)).gather(1, targets[:, None]).squeeze(1)
        error = (maps.sum((1, 2)) - (logits - empty)).abs()
        size = maps.abs().sum((1, 2))
        assert (error <= tolerance * size).all()
        assert ((logits - empty).abs() > 10 * tolerance * size).any()  # a sum, not nothing


def test_on_a_network_without_biases_it_is_input_x_gradient():
    model = tiny_model(bias=False, norm=False)
    images, targets = pictures(3), torch.tensor([2, 0, 3])
    product, _ = explained(InputXGradient(), images, targets, model)
    for steps in (1, 7):
        maps, _ = explained(IntegratedGradients(steps=steps), images, targets, model)
        torch.testing.assert_close(maps, product, rtol=1e-9, atol=1e-13)
    elsewhere, _ = explained(IntegratedGradients(baseline=Uniform()), images, targets, model)
    assert not torch.allclose(elsewhere, product, rtol=0.1)


@each_baseline
def test_agrees_with_captum(baseline):
    model, images, targets = tiny_model(), pictures(3), torch.tensor([2, 0, 3])
    maps, _ = explained(IntegratedGradients(baseline=baseline, steps=20), images, targets)
    start = baseline.images(Batch.single(images, targets)).clone()
    captum = CaptumIntegratedGradients(model.module)
    theirs = captum.attribute(images, baselines=start, target=targets, n_steps=20)
    torch.testing.assert_close(maps, theirs.detach().sum(1), rtol=1e-6, atol=1e-9)


def test_smooth_maps_are_the_plain_averages():
    model, images, targets = tiny_model(), pictures(2), torch.tensor([2, 0])
    baseline, nodes = Blur(size_px=5, sigma=2.0), zip(*quadrature(6), strict=True)
    start = baseline.images(Batch.single(images, targets))
    nodes, paths = list(nodes), []
    for s in range(3):
        drawn = noise.normal(images, 9, ["0", "1"], [s, s], "smooth_grad")
        way = images + 0.4 * drawn - start
        along = [w * gradient_of(model, start + a * way, targets, "input") for a, w in nodes]
        paths.append(way * torch.stack(along).sum(0))
    value = torch.stack(paths)
    fields = {
        "samples": 3, "std": 0.4, "relative": False, "seed": 9, "steps": 6, "baseline": baseline,
    }  # fmt: skip
    raw, _ = explained(SmoothGradIntegratedGradients(**fields), images, targets)
    squared, _ = explained(SmoothGradIntegratedGradients(**fields, squared=True), images, targets)
    torch.testing.assert_close(raw, value.mean(0).sum(1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(squared, value.square().mean(0).sum(1), rtol=1e-9, atol=1e-12)
    still, _ = explained(
        SmoothGradIntegratedGradients(**fields | {"std": 0.0, "samples": 1}), images, targets
    )
    plain, _ = explained(IntegratedGradients(baseline=baseline, steps=6), images, targets)
    torch.testing.assert_close(still, plain, rtol=1e-10, atol=1e-13)


class TestSharing:
    """What several methods ask is computed once: counted by hand."""

    @pytest.fixture
    def passes(self):
        model, images, targets = tiny_model(), pictures(2), torch.tensor([2, 0])
        with evaluating(model.module), Passes(model, Batch.single(images, targets)) as passes:
            yield passes

    def counted(self, passes: Passes, *methods: Attribution) -> tuple[int, int]:
        """Forwards and backwards an image that the methods take."""
        for method in methods:
            method(passes)
        images = len(passes.batch.images)
        return passes.counts.forwards // images, passes.counts.backwards["input"] // images

    def test_raw_and_absolute_take_50_of_each(self, passes):
        methods = IntegratedGradients(), IntegratedGradients(absolute=True)
        assert self.counted(passes, *methods) == (50, 50)
        assert self.counted(passes, IntegratedGradients(baseline=Uniform())) == (100, 100)

    def test_all_five_smooth_methods_of_idsds_take_204_of_each(self, passes):
        smooth = SmoothGradIntegratedGradients
        methods = (
            smooth(**AS_RUN),
            smooth(**AS_RUN, absolute=True),
            smooth(**AS_RUN, squared=True),
        )
        assert self.counted(passes, *methods) == (200, 200)
        product = SmoothGradInputXGradient
        methods = product(**AS_RUN), product(**AS_RUN, absolute=True)
        assert self.counted(passes, *methods) == (204, 204)

    def test_both_see_the_same_noise_and_draw_it_once_a_sample(self, passes, monkeypatch):
        seen = set()
        drawn, normal = 0, noise.normal

        def watched(like, seed, image_ids, samples, purpose):
            nonlocal drawn
            drawn += len(image_ids)
            seen.update((seed, i, s, purpose) for i, s in zip(image_ids, samples, strict=True))
            return normal(like, seed, image_ids, samples, purpose)

        monkeypatch.setattr(noise, "normal", watched)
        SmoothGradIntegratedGradients(**AS_RUN)(passes)
        assert drawn == len(seen) == 4 * 2
        SmoothGradInputXGradient(**AS_RUN)(passes)
        assert len(seen) == 4 * 2


def test_a_baseline_of_one_s_own_works_at_once(monkeypatch):
    monkeypatch.setattr(Baseline, "registered", dict(Baseline.registered))

    @dataclass(frozen=True, kw_only=True)
    class Half(Baseline):
        """Half of the image."""

        name: ClassVar[str] = "half"

        def images(self, batch: Batch) -> Tensor:
            return batch.images / 2

    method = IntegratedGradients(baseline=Half())
    model = tiny_model(bias=False, norm=False)
    maps, logits = explained(method, pictures(2), torch.tensor([2, 0]), model)
    torch.testing.assert_close(maps.sum((1, 2)), logits / 2, rtol=1e-9, atol=1e-12)
    assert method.key == "integrated_gradients_half"


@pytest.mark.parametrize("cls", [IntegratedGradients, SmoothGradIntegratedGradients])
def test_at_least_one_step_is_needed(cls):
    with pytest.raises(ValueError, match=rf"{cls.__name__}.steps = 0: at least one step"):
        cls(steps=0)


def test_keys_name_baseline_and_steps():
    assert IntegratedGradients().key == "integrated_gradients"
    assert IntegratedGradients(baseline=Uniform(), absolute=True).key == (
        "integrated_gradients_abs_uniform"
    )
    assert IntegratedGradients(steps=20).key == "integrated_gradients_steps20"
