"""Attention weighted by its gradient: what the class token reads for the sake of one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainables.attribution.attention import (
    AttentionMap,
    class_token,
    one_block_down,
    tokens_of,
)
from trainables.models.network import Model
from trainables.passes import Gradient, Need, Passes


@dataclass(frozen=True, kw_only=True)
class ViTGradCam(AttentionMap):
    """Grad-CAM on the class token's attention in the last block, heads as channels; in [0, 1].

    A head's weight is the mean gradient over the patches. The map is rectified and scaled to
    [0, 1] on the grid.

    Source: Chefer et al., CVPR 2021 (the authors' baseline); in the code of IDSDS (Hesse et al.,
    2024).

    Departs: a constant map is zero; the code divides 0 by 0.
    """

    name: ClassVar[str] = "vit_grad_cam"
    single_pass: ClassVar[bool] = True

    def needs(self, model: Model) -> tuple[Need, ...]:
        """The gradient at the last block's attention."""
        return (Gradient(layer=tokens_of(model).attentions[-1]),)

    def class_row(self, passes: Passes) -> Tensor:
        """ReLU(mean over h of w_h A_h[0]), w_h = mean of G_h[0], minus its least, over the most."""
        tokens = tokens_of(passes.model)
        attention = passes.output(tokens.attentions[-1])[:, :, 0]
        gradient = passes.gradients()[tokens.attentions[-1]][:, :, 0]
        weights = gradient[:, :, tokens.prefix :].mean(2, keepdim=True)
        row = (weights * attention).mean(1).relu()
        patches = row[:, tokens.prefix :]
        lowest, highest = patches.amin(1, keepdim=True), patches.amax(1, keepdim=True)
        spread = torch.where(highest > lowest, highest - lowest, 1)
        return (row - lowest) / spread


@dataclass(frozen=True, kw_only=True)
class Gae(AttentionMap):
    """Generic attention explainability: relevance spreads through attention times its gradient.

    Starts as the identity R; in each block the positive part of attention times gradient, mean over
    heads, times R is added to R. Not negative.

    Source: Chefer et al., ICCV 2021, equations 5 and 6 (one modality, self-attention).
    """

    name: ClassVar[str] = "gae"
    single_pass: ClassVar[bool] = True

    def needs(self, model: Model) -> tuple[Need, ...]:
        """The gradients at all attentions."""
        return tuple(Gradient(layer=a) for a in tokens_of(model).attentions)

    def class_row(self, passes: Passes) -> Tensor:
        """Row 0 of (I + M_last) ... (I + M_0), with M = mean over h of ReLU(G_h A_h)."""
        attentions, gradients = tokens_of(passes.model).attentions, passes.gradients()
        row = class_token(passes.output(attentions[-1]))
        for attention in reversed(attentions):
            mixing = (gradients[attention] * passes.output(attention)).relu().mean(1)
            row = one_block_down(row, mixing)
        return row
