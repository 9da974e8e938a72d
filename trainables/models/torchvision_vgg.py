"""VGGs by name: torchvision's, one without any bias, and small ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from trainables.models.network import DEPTHS, Network


def depths_of(convolutions: Sequence[int], *, norm: bool = False) -> Mapping[str, str]:
    """Paths of the outputs of max-poolings two to five, given the convolutions before each.

    At 224 px their sides are 56, 28, 14 and 7, as in a ResNet; the last is ``features`` itself.
    """
    each, pools = 3 if norm else 2, []  # convolution, norm, ReLU
    for k in range(len(convolutions)):
        pools.append(f"features.{each * sum(convolutions[: k + 1]) + k}")
    return dict(zip(DEPTHS, ("", *pools[1:4], "features"), strict=True))


@dataclass(frozen=True, kw_only=True)
class TorchvisionVgg(Network):
    """A VGG of torchvision (Simonyan & Zisserman, 2015), randomly initialized.

    Source: IDSDS (Hesse et al., NeurIPS D&B 2024): class activation maps are taken behind the last
        max-pooling.
    """

    probed_at: ClassVar[str] = "features"
    head_at: ClassVar[str] = "avgpool"
    bypassed: ClassVar[tuple[str, ...]] = ("classifier",)

    def module(self, classes: int) -> nn.Module:
        """Torchvision's constructor of the same name."""
        import torchvision  # only here: it takes seconds, and flags must be checked at once

        return torchvision.models.get_model(self.name, weights=None, num_classes=classes)


@dataclass(frozen=True, kw_only=True)
class Vgg11(TorchvisionVgg):
    """VGG-11, without batch norm."""

    name: ClassVar[str] = "vgg11"
    depths: ClassVar[Mapping[str, str]] = depths_of((1, 1, 2, 2, 2))


@dataclass(frozen=True, kw_only=True)
class Vgg11Bn(TorchvisionVgg):
    """VGG-11 with batch norm."""

    name: ClassVar[str] = "vgg11_bn"
    depths: ClassVar[Mapping[str, str]] = depths_of((1, 1, 2, 2, 2), norm=True)


@dataclass(frozen=True, kw_only=True)
class Vgg13(TorchvisionVgg):
    """VGG-13, without batch norm."""

    name: ClassVar[str] = "vgg13"
    depths: ClassVar[Mapping[str, str]] = depths_of((2, 2, 2, 2, 2))


@dataclass(frozen=True, kw_only=True)
class Vgg13Bn(TorchvisionVgg):
    """VGG-13 with batch norm."""

    name: ClassVar[str] = "vgg13_bn"
    depths: ClassVar[Mapping[str, str]] = depths_of((2, 2, 2, 2, 2), norm=True)


@dataclass(frozen=True, kw_only=True)
class Vgg16(TorchvisionVgg):
    """VGG-16, without batch norm."""

    name: ClassVar[str] = "vgg16"
    depths: ClassVar[Mapping[str, str]] = depths_of((2, 2, 3, 3, 3))


@dataclass(frozen=True, kw_only=True)
class Vgg16Bn(TorchvisionVgg):
    """VGG-16 with batch norm."""

    name: ClassVar[str] = "vgg16_bn"
    depths: ClassVar[Mapping[str, str]] = depths_of((2, 2, 3, 3, 3), norm=True)


@dataclass(frozen=True, kw_only=True)
class Vgg19(TorchvisionVgg):
    """VGG-19, without batch norm."""

    name: ClassVar[str] = "vgg19"
    depths: ClassVar[Mapping[str, str]] = depths_of((2, 2, 4, 4, 4))


@dataclass(frozen=True, kw_only=True)
class Vgg19Bn(TorchvisionVgg):
    """VGG-19 with batch norm."""

    name: ClassVar[str] = "vgg19_bn"
    depths: ClassVar[Mapping[str, str]] = depths_of((2, 2, 4, 4, 4), norm=True)


@dataclass(frozen=True, kw_only=True)
class XVgg16(TorchvisionVgg):
    """VGG-16 without any bias: f(a x) = a f(x) for a > 0.

    Source: Hesse, Schaub-Meyer & Roth, NeurIPS 2021 (X-DNN); "without BN and bias" in IDSDS.
    """

    name: ClassVar[str] = "xvgg16"
    depths: ClassVar[Mapping[str, str]] = Vgg16.depths

    def module(self, classes: int) -> nn.Module:
        """Torchvision's VGG-16, its biases taken away."""
        net = Vgg16().module(classes)
        for part in net.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.bias = None
        return net


class CompactVgg(nn.Module):
    """Stages of convolutions and ReLUs, each ending in a max-pooling; pooling; two linear layers.

    Args:
        stages: channels of each convolution, stage by stage.
        pooled: side to which the last maps are pooled, each channel by itself.
        hidden: width of the first linear layer.
        classes: logits.
        norm: whether batch norms follow the convolutions.
        bias: whether convolutions and linear layers have one.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        *,
        pooled: int,
        hidden: int,
        classes: int,
        norm: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        channels = 3
        for stage in stages:
            for width in stage:
                parts.append(nn.Conv2d(channels, width, 3, padding=1, bias=bias))
                parts += [nn.BatchNorm2d(width)] if norm else []
                parts.append(nn.ReLU())
                channels = width
            parts.append(nn.MaxPool2d(2))
        self.features, self.avgpool = nn.Sequential(*parts), nn.AdaptiveAvgPool2d(pooled)
        features = channels * pooled**2
        self.classifier = nn.Sequential(
            nn.Linear(features, hidden, bias=bias),
            nn.ReLU(),
            nn.Linear(hidden, classes, bias=bias),
        )
        for part in self.features:
            if isinstance(part, nn.Conv2d):  # as torchvision's
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, K)."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


@dataclass(frozen=True, kw_only=True)
class SmallVgg(Network):
    """A VGG for 64 px images and two CPU cores: four convolutions, final maps of 8x8."""

    name: ClassVar[str] = "small_vgg"
    depths: ClassVar[Mapping[str, str]] = {
        "input": "", "mid1": "features.2", "mid2": "features.5", "mid3": "features.7",
        "final": "features",
    }  # fmt: skip
    probed_at: ClassVar[str] = "features"
    head_at: ClassVar[str] = "avgpool"
    bypassed: ClassVar[tuple[str, ...]] = ("classifier",)
    norm: ClassVar[bool] = False
    bias: ClassVar[bool] = True

    width: int = 16
    """Channels of the first stage; the others have 2 and 4 times as many."""

    def module(self, classes: int) -> nn.Module:
        """About 127,000 parameters at width 16 and 10 classes."""
        width = self.width
        stages = [[width], [2 * width], [4 * width, 4 * width]]
        return CompactVgg(
            stages, pooled=4, hidden=4 * width, classes=classes, norm=self.norm, bias=self.bias
        )


@dataclass(frozen=True, kw_only=True)
class SmallVggBn(SmallVgg):
    """The same with batch norm."""

    name: ClassVar[str] = "small_vgg_bn"
    depths: ClassVar[Mapping[str, str]] = {
        "input": "", "mid1": "features.3", "mid2": "features.7", "mid3": "features.10",
        "final": "features",
    }  # fmt: skip
    norm: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class SmallXVgg(SmallVgg):
    """The same without any bias: f(a x) = a f(x) for a > 0."""

    name: ClassVar[str] = "small_xvgg"
    bias: ClassVar[bool] = False
