"""States on disk: safetensors, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn


@dataclass
class TrainingState:
    """What a training needs to go on after its last finished epoch.

    Shuffling and draws are functions of (seed, epoch), so no generator state is kept.

    Attributes:
        epoch: epochs finished.
        history: one {metric: value} per finished epoch.
        notes: what the training remembers beside (the epochs whose weights are kept, seconds so
            far).
    """

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


def write_bytes(path: Path, content: bytes) -> None:
    """Write under a temporary name, flush, rename: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save_weights(path: Path, module: nn.Module) -> str:
    """Store a module's state; returns the sha256 of the file."""
    content = save({name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()})
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def load_weights(path: Path, module: nn.Module, sha256: str) -> None:
    """Fill a module from a file of ours.

    Raises:
        ValueError: the file is not the one that was written.
    """
    module.load_state_dict(read_weights(path, sha256))


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """What a file of ours holds.

    Raises:
        ValueError: the file is not the one that was written.
    """
    if sha256_of(path) != sha256:
        raise ValueError(
            f"{path}: sha256 differs from the recorded {sha256[:12]}; delete the file to "
            "recompute it"
        )
    weights: dict[str, Tensor] = load_file(path)
    return weights


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_training(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Store weights, optimizer and state as one file, so that they can never disagree."""
    tensors = {f"module/{name}": t for name, t in module.state_dict().items()}
    packed = optimizer.state_dict()
    for parameter, values in packed["state"].items():
        tensors |= {
            f"optimizer/{parameter}/{name}": torch.as_tensor(value)
            for name, value in values.items()
        }
    header = {"epoch": state.epoch, "history": state.history, "notes": state.notes}
    content = save(
        {name: t.detach().cpu().contiguous() for name, t in tensors.items()},
        metadata={"state": json.dumps(header), "groups": json.dumps(packed["param_groups"])},
    )
    write_bytes(path, content)


def load_training(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Fill module and optimizer from the checkpoint; a fresh state where there is none."""
    if not path.exists():
        return TrainingState()
    tensors: Mapping[str, Tensor] = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    module.load_state_dict(
        {k.removeprefix("module/"): t for k, t in tensors.items() if k.startswith("module/")}
    )
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            _, parameter, name = key.split("/")
            states.setdefault(int(parameter), {})[name] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": json.loads(metadata["groups"])})
    return TrainingState(**json.loads(metadata["state"]))
