"""What each pixel contributes to a logit of a B-cos network, as a map and in color."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from trainables.attribution.attribution import Attribution
from trainables.models.network import Model
from trainables.passes import Gradient, Need, Passes


@dataclass(frozen=True, kw_only=True)
class Bcos(Attribution):
    """Feature times the dynamic weights that lead from it to the logit, summed over channels.

    The map adds up to the logit without its constant bias, in eval and in train mode. (At the input
    of a vision transformer what the position code contributes is missing.)

    Source: Boehle et al., CVPR 2022; Model Guidance (Rao et al., ICCV 2023), section 3, at any
        layer.
    """

    name: ClassVar[str] = "bcos"
    single_pass: ClassVar[bool] = True
    differentiable: ClassVar[bool] = True

    layer: str = "input"
    """Depth (input, mid1, mid2, mid3, final) or module path whose output is attributed."""

    def suit(self, model: Model) -> None:
        if model.explaining is None:
            raise ValueError(
                "bcos needs a network of B-cos layers, whose dynamic weights it reads; on others "
                "input_x_gradient is the nearest method"
            )

    def needs(self, model: Model) -> tuple[Need, ...]:
        """The gradient at the layer with all dynamic weights held constant."""
        return (Gradient(layer=self.layer, mode="explanation"),)

    def attribute(self, passes: Passes) -> Tensor:
        """Sum over d of W_d F_d, (N, h, w), signed."""
        weights = passes.get(Gradient(layer=self.layer, mode="explanation"))
        return (weights * passes.feature(self.layer)).sum(1)


def rgba(
    images: Tensor, weights: Tensor, *, smooth_px: int = 15, percentile: float = 99.5
) -> Tensor:
    """The dynamic weights as the colors that they stand for, as opaque as they are long.

    Args:
        images: encoded images, color and 1 minus it, (N, 6, H, W).
        weights: gradient at the input in explanation mode, (N, 6, H, W).
        smooth_px: side of the mean filter over the opacity, odd; 1 for none. 15 in B-cos v2, for
            224 px.
        percentile: of the opacity of each image's pixels, and all above it, become fully opaque.

    Returns:
        Red, green, blue and opacity in [0, 1], (N, H, W, 4). Pixels that speak against the class
        add no opacity.

    Source: Boehle et al., CVPR 2022; code of B-cos v2 (Boehle et al., 2024).
    Departs: an image without any pixel in favor is transparent, where the code makes it opaque.

    Raises:
        ValueError: an even ``smooth_px``.
    """
    if smooth_px % 2 == 0:
        raise ValueError(f"smooth_px = {smooth_px}: must be odd; 1 does not smooth")
    strongest = weights.abs().amax(1, keepdim=True)
    positive = (weights / (strongest + 1e-12)).clamp(min=0)
    color = positive[:, :3] / (positive[:, :3] + positive[:, 3:] + 1e-12)
    against = (images * weights).sum(1) < 0
    length = torch.linalg.vector_norm(weights, dim=1).masked_fill(against, 0)
    length = functional.avg_pool2d(length, smooth_px, stride=1, padding=smooth_px // 2)
    full = length.flatten(1).quantile(percentile / 100, dim=1)[:, None, None]
    opacity = (length / full.clamp(min=1e-12)).clamp(0, 1)
    return torch.cat([color, opacity[:, None]], 1).movedim(1, -1)
