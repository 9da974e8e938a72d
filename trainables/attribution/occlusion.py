"""Occlusion: how much the score drops where a window hides the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from trainables.attribution.answers import Answers, Score
from trainables.attribution.attribution import Attribution, Explained
from trainables.baselines import Baseline, Zero
from trainables.models.network import Model
from trainables.passes import Need, Passes, Slab


@dataclass(frozen=True, kw_only=True)
class OccludedAnswers:
    """Answers for the images with each window replaced by the baseline; a request.

    The windows go row by row, as those of `windows` along each axis.
    """

    baseline: Baseline
    window_px: int
    stride_px: int

    def compute(self, passes: Passes) -> Answers:
        """One forward an image and window."""
        images = passes.batch.images
        rows, columns = windows(images, self.window_px, self.stride_px)
        baselines = self.baseline.images(passes.batch)

        def perturb(slab: Slab) -> Tensor:
            row, column = slab.sample // len(columns), slab.sample % len(columns)
            hidden = rows[row, None, :, None] & columns[column, None, None, :]
            return torch.where(hidden, baselines[slab.image], images[slab.image])

        return Answers.of_copies(passes, len(rows) * len(columns), perturb)


@dataclass(frozen=True, kw_only=True)
class Occlusion(Attribution):
    """Drop of the target's score under a sliding window, averaged over the windows at a pixel.

    The last window of a row or column may be cut by the border, so that every pixel is covered.

    Source: Zeiler and Fergus, 2014, section 4.2: a gray square that slides over the image.

    Departs: the drop instead of the score itself, so that more is more important, and averaged
    over the windows that cover a pixel, as captum does.

    Raises:
        ValueError: a window or a stride below 1 px, or a stride that would leave gaps.
    """

    name: ClassVar[str] = "occlusion"
    revision: ClassVar[int] = 2  # the score that was called softmax is called probability

    baseline: Baseline = field(default_factory=Zero)
    """What stands in the window. Zero is gray for networks that subtract the mean color."""
    window_px: int = field(default=15, metadata={"short": "w"})
    """Side of the window. None is published; 15 is usual for images of 224 px (captum)."""
    stride_px: int = field(default=8, metadata={"short": "s"})
    """Pixels from window to window. None is published; 8 is usual with 15."""
    score: Score = "probability"
    """What the model says of the target: its probability, after a softmax as published; or by
    itself (sigmoid); or the logit."""

    @property
    def explains(self) -> Explained:
        return "logit" if self.score == "logit" else "probability"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.stride_px <= self.window_px:
            raise ValueError(
                f"occlusion with a window of {self.window_px} px every {self.stride_px} px: "
                "expected a stride of at least 1 px that is no larger than the window"
            )

    def needs(self, model: Model) -> tuple[Need, ...]:
        """Nothing but the logits."""
        return ()

    def attribute(self, passes: Passes) -> Tensor:
        """Mean drop over the windows that cover a pixel, (N, H, W), signed."""
        rows, columns = windows(passes.batch.images, self.window_px, self.stride_px)
        answers = passes.get(
            OccludedAnswers(
                baseline=self.baseline, window_px=self.window_px, stride_px=self.stride_px
            )
        )
        drops = Answers.of_images(passes).scores(self.score) - answers.scores(self.score)
        rows, columns = rows.to(drops), columns.to(drops)
        # along each axis the mean over windows is a matrix, as a window is a row times a column
        down, across = rows / rows.sum(0), columns / columns.sum(0)
        grid = drops.unflatten(1, (len(rows), len(columns)))
        return down.mT @ grid @ across


def windows(images: Tensor, window_px: int, stride_px: int) -> tuple[Tensor, Tensor]:
    """Rows (R, H) and columns (C, W) that each window covers, bool.

    Raises:
        ValueError: the window is larger than the images.
    """
    height, width = images.shape[2:]
    if window_px > min(height, width):
        raise ValueError(
            f"occlusion with a window of {window_px} px in images of {height} x {width} px: "
            "choose window_px no larger than the images"
        )
    covered = []
    for side in (height, width):
        count = -(-(side - window_px) // stride_px) + 1
        start = torch.arange(count, device=images.device)[:, None] * stride_px
        pixel = torch.arange(side, device=images.device)
        covered.append((pixel >= start) & (pixel < start + window_px))
    return covered[0], covered[1]
