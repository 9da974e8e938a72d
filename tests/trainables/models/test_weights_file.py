"""Checkpoints from outside: what fits is loaded, what does not is refused, nothing is executed."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trainables.models.bagnet import SmallBagNet
from trainables.models.weights_file import load_network_weights


def net(seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    made = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    for tensor in made.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator))
    return made


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(t, b.state_dict()[k]) for k, t in a.state_dict().items())


def with_prefix(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": tensor for key, tensor in net().state_dict().items()}


CHECKPOINTS = {
    "plain": with_prefix(""),
    "training script": {
        "epoch": 3,
        "state_dict": with_prefix("module."),
        "best_acc1": torch.tensor(70.5),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "args": argparse.Namespace(lr=0.1, arch="resnet50"),
    },
    "wrapped twice": {"state_dict": {"model": with_prefix("module.model.")}},
    "compiled": with_prefix("_orig_mod."),
    "of before 2018": {k: t for k, t in with_prefix("").items() if "num_batches" not in k},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_torch_file_that_fits_is_loaded(name, tmp_path):
    torch.save(CHECKPOINTS[name], tmp_path / "weights.pth.tar")
    module = net(1)
    load_network_weights(module, tmp_path / "weights.pth.tar")
    assert equal(module, net())


def test_safetensors_are_loaded(tmp_path):
    save_file(with_prefix("module."), tmp_path / "weights.safetensors")
    module = net(1)
    load_network_weights(module, str(tmp_path / "weights.safetensors"))
    assert equal(module, net())


def test_the_old_format_of_torch_is_read(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(with_prefix(""), path, _use_new_zipfile_serialization=False)
    module = net(1)
    load_network_weights(module, path)
    assert equal(module, net())


def test_a_network_whose_own_names_begin_like_a_prefix(tmp_path):
    module, other = nn.Module(), nn.Module()
    module.model, other.model = net(), net(1)
    torch.save({f"module.{k}": t for k, t in module.state_dict().items()}, tmp_path / "w.pt")
    load_network_weights(other, tmp_path / "w.pt")
    assert equal(module, other)


def test_a_bagnet_goes_through_a_file(tmp_path):
    first, second = SmallBagNet(width=2).module(3), SmallBagNet(width=2).module(3)
    assert not equal(first, second)
    torch.save({"state_dict": {f"module.{k}": t for k, t in first.state_dict().items()}},
               tmp_path / "w.pth.tar")  # fmt: skip
    load_network_weights(second, tmp_path / "w.pth.tar")
    assert equal(first, second)


def test_every_tensor_that_does_not_fit_is_named_and_nothing_is_changed(tmp_path):
    state = with_prefix("")
    state["head.weight"], state["head.bias"] = state.pop("3.weight"), state.pop("3.bias")
    state["0.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "w.pt")
    module = net(1)
    expected = (
        r"w\.pt does not fit Sequential: missing: 3\.weight, 3\.bias; "
        r"unknown: head\.weight, head\.bias; other shapes: 0\.bias \(5,\) for \(2,\)"
    )
    with pytest.raises(ValueError, match=expected) as caught:
        load_network_weights(module, tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    assert equal(module, net(1))


class Evil:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_nothing_in_a_file_is_executed(tmp_path):
    mark = tmp_path / "executed"
    torch.save({"state_dict": with_prefix(""), "callback": Evil(mark)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"more than weights.*save the network's state_dict"):
        load_network_weights(net(), tmp_path / "w.pt")
    assert not mark.exists()


def test_a_whole_saved_module_is_refused(tmp_path):
    torch.save(net(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="more than weights"):
        load_network_weights(net(), tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth.tar"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04broken"])
def test_a_file_that_holds_something_else_is_refused_in_one_line(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name) as caught:
        load_network_weights(net(), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_without_weights_is_refused_and_says_what_it_holds(tmp_path):
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"no weights by name.*it holds epoch, lr"):
        load_network_weights(net(), tmp_path / "w.pt")
    torch.save(torch.zeros(3), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="it holds Tensor"):
        load_network_weights(net(), tmp_path / "w.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt: no such checkpoint file"):
        load_network_weights(net(), tmp_path / "nowhere.pt")
