"""Torchvision's ResNets by name, with a new linear head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from trainables.models.network import Network


@dataclass(frozen=True, kw_only=True)
class TorchvisionResNet(Network):
    """A ResNet of torchvision (He et al., 2016), randomly initialized.

    Source: Model Guidance, section 4: conv2_x to conv5_x are Mid1 to Final.
    """

    depths: ClassVar[Mapping[str, str]] = {
        "input": "", "mid1": "layer1", "mid2": "layer2", "mid3": "layer3", "final": "layer4",
    }  # fmt: skip
    probed_at: ClassVar[str] = "layer4"
    head_at: ClassVar[str] = "avgpool"
    bypassed: ClassVar[tuple[str, ...]] = ("fc",)

    def module(self, classes: int) -> nn.Module:
        """Torchvision's constructor of the same name."""
        import torchvision  # only here: it takes seconds, and flags must be checked at once

        return torchvision.models.get_model(self.name, weights=None, num_classes=classes)


@dataclass(frozen=True, kw_only=True)
class ResNet18(TorchvisionResNet):
    """ResNet-18."""

    name: ClassVar[str] = "resnet18"


@dataclass(frozen=True, kw_only=True)
class ResNet34(TorchvisionResNet):
    """ResNet-34."""

    name: ClassVar[str] = "resnet34"


@dataclass(frozen=True, kw_only=True)
class ResNet50(TorchvisionResNet):
    """ResNet-50, the network of the paper."""

    name: ClassVar[str] = "resnet50"


@dataclass(frozen=True, kw_only=True)
class ResNet101(TorchvisionResNet):
    """ResNet-101."""

    name: ClassVar[str] = "resnet101"


@dataclass(frozen=True, kw_only=True)
class ResNet152(TorchvisionResNet):
    """ResNet-152."""

    name: ClassVar[str] = "resnet152"


@dataclass(frozen=True, kw_only=True)
class WideResNet50(TorchvisionResNet):
    """Wide ResNet-50-2."""

    name: ClassVar[str] = "wide_resnet50_2"
