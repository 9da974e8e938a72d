"""ResNets without batch norm: Fixup with scalar biases, and X-DNN with none at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from trainables.models.network import Network

DEPTHS: Mapping[str, str] = {
    "input": "", "mid1": "layer1", "mid2": "layer2", "mid3": "layer3", "final": "layer4",
}  # fmt: skip


class FixupBlock(nn.Module):
    """Convolutions with ReLUs between them, plus the shortcut, ReLU.

    Scalars lie around the convolutions: ``bias{k}a`` before the k-th, ``bias{k}b`` after it, and
    ``scale`` after the last. Without biases all of them are None, and absent from the state dict.

    Args:
        convolutions: without bias, first to last.
        shortcut: 1x1 convolution of the shortcut (``downsample``), or None for the identity.
        biases: whether the scalars are there.
    """

    bias1a: nn.Parameter | None
    scale: nn.Parameter | None

    def __init__(
        self, convolutions: Sequence[nn.Conv2d], shortcut: nn.Conv2d | None, *, biases: bool
    ) -> None:
        super().__init__()
        self.depth = len(convolutions)
        for k, convolution in enumerate(convolutions, 1):
            self.add_module(f"conv{k}", convolution)
            self.register_parameter(f"bias{k}a", scalar(0.0) if biases else None)
            self.register_parameter(f"bias{k}b", scalar(0.0) if biases else None)
        self.register_parameter("scale", scalar(1.0) if biases else None)
        self.relu, self.downsample = nn.ReLU(), shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h', w')."""
        y = start = plus(x, self.bias1a)
        for k in range(1, self.depth + 1):
            if k > 1:
                y = plus(self.relu(y), getattr(self, f"bias{k}a"))
            y = getattr(self, f"conv{k}")(y)
            if k == self.depth and self.scale is not None:
                y = y * self.scale
            y = plus(y, getattr(self, f"bias{k}b"))
        return self.relu(y + (x if self.downsample is None else self.downsample(start)))

    def initialize(self, blocks: int) -> None:
        """Fixup in a network of that many blocks.

        He's deviation times blocks ** (-1 / (2 m - 2)) for m convolutions, the last of them zero;
        He's deviation for the shortcut.
        """
        for k in range(1, self.depth):
            shrunk = blocks ** (-1 / (2 * self.depth - 2))
            he_normal(getattr(self, f"conv{k}"), shrunk)
        nn.init.zeros_(getattr(self, f"conv{self.depth}").weight)
        if self.downsample is not None:
            he_normal(self.downsample)


class FixupResNet(nn.Module):
    """Stem, stages of blocks (``layer1``, ``layer2``, ...), global average pooling, linear head.

    State-dict keys are those of the published checkpoints. The head's weights start at zero.

    Args:
        stem: first convolution, without bias.
        pool: what follows the first ReLU.
        stages: their blocks, first to last.
        head: the linear head.
        biases: whether the scalars around stem and head are there; the blocks know by themselves.

    Source: Zhang, Dauphin & Ma, ICLR 2019, and Hesse, Schaub-Meyer & Roth, NeurIPS 2021 (X-DNN:
        no bias, no scale), with the latter's code.
    """

    bias1: nn.Parameter | None
    bias2: nn.Parameter | None

    def __init__(
        self,
        stem: nn.Conv2d,
        pool: nn.Module,
        stages: Sequence[Sequence[FixupBlock]],
        head: nn.Linear,
        *,
        biases: bool,
    ) -> None:
        super().__init__()
        self.conv1, self.relu, self.maxpool = stem, nn.ReLU(), pool
        self.register_parameter("bias1", scalar(0.0) if biases else None)
        for k, stage in enumerate(stages, 1):
            self.add_module(f"layer{k}", nn.Sequential(*stage))
            for block in stage:
                block.initialize(sum(map(len, stages)))
        self.depth = len(stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.register_parameter("bias2", scalar(0.0) if biases else None)
        self.fc = head

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K)."""
        x = self.maxpool(self.relu(plus(self.conv1(x), self.bias1)))
        for k in range(1, self.depth + 1):
            x = self.get_submodule(f"layer{k}")(x)
        logits: Tensor = self.fc(plus(self.avgpool(x).flatten(1), self.bias2))
        return logits


def scalar(value: float) -> nn.Parameter:
    """A parameter of shape (1,)."""
    return nn.Parameter(torch.full((1,), value))


def plus(x: Tensor, bias: Tensor | None) -> Tensor:
    """The sum, or x itself where there is no bias."""
    return x if bias is None else x + bias


def he_normal(convolution: nn.Conv2d, times: float = 1.0) -> None:
    """Normal weights, deviation sqrt(2 / (outputs k k)) times a factor."""
    outputs = convolution.out_channels * math.prod(convolution.kernel_size)
    nn.init.normal_(convolution.weight, 0.0, math.sqrt(2 / outputs) * times)


def bottleneck(inputs: int, planes: int, stride: int, *, biases: bool) -> FixupBlock:
    """1x1, 3x3 with the stride, 1x1 to four times the planes."""
    convolutions = [
        nn.Conv2d(inputs, planes, 1, bias=False),
        nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False),
        nn.Conv2d(planes, 4 * planes, 1, bias=False),
    ]
    return FixupBlock(convolutions, shortcut(inputs, 4 * planes, stride), biases=biases)


def basic_block(inputs: int, planes: int, stride: int, *, biases: bool) -> FixupBlock:
    """3x3 with the stride, 3x3."""
    convolutions = [
        nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False),
        nn.Conv2d(planes, planes, 3, padding=1, bias=False),
    ]
    return FixupBlock(convolutions, shortcut(inputs, planes, stride), biases=biases)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Conv2d | None:
    """A 1x1 convolution where the identity does not fit."""
    fits = inputs == outputs and stride == 1
    return None if fits else nn.Conv2d(inputs, outputs, 1, stride, bias=False)


def linear_head(features: int, classes: int, *, bias: bool, zero: bool) -> nn.Linear:
    """A linear layer, all zeros or as torch initializes it."""
    head = nn.Linear(features, classes, bias=bias)
    if zero:
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
    return head


def resnet50(head: nn.Linear, *, biases: bool) -> FixupResNet:
    """ResNet-50's plan: 3, 4, 6 and 3 bottlenecks behind a stem of 7x7."""
    stages, channels = [], 64
    for k, count in enumerate((3, 4, 6, 3)):
        stage = []
        for i in range(count):
            stride = 2 if k and not i else 1
            stage.append(bottleneck(channels, 64 * 2**k, stride, biases=biases))
            channels = 4 * 64 * 2**k
        stages.append(stage)
    stem = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
    return FixupResNet(stem, nn.MaxPool2d(3, 2, padding=1), stages, head, biases=biases)


def small_resnet(width: int, head: nn.Linear, *, biases: bool) -> FixupResNet:
    """The plan of ``small_resnet``: one basic block a stage, final maps of 8x8 for 64 px."""
    widths, strides = (width, width, 2 * width, 4 * width, 4 * width), (2, 2, 1, 1)
    stages = [
        [basic_block(widths[k], widths[k + 1], stride, biases=biases)]
        for k, stride in enumerate(strides)
    ]
    stem = nn.Conv2d(3, width, 3, 2, padding=1, bias=False)
    return FixupResNet(stem, nn.Identity(), stages, head, biases=biases)


@dataclass(frozen=True, kw_only=True)
class UnnormalizedResNet(Network):
    """A `FixupResNet` of some plan."""

    depths: ClassVar[Mapping[str, str]] = DEPTHS
    probed_at: ClassVar[str] = "layer4"
    head_at: ClassVar[str] = "avgpool"
    bypassed: ClassVar[tuple[str, ...]] = ("fc",)

    def attach(self, module: nn.Module, head: nn.Module) -> None:
        """As in other ResNets; the scalar in front of the linear head goes with it."""
        super().attach(module, head)
        module.register_parameter("bias2", None)


@dataclass(frozen=True, kw_only=True)
class FixupResNet50(UnnormalizedResNet):
    """ResNet-50 without batch norm, with Fixup's scalar biases and scales.

    Source: Zhang, Dauphin & Ma, ICLR 2019; "ResNet-50 without BN" in IDSDS.
    """

    name: ClassVar[str] = "fixup_resnet50"

    def module(self, classes: int) -> nn.Module:
        """Logits start at zero."""
        return resnet50(linear_head(2048, classes, bias=True, zero=True), biases=True)


@dataclass(frozen=True, kw_only=True)
class SmallFixupResNet(UnnormalizedResNet):
    """The same for 64 px images and two CPU cores."""

    name: ClassVar[str] = "small_fixup_resnet"
    width: int = 16
    """Channels of the first stage; the stages have 1, 2, 4 and 4 times as many."""

    def module(self, classes: int) -> nn.Module:
        """About 151,000 parameters at width 16 and 10 classes."""
        head = linear_head(4 * self.width, classes, bias=True, zero=True)
        return small_resnet(self.width, head, biases=True)


@dataclass(frozen=True, kw_only=True)
class XNetwork(UnnormalizedResNet):
    """A network of convolutions, ReLUs, poolings and sums alone: f(a x) = a f(x) for a > 0.

    Hence input times gradient adds up to the logit without the head's bias, and equals integrated
    gradients with a zero baseline.

    Source: Hesse, Schaub-Meyer & Roth, NeurIPS 2021; "without BN and bias" in IDSDS.
    """

    fresh_head: bool = False
    """Whether the head has a bias and starts as torch initializes a linear layer, as in Model
    Guidance's code; otherwise it has none and starts at zero, as published."""

    def with_new_head(self) -> Self:
        """The head has a bias and starts as torch initializes a linear layer.

        Source: Model Guidance (Rao et al., ICCV 2023), the authors' code.
        """
        return replace(self, fresh_head=True)

    def head(self, features: int, classes: int) -> nn.Linear:
        """The linear head."""
        return linear_head(features, classes, bias=self.fresh_head, zero=not self.fresh_head)


@dataclass(frozen=True, kw_only=True)
class XResNet50(XNetwork):
    """ResNet-50 without batch norm, biases and scales."""

    name: ClassVar[str] = "xresnet50"

    def module(self, classes: int) -> nn.Module:
        """Fixup's initialization."""
        return resnet50(self.head(2048, classes), biases=False)


@dataclass(frozen=True, kw_only=True)
class SmallXResNet(XNetwork):
    """The same for 64 px images and two CPU cores."""

    name: ClassVar[str] = "small_xresnet"

    width: int = 16
    """Channels of the first stage; the stages have 1, 2, 4 and 4 times as many."""

    def module(self, classes: int) -> nn.Module:
        """About 151,000 parameters at width 16 and 10 classes."""
        return small_resnet(self.width, self.head(4 * self.width, classes), biases=False)
