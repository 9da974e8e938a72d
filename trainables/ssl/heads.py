"""Heads: what makes embeddings of features while a network learns by itself; dropped afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from trainables.models.bcos_layers import BcosLinear
from trainables.models.bcos_norms import BatchNormUncentered1d


class UnitLength(nn.Module):
    """Vectors (B, D) divided by their lengths."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=1)


def mlp(
    channels: Sequence[int],
    *,
    bcos: bool,
    norm: bool = False,
    last_norm: bool = False,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Linear layers with an activation between them; or B-cos layers, which need none.

    Source: How to Probe (Gairola et al., ICLR 2025), the authors' code, for the B-cos heads.

    Args:
        channels: of the input and of each layer.
        bcos: whether layers and norms are B-cos.
        norm: whether a batch norm follows each layer but the last.
        last_norm: whether one without weights of its own follows the last.
        activation: after each conventional layer but the last.
    """
    layers: list[nn.Module] = []
    for number, (a, b) in enumerate(pairwise(channels), 2):
        layers.append(BcosLinear(a, b) if bcos else nn.Linear(a, b))
        if number < len(channels):
            if norm:
                layers.append(BatchNormUncentered1d(b) if bcos else nn.BatchNorm1d(b))
            if not bcos:
                layers.append(activation())
    if last_norm:
        norms = BatchNormUncentered1d(b) if bcos else nn.BatchNorm1d(b, affine=False)
        layers.append(norms.requires_grad_(False))
    return nn.Sequential(*layers)
