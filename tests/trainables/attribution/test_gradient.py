"""Gradient methods against identities, captum and arrays made by the authors' code."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from captum.attr import InputXGradient as CaptumInputXGradient
from captum.attr import Saliency as CaptumSaliency
from torch import nn

from tests.trainables.attribution.idsds_golden import NETWORKS, arrays, full_size, network
from tests.trainables.networks import gradient_of, pictures, tiny_model
from trainables.attribution.attribution import Attribution
from trainables.attribution.gradient import InputXGradient, Saliency, SignedGradient
from trainables.batch import Batch
from trainables.models.network import DEPTHS, Model, Tokens, evaluating
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


@pytest.mark.parametrize("layer", DEPTHS)
def test_gradient_and_saliency_are_the_same_gradient_read_differently(layer):
    model, images, targets = tiny_model(), pictures(3), torch.tensor([2, 0, 3])
    plain = gradient_of(model, images, targets, layer)
    signed, _ = maps_of(SignedGradient(layer=layer), model, images, targets)
    largest, _ = maps_of(Saliency(layer=layer), model, images, targets)
    summed, _ = maps_of(Saliency(layer=layer, channels="sum"), model, images, targets)
    torch.testing.assert_close(signed, plain.sum(1), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(largest, plain.abs().max(1).values, rtol=1e-10, atol=1e-14)
    assert torch.equal(summed, signed.abs())
    assert not torch.allclose(largest, summed)


def test_saliency_agrees_with_captum():
    model, images, targets = tiny_model(), pictures(3), torch.tensor([2, 0, 3])
    maps, _ = maps_of(Saliency(), model, images, targets)
    theirs = CaptumSaliency(model.module).attribute(images.requires_grad_(), target=targets)
    torch.testing.assert_close(maps, theirs.detach().amax(1), rtol=1e-10, atol=1e-14)


def test_methods_at_a_layer_share_one_forward_and_one_backward():
    model, images, targets = tiny_model(), pictures(3), torch.tensor([2, 0, 3])
    methods: list[Attribution] = [
        SignedGradient(),
        SignedGradient(absolute=True),
        Saliency(),
        Saliency(channels="sum"),
        InputXGradient(),
        InputXGradient(absolute=True),
    ]
    with evaluating(model.module), Passes(model, Batch.single(images, targets)) as passes:
        for method in methods:
            method(passes)
        assert passes.counts.forwards == 3
        assert passes.counts.backwards["input"] == 3


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("method", "key"),
    [(SignedGradient(), "map.Gradient"), (InputXGradient(), "map.IxG")],
    ids=lambda value: getattr(value, "key", value),
)
def test_maps_are_those_of_idsds(name, method, key):
    golden = arrays(f"idsds/{name}")[key][:, 0]
    assert (full_size(method, name) - golden).abs().max() <= 2e-5 * golden.abs().max()


@pytest.mark.parametrize("name", NETWORKS)
def test_saliency_of_idsds_is_the_absolute_sum_over_channels(name):
    golden = arrays(f"idsds/{name}")["map.Gradient"][:, 0].abs()
    for same in (Saliency(channels="sum"), SignedGradient(absolute=True)):
        assert (full_size(same, name) - golden).abs().max() <= 2e-5 * golden.abs().max()
    assert (full_size(Saliency(), name) - golden).abs().max() > 0.1 * golden.abs().max()


class TestProbabilities:
    """The same methods after the softmax."""

    @pytest.mark.parametrize("name", NETWORKS)
    def test_maps_are_those_of_idsds(self, name):
        golden = arrays(f"idsds/{name}")
        model = network(name).with_probabilities()
        maps, outputs = maps_of(InputXGradient(), model, golden["images"], golden["targets"])
        expected = golden["post.map.IxG"][:, 0]
        assert (maps - expected).abs().max() <= 2e-5 * expected.abs().max()
        torch.testing.assert_close(outputs, golden["logits"].softmax(1), rtol=1e-4, atol=1e-6)

    def test_layers_keep_their_names_and_parts_their_modes(self):
        model = tiny_model(training=True)
        model.module.layer2.eval()
        after = model.with_probabilities()
        assert [part.training for part in (model.module, model.module.layer2)] == [True, False]
        assert {name for name, _ in after.module.named_parameters()} == {
            f"0.{name}" for name, _ in model.module.named_parameters()
        }
        images, targets = pictures(2), torch.tensor([1, 3])
        after.module.eval()
        for layer in DEPTHS:
            assert after.path_of(layer) in dict(after.module.named_modules())
            maps, _ = maps_of(SignedGradient(layer=layer), after, images, targets)
            plain = gradient_of(after, images, targets, layer).sum(1)
            torch.testing.assert_close(maps, plain, rtol=1e-10, atol=1e-14)

    def test_tokens_are_found_behind_the_softmax(self):
        model = Model(nn.Identity(), {"input": ""}, lambda images: images)
        tokens = Tokens(patch_px=4, prefix=1, blocks=("blocks.0",), attentions=("blocks.0.drop",))
        after = replace(model, tokens=tokens).with_probabilities()
        assert after.tokens == replace(
            tokens, blocks=("0.blocks.0",), attentions=("0.blocks.0.drop",)
        )
        assert model.with_probabilities().tokens is None
