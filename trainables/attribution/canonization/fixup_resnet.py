"""Canonical forwards of ResNets without batch norm, with scalar biases and scales or without."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainables.attribution.canonization.form import Add, canonical_of, passed

HOME = "trainables.models.fixup_resnet"


@canonical_of(f"{HOME}.FixupBlock")
def block(block: Any, x: Tensor, add: Add) -> Tensor:
    """Convolutions between scalars, which pass relevance on as a norm does."""
    branch = start = _plus(x, block.bias1a)
    for k in range(1, block.depth + 1):
        branch = branch if k == 1 else _plus(branch, getattr(block, f"bias{k}a"))
        branch = block.get_submodule(f"conv{k}")(branch)
        if k == block.depth and block.scale is not None:
            branch = passed(branch, branch * block.scale)
        branch = _plus(branch, getattr(block, f"bias{k}b"))
        branch = branch if k == block.depth else block.relu(branch)
    return block.relu(add(x if block.downsample is None else block.downsample(start), branch))


@canonical_of(f"{HOME}.FixupResNet")
def network(network: Any, x: Tensor, _: Add) -> Tensor:
    """As it is: relevance passes the scalars around stem and head, which are added."""
    logits: Tensor = type(network).forward(network, x)
    return logits


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias
