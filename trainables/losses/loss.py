"""The contract of every localization loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from data_pipelines.configuration import Configuration


@dataclass(frozen=True, kw_only=True)
class Loss(Configuration, ABC, family=True):
    """How far maps are from the regions they should point at, one number an explanation.

    Two steps, with the upsampling to image size between them, done by the caller (bilinear,
    align_corners False): ``loss(upsample(loss.prepare(maps)), masks)``. In the other order the
    values differ. The training objective adds lambda times the *sum* over the annotated
    explanations of a batch, never their mean.

    Values and gradients are finite for every finite map whose largest absolute value stays clear of
    overflow (1e30 in float32) and for every mask, an empty one included; a NaN anywhere in a map
    makes its value NaN, so that a broken step is seen.
    """

    lambdas: ClassVar[tuple[float, ...]]
    """The paper's weights of the loss, ascending, for a batch of 64 images of 224 px."""
    summed_over_pixels: ClassVar[bool] = False
    """Whether the value grows with the number of pixels: its lambdas then belong to 224 px."""

    def prepare(self, maps: Tensor) -> Tensor:
        """The maps (N, h, w) as the loss wants them at native size; as they are by default."""
        return maps

    def __call__(self, prepared: Tensor, masks: Tensor) -> Tensor:
        """Value of each explanation, (N,), dtype of the maps, not negative, differentiable.

        Args:
            prepared: what ``prepare`` returned, upsampled to image size, (N, H, W), float.
            masks: where importance belongs, (N, H, W), bool.

        Raises:
            ValueError: the shapes differ or the masks are not boolean.
        """
        if prepared.ndim != 3 or prepared.shape != masks.shape:
            raise ValueError(
                f"{self.name}: maps {tuple(prepared.shape)} and masks {tuple(masks.shape)} must "
                "both be (N, H, W); upsample the prepared maps to the masks' size first"
            )
        if masks.dtype != torch.bool:
            raise ValueError(f"{self.name}: masks are {masks.dtype}, expected torch.bool")
        return self.per_map(prepared, masks)

    @abstractmethod
    def per_map(self, prepared: Tensor, masks: Tensor) -> Tensor:
        """The equation: (N, H, W) float and (N, H, W) bool, already checked, to (N,)."""
