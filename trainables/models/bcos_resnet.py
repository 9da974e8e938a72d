"""ResNets of B-cos layers, with the state-dict keys of B-cos v2, and one for small images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from trainables.models.bcos_layers import BcosConv2d, LogitLayer
from trainables.models.bcos_network import BcosNetwork
from trainables.models.bcos_norms import BatchNormUncentered2d

MakeNorm = Callable[[int], nn.Module]


class Residual(nn.Module):
    """Convolutions, each with a norm, plus the input or its projection; no activation."""

    expansion: ClassVar[int] = 1
    """Channels that a block gives per unit of its width."""

    def __init__(self, channels: int, width: int, stride: int, norm: MakeNorm):
        super().__init__()
        out = width * self.expansion
        sizes = self.sizes(channels, width, stride)
        for k, (a, b, size, step) in enumerate(sizes, 1):
            conv = BcosConv2d(a, b, size, stride=step, padding=size // 2)
            setattr(self, f"conv{k}", conv)
            setattr(self, f"bn{k}", norm(b))
        self.depth = len(sizes)
        self.downsample = (
            nn.Sequential(BcosConv2d(channels, out, 1, stride=stride), norm(out))
            if stride != 1 or channels != out
            else None
        )

    @staticmethod
    def sizes(channels: int, width: int, stride: int) -> list[tuple[int, int, int, int]]:
        """Channels in and out, kernel size and stride of each convolution: two of 3 x 3."""
        return [(channels, width, 3, stride), (width, width, 3, 1)]

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for k in range(1, self.depth + 1):
            out = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(out))
        return out + (x if self.downsample is None else self.downsample(x))


class Bottleneck(Residual):
    """1 x 1, 3 x 3 with the stride, 1 x 1 to four times the width."""

    expansion: ClassVar[int] = 4

    @staticmethod
    def sizes(channels: int, width: int, stride: int) -> list[tuple[int, int, int, int]]:
        return [(channels, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]


class ResNet(nn.Module):
    """Stem, stages ``layer1`` to ``layerS``, a B-cos classifier at every position, their mean.

    Args:
        block: kind of the residual blocks.
        blocks: how many each stage has.
        widths: width of each stage.
        classes: number of logits.
        logit_layer: what comes after the mean.
        strides: stride of each stage.
        stem: kernel size and stride of the first convolution.
        pool: whether average pooling halves the stem's output.
        norm: makes the norm of so many channels.
    """

    def __init__(
        self,
        block: type[Residual],
        blocks: Sequence[int],
        widths: Sequence[int],
        classes: int,
        logit_layer: LogitLayer,
        *,
        strides: Sequence[int] = (1, 2, 2, 2),
        stem: tuple[int, int] = (7, 2),
        pool: bool = True,
        norm: MakeNorm = BatchNormUncentered2d,
    ):
        super().__init__()
        size, stride = stem
        self.conv1 = BcosConv2d(6, widths[0], size, stride=stride, padding=size // 2)
        self.bn1 = norm(widths[0])
        self.pool = nn.AvgPool2d(3, 2, 1) if pool else None
        channels = [widths[0], *(block.expansion * width for width in widths)]
        self.stages = [f"layer{k}" for k in range(1, len(widths) + 1)]
        for name, (a, b), width, times, step in zip(
            self.stages, pairwise(channels), widths, blocks, strides, strict=True
        ):
            rest = [block(b, width, 1, norm) for _ in range(times - 1)]
            self.add_module(name, nn.Sequential(block(a, width, step, norm), *rest))
        self.fc = BcosConv2d(channels[-1], classes)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.logit_layer = logit_layer
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Encoded images (B, 6, H, W) to logits (B, K)."""
        x = self.bn1(self.conv1(x))
        x = x if self.pool is None else self.pool(x)
        for name in self.stages:
            x = getattr(self, name)(x)
        logits: Tensor = self.logit_layer(self.avgpool(self.fc(x)).flatten(1))
        return logits


@dataclass(frozen=True, kw_only=True)
class BcosResNet(BcosNetwork):
    """A B-cos ResNet, randomly initialized.

    Source: B-cos v2 (Boehle et al., 2024); depths as in Model Guidance, section 4.
    """

    depths: ClassVar[Mapping[str, str]] = {
        "input": "", "mid1": "layer1", "mid2": "layer2", "mid3": "layer3", "final": "layer4",
    }  # fmt: skip
    block: ClassVar[type[Residual]] = Bottleneck
    blocks: ClassVar[tuple[int, int, int, int]] = (3, 4, 6, 3)
    """Blocks of each stage."""
    probed_at: ClassVar[str] = "layer4"
    head_at: ClassVar[str] = "fc"
    bypassed: ClassVar[tuple[str, ...]] = ("avgpool", "logit_layer")

    def module(self, classes: int) -> nn.Module:
        """Keys and logits of B-cos v2's network of the same depth."""
        widths = (64, 128, 256, 512)
        return ResNet(self.block, self.blocks, widths, classes, self.logit_layer(classes))


@dataclass(frozen=True, kw_only=True)
class BcosResNet18(BcosResNet):
    """B-cos ResNet-18."""

    name: ClassVar[str] = "bcos_resnet18"
    block: ClassVar[type[Residual]] = Residual
    blocks: ClassVar[tuple[int, int, int, int]] = (2, 2, 2, 2)


@dataclass(frozen=True, kw_only=True)
class BcosResNet34(BcosResNet):
    """B-cos ResNet-34."""

    name: ClassVar[str] = "bcos_resnet34"
    block: ClassVar[type[Residual]] = Residual


@dataclass(frozen=True, kw_only=True)
class BcosResNet50(BcosResNet):
    """B-cos ResNet-50, the network of the papers."""

    name: ClassVar[str] = "bcos_resnet50"


@dataclass(frozen=True, kw_only=True)
class BcosResNet101(BcosResNet):
    """B-cos ResNet-101."""

    name: ClassVar[str] = "bcos_resnet101"
    blocks: ClassVar[tuple[int, int, int, int]] = (3, 4, 23, 3)


@dataclass(frozen=True, kw_only=True)
class BcosResNet152(BcosResNet):
    """B-cos ResNet-152."""

    name: ClassVar[str] = "bcos_resnet152"
    blocks: ClassVar[tuple[int, int, int, int]] = (3, 8, 36, 3)


@dataclass(frozen=True, kw_only=True)
class SmallBcosResNet(BcosResNet):
    """One basic block a stage, narrow, for 64 px images and two CPU cores.

    The stem is one strided 3 x 3 convolution and the last stages do not stride, so that a 64 px
    image gives final maps of 8 x 8, as in ``small_resnet``.
    """

    name: ClassVar[str] = "small_bcos_resnet"

    width: int = 16
    """Channels of the first stage; the stages have 1, 2, 4 and 4 times as many."""

    def module(self, classes: int) -> nn.Module:
        """About 150,000 parameters at width 16 and 10 classes."""
        widths = [self.width * times for times in (1, 2, 4, 4)]
        return ResNet(
            Residual,
            (1, 1, 1, 1),
            widths,
            classes,
            self.logit_layer(classes),
            strides=(2, 2, 1, 1),
            stem=(3, 2),
            pool=False,
        )
