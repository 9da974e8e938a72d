"""Heads after the mean over places, and linear heads as one product: the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainables.frozen_features import BatchFeatures, pooled
from trainables.models.probe import BcosProbe, ConventionalProbe, Features, Probe
from trainables.pooled_head import LinearBank, PooledHead, shape_of

SHAPES = {"map": (4, 6, 3, 5), "tokens": (4, 7, 6), "class_token": (4, 6)}
PROBES = [
    make(layers=layers, hidden=5, logit_bias=-0.7)
    for make in (ConventionalProbe, BcosProbe)
    for layers in (1, 2, 3)
]


def given(form: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SHAPES[form], generator=generator, dtype=torch.float64)


def head_of(probe: Probe, form: str, bcos: bool = False) -> torch.nn.Module:
    return probe.head(Features(6, form, bcos), 3).double()


@pytest.mark.parametrize("form", SHAPES)
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.key)
@pytest.mark.parametrize("bcos", [False, True])
def test_logits_and_gradients_are_those_of_the_head(probe, form, bcos):
    head = head_of(probe, form, bcos)
    whole = given(form)
    found = PooledHead(head)(BatchFeatures(lambda: whole))
    gradients = torch.autograd.grad(found.square().sum(), list(head.parameters()))
    expected = head(whole)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    wanted = torch.autograd.grad(expected.square().sum(), list(head.parameters()))
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def test_only_a_linear_head_needs_no_more_than_the_mean():
    kinds = {probe.key: PooledHead(head_of(probe, "map")).kind for probe in PROBES}
    assert [key for key, kind in kinds.items() if kind == "pooled"] == [PROBES[0].key]
    normed = PooledHead(head_of(PROBES[0], "tokens", bcos=True))
    assert normed.kind == "whole"  # each token has its norm
    assert PooledHead(torch.nn.Flatten()).kind == "whole"


@pytest.mark.parametrize("bcos", [False, True])
def test_a_bank_is_its_layers(bcos):
    """Outputs, gradients, and steps that optimizers of their own take."""
    heads = [PooledHead(head_of(PROBES[0], "map", bcos)) for _ in range(3)]
    layers = [head.last for head in heads if head.last is not None]
    assert len({shape_of(layer) for layer in layers}) == 1
    means = pooled(given("map"))
    alone = [torch.nn.functional.linear(means, w.weight.flatten(1), w.bias) for w in layers]
    weights = [list(layer.parameters()) for layer in layers]
    wanted = [
        torch.autograd.grad(out.square().sum() * (k + 1), its)
        for k, (out, its) in enumerate(zip(alone, weights, strict=True))
    ]
    bank = LinearBank(layers)
    outputs = bank(means)
    for k, (output, expected) in enumerate(zip(outputs, alone, strict=True)):
        torch.testing.assert_close(output.detach(), expected.detach())
        (output.square().sum() * (k + 1)).backward()
    bank.spread(means, outputs)
    for its, gradients in zip(weights, wanted, strict=True):
        torch.testing.assert_close([p.grad for p in its], list(gradients))
    before = [output.detach() for output in bank(means)]
    torch.optim.SGD(weights[1], lr=0.1).step()
    after = [output.detach() for output in bank(means)]
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert moved == [False, True, False]
    torch.testing.assert_close(
        after[1], heads[1](BatchFeatures(lambda: given("map"))).detach() + 0.7
    )


def test_an_output_without_gradient_leaves_its_layer_where_it_is():
    layers = [torch.nn.Linear(6, 2, dtype=torch.float64) for _ in range(2)]
    bank, means = LinearBank(layers), pooled(given("map"))
    outputs = bank(means)
    outputs[0].sum().backward()
    bank.spread(means, outputs)
    assert layers[0].weight.grad is not None
    assert layers[1].weight.grad is not None
    assert layers[0].weight.grad.any()
    assert not layers[1].weight.grad.any()
