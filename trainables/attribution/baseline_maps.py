"""Baseline maps: what looks at no model, the lines of reference in every ranking."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from trainables.attribution.attribution import Attribution, Explained
from trainables.models.network import Model
from trainables.noise import generator
from trainables.passes import Need, Passes


@dataclass(frozen=True, kw_only=True)
class BaselineMap(Attribution):
    """A map that is a function of the image alone: neither model nor target has a say.

    What a study finds of these is not about explanations; a method that does not beat them tells
    nothing.
    """

    reference_line: ClassVar[bool] = True
    """Drawn as a line in rankings, not ranked."""

    @property
    def explains(self) -> Explained:
        return "image"

    def needs(self, model: Model) -> tuple[Need, ...]:
        """Nothing."""
        return ()

    def attribute(self, passes: Passes) -> Tensor:
        """The map of each explanation's image, (N, H, W)."""
        images = passes.batch.images
        maps = self.maps(images, list(passes.batch.image_ids))
        return maps.to(images)[passes.batch.image_index]

    @abstractmethod
    def maps(self, images: Tensor, image_ids: list[str]) -> Tensor:
        """Maps of the images, (B, H, W), not negative."""


@dataclass(frozen=True, kw_only=True)
class UniformMap(BaselineMap):
    """One everywhere: the importance inside a box is the box's share of the image.

    Source: none; the level of chance for localization.
    """

    name: ClassVar[str] = "uniform"

    def maps(self, images: Tensor, image_ids: list[str]) -> Tensor:
        return torch.ones_like(images[:, 0])


@dataclass(frozen=True, kw_only=True)
class RandomMap(BaselineMap):
    """Independent values from [0, 1) for each pixel, by seed and image id.

    Source: none; the level of chance for rankings of pixels or cells, where ties would tell.
    """

    name: ClassVar[str] = "random"

    seed: int = 0

    def maps(self, images: Tensor, image_ids: list[str]) -> Tensor:
        shape = images.shape[2:]
        drawn = [
            torch.rand(shape, generator=generator(self.seed, name, 0, "random map"))
            for name in image_ids
        ]
        return torch.stack(drawn)


@dataclass(frozen=True, kw_only=True)
class CenterGaussian(BaselineMap):
    """A Gaussian at the center of the image: photographers put things there.

    Source: Judd et al., 2009 (center bias), with our own width.
    """

    name: ClassVar[str] = "center_gaussian"

    sigma: float = 0.25
    """Deviation as a fraction of the image's side, along each axis."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma <= 0:
            raise ValueError(f"center_gaussian with sigma {self.sigma:g}: expected more than 0")

    def maps(self, images: Tensor, image_ids: list[str]) -> Tensor:
        down, across = (
            torch.exp(-((((torch.arange(side) + 0.5) / side - 0.5) / self.sigma) ** 2) / 2)
            for side in images.shape[2:]
        )
        return torch.outer(down, across).expand(len(images), -1, -1)


@dataclass(frozen=True, kw_only=True)
class Edges(BaselineMap):
    """Magnitude of the Sobel gradient of the image's mean color; the border is repeated.

    The first three channels of the encoded image are taken for its colors.

    Source: Adebayo et al., 2018, section 5: an edge detector looks like many explanations.
    """

    name: ClassVar[str] = "edges"

    def maps(self, images: Tensor, image_ids: list[str]) -> Tensor:
        gray = functional.pad(images[:, :3].mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        smooth, slope = images.new_tensor([1, 2, 1]), images.new_tensor([-1, 0, 1])
        kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])
        return functional.conv2d(gray, kernels[:, None]).square().sum(1).sqrt()
