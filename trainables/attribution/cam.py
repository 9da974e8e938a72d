"""Class activation maps: channels of a feature, weighted by what the logit makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainables.attribution.attribution import Attribution
from trainables.models.network import Model
from trainables.passes import Gradient, Need, Passes


@dataclass(frozen=True, kw_only=True)
class GradCam(Attribution):
    """ReLU of the channels weighted by their mean gradient; not normalized.

    Where the layer is followed by global average pooling and one linear layer it equals the ReLU of
    input_x_gradient at that layer.

    Source: Selvaraju et al., 2017; Model Guidance (Rao et al., ICCV 2023), section 3, at any layer.
    """

    name: ClassVar[str] = "grad_cam"
    differentiable: ClassVar[bool] = True

    layer: str = "final"
    """Depth (input, mid1, mid2, mid3, final) or module path whose channels are weighted."""

    def needs(self, model: Model) -> tuple[Need, ...]:
        """The gradient at the layer."""
        return (Gradient(layer=self.layer),)

    def attribute(self, passes: Passes) -> Tensor:
        """ReLU(sum over d of mean(g_d) F_d), (N, h, w), not negative."""
        weights = passes.get(Gradient(layer=self.layer)).mean((2, 3), keepdim=True)
        return (weights * passes.feature(self.layer)).sum(1).relu()
