"""Canonical forwards of timm's configurable residual networks, among them CLIP's ResNets."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainables.attribution.canonization.form import Add, canonical_of


@canonical_of("timm.models.byobnet.BottleneckBlock")
def bottleneck(block: Any, x: Tensor, add: Add) -> Tensor:
    """Three convolutions with their norms; the shortcut may be pooled first, or absent."""
    branch = block.conv2b_kxk(block.conv2_kxk(block.conv1_1x1(x)))
    branch = block.conv3_1x1(block.attn(branch))
    branch = block.drop_path(block.attn_last(branch))
    return block.act(branch if block.shortcut is None else add(block.shortcut(x), branch))
