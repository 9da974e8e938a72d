"""Attributions that are one gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from trainables.attribution.attribution import Attribution
from trainables.models.network import Model
from trainables.passes import Gradient, Need, Passes

Channels = Literal["max", "sum"]


def saliency(gradient: Tensor, channels: Channels) -> Tensor:
    """Gradients (N, D, h, w) as maps (N, h, w): largest |g_d|, or |sum of g_d|."""
    return gradient.sum(1).abs() if channels == "sum" else gradient.abs().amax(1)


@dataclass(frozen=True, kw_only=True)
class OfLayer(Attribution):
    """A gradient of the target's logit with respect to one layer's output."""

    layer: str = "input"
    """Depth (input, mid1, mid2, mid3, final) or module path whose output is attributed."""

    def needs(self, model: Model) -> tuple[Need, ...]:
        """The gradient at the layer."""
        return (Gradient(layer=self.layer),)


@dataclass(frozen=True, kw_only=True)
class SignedGradient(OfLayer):
    """Gradient of the target's logit, summed over channels.

    Source: Baehrens et al., 2010; IDSDS (Hesse et al., 2024), `Gradient` in the authors' code.
    """

    name: ClassVar[str] = "gradient"
    single_pass: ClassVar[bool] = True

    def attribute(self, passes: Passes) -> Tensor:
        """Sum over d of g_d, (N, h, w), signed."""
        return passes.get(Gradient(layer=self.layer)).sum(1)


@dataclass(frozen=True, kw_only=True)
class Saliency(OfLayer):
    """Absolute gradient of the target's logit, the largest over channels.

    Source: Simonyan et al., 2014, section 3.1; with ``channels="sum"`` IDSDS (Hesse et al., 2024)
    as run.
    """

    name: ClassVar[str] = "saliency"
    single_pass: ClassVar[bool] = True

    channels: Channels = "max"
    """"sum": absolute value of the sum over channels, where opposite signs cancel. The table of
    IDSDS was made so."""

    def attribute(self, passes: Passes) -> Tensor:
        """Largest |g_d| over d, or |sum over d of g_d|, (N, h, w), not negative."""
        return saliency(passes.get(Gradient(layer=self.layer)), self.channels)


@dataclass(frozen=True, kw_only=True)
class InputXGradient(OfLayer):
    """Feature times the gradient of the target's logit, summed over channels.

    On networks without biases it equals integrated gradients with a zero baseline (X-DNN).

    Source: Shrikumar et al., 2016; Model Guidance (Rao et al., ICCV 2023), section 3, at any
    layer: the layer's output is taken as the effective input.
    """

    name: ClassVar[str] = "input_x_gradient"
    single_pass: ClassVar[bool] = True
    differentiable: ClassVar[bool] = True

    def attribute(self, passes: Passes) -> Tensor:
        """Sum over d of g_d F_d, (N, h, w), signed."""
        return (passes.get(Gradient(layer=self.layer)) * passes.feature(self.layer)).sum(1)
