"""Segmentations: how an image falls into the parts that are hidden together."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from data_pipelines.configuration import Configuration


@dataclass(frozen=True, kw_only=True)
class Segmentation(Configuration, family=True):
    """A way to cut one image into segments; a function of the image alone."""

    @abstractmethod
    def labels(self, image: Tensor) -> Tensor:
        """Label of each pixel of an encoded image (C, H, W), as (H, W), int64; gaps are allowed."""

    def __call__(self, image: Tensor) -> Tensor:
        """Segment of each pixel, numbered from 0 without gaps, (H, W), int64."""
        return self.labels(image).unique(return_inverse=True)[1]


@dataclass(frozen=True, kw_only=True)
class Grid(Segmentation):
    """Rectangles of equal size: for images too small for segments that follow colors."""

    name: ClassVar[str] = "grid"

    cells: int = 8
    """Rectangles along each side."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cells < 1:
            raise ValueError(f"a grid of {self.cells} cells along each side: expected at least 1")

    def labels(self, image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        row = torch.arange(height) * self.cells // height
        column = torch.arange(width) * self.cells // width
        return row[:, None] * self.cells + column


@dataclass(frozen=True, kw_only=True)
class Quickshift(Segmentation):
    """Quickshift in color and position (scikit-image), with the settings of the package lime.

    The image's first three channels are taken for its colors.

    Source: Vedaldi and Soatto, 2008; lime 0.2.0.1, as used by How to Probe.

    Departs: of the encoded image only the range is undone, minimum to 0 and maximum to 1, as colors
    in [0, 1] are expected; the study feeds encoded images.
    """

    name: ClassVar[str] = "quickshift"

    kernel_px: float = field(default=4.0, metadata={"short": "k"})
    """Deviation of the Gaussian that densities are smoothed with; 4 in lime."""
    max_distance: float = field(default=200.0, metadata={"short": "d"})
    """Longest link in color and position; 200 in lime."""
    ratio: float = 0.2
    """Weight of color against position, in [0, 1]; 0.2 in lime."""

    def labels(self, image: Tensor) -> Tensor:
        from skimage.segmentation import quickshift  # only here: it takes half a second

        colors = image[:3].detach().double()
        if len(colors) < 3:
            raise ValueError(
                f"quickshift on an image of {len(colors)} channels: expected 3 colors first; use "
                "the segmentation grid"
            )
        low, high = colors.aminmax()
        colors = (colors - low) / (high - low) if high > low else torch.zeros_like(colors)
        found = quickshift(
            colors.permute(1, 2, 0).numpy(force=True),
            kernel_size=self.kernel_px,
            max_dist=self.max_distance,
            ratio=self.ratio,
            rng=0,  # for ties
        )
        return torch.from_numpy(found).long()
