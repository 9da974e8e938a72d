"""Canonical forwards of torchvision's residual blocks (He et al., 2016), also of small_resnet."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainables.attribution.canonization.form import Add, canonical_of


@canonical_of("torchvision.models.resnet.BasicBlock")
def basic_block(block: Any, x: Tensor, add: Add) -> Tensor:
    """Two convolutions."""
    branch = block.relu(block.bn1(block.conv1(x)))
    branch = block.bn2(block.conv2(branch))
    return block.relu(add(x if block.downsample is None else block.downsample(x), branch))


@canonical_of("torchvision.models.resnet.Bottleneck")
def bottleneck(block: Any, x: Tensor, add: Add) -> Tensor:
    """Three convolutions."""
    branch = block.relu(block.bn1(block.conv1(x)))
    branch = block.relu(block.bn2(block.conv2(branch)))
    branch = block.bn3(block.conv3(branch))
    return block.relu(add(x if block.downsample is None else block.downsample(x), branch))
