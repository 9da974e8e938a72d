"""Guidance works with every kind of network at every depth: exact gradients, weights that move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.trainables.scenes import BASELINE, GUIDED
from trainables.attribution.attribution import Attribution
from trainables.attribution.bcos import Bcos
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.guided_training import guided_step
from trainables.losses.localization import Energy
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.fixup_resnet import SmallFixupResNet, SmallXResNet
from trainables.models.network import DEPTHS, Model, Network
from trainables.models.small_resnet import SmallResNet

CLASSES, SIZE_PX, WEIGHT = 3, 16, 2.0
KINDS: list[tuple[Network, type[Attribution]]] = [
    (SmallResNet(width=2), InputXGradient),
    (SmallResNet(width=2), GradCam),
    (SmallBcosResNet(width=2).with_new_head(), Bcos),
    (SmallBcosResNet(width=2).with_new_head(), GradCam),
    (SmallXResNet(width=2).with_new_head(), InputXGradient),
    (SmallXResNet(width=2).with_new_head(), GradCam),
    (SmallFixupResNet(width=2), InputXGradient),
]


def cases(layers: Sequence[str]) -> pytest.MarkDecorator:
    """Each kind of network and method at each of the layers; Grad-CAM's quick only at the end."""
    return pytest.mark.parametrize(
        ("network", "method", "layer"),
        [
            pytest.param(
                *(network, method, layer),
                id=f"{network.name} {method.name} {layer}",
                marks=[pytest.mark.slow] if method is GradCam and layer != "final" else [],
            )
            for network, method in KINDS
            for layer in layers
        ],
    )


ANNOTATED = torch.tensor([True, False, True])


def built(network: Network) -> Model:
    """In float64 and in train mode, no weight at its initial zero or one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network.build(CLASSES)
        model.module.double().train()
        for parameter in model.module.parameters():
            parameter.data += (
                0.3 * torch.randn(parameter.shape) / max(1, parameter[0].numel()) ** 0.5
            )
    return model


@cache
def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (3, 3, SIZE_PX, SIZE_PX)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def step(model: Model, attribution: Attribution) -> Tensor:
    """The objective of a guided step, whose gradients it leaves."""
    masks = torch.zeros(3, SIZE_PX, SIZE_PX, dtype=torch.bool)
    masks[:, 4:12, 2:9] = True
    targets = torch.tensor([2, 0, 1])
    batch = Batch.single(model.encode(pixels()).double(), targets, masks)
    labels = functional.one_hot(targets, CLASSES).double()
    values = guided_step(model, batch, labels, ANNOTATED, attribution, Energy(), WEIGHT)
    return torch.tensor(values, dtype=torch.float64) @ torch.tensor([1.0, WEIGHT]).double()


@cases(DEPTHS)
def test_the_gradient_is_the_finite_difference_of_the_objective(network, method, layer):
    model, attribution = built(network), method(layer=layer)
    parameters = list(model.module.parameters())
    step(model, attribution)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    assert all(torch.isfinite(g).all() for g in gradients)
    generator = torch.Generator().manual_seed(2)
    before = [p.detach().clone() for p in parameters]
    for chosen in ([0], range(len(parameters))):  # the first layer's, and all
        directions = {
            k: torch.randn(parameters[k].shape, generator=generator, dtype=torch.float64)
            for k in chosen
        }
        slope = sum((gradients[k] * d).sum() for k, d in directions.items())
        size, values = 1e-7, []  # so small that hardly a ReLU changes sides
        for sign in (1, -1):
            with torch.no_grad():
                for k, d in directions.items():
                    parameters[k].copy_(before[k] + sign * size * d)
            values.append(step(model, attribution))
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        difference = (values[0] - values[1]) / (2 * size)
        torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-7)
        assert slope != 0


@cases(["input", "final"])
def test_a_step_moves_the_weights_otherwise_than_without_guidance(network, method, layer):
    guided, plain = built(network), built(network)
    before = [p.clone() for p in guided.module.parameters()]
    step(guided, method(layer=layer))
    logits = plain.module(plain.encode(pixels()).double())
    hot = functional.one_hot(torch.tensor([2, 0, 1]), CLASSES).double()
    functional.binary_cross_entropy_with_logits(logits, hot).backward()
    for model in (guided, plain):
        torch.optim.Adam(model.module.parameters(), lr=1e-2).step()
    pairs = zip(guided.module.parameters(), before, plain.module.parameters(), strict=True)
    moved = [(not torch.equal(now, was), not torch.equal(now, other)) for now, was, other in pairs]
    assert moved[0][0]  # by the first layer
    assert moved[-1][0]  # and by the head
    assert any(other for _, other in moved)


@pytest.mark.parametrize(
    ("network", "attribution"),
    [
        (SmallBcosResNet(width=2).with_new_head(), Bcos(layer="input")),
        pytest.param(SmallBcosResNet(width=2), GradCam(), marks=pytest.mark.slow),
        pytest.param(
            SmallXResNet(width=2, fresh_head=True), InputXGradient(), marks=pytest.mark.slow
        ),
        pytest.param(
            SmallFixupResNet(width=2), InputXGradient(layer="mid2"), marks=pytest.mark.slow
        ),
    ],
    ids=lambda value: value.name,
)
def test_a_training_of_each_kind_runs_to_its_end(network, attribution, empty_bench):
    start = replace(BASELINE, network=network, epochs=1)
    result = replace(GUIDED, start=start, attribution=attribution, epochs=1, annotated_fraction=0.5)
    result.check()
    assert empty_bench.run(result), empty_bench.events[-1]
    ((_, metrics), *_) = empty_bench.history(result)
    assert {"localization_loss", "val/epg", "val/f1"} <= {k.removeprefix("train/") for k in metrics}
