"""Gradient methods against identities and captum."""

from __future__ import annotations

import pytest
import torch
from captum.attr import InputXGradient as CaptumInputXGradient
from torch import nn

from tests.trainables.networks import pictures, tiny_model
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.models.network import DEPTHS, Model, evaluating
from trainables.passes import Passes


def maps_of(method, model, images, targets):
    with evaluating(model.module), Passes(model, Batch.single(images, targets)) as passes:
        return method(passes), passes.logits


def test_map_of_a_linear_model_is_input_times_weight():
    head = nn.Linear(3 * 12 * 12, 4).double()
    model = Model(nn.Sequential(nn.Flatten(), head), {"input": ""}, lambda images: images)
    images, targets = pictures(3), torch.tensor([2, 0, 3])
    maps, logits = maps_of(InputXGradient(layer="input"), model, images, targets)
    weights = head.weight.detach().view(4, 3, 12, 12)[targets]
    torch.testing.assert_close(maps, (images * weights).sum(1), rtol=1e-14, atol=0)
    whole = maps.sum((1, 2)) + head.bias.detach()[targets]
    torch.testing.assert_close(whole, logits[range(3), targets], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layer", DEPTHS)
def test_map_of_a_network_without_biases_sums_to_the_logit(layer):
    model = tiny_model(bias=False, norm=False)
    images, targets = pictures(4), torch.tensor([2, 0, 3, 1])
    maps, logits = maps_of(InputXGradient(layer=layer), model, images, targets)
    chosen = logits.gather(1, targets[:, None]).squeeze(1)
    assert (chosen != 0).all()
    torch.testing.assert_close(maps.sum((1, 2)), chosen, rtol=1e-10, atol=1e-14)


def test_map_at_the_input_agrees_with_captum():
    model, images, targets = tiny_model(), pictures(4), torch.tensor([2, 0, 3, 1])
    maps, _ = maps_of(InputXGradient(layer="input"), model, images, targets)
    theirs = CaptumInputXGradient(model.module).attribute(images.requires_grad_(), target=targets)
    torch.testing.assert_close(maps, theirs.detach().sum(1), rtol=1e-10, atol=1e-14)


def test_sign_follows_the_logit():
    model, images, targets = tiny_model(), pictures(2), torch.tensor([1, 2])
    up, _ = maps_of(InputXGradient(layer="mid1"), model, images, targets)
    model.module.fc.weight.data.neg_()
    down, _ = maps_of(InputXGradient(layer="mid1"), model, images, targets)
    assert torch.equal(down, -up)
