"""Vision transformers of B-cos layers, with the state-dict keys of B-cos v2, and a small one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables.models.bcos_layers import BcosConv2d, BcosLinear, Dynamic, TokenMean, matmul
from trainables.models.bcos_network import BcosNetwork
from trainables.models.bcos_norms import LayerNorm, LayerNorm2d
from trainables.models.network import Form, Model, Tokens


class Patches(nn.Module):
    """Maps (B, C, H, W) cut into patches, (B, h, w, patch * patch * C), the channels last."""

    def __init__(self, patch_px: int):
        super().__init__()
        self.patch_px = patch_px

    def forward(self, x: Tensor) -> Tensor:
        """Both sides must be multiples of the patch's."""
        x = x.unflatten(3, (-1, self.patch_px)).unflatten(2, (-1, self.patch_px))
        return x.permute(0, 2, 4, 3, 5, 1).flatten(3)


class Attention(Dynamic):
    """Norm, self-attention whose weights are dynamic, B-cos projection.

    Queries and keys enter an explanation as constants; values stay.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = LayerNorm(width)
        self.attend = nn.Softmax(-1)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = BcosLinear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D), the same shape."""
        queries, keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.to_qkv(self.norm(x)).chunk(3, -1)
        )
        attention = self.attend(queries @ keys.mT * queries.shape[-1] ** -0.5)
        mixed = matmul(attention, values, self)
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Norm and two B-cos layers without an activation."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        layers = {
            "norm": LayerNorm(width),
            "linear1": BcosLinear(width, hidden),
            "linear2": BcosLinear(hidden, width),
        }
        self.net = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D), the same shape."""
        out: Tensor = self.net(x)
        return out


class Encoder(nn.Module):
    """Attention and feed-forward, each added to its input."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.attn, self.ff = Attention(width, heads), FeedForward(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D), the same shape."""
        x = self.attn(x) + x
        out: Tensor = self.ff(x) + x
        return out


class SimpleViT(nn.Module):
    """Patches (of a convolutional stem), fixed positions, encoders, mean of the tokens, classifier.

    Args:
        patch_px: side of a patch of the stem's output, or of the image if there is no stem.
        width: D, a multiple of 4 and of the number of heads.
        depth: number of encoders.
        heads: number of attention heads.
        hidden: width inside the feed-forward layers.
        classes: number of logits.
        stem: channels of the 3 x 3 convolutions of the stem. One that makes channels more strides.
    """

    def __init__(
        self,
        *,
        patch_px: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        classes: int,
        stem: Sequence[int] = (),
    ):
        super().__init__()
        layers: dict[str, nn.Module] = {}
        channels, convolutions = 6, list[nn.Module]()
        for out in stem:
            stride = 2 if out > channels else 1
            convolutions += [
                BcosConv2d(channels, out, 3, stride=stride, padding=1),
                LayerNorm2d(out),
                nn.Identity(),  # where other networks have their activation
            ]
            channels = out
        if stem:
            layers["conv_stem"] = nn.Sequential(*convolutions)
        layers["patches"] = Patches(patch_px)
        layers["linear"] = BcosLinear(channels * patch_px**2, width)
        self.to_patch_embedding = nn.Sequential(OrderedDict(layers))
        encoders = {f"encoder_{k}": Encoder(width, heads, hidden) for k in range(depth)}
        self.transformer = nn.Sequential(OrderedDict(encoders))
        self.pool: nn.Module = TokenMean()
        head = {"norm": LayerNorm(width), "linear": BcosLinear(width, classes)}
        self.linear_head = nn.Sequential(OrderedDict(head))

    def forward(self, x: Tensor) -> Tensor:
        """Encoded images (B, 6, H, W) to logits (B, K), still without their bias."""
        grid = self.to_patch_embedding(x)
        tokens = (grid + positions(*grid.shape[1:]).to(grid)).flatten(1, 2)
        logits: Tensor = self.linear_head(self.pool(self.transformer(tokens)))
        return logits


def positions(height: int, width: int, dimensions: int) -> Tensor:
    """Sines and cosines of column and row at D / 4 frequencies, (h, w, D) in float32.

    Source: Beyer et al., 2022 (simple ViT).
    """
    frequency = 10_000 ** -(torch.arange(dimensions // 4) / (dimensions // 4 - 1))
    column = torch.arange(width)[None, :, None] * frequency
    row = torch.arange(height)[:, None, None] * frequency
    waves = torch.broadcast_tensors(column.sin(), column.cos(), row.sin(), row.cos())
    return torch.cat(waves, -1)


def quarters(depth: int) -> dict[str, str]:
    """The five depths of so many encoders: the input, then the end of each quarter."""
    last = {f"mid{k}": -(-k * depth // 4) - 1 for k in (1, 2, 3)} | {"final": depth - 1}
    return {"input": ""} | {name: f"0.transformer.encoder_{k}" for name, k in last.items()}


@dataclass(frozen=True, kw_only=True)
class BcosViT(BcosNetwork):
    """A B-cos simple ViT, randomly initialized; with ``stem`` it is a ViTc.

    The position code is added to the tokens, so it explains a part of each logit that a map at the
    input does not show; maps at mid1 and deeper are complete.

    Source: B-cos v2 (Boehle et al., 2024).
    """

    depths: ClassVar[Mapping[str, str]] = quarters(12)
    patch_px: ClassVar[int] = 16
    """Side of a patch of what comes out of the stem."""
    stem: ClassVar[tuple[int, ...]] = ()
    """Channels of the convolutions before the patches are cut."""
    depth: ClassVar[int] = 12
    size: ClassVar[tuple[int, int]]
    """Width and heads; the feed-forward layers are four times as wide."""
    probed_at: ClassVar[str] = "0.transformer"
    probe_form: ClassVar[Form] = "tokens"
    head_at: ClassVar[str] = "0.linear_head"
    bypassed: ClassVar[tuple[str, ...]] = ("0.pool", "1")

    def module(self, classes: int) -> nn.Module:
        """Keys and logits of B-cos v2's network of the same size."""
        width, heads = self.size
        vit = SimpleViT(
            patch_px=self.patch_px,
            width=width,
            depth=self.depth,
            heads=heads,
            hidden=4 * width,
            classes=classes,
            stem=self.stem,
        )
        return nn.Sequential(vit, self.logit_layer(classes))

    def build(self, classes: int) -> Model:
        blocks = tuple(f"0.transformer.encoder_{k}" for k in range(self.depth))
        strides = sum(b > a for a, b in zip((6, *self.stem), self.stem, strict=False))
        tokens = Tokens(
            patch_px=self.patch_px * 2**strides,
            prefix=0,
            blocks=blocks,
            attentions=tuple(f"{block}.attn.attend" for block in blocks),
        )
        return replace(super().build(classes), tokens=tokens)


@dataclass(frozen=True, kw_only=True)
class BcosSimpleViTTi(BcosViT):
    """B-cos simple ViT-Ti/16."""

    name: ClassVar[str] = "bcos_simple_vit_ti"
    size: ClassVar[tuple[int, int]] = (192, 3)


@dataclass(frozen=True, kw_only=True)
class BcosSimpleViTS(BcosViT):
    """B-cos simple ViT-S/16."""

    name: ClassVar[str] = "bcos_simple_vit_s"
    size: ClassVar[tuple[int, int]] = (384, 6)


@dataclass(frozen=True, kw_only=True)
class BcosSimpleViTB(BcosViT):
    """B-cos simple ViT-B/16."""

    name: ClassVar[str] = "bcos_simple_vit_b"
    size: ClassVar[tuple[int, int]] = (768, 12)


@dataclass(frozen=True, kw_only=True)
class BcosViTc(BcosViT):
    """A B-cos ViT on a convolutional stem, which takes the place of one encoder.

    Source: B-cos v2 (Boehle et al., 2024), after Xiao et al., 2021.
    """

    depths: ClassVar[Mapping[str, str]] = quarters(11)
    patch_px: ClassVar[int] = 1
    depth: ClassVar[int] = 11


@dataclass(frozen=True, kw_only=True)
class BcosViTcTi(BcosViTc):
    """B-cos ViTc-Ti/16."""

    name: ClassVar[str] = "bcos_vitc_ti"
    size: ClassVar[tuple[int, int]] = (192, 3)
    stem: ClassVar[tuple[int, ...]] = (24, 48, 96, 192)


@dataclass(frozen=True, kw_only=True)
class BcosViTcS(BcosViTc):
    """B-cos ViTc-S/16."""

    name: ClassVar[str] = "bcos_vitc_s"
    size: ClassVar[tuple[int, int]] = (384, 6)
    stem: ClassVar[tuple[int, ...]] = (48, 96, 192, 384)


@dataclass(frozen=True, kw_only=True)
class BcosViTcB(BcosViTc):
    """B-cos ViTc-B/16."""

    name: ClassVar[str] = "bcos_vitc_b"
    size: ClassVar[tuple[int, int]] = (768, 12)
    stem: ClassVar[tuple[int, ...]] = (64, 128, 128, 256, 256, 512)


@dataclass(frozen=True, kw_only=True)
class SmallBcosViTc(BcosViTc):
    """Four encoders on a stem that leaves a grid of 8 x 8 of a 64 px image; for two CPU cores."""

    name: ClassVar[str] = "small_bcos_vitc"
    depths: ClassVar[Mapping[str, str]] = quarters(4)
    depth: ClassVar[int] = 4
    size: ClassVar[tuple[int, int]] = (64, 4)
    stem: ClassVar[tuple[int, ...]] = (16, 32, 64)
