"""A ResNet that suits 64 px images and two CPU cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from trainables.models.network import Network


@dataclass(frozen=True, kw_only=True)
class SmallResNet(Network):
    """Torchvision's ResNet with one basic block a stage, narrow, and a stem for small images.

    The stem keeps half the resolution (one strided 3x3 convolution, no pooling) and the last stage
    does not
    stride, so that a 64 px image gives final maps of 8x8.
    """

    name: ClassVar[str] = "small_resnet"
    depths: ClassVar[Mapping[str, str]] = {
        "input": "", "mid1": "layer1", "mid2": "layer2", "mid3": "layer3", "final": "layer4",
    }  # fmt: skip
    probed_at: ClassVar[str] = "layer4"
    head_at: ClassVar[str] = "avgpool"
    bypassed: ClassVar[tuple[str, ...]] = ("fc",)

    width: int = 16
    """Channels of the first stage; the stages have 1, 2, 4 and 4 times as many."""

    def module(self, classes: int) -> nn.Module:
        """About 150,000 parameters at width 16 and 10 classes."""
        from torchvision.models.resnet import BasicBlock, ResNet  # only here: it takes seconds

        net = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=classes)
        width = self.width
        net.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        net.bn1 = nn.BatchNorm2d(width)
        net.maxpool = nn.Identity()
        net.inplanes = width
        net.layer1 = net._make_layer(BasicBlock, width, 1, stride=2)
        net.layer2 = net._make_layer(BasicBlock, 2 * width, 1, stride=2)
        net.layer3 = net._make_layer(BasicBlock, 4 * width, 1)
        net.layer4 = net._make_layer(BasicBlock, 4 * width, 1)
        net.fc = nn.Linear(4 * width, classes)
        return net
