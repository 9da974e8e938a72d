"""Guided backpropagation against captum, plain rules and an array of the authors' code."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import pytest
import torch
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from torch import Tensor, nn
from torch.nn import functional

from tests.trainables.attribution.lrp_tiny_golden import lrp_tiny
from tests.trainables.networks import hooks_of, pictures, tiny_model
from trainables.attribution.gradient import SignedGradient
from trainables.attribution.guided_backprop import GuidedBackprop, GuidedGradient
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.models.small_resnet import SmallResNet
from trainables.passes import Passes

TARGETS = torch.tensor([2, 0, 3])


def guided(model: Model, images: Tensor, targets: Tensor) -> Tensor:
    """By channel."""
    with evaluating(model.module), Passes(model, Batch.single(images, targets)) as passes:
        found = passes.get(GuidedGradient())
        assert torch.equal(GuidedBackprop()(passes), found.sum(1))
    return found


def test_channels_are_those_of_how_to_probe():
    model, golden = lrp_tiny()
    found = guided(model, golden["input_normalised"], torch.tensor([1, 1]))
    torch.testing.assert_close(found, golden["gbp_class1"], rtol=1e-4, atol=1e-5)


def test_agrees_with_captum():
    model, images = tiny_model(), pictures(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum tells that it sets hooks
        theirs = CaptumGuidedBackprop(model.module).attribute(
            images.clone().requires_grad_(), target=TARGETS
        )
    torch.testing.assert_close(
        guided(model, images, TARGETS), theirs.detach(), rtol=1e-10, atol=1e-14
    )


class Written(nn.Module):
    """Three ReLUs between linear layers, each written in another way; one module used twice."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weights = nn.ParameterList(
            0.2 * torch.randn(out, into, generator=generator, dtype=torch.float64)
            for into, out in ((432, 20), (20, 20), (20, 20), (20, 4))
        )
        self.relu, self.kind = nn.ReLU(), kind

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for weight in self.weights[:-1]:
            x = x @ weight.T
            if self.kind == "module":
                x = self.relu(x)
            elif self.kind == "function":
                x = functional.relu(x)
            elif self.kind == "in place":
                x = functional.relu(x, inplace=True)
            else:
                x = x.relu()
        return x @ self.weights[-1].T


@pytest.mark.parametrize("kind", ["module", "function", "method", "in place"])
def test_every_relu_is_met_however_it_is_written_and_however_often_used(kind):
    module, images = Written(kind), pictures(3)
    model = Model(module, {"input": ""}, lambda images: images)
    w = [weight.detach() for weight in module.weights]
    hidden, x = [], images.flatten(1)
    for weight in w[:-1]:
        hidden.append(x @ weight.T)
        x = hidden[-1].relu()
    relevance = w[-1][TARGETS]
    for weight, before in zip(w[-2::-1], hidden[::-1], strict=True):
        relevance = torch.where((before > 0) & (relevance > 0), relevance, 0) @ weight
    found = guided(model, images, TARGETS)
    torch.testing.assert_close(found.flatten(1), relevance, rtol=1e-10, atol=1e-14)
    plain = torch.func.jacrev(lambda x: module(x)[range(3), TARGETS].sum())(images)
    assert not torch.allclose(found, plain)


def test_one_forward_and_backward_an_image_and_none_when_asked_again():
    model = tiny_model()
    batch = Batch.single(pictures(3), TARGETS)
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = GuidedBackprop()(passes)
        GuidedBackprop(absolute=True)(passes)
        assert passes.counts.forwards == 3
        assert passes.counts.backwards["input"] == 3
        # the ordinary gradient is not guided, before or after
        plain = SignedGradient()(passes)
        assert passes.counts.forwards == 6
    with evaluating(model.module), Passes(model, batch) as passes:
        assert torch.equal(SignedGradient()(passes), plain)
        torch.testing.assert_close(GuidedBackprop()(passes), maps)
    assert not torch.allclose(plain, maps)


def test_rounds_of_several_targets_are_guided_one_by_one():
    model, images = tiny_model(), pictures(1)
    batch = Batch(
        images=images,
        image_ids=["0"],
        image_index=torch.zeros(3, dtype=torch.long),
        targets=TARGETS,
    )
    with evaluating(model.module), Passes(model, batch) as passes:
        together = passes.get(GuidedGradient())
        assert passes.counts.forwards == 1
        assert passes.counts.backwards["input"] == 3
    for n in range(3):
        alone = guided(model, images, TARGETS[[n]])
        torch.testing.assert_close(alone, together[[n]], rtol=1e-10, atol=1e-14)


def test_nothing_is_left_after_a_forward_that_raises():
    model = tiny_model()
    handle = model.module.fc.register_forward_pre_hook(_raise)
    with (
        evaluating(model.module),
        Passes(model, Batch.single(pictures(3), TARGETS)) as passes,
        pytest.raises(OSError, match="on purpose"),
    ):
        GuidedBackprop()(passes)
    handle.remove()
    assert hooks_of(model.module) == 0
    x = torch.full((1,), -1.0, requires_grad=True)
    (x + 2).relu().mul(-1).sum().backward()  # an ordinary ReLU again
    assert float(x.grad) == -1


def _raise(*_: object) -> None:
    raise OSError("on purpose")


class TestSuit:
    """Networks that have no ReLU."""

    def test_a_network_with_relus_suits(self):
        GuidedBackprop().check(SmallResNet(width=2))
        GuidedBackprop().suit(tiny_model())

    def test_another_is_refused(self):
        model = Model(nn.Sequential(nn.Flatten(), nn.GELU()), {"input": ""}, lambda images: images)
        with pytest.raises(ValueError, match=r"suits networks with nn.ReLU modules"):
            GuidedBackprop().suit(model)

    def test_on_a_b_cos_network_it_is_the_plain_gradient(self):
        module = nn.Sequential(nn.Flatten(), nn.Linear(432, 4).double())
        model = Model(module, {"input": ""}, lambda images: images, explaining=nullcontext)
        GuidedBackprop().suit(model)
        images = pictures(3)
        with evaluating(module), Passes(model, Batch.single(images, TARGETS)) as passes:
            assert torch.equal(GuidedBackprop()(passes), SignedGradient()(passes))
