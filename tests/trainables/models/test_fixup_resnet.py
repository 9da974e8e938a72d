"""Fixup ResNets and X-DNNs: layout, initialization, the authors' arrays, homogeneity."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainables.networks import losses_of
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.models.fixup_resnet import (
    FixupResNet,
    FixupResNet50,
    SmallFixupResNet,
    SmallXResNet,
    XResNet50,
    basic_block,
    bottleneck,
)
from trainables.models.network import Model, Network, evaluating
from trainables.passes import Passes

GOLDEN = Path(__file__).parents[2] / "golden" / "guidance" / "attr_tiny_xdnn.npz"
IDENTITY = {"rtol": 1e-10, "atol": 1e-12}


@cache
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    return {k: t.double() if t.is_floating_point() else t for k, t in arrays.items()}


def tiny_xdnn() -> Model:
    """The network of the golden arrays, out of our blocks."""
    stages = [[bottleneck(4, 2, 1, biases=False)], [basic_block(8, 8, 2, biases=False)]]
    stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    net = FixupResNet(stem, nn.MaxPool2d(3, 2, 1), stages, nn.Linear(8, 5), biases=False).double()
    net.load_state_dict({k[2:]: t for k, t in golden().items() if k.startswith("w/")})
    depths = {"input": "", "mid1": "layer1", "final": "layer2"}
    return Model(net.eval(), depths, lambda images: images)


def meta(network: Network) -> nn.Module:
    with torch.device("meta"):
        return network.module(1000)


def jittered(network: Network, classes: int = 4) -> Model:
    """In float64 with no parameter at its initial zero or one."""
    model = network.build(classes)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.module.double().eval().parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += 0.3 * noise / max(1, parameter[0].numel()) ** 0.5
    return model


def images(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 32, 32, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("layer", ["Input", "Mid1", "Final"])
def test_the_authors_maps_through_our_blocks(layer):
    arrays, model = golden(), tiny_xdnn()
    batch = Batch.single(arrays["x"], arrays["classes"])
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = InputXGradient(layer=layer.lower())(passes)
        logits = passes.logits
    torch.testing.assert_close(logits, arrays[f"eval/{layer}/logits"], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(maps, arrays[f"eval/{layer}/IxG/attr"], rtol=1e-6, atol=1e-9)
    total = arrays["logit_minus_bias"]
    torch.testing.assert_close(maps.sum((1, 2)), total, rtol=1e-6, atol=1e-9)
    if layer == "Input":
        integrated = arrays["intgrad_captum_64_steps"]
        torch.testing.assert_close(maps, integrated, rtol=1e-6, atol=1e-9)


def test_the_state_dicts_are_laid_out_as_published():
    x_keys = {"conv1.weight", "fc.weight"}
    keys = {"bias1", "bias2", "fc.bias"}
    scalars = ("bias1a", "bias1b", "bias2a", "bias2b", "bias3a", "scale", "bias3b")
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        x_keys.add(f"layer{layer}.0.downsample.weight")
        for block in range(blocks):
            x_keys |= {f"layer{layer}.{block}.conv{k}.weight" for k in (1, 2, 3)}
            keys |= {f"layer{layer}.{block}.{name}" for name in scalars}
    fixup, x = meta(FixupResNet50()).state_dict(), meta(XResNet50()).state_dict()
    assert fixup.keys() == keys | x_keys
    assert x.keys() == x_keys
    assert all(fixup[key].shape == (1,) for key in keys - {"fc.bias"})
    assert fixup["layer3.0.conv2.weight"].shape == (256, 256, 3, 3)
    assert fixup["layer1.0.downsample.weight"].shape == (256, 64, 1, 1)
    assert meta(FixupResNet50()).layer2[0].conv2.stride == (2, 2)
    assert meta(FixupResNet50()).layer2[0].conv1.stride == (1, 1)
    assert "fc.bias" in meta(XResNet50(fresh_head=True)).state_dict()


def test_a_block_by_hand():
    block = bottleneck(3, 2, 2, biases=True).double()
    values = {"bias1a": 0.1, "bias1b": -0.2, "bias2a": 0.3, "bias2b": 0.4, "bias3a": -0.5}
    values |= {"bias3b": 0.6, "scale": 0.7}
    generator = torch.Generator().manual_seed(0)
    for name, parameter in block.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = noise if name not in values else noise * 0 + values[name]
    x = images(2)[..., :6, :6]
    with torch.no_grad():
        y = nn.functional.conv2d(x + 0.1, block.conv1.weight)
        y = nn.functional.conv2d((y - 0.2).relu() + 0.3, block.conv2.weight, stride=2, padding=1)
        y = nn.functional.conv2d((y + 0.4).relu() - 0.5, block.conv3.weight) * 0.7 + 0.6
        shortcut = nn.functional.conv2d(x + 0.1, block.downsample.weight, stride=2)
        torch.testing.assert_close(block(x), (y + shortcut).relu(), **IDENTITY)


def test_the_identity_of_a_block_has_no_bias():
    block = basic_block(3, 3, 1, biases=True)
    block.initialize(1)
    nn.init.constant_(block.bias1a, 5.0)
    x = torch.rand(1, 3, 4, 4)
    assert torch.equal(block(x), x)  # the last convolution is zero


@pytest.mark.parametrize(("make", "power"), [(bottleneck, -0.25), (basic_block, -0.5)])
def test_fixup_initialization(make, power):
    torch.manual_seed(0)
    block = make(64, 64, 2, biases=True)
    block.initialize(16)
    shrunk = 16**power
    last = "conv3" if make is bottleneck else "conv2"
    for name, weight in block.named_parameters():
        if name.endswith(f"{last}.weight"):
            assert (weight == 0).all()
        elif "weight" in name:
            he = (2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5
            expected = he * (1 if "downsample" in name else shrunk)
            assert weight.std().item() == pytest.approx(expected, rel=0.05)
        else:
            assert weight.item() == (1 if name == "scale" else 0)


def test_published_heads_start_at_zero_and_a_fresh_one_does_not():
    for network in (SmallFixupResNet(width=2), SmallXResNet(width=2)):
        assert (network.build(3).module(torch.randn(2, 3, 32, 32)) == 0).all()
    fresh = SmallXResNet(width=2, fresh_head=True).build(3).module
    assert (fresh(torch.randn(2, 3, 32, 32)) != 0).all()


@pytest.mark.parametrize("layer", ["input", "mid1", "mid2", "mid3", "final"])
@pytest.mark.parametrize("fresh_head", [False, True])
def test_input_x_gradient_of_an_x_network_is_the_logit_without_the_heads_bias(layer, fresh_head):
    model = jittered(SmallXResNet(width=3, fresh_head=fresh_head))
    targets = torch.tensor([3, 1, 0])
    with evaluating(model.module), Passes(model, Batch.single(images(3), targets)) as passes:
        maps, logits = InputXGradient(layer=layer)(passes), passes.logits
    expected = logits.gather(1, targets[:, None])[:, 0]
    if fresh_head:
        expected = expected - model.module.fc.bias[targets].detach()
    assert (expected.abs() > 1e-6).all()
    torch.testing.assert_close(maps.sum((1, 2)), expected, **IDENTITY)


def test_an_x_network_is_homogeneous_and_fixup_is_not():
    x, fixup = jittered(SmallXResNet(width=3)), jittered(SmallFixupResNet(width=3))
    with torch.no_grad():
        for times in (0.25, 7.0):
            expected = times * x.module(images(2))
            torch.testing.assert_close(x.module(times * images(2)), expected, **IDENTITY)
        assert not torch.allclose(fixup.module(7 * images(2)), 7 * fixup.module(images(2)))


@pytest.mark.parametrize("network", [SmallFixupResNet(), SmallXResNet()], ids=lambda n: n.key)
def test_the_small_ones_have_final_maps_of_8_by_8_at_64_px(network):
    module, seen = network.build(10).module, []
    module.layer4.register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    module(torch.zeros(1, 3, 64, 64))
    assert seen == [(1, 64, 8, 8)]
    assert 140_000 < sum(p.numel() for p in module.parameters()) < 160_000


@pytest.mark.parametrize("network", [SmallFixupResNet(width=4), SmallXResNet(width=4)])
def test_the_small_ones_learn(network):
    losses = losses_of(network)
    assert losses[-1] < 0.5 * losses[0]
