"""Files of IDSDS's networks as they are published fill the whole of a network, or are refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trainables.models  # noqa: F401  registers
from sweeps.idsds_recipes import IMAGENET, SAMPLE
from trainables.models.bcos_layers import BcosConv2d
from trainables.models.bcos_network import BcosNetwork
from trainables.models.bcos_norms import BatchNormUncentered2d
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.fixup_resnet import UnnormalizedResNet
from trainables.models.network import Network
from trainables.models.pretrained import pretrained_of
from trainables.models.torchvision_vgg import SmallXVgg, XVgg16
from trainables.models.weights_file import fitting_weights
from trainables.models.window_net import WindowNet

State = dict[str, Tensor]
IMAGENET_CLASSES = 1000
SIBLINGS = {
    "resnet18": "small_resnet",
    "resnet50": "small_resnet",
    "resnet101": "small_deep_resnet",
    "resnet152": "small_deep_resnet",
    "wide_resnet50_2": "small_wide_resnet",
    "fixup_resnet50": "small_fixup_resnet",
    "xresnet50": "small_xresnet",
    "vgg11": "small_vgg",
    "vgg13": "small_vgg",
    "vgg16": "small_vgg",
    "vgg19": "small_vgg",
    "vgg16_bn": "small_vgg_bn",
    "xvgg16": "small_xvgg",
    "vit_base_patch16": "small_vit",
    "bcos_resnet50": "small_bcos_resnet",
    "bagnet33": "small_bagnet",
}
"""What each network of the paper is on the sample."""
ON_DEMAND = {"small_vgg_bn", "small_xvgg"}
"""Of these, which the sample's study leaves out: they repeat contrasts that it has."""


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def original(network: Network, state: State) -> Any:
    """As fine-tuning starts from it: a table, or what the training of X-DNNs left."""
    if not isinstance(network, UnnormalizedResNet | XVgg16 | SmallXVgg):
        return state
    return {
        "epoch": 90,
        "arch": "xfixup_resnet50",
        "state_dict": prefixed("module.", state),
        "best_acc1": torch.tensor(73.5),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0, 1]}]},
    }


def finetuned(network: Network, state: State) -> dict[str, Any]:
    """As fine-tuning leaves it.

    B-cos networks lie in a module that adds the inverse colors, and their layers are convolutions.
    """
    if isinstance(network, BcosNetwork):
        state = prefixed("model.", {k.replace(".linear.", "."): t for k, t in state.items()})
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1, momentum=0.9)
    return {
        "epoch": 30,
        "state_dict": prefixed("module.", state),
        "best_acc1": torch.tensor(76.9),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 10).state_dict(),
        "args": argparse.Namespace(model="resnet50", lr=0.001, pretrained=True, gpu=None),
    }


@cache
def without_weights(network: Network) -> nn.Module:
    """With ImageNet's classes, on torch's device of shapes: its files are without bytes."""
    with torch.device("meta"):
        return network.build(IMAGENET_CLASSES).module


def narrow(name: str) -> Network:
    network = Network.named(name)
    return replace(network, width=2) if hasattr(network, "width") else network


def filled(network: Network, classes: int = 5) -> nn.Module:
    """The network, no tensor of which is as it was initialized."""
    module, generator = network.build(classes).module.eval(), torch.Generator().manual_seed(3)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.2 + torch.rand(tensor.shape, generator=generator))
        else:
            tensor += 7
    return module


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", IMAGENET.designs)
def test_whole_files_of_the_papers_networks_fit_by_name_and_shape(name, tmp_path):
    network = Network.named(name)
    module = without_weights(network)
    for arranged in (original, finetuned):
        path = saved(arranged(network, module.state_dict()), tmp_path / "w.pth.tar")
        found, new = fitting_weights(module, path)
        assert new == []
        assert found.keys() == module.state_dict().keys()


@pytest.mark.parametrize("name", IMAGENET.designs)
def test_wrong_files_of_the_papers_networks_are_refused(name, tmp_path):
    network = Network.named(name)
    module = without_weights(network)
    state = module.state_dict()
    first, *_, last = (key for key in state if "num_batches" not in key)
    wrong = state | {"extra.weight": state[last], last: torch.ones(3, 3)}
    del wrong[first]
    path = saved(finetuned(network, wrong), tmp_path / "w.pth.tar")
    message = rf"missing: {first}; unknown: extra\.weight; other shapes: {last} \(3, 3\) for \(1000"
    assert_refused(lambda: fitting_weights(module, path), path, message)


def assert_refused(act: Callable[[], object], path: Path, message: str) -> None:
    """In a line that names the file."""
    with pytest.raises(ValueError, match=message) as told:
        act()
    assert f"{path} does not fit" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("arranged", [original, finetuned], ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", dict.fromkeys(SIBLINGS.values()))
def test_a_small_network_answers_as_the_one_whose_file_it_was_given(name, arranged, tmp_path):
    network = narrow(name)
    published, module = filled(network), network.build(5).module.eval()
    path = saved(arranged(network, published.state_dict()), tmp_path / "w.pth.tar")
    weights = pretrained_of(path)
    weights.check(network, 5)
    assert_refused(lambda: weights.check(network, 6), path, r"other shapes: .* \(5\b.* for \(6\b")
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    images = network.encode(pixels.to(torch.uint8))
    with torch.no_grad():
        expected, before = published(images), module(images)
        weights.load_whole(module)
        assert torch.equal(module(images), expected)
    assert not torch.allclose(before, expected)
    assert expected.isfinite().all()


def test_a_layer_that_is_there_under_both_names_is_refused(tmp_path):
    network = SmallBcosResNet(width=2)
    state = filled(network).state_dict()
    both = state | {"conv1.weight": state["conv1.linear.weight"]}
    path = saved(both, tmp_path / "both.pth")
    weights = pretrained_of(path)
    assert_refused(lambda: weights.check(network, 5), path, r"unknown: conv1\.weight$")


def test_what_arguments_hold_is_not_executed(tmp_path):
    network, mark = narrow("small_resnet"), tmp_path / "executed"
    content = finetuned(network, filled(network).state_dict())
    content["args"].callback = Evil(mark)
    weights = pretrained_of(saved(content, tmp_path / "w.pth.tar"))
    with pytest.raises(ValueError, match=r"w\.pth\.tar: more than weights") as told:
        weights.check(network, 5)
    assert "\n" not in str(told.value)
    assert not mark.exists()


class Evil:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_each_network_of_the_paper_has_a_small_one_for_the_sample():
    assert [*SIBLINGS] == [*IMAGENET.designs]
    assert {*SIBLINGS.values()} == {*SAMPLE.designs} | ON_DEMAND
    assert not ON_DEMAND & {*SAMPLE.designs}


@pytest.mark.parametrize(("name", "small"), SIBLINGS.items())
def test_a_small_one_is_of_the_same_design(name, small):
    assert design(Network.named(small)) == design(Network.named(name))


def design(network: Network) -> dict[str, bool]:
    """What tells the contrasts apart; small ViTs make their tokens by convolutions."""
    module = without_weights(network)
    body = getattr(module, "blocks", module)
    kinds = {type(part) for part in body.modules()}
    names = [name for name, _ in body.named_parameters()]
    return {
        "batch norm": bool(kinds & {nn.BatchNorm2d, BatchNormUncentered2d}),
        "layer norm": nn.LayerNorm in kinds,
        "any bias": any("bias" in name for name in names),
        "scales": any(name.endswith("scale") for name in names),
        "shortcuts": any("downsample" in name for name in names),
        "ReLU": nn.ReLU in kinds,
        "B-cos": BcosConv2d in kinds,
        "windows": isinstance(module, WindowNet),
        "hidden layers in the classifier": hasattr(module, "classifier"),
    }


def test_depth_and_width_of_the_small_ones_are_in_order():
    def blocks_and_channels(name: str) -> tuple[int, int]:
        module = without_weights(Network.named(name))
        return sum(len(getattr(module, f"layer{k}")) for k in (1, 2, 3, 4)), max(
            part.weight.shape[1] for part in module.layer3.modules() if isinstance(part, nn.Conv2d)
        )

    for plain, deep, wide in (
        ("resnet50", "resnet101", "wide_resnet50_2"),
        ("small_resnet", "small_deep_resnet", "small_wide_resnet"),
    ):
        of_plain, of_deep, of_wide = map(blocks_and_channels, (plain, deep, wide))
        assert of_deep[0] > of_plain[0] == of_wide[0]
        assert of_wide[1] >= of_plain[1] == of_deep[1]
