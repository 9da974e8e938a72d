"""Class activation maps against identities and captum."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam

from tests.trainables.networks import PATHS, gradient_of, pictures, tiny_model
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.models.network import DEPTHS, evaluating
from trainables.passes import Passes

TARGETS = torch.tensor([2, 0, 3, 1])


def test_grad_cam_before_pooling_and_a_linear_head_is_the_positive_part_of_input_x_gradient():
    model = tiny_model()
    with evaluating(model.module), Passes(model, Batch.single(pictures(4), TARGETS)) as passes:
        cam = GradCam(layer="final")(passes)
        gradient = InputXGradient(layer="final")(passes)
        assert passes.counts.backwards == {"final": 4}  # one gradient serves both
    torch.testing.assert_close(cam, gradient.relu(), rtol=1e-12, atol=1e-16)
    assert (gradient < 0).any()


def test_grad_cam_elsewhere_is_not():
    model = tiny_model()
    with evaluating(model.module), Passes(model, Batch.single(pictures(4), TARGETS)) as passes:
        passes.expect([*GradCam().needs(model), *InputXGradient(layer="mid1").needs(model)])
        cam, gradient = GradCam(layer="mid1")(passes), InputXGradient(layer="mid1")(passes)
    assert not torch.allclose(cam, gradient.relu(), rtol=0.1)


@pytest.mark.parametrize("layer", [depth for depth in DEPTHS if depth != "input"])
def test_grad_cam_agrees_with_captum(layer):
    model, images = tiny_model(), pictures(4)
    with Passes(model, Batch.single(images, TARGETS)) as passes:
        maps = GradCam(layer=layer)(passes)
    module = model.module.get_submodule(PATHS[layer])
    theirs = LayerGradCam(model.module, module).attribute(
        images, target=TARGETS, relu_attributions=True
    )
    torch.testing.assert_close(maps, theirs.detach().squeeze(1), rtol=1e-10, atol=1e-14)
    assert (maps >= 0).all()


def test_grad_cam_at_the_input_weights_the_color_channels():
    model, images = tiny_model(), pictures(4)
    with Passes(model, Batch.single(images, TARGETS)) as passes:
        maps = GradCam(layer="input")(passes)
    weights = gradient_of(model, images, TARGETS, "input").mean((2, 3))
    expected = torch.einsum("bc,bchw->bhw", weights, images).relu()
    torch.testing.assert_close(maps, expected, rtol=1e-10, atol=1e-14)
