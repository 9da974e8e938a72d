"""Baselines: what stands where an image's content is taken away."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from data_pipelines.configuration import Configuration
from trainables.batch import Batch
from trainables.noise import generator


@dataclass(frozen=True, kw_only=True)
class Baseline(Configuration, family=True):
    """Images without content, one for each image of a batch, in the encoded space."""

    @abstractmethod
    def images(self, batch: Batch) -> Tensor:
        """Baselines of the batch's images, (B, C, H, W)."""


@dataclass(frozen=True, kw_only=True)
class Zero(Baseline):
    """Zero in the encoded space: the mean color, gray or black, as the network encodes.

    Source: IDSDS (Hesse et al., 2024), section 4.
    """

    name: ClassVar[str] = "zero"

    def images(self, batch: Batch) -> Tensor:
        return torch.zeros_like(batch.images)


@dataclass(frozen=True, kw_only=True)
class Uniform(Baseline):
    """One image of independent values from [-1, 1], the same for all images.

    Source: IDSDS (Hesse et al., 2024), IG-U and RISE-U: one draw a run.
    """

    name: ClassVar[str] = "uniform"

    seed: int = 0

    def images(self, batch: Batch) -> Tensor:
        shape = batch.images.shape[1:]
        drawn = torch.rand(shape, generator=generator(self.seed, "", 0, "uniform baseline"))
        return (2 * drawn - 1).to(batch.images).expand_as(batch.images)


@dataclass(frozen=True, kw_only=True)
class Random(Baseline):
    """Independent values from [-1, 1], anew for every image.

    Source: IDSDS (Hesse et al., 2024), section 4 (random baseline).

    Departs: a function of seed and image id, where the code draws from one global stream, so that
    a score does not depend on the batches.
    """

    name: ClassVar[str] = "random"

    seed: int = 0

    def images(self, batch: Batch) -> Tensor:
        shape = batch.images.shape[1:]
        drawn = [
            torch.rand(shape, generator=generator(self.seed, name, 0, "random baseline"))
            for name in batch.image_ids
        ]
        return (2 * torch.stack(drawn) - 1).to(batch.images)


@dataclass(frozen=True, kw_only=True)
class Blur(Baseline):
    """The image under a wide Gaussian with zero padding, which darkens towards the border.

    The weight of offset z is exp(-(z / (2 sigma))^2), as in the authors' code; the deviation is
    then sigma times the square root of 2.

    Source: IDSDS (Hesse et al., 2024), section 4: 51 x 51 px, sigma 41.
    """

    name: ClassVar[str] = "blur"

    size_px: int = 51
    """Side of the kernel, odd."""
    sigma: float = 41.0

    def images(self, batch: Batch) -> Tensor:
        images = batch.images
        line = _line(self.size_px, self.sigma).to(images)
        channels = images.shape[1]
        row = line.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
        pad = self.size_px // 2
        across = functional.conv2d(images, row, padding=(0, pad), groups=channels)
        return functional.conv2d(across, row.mT, padding=(pad, 0), groups=channels)


@dataclass(frozen=True, kw_only=True)
class ColorAndInverse(Baseline):
    """A baseline of the color, followed by 1 minus it: what B-cos networks read.

    Of zero it is black as these networks encode it, (0, 0, 0, 1, 1, 1).

    Source: IDSDS (Hesse et al., 2024), whose code deletes before it adds the inverse.

    Raises:
        ValueError: at a call, the images have another number of channels than six.
    """

    name: ClassVar[str] = "color_and_inverse"

    of: Baseline = field(default_factory=Zero, metadata={"short": "of"})
    """Of the color, in [0, 1]."""

    def images(self, batch: Batch) -> Tensor:
        if batch.images.shape[1] != 6:
            raise ValueError(
                f"{self.key} needs images of color and inverse, six channels, and these have "
                f"{batch.images.shape[1]}: take {self.of.key}"
            )
        color = self.of.images(replace(batch, images=batch.images[:, :3]))
        return torch.cat([color, 1 - color], 1)


@cache
def _line(size_px: int, sigma: float) -> Tensor:
    """The kernel is a product of two of these, so it is applied once along each axis."""
    offset = torch.arange(size_px, dtype=torch.float64) - (size_px - 1) / 2
    weight = torch.exp(-((offset / (2 * sigma)) ** 2))
    return weight / weight.sum()
