"""Explanations of the probability: those of the network with a softmax behind it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from tests.trainables.attribution.idsds_golden import arrays, network
from tests.trainables.networks import pictures, tiny_model
from trainables.attribution.after_softmax import AfterSoftmax
from trainables.attribution.attention import Rollout
from trainables.attribution.baseline_maps import UniformMap
from trainables.attribution.cam import GradCam, LayerCam
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.integrated_gradients import IntegratedGradients
from trainables.attribution.occlusion import Occlusion
from trainables.attribution.rise import Rise
from trainables.batch import Batch
from trainables.models.network import evaluating
from trainables.passes import Passes

METHODS = {
    "IxG": InputXGradient(),
    "IG": IntegratedGradients(),
    "Grad-CAM": GradCam(normalize=True),
    "Layer-CAM": LayerCam(normalize=True),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("which", ["tiny_gap", "tiny_vgg"])
def test_maps_are_the_authors(which, name):
    golden, model = arrays(f"idsds/{which}"), network(which)
    images = golden["images"]
    if name == "IG":  # in float64 a few of its nodes lie on the other side of a max-pooling
        model, images = replace(model, module=deepcopy(model.module).float()), images.float()
    batch = Batch.single(images, golden["targets"])
    with evaluating(model.module), Passes(model, batch) as passes:
        wrapped = AfterSoftmax(of=METHODS[name])
        maps = wrapped.at_image_size(wrapped(passes), passes)
    expected = golden[f"post.map.{name}"][:, 0]
    assert (maps - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_one_forward_and_backward_serve_all_methods_of_an_arm():
    model = tiny_model()
    batch = Batch.single(pictures(2), torch.tensor([0, 1]))
    methods = [AfterSoftmax(of=InputXGradient()), AfterSoftmax(of=GradCam())]
    with evaluating(model.module), Passes(model, batch) as passes:
        for method in methods:
            passes.expect(method.needs(model))
        for method in methods:
            method(passes)
        assert passes.counts.forwards == 2
        InputXGradient()(passes)
        assert passes.counts.forwards == 4
        assert passes.counts.backwards["input"] == 4


@pytest.mark.parametrize(
    "method", [Rise(), Occlusion(), UniformMap(), Rollout()], ids=lambda m: m.name
)
def test_what_explains_no_logit_is_refused(method):
    with pytest.raises(ValueError, match=f"{method.key} explains the (probability|image)"):
        AfterSoftmax(of=method).suit(tiny_model())
    if method.name in ("rise", "occlusion"):
        AfterSoftmax(of=replace(method, score="logit")).suit(tiny_model())


def test_its_key_says_what_it_explains():
    assert AfterSoftmax(of=GradCam()).key == "after_softmax_grad_cam"
