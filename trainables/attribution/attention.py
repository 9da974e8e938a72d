"""Attention as importance: what the class token of a vision transformer attends to."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from trainables.attribution.attribution import Attribution, Explained
from trainables.models.network import Model, Tokens
from trainables.passes import Feature, Need, Passes


def tokens_of(model: Model) -> Tokens:
    """The tokens of a transformer whose logits read the class token and whose attention shows.

    Raises:
        ValueError: the reason why the model is none, in one line.
    """
    tokens = model.tokens
    if tokens is None:
        raise ValueError("the network has no tokens; a vision transformer is needed")
    transformer = model.module.get_submodule(root_of(tokens))
    pool = getattr(transformer, "global_pool", "token")
    if not tokens.prefix or not getattr(transformer, "has_class_token", True):
        raise ValueError("the transformer has no class token whose attention could be read")
    if pool != "token":
        raise ValueError(f"the logits read a {pool!r} pooling of the tokens, not the class token")
    for path in tokens.attentions:
        attention = model.module.get_submodule(path.rpartition(".")[0])
        if getattr(attention, "fused_attn", False):
            raise ValueError(f"{path!r} is fused and does not show; set fused_attn = False")
        if getattr(attention, "gate", None) is not None:
            raise ValueError(f"the attention at {path!r} is gated: its values are not all there is")
    return tokens


def root_of(tokens: Tokens) -> str:
    """Module path of the transformer that holds the blocks; empty where it is the whole model."""
    return tokens.blocks[0].rpartition(".")[0].rpartition(".")[0]


@dataclass(frozen=True, kw_only=True)
class AttentionMap(Attribution):
    """A map on the grid of tokens, out of one row of a matrix (T, T): what the class token reads.

    Rows are queries, row 0 is the class token's; the columns of the prefix are left out.
    """

    def suit(self, model: Model) -> None:
        """Refuse what has no class token whose attention can be read."""
        tokens_of(model)

    def attribute(self, passes: Passes) -> Tensor:
        """The row on the grid, (N, h, w)."""
        return passes.as_maps(self.class_row(passes)[:, :, None])[:, 0]

    @abstractmethod
    def class_row(self, passes: Passes) -> Tensor:
        """What the class token reads from each token, (N, T)."""


@dataclass(frozen=True, kw_only=True)
class RawAttention(AttentionMap):
    """The class token's attention in the last block, mean over heads; not negative.

    It knows no class: a negative control.

    Source: Caron et al., ICCV 2021 (DINO), there head by head; a baseline of Chefer et al., CVPR
    2021.
    """

    name: ClassVar[str] = "raw_attention"
    single_pass: ClassVar[bool] = True

    @property
    def explains(self) -> Explained:
        return "image"

    def needs(self, model: Model) -> tuple[Need, ...]:
        """The last block's attention."""
        return (Feature(layer=tokens_of(model).attentions[-1]),)

    def class_row(self, passes: Passes) -> Tensor:
        """Mean over h of A_h[0]."""
        return passes.output(tokens_of(passes.model).attentions[-1])[:, :, 0].mean(1)


@dataclass(frozen=True, kw_only=True)
class FromBlock(AttentionMap):
    """A map that follows the class token down through the blocks to a first one."""

    start_layer: int = field(default=1, metadata={"short": "start"})
    """First block that counts, from 0."""

    def __post_init__(self) -> None:
        """Check the range."""
        super().__post_init__()
        if self.start_layer < 0:
            raise ValueError(
                f"{type(self).__name__}.start_layer = {self.start_layer}; expected 0 or more"
            )

    def suit(self, model: Model) -> None:
        """Refuse a network without the block, too."""
        blocks = len(tokens_of(model).blocks)
        if self.start_layer >= blocks:
            raise ValueError(
                f"start_layer = {self.start_layer}, but the network's blocks are 0 to {blocks - 1}"
            )


@dataclass(frozen=True, kw_only=True)
class Rollout(FromBlock):
    """The product of the attentions of all blocks, each mixed with the identity; not negative.

    It knows no class and no head: a negative control. A block's matrix is the mean over heads plus
    the identity, its rows scaled to sum 1.

    Source: Abnar and Zuidema, ACL 2020, from block 0. IDSDS (Hesse et al., 2024) and Chefer et al.,
    CVPR 2021, run it from block 1: the default.
    """

    name: ClassVar[str] = "rollout"
    single_pass: ClassVar[bool] = True

    @property
    def explains(self) -> Explained:
        return "image"

    def needs(self, model: Model) -> tuple[Need, ...]:
        """The attentions that count."""
        return tuple(Feature(layer=a) for a in tokens_of(model).attentions[self.start_layer :])

    def class_row(self, passes: Passes) -> Tensor:
        """Row 0 of B_last ... B_start, with B = rows of (mean over h of A_h, plus I) over sums."""
        attentions = tokens_of(passes.model).attentions[self.start_layer :]
        row = class_token(passes.output(attentions[-1]))
        for attention in reversed(attentions):
            mixing = passes.output(attention).mean(1)
            row = one_block_down(row / (1 + mixing.sum(2)), mixing)
        return row


def class_token(attention: Tensor) -> Tensor:
    """One row (N, T) that is 1 at the class token, for an attention (N, heads, T, T)."""
    row = torch.zeros_like(attention[:, 0, 0])
    row[:, 0] = 1
    return row


def one_block_down(row: Tensor, mixing: Tensor) -> Tensor:
    """Row (N, T) times I + M, for M (N, T, T): what is read passes by, too."""
    return row + torch.einsum("nt,ntu->nu", row, mixing)
