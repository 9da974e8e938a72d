"""RISE: random masks, weighted by what the model still says behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from trainables.attribution.answers import Answers, Score
from trainables.attribution.attribution import Attribution, Explained
from trainables.baselines import Baseline, Zero
from trainables.models.network import Model
from trainables.noise import generator
from trainables.passes import Need, Passes, Slab

CHUNK = 64
"""Masks that are summed at once: 13 MB at 224 px in float32, where 1000 would take 200 MB."""


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Random smooth masks by number: functions of these values and the images' size alone.

    A grid of ones and zeros is enlarged to one cell more than the image, with half-pixel centers
    and a border that reflects, and cropped at a random offset within a cell. All images share them.
    """

    count: int
    cells: int
    probability: float
    seed: int

    def numbered(self, numbers: Tensor, images: Tensor) -> Tensor:
        """The masks of these numbers at the images' size, (S, H, W), in [0, 1].

        The dtype is the images', float32 at least. Enlarging is linear along each axis, so that a
        mask is a product of its grid with two small matrices, and nothing larger is ever made.
        """
        dtype = torch.promote_types(images.dtype, torch.float32)
        height, width = (-(-side // self.cells) for side in images.shape[2:])
        drawn = draw(self.count, self.cells, self.probability, self.seed, (height, width))
        grids, offsets = (part.to(images.device)[numbers] for part in drawn)
        down, across = (
            enlarging(self.cells, cell).to(images.device, dtype)[
                offsets[:, axis, None] + torch.arange(side, device=images.device)
            ]
            for axis, (cell, side) in enumerate(zip((height, width), images.shape[2:], strict=True))
        )
        return down @ grids.to(dtype) @ across.mT


@lru_cache(maxsize=8)
def draw(
    count: int, cells: int, probability: float, seed: int, cell_px: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Grids (count, cells, cells), bool, and offsets (count, 2) in pixels: row, column."""
    values = torch.rand(count, cells, cells, generator=generator(seed, "", 0, "rise grids"))
    offsets = torch.rand(count, 2, generator=generator(seed, "", 0, "rise offsets"))
    return values < probability, (offsets * torch.tensor(cell_px)).long()


@cache
def enlarging(cells: int, cell_px: int) -> Tensor:
    """Linear interpolation of `cells` values to (cells + 1) * cell_px, as a matrix, float64."""
    length = (cells + 1) * cell_px
    pixel = torch.arange(length)
    source = (pixel + 0.5).double() * cells / length - 0.5
    low = source.floor()
    matrix = torch.zeros(length, cells, dtype=torch.float64)
    for place, weight in ((low, 1 - (source - low)), (low + 1, source - low)):
        reflected = (cells - 1) - ((cells - 1) - place.abs()).abs()  # -1 is 1, `cells` is cells - 2
        matrix[pixel, reflected.long()] += weight
    return matrix


@dataclass(frozen=True, kw_only=True)
class MaskedAnswers:
    """Answers for the images behind each mask, the baseline elsewhere; a request."""

    baseline: Baseline
    masks: Masks

    def compute(self, passes: Passes) -> Answers:
        """One forward an image and mask; a mask is made where a slab needs it."""
        images = passes.batch.images
        baselines = self.baseline.images(passes.batch)

        def perturb(slab: Slab) -> Tensor:
            numbers, which = slab.sample.unique(return_inverse=True)
            masks = self.masks.numbered(numbers, images).to(images.dtype)[which, None]
            return masks * images[slab.image] + (1 - masks) * baselines[slab.image]

        return Answers.of_copies(passes, self.masks.count, perturb)


@dataclass(frozen=True, kw_only=True)
class Rise(Attribution):
    """Mean of the random masks, each weighted by the target's score behind it, over p.

    Source: Petsiuk et al., 2018, section 3, and the settings of IDSDS (Hesse et al., 2024): RISE
    with the zero baseline, RISE-U with the uniform one.

    Departs: the masks follow from the seed, where the code draws them from an unseeded stream.

    Raises:
        ValueError: no mask, fewer than two cells, or a probability outside (0, 1].
    """

    name: ClassVar[str] = "rise"
    revision: ClassVar[int] = 2  # the score that was called softmax is called probability

    baseline: Baseline = field(default_factory=Zero)
    """What stands where a mask is 0."""
    masks: int = field(default=1000, metadata={"short": "n"})
    """Masks an image. 1000 in IDSDS; 4000 (VGG-16) and 8000 (ResNet-50) by Petsiuk et al."""
    cells: int = field(default=8, metadata={"short": "s"})
    """Cells of a mask's grid along each side. 8 in IDSDS; 7 by Petsiuk et al."""
    probability: float = field(default=0.1, metadata={"short": "p"})
    """Of a cell being kept. 0.1 in IDSDS; 0.5 by Petsiuk et al."""
    score: Score = "probability"
    """What the model says of the target: its probability, after a softmax as published; or by
    itself (sigmoid), for networks with one answer a class; or the logit."""
    seed: int = 0
    """Of the masks."""

    @property
    def cost(self) -> float:
        return float(self.masks)

    @property
    def explains(self) -> Explained:
        return "logit" if self.score == "logit" else "probability"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.masks < 1 or self.cells < 2 or not 0 < self.probability <= 1:
            raise ValueError(
                f"rise with {self.masks} masks of {self.cells} x {self.cells} cells kept with "
                f"probability {self.probability:g}: expected at least 1 mask and 2 cells, and a "
                "probability in (0, 1]"
            )

    def needs(self, model: Model) -> tuple[Need, ...]:
        """Nothing: it asks about masked images only."""
        return ()

    def attribute(self, passes: Passes) -> Tensor:
        """1 / (count p) times the sum over masks of score times mask, (N, H, W)."""
        images = passes.batch.images
        masks = Masks(
            count=self.masks, cells=self.cells, probability=self.probability, seed=self.seed
        )
        answers = passes.get(MaskedAnswers(baseline=self.baseline, masks=masks))
        scores = answers.scores(self.score)
        sums = torch.zeros(1, device=images.device)
        for numbers in torch.arange(self.masks, device=images.device).split(CHUNK):
            some = masks.numbered(numbers, images)
            sums = sums + torch.einsum("nm,mhw->nhw", scores[:, numbers].to(some), some)
        return (sums / (self.masks * self.probability)).to(images)
