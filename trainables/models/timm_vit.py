"""Vision transformers of timm by name, with a class token, and a small one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from trainables.models.network import Form, Model, Network, Tokens
from trainables.models.small_resnet import SmallResNet


def quarters(blocks: int) -> dict[str, str]:
    """The five depths of so many blocks, four or more."""
    mids = {f"mid{k}": f"blocks.{-(-k * blocks // 4) - 1}" for k in (1, 2, 3)}
    return {"input": "", **mids, "final": f"blocks.{blocks - 1}.norm1"}


@dataclass(frozen=True, kw_only=True)
class TimmViT(Network):
    """A vision transformer whose logits read the class token, randomly initialized.

    Mid1 to mid3 are the outputs of the blocks at a quarter, half and three quarters of the depth.
    Final is the output of the last block's first norm: there the patch tokens still reach the
    logits, through that block's attention. After the last block they do not: their gradient at its
    output is zero. Pixels and gradients at the input are as in any network.

    Attention is computed step by step (``fused_attn`` off in these blocks, not globally), so that
    its values and gradients can be read. Images of any size that is a multiple of the patch pass;
    the position code is resampled for it.

    Source: Dosovitskiy et al., ICLR 2021. Final as in ViT-CX (Xie et al., IJCAI 2023).
    """

    depths: ClassVar[Mapping[str, str]] = quarters(12)
    patch_px: ClassVar[int] = 16
    """Side of a patch."""
    blocks: ClassVar[int] = 12
    shape: ClassVar[tuple[int, int]]
    """Width of a token, and heads."""
    centered: ClassVar[bool] = True
    """Whether pixels enter in [-1, 1] (mean and deviation 0.5), else by ImageNet's statistics."""
    probed_at: ClassVar[str] = "fc_norm"  # where the class token is alone, after the final norm
    probe_form: ClassVar[Form] = "class_token"
    head_at: ClassVar[str] = "head"

    size_px: int = field(default=224, metadata={"short": "px"})
    """Side of the images for which there is one position code a patch; weights depend on it."""

    def __post_init__(self) -> None:
        """Check that patches fill the image."""
        super().__post_init__()
        if self.size_px < self.patch_px or self.size_px % self.patch_px:
            raise ValueError(
                f"{type(self).__name__}.size_px = {self.size_px}; expected a multiple of the "
                f"patch's {self.patch_px}"
            )

    def module(self, classes: int) -> nn.Module:
        """Timm's module with the keys of its pretrained weights."""
        from timm.models.vision_transformer import VisionTransformer  # only here: takes seconds

        width, heads = self.shape
        net = VisionTransformer(
            img_size=self.size_px,
            patch_size=self.patch_px,
            embed_dim=width,
            depth=self.blocks,
            num_heads=heads,
            num_classes=classes,
            dynamic_img_size=True,
        )
        blocks: Any = net.blocks
        for block in blocks:
            block.attn.fused_attn = False
        return net

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32: by ImageNet's mean and deviation, or to [-1, 1].

        Raises:
            ValueError: a side is no multiple of the patch's.
        """
        height, width = images.shape[2:]
        if height % self.patch_px or width % self.patch_px:
            raise ValueError(
                f"images of {height} x {width} px; {self.name} takes multiples of "
                f"{self.patch_px} px"
            )
        return images.float() / 127.5 - 1 if self.centered else super().encode(images)

    def build(self, classes: int) -> Model:
        blocks = tuple(f"blocks.{k}" for k in range(self.blocks))
        attentions = tuple(f"{block}.attn.attn_drop" for block in blocks)
        tokens = Tokens(patch_px=self.patch_px, prefix=1, blocks=blocks, attentions=attentions)
        return replace(super().build(classes), tokens=tokens)


@dataclass(frozen=True, kw_only=True)
class ViTTiny(TimmViT):
    """ViT-Ti/16; the weights of timm that were pretrained on ImageNet-21k fit.

    Source: Steiner et al., TMLR 2022.
    """

    name: ClassVar[str] = "vit_tiny_patch16"
    shape: ClassVar[tuple[int, int]] = (192, 3)


@dataclass(frozen=True, kw_only=True)
class ViTSmall(TimmViT):
    """ViT-S/16."""

    name: ClassVar[str] = "vit_small_patch16"
    shape: ClassVar[tuple[int, int]] = (384, 6)


@dataclass(frozen=True, kw_only=True)
class ViTBase(TimmViT):
    """ViT-B/16, the network of IDSDS."""

    name: ClassVar[str] = "vit_base_patch16"
    shape: ClassVar[tuple[int, int]] = (768, 12)


@dataclass(frozen=True, kw_only=True)
class DeiTTiny(TimmViT):
    """DeiT-Ti/16 without distillation: another recipe for the same network, ImageNet's encoding.

    Source: Touvron et al., ICML 2021.
    """

    name: ClassVar[str] = "deit_tiny"
    centered: ClassVar[bool] = False
    shape: ClassVar[tuple[int, int]] = (192, 3)


@dataclass(frozen=True, kw_only=True)
class DeiTSmall(DeiTTiny):
    """DeiT-S/16."""

    name: ClassVar[str] = "deit_small"
    shape: ClassVar[tuple[int, int]] = (384, 6)


@dataclass(frozen=True, kw_only=True)
class DeiTBase(DeiTTiny):
    """DeiT-B/16."""

    name: ClassVar[str] = "deit_base"
    shape: ClassVar[tuple[int, int]] = (768, 12)


@dataclass(frozen=True, kw_only=True)
class SmallViT(TimmViT):
    """Four narrow blocks on a grid of 8 x 8 of a 64 px image, for two CPU cores.

    Tokens come out of the first two stages of ``small_resnet``, and the blocks start with variances
    that suit their width. So it learns from the 1,200 images of the generated sample: F1 0.56 after
    12 epochs of Adam at 1e-3 in batches of 16. A plain ViT learns them by heart: 0.2 after 25.

    Source: Xiao et al., NeurIPS 2021 (convolutions instead of patches).
    """

    name: ClassVar[str] = "small_vit"
    depths: ClassVar[Mapping[str, str]] = quarters(4)
    patch_px: ClassVar[int] = 8
    blocks: ClassVar[int] = 4
    shape: ClassVar[tuple[int, int]] = (64, 4)

    size_px: int = field(default=64, metadata={"short": "px"})
    stem: bool = True
    """Whether convolutions make the tokens; else patches of 8 px do, as in the large ones."""

    def module(self, classes: int) -> nn.Module:
        """About 220,000 parameters at 10 classes."""
        net: Any = super().module(classes)
        for part in net.blocks.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
        if self.stem:
            resnet: Any = SmallResNet().module(classes)
            stages = (resnet.conv1, resnet.bn1, resnet.relu, resnet.layer1, resnet.layer2)
            net.patch_embed.proj = nn.Sequential(*stages, nn.Conv2d(32, self.shape[0], 1))
        return net
