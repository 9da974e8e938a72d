"""Training starts from files as they are published, and from nothing else."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.trainables.scenes import BASELINE, GUIDED
from trainables.models.bcos_network import IMAGENET_LOGIT_BIAS
from trainables.models.bcos_resnet import BcosResNet50, SmallBcosResNet
from trainables.models.fixup_resnet import SmallFixupResNet, SmallXResNet, XResNet50
from trainables.models.network import Network
from trainables.models.pretrained import PretrainedWeights, head_of, pretrained_of
from trainables.models.small_resnet import SmallResNet
from trainables.models.torchvision_vgg import SmallVgg
from trainables.models.user_network import UserNetwork
from trainables.result import parameters

IMAGENET = 1000
Published = dict[str, Tensor]


def published(network: Network) -> Published:
    """Weights of the network with ImageNet's classes, each tensor with values of its own."""
    return dict(made(network))


@cache
def made(network: Network) -> Published:
    generator = torch.Generator().manual_seed(3)
    state = network.build(IMAGENET).module.state_dict()
    return {
        key: torch.rand(t.shape, generator=generator) if t.is_floating_point() else t + 7
        for key, t in state.items()
    }


def prefixed(prefix: str, state: Published) -> Published:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def without(prefix: str, state: Published) -> Published:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items()}


def biasless(state: Published) -> Published:
    return {key: tensor for key, tensor in state.items() if key != "fc.bias"}


RESNET, XNET = SmallResNet(width=2), SmallXResNet(width=2, fresh_head=True)
BCOS, FIXUP = SmallBcosResNet(width=2), SmallFixupResNet(width=2)
VIT, BCOS_VIT, VGG = Network.named("small_vit"), Network.named("small_bcos_vitc"), SmallVgg(width=2)
LAYOUTS = {
    "torchvision resnet": (RESNET, lambda s: s, "fc"),
    "torchvision vgg": (VGG, lambda s: s, "classifier.2"),
    "of before 2018": (RESNET, lambda s: {k: t for k, t in s.items() if "num_b" not in k}, "fc"),
    "b-cos zoo": (BCOS, lambda s: s, "fc.linear"),
    "b-cos in a sequence": (BCOS, lambda s: prefixed("0.", s), "fc.linear"),
    "b-cos vit": (BCOS_VIT, lambda s: s, None),
    "b-cos vit, flat": (BCOS_VIT, lambda s: without("0.", s), None),
    "x-dnn": (XNET, lambda s: {"state_dict": prefixed("module.", biasless(s)), "epoch": 90}, "fc"),
    "fixup": (FIXUP, lambda s: {"state_dict": prefixed("module.", s)}, "fc"),
    "timm": (VIT, lambda s: s, "head"),
    "no head": (RESNET, lambda s: {k: t for k, t in s.items() if k[:2] != "fc"}, "fc"),
}  # fmt: skip


def saved(content: object, path: Path) -> PretrainedWeights:
    torch.save(content, path)
    return pretrained_of(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_file_fills_everything_but_the_head(layout, tmp_path):
    network, arranged, head = LAYOUTS[layout]
    state = published(network)
    weights = saved(arranged(state), tmp_path / "published.pth")
    weights.check(network)
    module = network.build(3).module
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    torch.manual_seed(0)
    weights.load(module, network)
    heads = {key.rpartition(".")[0] for key in head_of(network)}
    assert len(heads) == 1
    assert head is None or heads == {head}
    for key, tensor in module.state_dict().items():
        if key.rpartition(".")[0] in heads:
            assert tensor.shape == before[key].shape
        elif layout != "of before 2018" or "num_b" not in key:
            assert torch.equal(tensor, state[key].to(tensor.dtype)), key


@pytest.mark.parametrize("network", [BCOS, XNET, FIXUP, RESNET], ids=lambda n: n.name)
def test_a_new_head_starts_as_torch_initializes_such_a_layer(network, tmp_path):
    weights = saved(published(network), tmp_path / "published.pth")
    modules = []
    for _ in range(2):
        modules.append(network.build(3).module)
        torch.manual_seed(5)  # what was drawn before does not matter
        weights.load(modules[-1], network)
    path = next(iter(head_of(network))).rpartition(".")[0]
    one, other = (module.get_submodule(path) for module in modules)
    torch.manual_seed(5)
    features = one.weight.shape[1]
    conv = one.weight.ndim == 4
    fresh = nn.Conv2d(features, 3, 1, bias=False) if conv else nn.Linear(features, 3)
    assert torch.equal(one.weight, fresh.weight)
    assert torch.equal(other.weight, fresh.weight)
    assert conv or torch.equal(one.bias, fresh.bias)


def test_a_head_of_as_many_classes_is_taken_too(tmp_path):
    state = published(RESNET)
    weights = saved(state, tmp_path / "published.pth")
    module = RESNET.build(IMAGENET).module
    weights.load(module, RESNET)
    assert torch.equal(module.fc.weight, state["fc.weight"])
    weights = saved({k: t for k, t in state.items() if k != "fc.bias"}, tmp_path / "half.pth")
    module = RESNET.build(IMAGENET).module
    weights.load(module, RESNET)  # half a head is none
    assert not torch.equal(module.fc.weight, state["fc.weight"])


def test_safetensors_hold_the_same(tmp_path):
    state = published(BCOS)
    save_file(prefixed("0.", state), tmp_path / "published.safetensors")
    module = BCOS.build(3).module
    pretrained_of(tmp_path / "published.safetensors").load(module, BCOS)
    assert torch.equal(module.conv1.linear.weight, state["conv1.linear.weight"])


def test_a_file_of_another_network_is_refused_in_one_line_that_names_every_tensor(tmp_path):
    state = published(RESNET)
    state["layer4.0.conv2.weight"] = torch.zeros(3, 3)
    state["layer5.0.weight"] = state.pop("layer1.0.conv1.weight")
    weights = saved(state, tmp_path / "other.pth")
    message = (
        r"other\.pth does not fit ResNet: missing: layer1\.0\.conv1\.weight; unknown: "
        r"layer5\.0\.weight; other shapes: layer4\.0\.conv2\.weight \(3, 3\) for \(8, 8, 3, 3\)$"
    )
    module = RESNET.build(3).module
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    for refused in (lambda: weights.check(RESNET), lambda: weights.load(module, RESNET)):
        with pytest.raises(ValueError, match=message):
            refused()
    assert all(torch.equal(tensor, before[k]) for k, tensor in module.state_dict().items())
    with pytest.raises(ValueError, match=r"missing: .*; unknown: bn1\.bias, "):
        weights.check(BCOS)


def test_no_key_of_a_flat_file_is_lost(tmp_path):
    state = without("0.", published(BCOS_VIT))
    weights = saved(state | {"extra.weight": torch.zeros(2)}, tmp_path / "flat.pth")
    with pytest.raises(ValueError, match=r"unknown: 0\.extra\.weight$"):
        weights.check(BCOS_VIT)


def test_the_file_is_known_by_its_contents_and_its_place_does_not_matter(tmp_path):
    state = published(RESNET)
    one, other = saved(state, tmp_path / "a.pth"), saved(state, tmp_path / "b.pth")
    os.replace(tmp_path / "b.pth", tmp_path / "c.pth")
    moved = pretrained_of(tmp_path / "c.pth")
    assert moved.sha256 == hashlib.sha256((tmp_path / "c.pth").read_bytes()).hexdigest()
    assert moved.result_id == other.result_id
    assert moved.path == str(tmp_path / "c.pth") != one.path
    start, plain = replace(BASELINE, pretrained=moved), replace(BASELINE, pretrained=None)
    assert replace(start, pretrained=replace(moved, path="elsewhere")).result_id == start.result_id
    assert plain.result_id == BASELINE.result_id != start.result_id
    assert parameters(start)["pretrained.sha256"] == moved.sha256
    assert str(tmp_path) not in str(parameters(start))
    assert start.label == f"baseline small_resnet_width4 from pretrained_{moved.sha256[:8]} seed 0"


def test_another_file_in_its_place_is_refused(tmp_path):
    weights = saved(published(RESNET), tmp_path / "w.pth")
    torch.save(published(FIXUP), tmp_path / "w.pth")
    start = replace(BASELINE, network=RESNET, pretrained=weights)
    with pytest.raises(ValueError, match=rf"w\.pth: sha256 is \w{{12}}.*{weights.sha256[:12]}"):
        start.check()
    (tmp_path / "w.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"w\.pth: no such file of pretrained weights"):
        start.check()
    with pytest.raises(FileNotFoundError, match=r"w\.pth: no such file of pretrained weights"):
        pretrained_of(tmp_path / "w.pth")
    with pytest.raises(ValueError, match="sha256 = 'abc': expected 64 hex digits"):
        PretrainedWeights(sha256="abc")


def test_a_network_that_fixes_its_classes_has_no_head():
    assert head_of(UserNetwork()) == {"head.weight", "head.bias"}
    fixed = UserNetwork(build_path="tests.trainables.models.test_pretrained:three_classes")
    assert head_of(fixed) == frozenset()


def three_classes() -> nn.Module:
    return UserNetwork().module(3)


def test_networks_say_which_head_other_classes_get():
    assert BcosResNet50().with_new_head().logit_bias == IMAGENET_LOGIT_BIAS
    assert pytest.approx(-6.9068, abs=1e-4) == IMAGENET_LOGIT_BIAS
    assert BcosResNet50(logit_bias=-1.0).with_new_head().logit_bias == -1
    assert math.isclose(BCOS.with_new_head().build(20).module.logit_layer.bias, -math.log(999))
    assert XResNet50().with_new_head() == XResNet50(fresh_head=True)
    assert RESNET.with_new_head() is RESNET


def test_a_training_and_what_starts_from_it_go_on_from_the_file(empty_bench, tmp_path):
    network = replace(BASELINE.network, width=2)
    state = published(network)
    weights = saved({"state_dict": prefixed("module.", state)}, tmp_path / "published.pth.tar")
    start = replace(BASELINE, network=network, pretrained=weights, epochs=1, learning_rate=1e-9)
    assert empty_bench.run(start), empty_bench.events[-1]
    trained = empty_bench.weights(start)
    torch.testing.assert_close(trained["conv1.weight"], state["conv1.weight"])
    assert trained["fc.weight"].shape == (3, 8)
    guided = replace(GUIDED, start=start, epochs=1, learning_rate=1e-9)
    assert empty_bench.run(guided), empty_bench.events[-1]
    torch.testing.assert_close(empty_bench.weights(guided)["conv1.weight"], state["conv1.weight"])
