"""Attributions that are one gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainables.attribution.attribution import Attribution
from trainables.models.network import Model
from trainables.passes import Gradient, Need, Passes


@dataclass(frozen=True, kw_only=True)
class InputXGradient(Attribution):
    """Feature times the gradient of the target's logit, summed over channels.

    On networks without biases it equals integrated gradients with a zero baseline (X-DNN).

    Source: Shrikumar et al., 2016; Model Guidance (Rao et al., ICCV 2023), section 3, at any
        layer: the
    layer's output is taken as the effective input.
    """

    name: ClassVar[str] = "input_x_gradient"
    differentiable: ClassVar[bool] = True

    layer: str = "input"
    """Depth (input, mid1, mid2, mid3, final) or module path whose output is attributed."""

    def needs(self, model: Model) -> tuple[Need, ...]:
        """The gradient at the layer."""
        return (Gradient(layer=self.layer),)

    def attribute(self, passes: Passes) -> Tensor:
        """Sum over d of g_d F_d, (N, h, w), signed."""
        return (passes.get(Gradient(layer=self.layer)) * passes.feature(self.layer)).sum(1)
