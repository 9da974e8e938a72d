"""A view: how an image is cropped and recolored before a network sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipelines.configuration import Configuration
from data_pipelines.resized_crops import DRAWS as CROP_DRAWS
from data_pipelines.resized_crops import random_resized_crops
from trainables.ssl.photometry import (
    blur,
    brighten,
    contrast,
    gray,
    posterize,
    saturate,
    solarize,
    turn_hue,
)

CHANCES = ("jitter", "gray", "blur", "solarize", "posterize")
AMOUNTS = ("brightness", "contrast", "saturation", "hue")
DRAWS = CROP_DRAWS + len(CHANCES) + len(AMOUNTS) + 1
"""Uniform numbers of a view: the crop's, whether, how much, and the blur's deviation."""


@dataclass(frozen=True, kw_only=True)
class View(Configuration):
    """A random resized crop, mirrored, its colors jittered, gray, blurred, solarized by chance.

    Source: MoCo v2 (Chen et al., 2020), the authors' code, whose values are the defaults; the same
        steps are those of SimCLR, BYOL and DINO.
    Departs: colors change in one order (brightness, contrast, saturation, hue), not in a random
        one; every draw is a function of seed, epoch, image and view.
    """

    name: ClassVar[str] = "view"

    size_px: int = field(default=0, metadata={"short": "px"})
    """Side of the view; 0 is the images' own."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Least and largest share of the image's area that is cropped."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest width over height."""
    flip: float = 0.5
    """Chance that it is mirrored left to right. 0 for what has a direction, such as digits."""
    jitter: float = 0.8
    """Chance of the four changes of color."""
    brightness: float = 0.4
    """Most by which the factor differs from 1."""
    contrast: float = 0.4
    """Most by which the factor differs from 1."""
    saturation: float = 0.4
    """Most by which the factor differs from 1."""
    hue: float = 0.1
    """Most that hue turns, in circles."""
    gray: float = 0.2
    """Chance of no color at all."""
    blur: float = 0.5
    """Chance of a Gaussian blur."""
    blur_sigma_px: tuple[float, float] = (0.1, 2.0)
    """Least and largest deviation; the papers' belong to 224 px."""
    solarize: float = 0.0
    """Chance that bright pixels are inverted."""
    posterize: float = 0.0
    """Chance that each channel keeps its highest bit alone. None of the papers does so."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for chance in ("flip", *CHANCES):
            if not 0 <= getattr(self, chance) <= 1:
                raise ValueError(
                    f"View.{chance} = {getattr(self, chance)}: a chance lies in [0, 1]"
                )
        limits = {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0.5}
        for amount, most in limits.items():
            if not 0 <= getattr(self, amount) <= most:
                raise ValueError(
                    f"View.{amount} = {getattr(self, amount)}: must lie in [0, {most}]"
                )
        for name in ("crop_scale", "crop_ratio", "blur_sigma_px"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name == "crop_scale" and high > 1):
                raise ValueError(
                    f"View.{name} = {(low, high)}: must be positive and ascending, shares at most 1"
                )
        if self.size_px < 0:
            raise ValueError(f"View.size_px = {self.size_px}: at least 1, or 0 for the images' own")

    def of(
        self, pictures: NDArray[np.uint8], draws: NDArray[np.float64], device: torch.device
    ) -> Tensor:
        """What is seen of pictures, uint8 (B, 3, size_px, size_px) on the device.

        Args:
            pictures: (B, 3, H, H).
            draws: (B, DRAWS) uniform in [0, 1); no picture depends on those of another.
            device: where colors are changed.
        """
        crop = draws[:, :CROP_DRAWS].copy()
        crop[:, -1] = np.where(crop[:, -1] < self.flip, 0.0, 1.0)  # mirrored below 0.5
        image_px = pictures.shape[-1]
        crops = random_resized_crops(
            crop, image_px, self.size_px or image_px, self.crop_scale, self.crop_ratio
        )
        cropped = torch.from_numpy(crops.of(pictures, np.arange(len(pictures)))).to(device)
        drawn = torch.from_numpy(draws[:, CROP_DRAWS:]).to(device, torch.float32)
        return (self._recolored(cropped.float() / 255, drawn) * 255).round_().to(torch.uint8)

    def _recolored(self, images: Tensor, draws: Tensor) -> Tensor:
        """Images in [0, 1], given draws (B, 10); each chance takes the images that it falls on."""
        happens = {name: draws[:, k] < getattr(self, name) for k, name in enumerate(CHANCES)}
        first = len(CHANCES)
        amounts = {
            name: (2 * draws[:, first + k] - 1) * getattr(self, name)
            for k, name in enumerate(AMOUNTS)
        }
        low, high = self.blur_sigma_px
        sigmas = low + (high - low) * draws[:, -1]
        if (chosen := happens["jitter"]).any():
            part = images[chosen]
            if self.brightness:
                part = brighten(part, 1 + amounts["brightness"][chosen])
            if self.contrast:
                part = contrast(part, 1 + amounts["contrast"][chosen])
            if self.saturation:
                part = saturate(part, 1 + amounts["saturation"][chosen])
            if self.hue:
                part = turn_hue(part, amounts["hue"][chosen])
            images[chosen] = part
        if (chosen := happens["gray"]).any():
            images[chosen] = gray(images[chosen]).expand(-1, 3, -1, -1)
        if (chosen := happens["blur"]).any():
            reach = min(math.ceil(3 * high), min(images.shape[-2:]) - 1)
            images[chosen] = blur(images[chosen], sigmas[chosen], reach)
        if (chosen := happens["solarize"]).any():
            images[chosen] = solarize(images[chosen])
        if (chosen := happens["posterize"]).any():
            images[chosen] = posterize(images[chosen])
        return images
