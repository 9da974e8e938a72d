"""Grad-CAM++ and its smoothed form against golden maps, plain versions and identities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainables.attribution.idsds_golden import (
    CAM_TOLERANCE,
    NETWORKS,
    arrays,
    full_size,
    network,
)
from tests.trainables.networks import gradient_of, pictures, tiny_model
from trainables.attribution import cam_pp
from trainables.attribution.attribution import Attribution
from trainables.attribution.cam import GradCam
from trainables.attribution.cam_pp import GradCamPP, NoisyGradients, SmoothGradCamPP
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.noise import normal
from trainables.passes import Passes

TARGETS = torch.tensor([2, 0, 3, 1])


def maps_of(method: Attribution, model: Model, **options: int) -> Tensor:
    batch = Batch.single(pictures(4), TARGETS)
    with evaluating(model.module), Passes(model, batch, **options) as passes:
        return method(passes)


def feature_and_gradient(
    model: Model, images: Tensor, targets: Tensor, layer: str
) -> tuple[Tensor, Tensor]:
    """Plain torch."""
    kept: list[Tensor] = []
    module = model.module.get_submodule(model.path_of(layer))
    handle = module.register_forward_hook(lambda _module, _inputs, out: kept.append(out.detach()))
    gradient = gradient_of(model, images, targets, layer)
    handle.remove()
    return kept[0], gradient


def plain_grad_cam_pp(feature: Tensor, gradient: Tensor, epsilon: float = 0.0) -> Tensor:
    """Equation 19 place by place, one explanation: (D, h, w) twice to (h, w)."""
    cam = torch.zeros_like(feature[0])
    for f, g in zip(feature, gradient, strict=True):
        weight = 0.0
        for value in g.flatten().tolist():
            below = 2 * value**2 + float(f.sum()) * value**3 + epsilon
            alpha = value**2 / below if below else 0.0
            weight += alpha * max(value, 0.0)
        cam += weight * f
    return cam.clamp(min=0)


@pytest.mark.parametrize("layer", ["mid1", "mid3", "final"])
@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_the_published_weights_place_by_place(layer, epsilon):
    model = tiny_model()
    feature, gradient = feature_and_gradient(model, pictures(4), TARGETS, layer)
    expected = torch.stack(
        [plain_grad_cam_pp(*pair, epsilon) for pair in zip(feature, gradient, strict=True)]
    )
    maps = maps_of(GradCamPP(layer=layer, epsilon=epsilon), model)
    torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-14)
    assert maps.abs().sum() > 0


def test_alpha_is_that_of_the_derivatives_of_the_exponential_of_the_logit():
    """Derivatives by autograd of exp(logit), three deep, at the final layer of a linear head."""
    model = tiny_model()
    feature, _ = feature_and_gradient(model, pictures(1), TARGETS[:1], "final")
    leaf = feature.clone().requires_grad_()
    score = model.module.fc(leaf.mean((2, 3)))[0, TARGETS[0]].exp()
    first = torch.autograd.grad(score, leaf, create_graph=True)[0][0]
    cam = torch.zeros_like(feature[0, 0])
    for d in range(first.shape[0]):
        place = (0, d, 1, 1)  # all places are alike here
        second = torch.autograd.grad(first[d, 1, 1], leaf, create_graph=True)[0][place]
        third = torch.autograd.grad(second, leaf, retain_graph=True)[0][place]
        alpha = second / (2 * second + feature[0, d].sum() * third)
        weight = first[d].numel() * alpha * first[d, 1, 1].relu()
        cam += weight.detach() * feature[0, d]
    maps = maps_of(GradCamPP(), model)[0]
    torch.testing.assert_close(maps * score.detach(), cam.relu(), rtol=1e-9, atol=1e-14)
    assert maps.max() > 0


class TestGolden:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_grad_cam_pp_of_idsds(self, name):
        expected = arrays(f"idsds/{name}")["map.Grad-CAMpp"].squeeze(1)
        maps = full_size(GradCamPP(weights="torchcam", normalize=True), name)
        torch.testing.assert_close(maps, expected, rtol=0, atol=CAM_TOLERANCE)
        published = full_size(GradCamPP(normalize=True), name)
        assert (published - expected).abs().max() > 0.1

    @pytest.mark.parametrize("name", NETWORKS)
    def test_smooth_grad_cam_pp_of_idsds(self, name, monkeypatch):
        golden = arrays(f"idsds/{name}")
        noise = golden["sgcam_unit_noise"].unflatten(0, (2, 4))

        def recorded(like, seed, image_ids, samples, purpose):
            return torch.stack(
                [noise[int(i), s] for i, s in zip(image_ids, samples, strict=True)]
            ).to(like)

        monkeypatch.setattr(cam_pp, "normal", recorded)
        expected = golden["map2.SG-CAMpp"].squeeze(1)
        maps = full_size(SmoothGradCamPP(last_sample=True, normalize=True), name, images=2)
        torch.testing.assert_close(maps, expected, rtol=0, atol=CAM_TOLERANCE)
        published = full_size(SmoothGradCamPP(normalize=True), name, images=2)
        assert (published - expected).abs().max() > 0.02


class TestSmooth:
    @pytest.mark.parametrize("layer", ["mid2", "final"])
    def test_without_noise_it_is_grad_cam_pp(self, layer):
        smooth = maps_of(SmoothGradCamPP(layer=layer, std=0.0), tiny_model())
        plain = maps_of(GradCamPP(layer=layer), tiny_model())
        torch.testing.assert_close(smooth, plain, rtol=1e-9, atol=1e-14)

    @pytest.mark.parametrize("last_sample", [False, True])
    def test_it_is_the_formula_copy_by_copy(self, last_sample):
        model, images, layer = tiny_model(), pictures(4), "mid1"
        clean, _ = feature_and_gradient(model, images, TARGETS, layer)
        ids = [str(i) for i in range(4)]
        copies = []
        for s in range(3):
            noise = normal(images, 5, ids, [s] * 4, "smooth_grad_cam_pp")
            copies.append(feature_and_gradient(model, images + 0.2 * noise, TARGETS, layer))
        g = torch.stack([gradient for _, gradient in copies])
        assert g.std(0).max() > 0.1 * g.abs().max()  # the noise matters here
        second, third = (g**2).mean(0), (g**3).mean(0)
        if last_sample:
            feature, gradient = copies[-1]
            below = 2 * second + (third * clean).sum((2, 3), keepdim=True) + 1e-8
        else:
            feature, gradient = clean, g.mean(0)
            below = 2 * second + third * clean.sum((2, 3), keepdim=True)
        alpha = torch.where(below == 0, 0, second / below)
        weights = (alpha * gradient.clamp(min=0)).sum((2, 3))
        expected = torch.einsum("nd,ndhw->nhw", weights, feature).clamp(min=0)
        method = SmoothGradCamPP(layer=layer, samples=3, std=0.2, seed=5, last_sample=last_sample)
        torch.testing.assert_close(maps_of(method, model), expected, rtol=1e-9, atol=1e-14)

    def test_slabs_of_one_copy_give_the_numbers_of_one_slab(self):
        model = tiny_model()
        large = maps_of(SmoothGradCamPP(layer="mid1"), model)
        small = maps_of(SmoothGradCamPP(layer="mid1"), model, budget_bytes=1)
        torch.testing.assert_close(large, small, rtol=1e-9, atol=1e-14)

    def test_both_readings_share_the_noisy_passes_which_end_at_the_layer(self):
        model = tiny_model()
        batch = Batch.single(pictures(4), TARGETS)
        with evaluating(model.module), Passes(model, batch) as passes:
            for method in (SmoothGradCamPP(), SmoothGradCamPP(last_sample=True), GradCam()):
                method(passes)
            assert passes.counts.forwards == 4 + 4 * 4
            assert passes.counts.backwards == {"final": 4 + 4 * 4}

    def test_other_seeds_and_deviations_give_other_maps(self):
        maps = [
            maps_of(SmoothGradCamPP(layer="mid1", **options), tiny_model())
            for options in ({}, {"seed": 1}, {"std": 0.5}, {"samples": 5})
        ]
        for other in maps[1:]:
            assert (maps[0] - other).abs().max() > 1e-3 * maps[0].max()

    @pytest.mark.parametrize("options", [{"samples": 0}, {"std": -0.1}])
    def test_impossible_values_are_refused(self, options):
        with pytest.raises(ValueError, match="at least one sample and a deviation of 0 or more"):
            SmoothGradCamPP(**options)


@pytest.mark.parametrize(
    "method",
    [
        GradCamPP(),
        GradCamPP(weights="torchcam"),
        GradCamPP(epsilon=1e-6),
        SmoothGradCamPP(),
        SmoothGradCamPP(last_sample=True),
    ],
    ids=lambda method: method.key,
)
@pytest.mark.parametrize("normalize", [False, True])
def test_a_dead_map_is_zero(method, normalize):
    """Class 9 of tiny_gap has no positive weight."""
    fields = (
        {"weights": method.weights, "epsilon": method.epsilon}
        if isinstance(method, GradCamPP)
        else {"last_sample": method.last_sample}
    )
    golden, model = arrays("idsds/tiny_gap"), network("tiny_gap")
    batch = Batch.single(golden["images"][4:5], torch.tensor([9]))
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = type(method)(normalize=normalize, **fields)(passes)
    assert maps.abs().max() == 0


def test_a_request_is_a_value():
    assert NoisyGradients(layer="final", samples=4, std=0.3, seed=0) == NoisyGradients(
        layer="final", samples=4, std=0.3, seed=0
    )
