"""Class activation maps: channels of a feature, weighted by what the logit makes of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables.attribution.attribution import Attribution
from trainables.models.network import Model
from trainables.passes import Gradient, Need, Passes


@dataclass(frozen=True, kw_only=True)
class Cam(Attribution):
    """What the family shares: a layer, and a map that is normalized only if asked for."""

    layer: str = "final"
    """Depth (input, mid1, mid2, mid3, final) or module path whose channels are weighted."""
    normalize: bool = False
    """Whether a map is scaled to [0, 1] at native resolution, as TorchCAM does before it resizes.
    Scales are then no longer comparable between images."""

    def suit(self, model: Model) -> None:
        """Refuse a layer that leaves nothing of the plane.

        Raises:
            ValueError: the layer's kind; what else gives no map is found by its shape in `check`.
        """
        path = model.path_of(self.layer)
        kind = model.module.get_submodule(path)
        pools = isinstance(kind, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d)
        flat = isinstance(kind, nn.Flatten) or (isinstance(kind, nn.Linear) and not model.tokens)
        if path and (flat or (pools and kind.output_size in (1, (1, 1)))):
            raise ValueError(
                f"{self.name} needs a layer with a map; {self.layer!r} "
                f"({type(kind).__name__}) gives one value a channel: take a layer before it"
            )

    def needs(self, model: Model) -> tuple[Need, ...]:
        """The gradient at the layer."""
        return (Gradient(layer=self.layer),)

    @abstractmethod
    def activation_map(self, passes: Passes) -> Tensor:
        """The method's equation: maps as published, (N, h, w), not normalized."""

    def attribute(self, passes: Passes) -> Tensor:
        """Maps (N, h, w) of any scale, or in [0, 1]; a map without any activation is zero."""
        maps = self.activation_map(passes)
        return min_max(maps) if self.normalize else maps


@dataclass(frozen=True, kw_only=True)
class GradCam(Cam):
    """ReLU of the channels weighted by their mean gradient; not normalized.

    Where the layer is followed by global average pooling and one linear layer it equals the ReLU of
    input_x_gradient at that layer.

    Source: Selvaraju et al., 2017; Model Guidance (Rao et al., ICCV 2023), section 3, at any layer.
    """

    name: ClassVar[str] = "grad_cam"
    single_pass: ClassVar[bool] = True
    differentiable: ClassVar[bool] = True

    relu: bool = True
    """Whether only the positive part counts. How to Probe (ICLR 2025) takes the signed map, at
    ``layer4.2.conv3``, before the last norm, the residual sum and its ReLU."""

    def activation_map(self, passes: Passes) -> Tensor:
        """ReLU(sum over d of mean(g_d) F_d), (N, h, w), signed without ``relu``."""
        weights = passes.get(Gradient(layer=self.layer)).mean((2, 3), keepdim=True)
        maps = (weights * passes.feature(self.layer)).sum(1)
        return maps.relu() if self.relu else maps


@dataclass(frozen=True, kw_only=True)
class XGradCam(Cam):
    """ReLU of the channels, each weighted by its mean gradient where it is active.

    Equals grad_cam where the gradient is the same all over the plane: before global average
    pooling and a linear head.

    Source: Axiom-based Grad-CAM (Fu et al., BMVC 2020); IDSDS (Hesse et al., 2024).
    """

    name: ClassVar[str] = "xgrad_cam"
    single_pass: ClassVar[bool] = True

    def activation_map(self, passes: Passes) -> Tensor:
        """ReLU(sum over d of w_d F_d), w_d = sum(g_d F_d) / sum(F_d), or 0 where that sum is 0."""
        gradient, feature = passes.get(Gradient(layer=self.layer)), passes.feature(self.layer)
        total = feature.sum((2, 3), keepdim=True)
        weights = (gradient * feature).sum((2, 3), keepdim=True) / total
        weights = torch.where(total == 0, 0, weights)
        return (weights * feature).sum(1).relu()


@dataclass(frozen=True, kw_only=True)
class LayerCam(Cam):
    """ReLU of the channels, weighted place by place by their positive gradient.

    Source: LayerCAM (Jiang et al., TIP 2021); IDSDS (Hesse et al., 2024).
    """

    name: ClassVar[str] = "layer_cam"
    single_pass: ClassVar[bool] = True

    def activation_map(self, passes: Passes) -> Tensor:
        """ReLU(sum over d of ReLU(g_d) F_d), (N, h, w), not negative."""
        gradient, feature = passes.get(Gradient(layer=self.layer)), passes.feature(self.layer)
        return (gradient.relu() * feature).sum(1).relu()


def min_max(maps: Tensor) -> Tensor:
    """Maps (N, h, w) scaled to [0, 1], as TorchCAM does it; a constant map becomes zero."""
    above = maps - maps.amin((1, 2), keepdim=True)
    return above / (above.amax((1, 2), keepdim=True) + 1e-8)
