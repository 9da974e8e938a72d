"""Canonical forwards of timm's residual blocks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainables.attribution.canonization.form import Add, canonical_of


@canonical_of("timm.models.resnet.BasicBlock")
def basic_block(block: Any, x: Tensor, add: Add) -> Tensor:
    """Two convolutions, the first with anti-aliasing where the network has it."""
    branch = block.drop_block(block.bn1(block.conv1(x)))
    branch = block.aa(block.act1(branch))
    branch = block.bn2(block.conv2(branch))
    return block.act2(add(_shortcut(block, x), _end(block, branch)))


@canonical_of("timm.models.resnet.Bottleneck")
def bottleneck(block: Any, x: Tensor, add: Add) -> Tensor:
    """Three convolutions, the second with anti-aliasing where the network has it."""
    branch = block.act1(block.bn1(block.conv1(x)))
    branch = block.drop_block(block.bn2(block.conv2(branch)))
    branch = block.aa(block.act2(branch))
    branch = block.bn3(block.conv3(branch))
    return block.act3(add(_shortcut(block, x), _end(block, branch)))


def _shortcut(block: Any, x: Tensor) -> Tensor:
    shortcut: Tensor = x if block.downsample is None else block.downsample(x)
    return shortcut


def _end(block: Any, branch: Tensor) -> Tensor:
    """Channel attention (which has no rule and is refused) and stochastic depth, where present."""
    for layer in (block.se, block.drop_path):
        branch = branch if layer is None else layer(branch)
    return branch
