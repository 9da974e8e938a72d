"""What every network promises."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import trainables.models  # noqa: F401  registers
from tests.device_literals import device_literals
from tests.trainables.networks import hooks_of
from tests.trainables.registered import example
from trainables.models.network import (
    DEPTHS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Model,
    Network,
    evaluating,
)
from trainables.models.small_resnet import SmallResNet

NETWORKS = [example(cls) for _, cls in sorted(Network.registered.items())]
each_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.key)


@cache
def without_weights(network: Network) -> Model:
    """The network with 7 classes on torch's device of shapes: quick at any size."""
    with torch.device("meta"):
        return network.build(7)


@each_network
def test_the_five_depths_are_in_forward_order_and_shrink(network):
    model, sizes, handles = without_weights(network), dict[str, tuple[int, ...]](), []

    def maps(out: Tensor) -> Tensor:
        return model.tokens.grid(out, (128, 128)) if out.ndim == 3 and model.tokens else out

    for depth, path in model.depths.items():
        if path:
            module = model.module.get_submodule(path)
            handles.append(
                module.register_forward_hook(
                    lambda _m, _i, out, depth=depth: sizes.update({depth: tuple(maps(out).shape)})
                )
            )
    pixels = torch.zeros(2, 3, 128, 128, dtype=torch.uint8, device="meta")
    logits = model.module(model.encode(pixels))
    for handle in handles:
        handle.remove()
    assert logits.shape == (2, 7)
    assert tuple(model.depths) == DEPTHS
    assert model.depths["input"] == ""
    assert tuple(sizes) == DEPTHS[1:]
    assert all(len(shape) == 4 for shape in sizes.values())
    sides = [shape[-1] for shape in sizes.values()]
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] < 128


@each_network
def test_no_operation_is_in_place(network):
    model = without_weights(network)
    assert not any(getattr(part, "inplace", False) for part in model.module.modules())


@each_network
def test_says_what_it_is_and_names_no_device(network):
    assert type(network).__doc__
    assert device_literals(type(network)) == []


def test_pixels_are_scaled_and_normalized_by_channel():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    images[1] = 255
    encoded = SmallResNet().encode(images)
    assert encoded.dtype == torch.float32
    for channel, (mean, deviation) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        torch.testing.assert_close(encoded[0, channel], torch.full((4, 4), -mean / deviation))
        torch.testing.assert_close(encoded[1, channel], torch.full((4, 4), (1 - mean) / deviation))


def test_the_caller_seeds_the_weights():
    weights = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            weights.append(SmallResNet(width=2).build(3).module.fc.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_final_maps_of_the_small_resnet_are_8_by_8_at_64_px():
    module = SmallResNet().build(10).module
    seen = []
    module.layer4.register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    module(torch.zeros(1, 3, 64, 64))
    assert seen == [(1, 64, 8, 8)]
    assert 140_000 < sum(p.numel() for p in module.parameters()) < 160_000


def test_evaluating_freezes_and_restores():
    module = SmallResNet(width=2).build(3).module
    module.train()
    module.layer2.eval()
    module.fc.weight.requires_grad_(False)
    with evaluating(module):
        assert not any(part.training for part in module.modules())
        assert not any(p.requires_grad for p in module.parameters())
    assert module.training
    assert not module.layer2[0].training
    assert module.fc.bias.requires_grad
    assert not module.fc.weight.requires_grad
    with pytest.raises(OSError, match="within"), evaluating(module):
        raise OSError("within")
    assert module.training
    assert hooks_of(module) == 0


def test_an_unknown_network_is_refused_and_the_known_are_listed():
    with pytest.raises(
        ValueError, match=r"unknown network 'resnet51'; known: .*resnet50, .*small_resnet"
    ):
        Network.named("resnet51")
