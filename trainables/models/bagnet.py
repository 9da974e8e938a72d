"""BagNets: ResNets whose features see small windows, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from trainables.models.network import Network
from trainables.models.window_net import Stage, WindowNet

EXPANSION = 4
DEPTHS: Mapping[str, str] = {
    "input": "", "mid1": "layer1", "mid2": "layer2", "mid3": "layer3", "final": "layer4",
}  # fmt: skip


class Bottleneck(nn.Module):
    """ResNet's bottleneck without padding; the shortcut loses its last rows and columns instead."""

    def __init__(self, inputs: int, planes: int, *, side: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * planes
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, side, stride, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample: nn.Sequential | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, 4 planes, h', w')."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(y + shortcut[..., : y.shape[-2], : y.shape[-1]])


class BagNet(WindowNet):
    """Two convolutions, four stages of bottlenecks, mean, linear head; state dict as published.

    Args:
        blocks: bottlenecks in each stage.
        strides: stride of each stage.
        sides: side of the convolution in each stage's first bottleneck, 3 or 1; it is 1 in the
            others.
        width: channels of the stem; the stages have 4, 8, 16 and 32 times as many.
        classes: logits.

    Source: Brendel & Bethge, ICLR 2019, and the authors' checkpoints.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        strides: Sequence[int],
        sides: Sequence[int],
        width: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width, momentum=0.001)  # as published
        self.relu = nn.ReLU()
        self.window_px, self.strides, apart, channels = 3, tuple(strides), 1, width
        for k, (count, stride, side) in enumerate(zip(blocks, strides, sides, strict=True)):
            stage: list[nn.Module] = []
            for i in range(count):
                how = {"side": 1, "stride": 1} if i else {"side": side, "stride": stride}
                stage.append(Bottleneck(channels, width * 2**k, **how))
                channels = EXPANSION * width * 2**k
            self.add_module(f"layer{k + 1}", nn.Sequential(*stage))
            self.window_px += apart * (side - 1)
            apart *= stride
        self.fc = nn.Linear(channels, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                outputs = part.out_channels * math.prod(part.kernel_size)
                nn.init.normal_(part.weight, 0.0, math.sqrt(2 / outputs))

    def stem(self, x: Tensor) -> Tensor:
        """Windows of 3 x 3 pixels."""
        return self.relu(self.bn1(self.conv2(self.conv1(x))))

    def stages(self) -> Sequence[Stage]:
        """The stem and the stages of bottlenecks."""
        layers = [self.get_submodule(f"layer{k + 1}") for k in range(len(self.strides))]
        return [(self.stem, 1), *zip(layers, self.strides, strict=True)]


@dataclass(frozen=True, kw_only=True)
class PublishedBagNet(Network):
    """A BagNet on the plan of ResNet-50; its windows lie 8 px apart.

    Source: Brendel & Bethge, ICLR 2019; IDSDS (Hesse et al., NeurIPS D&B 2024) fine-tunes the
        largest.
    """

    depths: ClassVar[Mapping[str, str]] = DEPTHS
    sides: ClassVar[tuple[int, ...]]

    def module(self, classes: int) -> nn.Module:
        """About 16 million parameters at 1000 classes; keys as in the published checkpoints."""
        return BagNet((3, 4, 6, 3), (2, 2, 2, 1), self.sides, 64, classes)


@dataclass(frozen=True, kw_only=True)
class BagNet9(PublishedBagNet):
    """Windows of 9 px."""

    name: ClassVar[str] = "bagnet9"
    sides: ClassVar[tuple[int, ...]] = (3, 3, 1, 1)


@dataclass(frozen=True, kw_only=True)
class BagNet17(PublishedBagNet):
    """Windows of 17 px."""

    name: ClassVar[str] = "bagnet17"
    sides: ClassVar[tuple[int, ...]] = (3, 3, 3, 1)


@dataclass(frozen=True, kw_only=True)
class BagNet33(PublishedBagNet):
    """Windows of 33 px, the network of IDSDS."""

    name: ClassVar[str] = "bagnet33"
    sides: ClassVar[tuple[int, ...]] = (3, 3, 3, 3)


@dataclass(frozen=True, kw_only=True)
class SmallBagNet(Network):
    """A narrow BagNet for 64 px images: one bottleneck a stage, windows of 17 px, 4 px apart."""

    name: ClassVar[str] = "small_bagnet"
    depths: ClassVar[Mapping[str, str]] = DEPTHS

    width: int = 8
    """Channels of the stem; the stages have 4, 8, 16 and 32 times as many."""

    def module(self, classes: int) -> nn.Module:
        """About 97,000 parameters at width 8 and 10 classes; 12 x 12 windows of 64 px."""
        return BagNet((1, 1, 1, 1), (2, 2, 1, 1), (3, 3, 3, 1), self.width, classes)
