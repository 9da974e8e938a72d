"""States on disk: whole or not at all, and the same bits back."""

from __future__ import annotations

import hashlib
import os

import pytest
import torch
from torch import nn

from trainables.checkpoint import (
    TrainingState,
    load_training,
    load_weights,
    save_training,
    save_weights,
    write_bytes,
)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))


def trained(seed: int, steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    with torch.random.fork_rng():
        module = network(seed)
        module(torch.randn(2, 3, 5, 5))
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
        for _ in range(steps):
            optimizer.zero_grad()
            module(torch.randn(2, 3, 5, 5)).square().sum().backward()
            optimizer.step()
    return module, optimizer


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module(torch.ones(2, 3, 5, 5)).square().sum().backward()
    optimizer.step()


def test_weights_come_back_bit_for_bit_with_the_digest_of_their_file(tmp_path):
    module, _ = trained(0)
    path = tmp_path / "weights" / "a.safetensors"
    digest = save_weights(path, module)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    other, _ = trained(1)
    load_weights(path, other, digest)
    assert all(
        torch.equal(a, b)
        for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_equal_weights_have_equal_files(tmp_path):
    module, _ = trained(0)
    assert save_weights(tmp_path / "a", module) == save_weights(tmp_path / "b", module)


def test_a_file_that_is_not_the_recorded_one_is_refused(tmp_path):
    module, _ = trained(0)
    digest = save_weights(tmp_path / "a", module)
    save_weights(tmp_path / "a", trained(1)[0])
    with pytest.raises(ValueError, match=f"sha256 differs from the recorded {digest[:12]}; delete"):
        load_weights(tmp_path / "a", module, digest)


def test_a_training_goes_on_as_if_it_had_not_stopped(tmp_path):
    module, optimizer = trained(0)
    state = TrainingState(
        epoch=2, history=[{"val/f1": 0.25}, {"val/f1": 1 / 3}], notes={"weights": {"1": "ab"}}
    )
    save_training(tmp_path / "c", module, optimizer, state)
    other, other_optimizer = trained(1, steps=0)
    assert load_training(tmp_path / "c", other, other_optimizer) == state
    for pair in ((module, optimizer), (other, other_optimizer)):
        step(*pair)
        step(*pair)
    ours, theirs = other.state_dict(), module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_undefined_values_of_the_history_survive(tmp_path):
    module, optimizer = trained(0)
    save_training(tmp_path / "c", module, optimizer, TrainingState(1, [{"val/f1": float("nan")}]))
    ((value,),) = (
        epoch.values() for epoch in load_training(tmp_path / "c", module, optimizer).history
    )
    assert value != value


def test_without_a_checkpoint_a_training_starts_afresh(tmp_path):
    module, optimizer = trained(0)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert load_training(tmp_path / "none", module, optimizer) == TrainingState()
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "state"
    write_bytes(path, b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
