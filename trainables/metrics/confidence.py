"""Confidence: how the score of a class changes when the image is seen through its map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from trainables.metrics.metric import Metric
from trainables.metrics.perturbation import EachAlone, Held, fill_images, said_of
from trainables.metrics.reference_class import ReferenceClass, reference_classes

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes

Normalization = Literal["min_max", "none"]


@dataclass(frozen=True, kw_only=True)
class SeenThrough:
    """A request: logits (N, K) of each image times its map, the product taken on pixels in [0, 1].

    As every encoding is affine in the pixels, the encoded product is black + M (encoded - black).
    One forward an explanation.
    """

    maps: Held
    normalization: Normalization

    def compute(self, passes: Passes) -> Tensor:
        """Rows of NaN where a map has no scale.

        Raises:
            ValueError: maps that are taken as they are leave [0, 1].
        """
        alone, clean = passes.get(EachAlone()), passes.logits
        images, maps = alone.batch.images, self.maps.tensor
        if self.normalization == "min_max":
            maps = to_full_range(maps)
        elif maps.numel() and not 0 <= float(maps.min()) <= float(maps.max()) <= 1:
            raise ValueError(
                f"maps within [{float(maps.min()):g}, {float(maps.max()):g}] cannot be multiplied "
                "with pixels as they are; expected [0, 1], or say normalization = 'min_max'"
            )
        black, factors = fill_images(alone, "black"), maps[:, None].to(images)
        logits = clean.new_full((len(images), clean.shape[1]), torch.nan)
        scaled = ~factors.flatten(1).isnan().any(1)
        nobody = torch.empty(0, dtype=torch.long, device=images.device)
        for slab in alone.slabs(1):
            row = slab.image[scaled[slab.image]]
            if len(row):
                seen = torch.lerp(black[row], images[row], factors[row])  # exact at 0 and 1
                logits[row] = alone.on(seen, image_index=nobody, of=nobody).logits
        return logits


@dataclass(frozen=True, kw_only=True)
class ConfidenceMetric(Metric):
    """A metric of a class's probability on the image, and on the image times its map."""

    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    normalization: Normalization = "min_max"
    """How a map becomes a factor within [0, 1]: by its own smallest and largest value, as the
    authors' code treats the methods that it compares, or not at all, as LTX's own maps."""
    reference_class: ReferenceClass = "ground_truth"
    """Whose probability. The true class in the authors' code, whatever class was explained."""

    def probabilities(self, passes: Passes, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Of the reference class on the image and through the map, (N,) each.

        The latter is NaN where the map has no scale.
        """
        classes = reference_classes(passes, self.reference_class)
        clean = passes.logits[passes.batch.image_index]
        seen = passes.get(SeenThrough(maps=Held(maps), normalization=self.normalization))
        through, whole = (said_of(passes, logits, classes) for logits in (seen, clean))
        return whole.to(maps.dtype), through.to(maps.dtype)


@dataclass(frozen=True, kw_only=True)
class Adp(ConfidenceMetric):
    """Average drop: share of the probability that is lost through the map, 0 where it rises.

    A map of ones scores 0 without normalization. Undefined where a map to be normalized is
    constant, and where the clean probability is 0.

    Source: Grad-CAM++ (Chattopadhay et al., 2018), as in LTX (Barkan et al., ICDM 2023), the
        authors' code, in percent there. Undefined rows: the code drops them; dropped here.
    """

    name: ClassVar[str] = "adp"
    higher_is_better: ClassVar[bool] = False

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """max(0, Y - O) / Y."""
        whole, through = self.probabilities(passes, maps)
        return (whole - through).clamp(min=0) / whole


@dataclass(frozen=True, kw_only=True)
class Pic(ConfidenceMetric):
    """Increase in confidence: 1 where the probability is higher through the map, 0 where not.

    A map of ones scores 0 without normalization. Undefined where a map to be normalized is
    constant.

    Source: Grad-CAM++ (Chattopadhay et al., 2018), as in LTX (Barkan et al., ICDM 2023), the
        authors' code, in percent there. Undefined rows: the code drops them; dropped here.
    """

    name: ClassVar[str] = "pic"
    higher_is_better: ClassVar[bool] = True

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """1 where Y < O, strictly."""
        whole, through = self.probabilities(passes, maps)
        return torch.where(through.isnan(), torch.nan, (whole < through).to(maps.dtype))


def to_full_range(maps: Tensor) -> Tensor:
    """Maps (N, H, W) brought to [0, 1] by their own smallest and largest value; NaN if constant."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, torch.nan)
