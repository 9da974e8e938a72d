"""Segmentation by a map: its pixels above their mean against the object's."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from trainables.metrics.metric import Annotation, Metric
from trainables.metrics.pooled import PooledMetric

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes

SLAB_PX = 2**21
"""Pixels that are sorted at once: some 300 MB."""


@dataclass(frozen=True, kw_only=True)
class PixelAccuracy(PooledMetric):
    """Share of the data set's pixels that maps put on the right side, object or background.

    Source: LTX (Barkan et al., ICDM 2023) and Transformer-Explainability (Chefer et al., CVPR
        2021), their code: foreground is what exceeds the map's mean; undecided pixels are left out.
        A constant map marks background everywhere. Undefined only without any decided pixel.
    Departs: one code for evaluation in batches takes extremes and mean over the whole batch and
        counts its first image only; each map is judged by itself here.
    """

    name: ClassVar[str] = "pixel_accuracy"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    requires: ClassVar[tuple[Annotation, ...]] = ("segments",)

    def parts(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """Right pixels, decided pixels."""
        segments = require_segments(self.key, passes.batch.segments, maps)
        right = foreground(maps) == (segments == 1)
        return counts(right & (segments >= 0), segments >= 0)

    def value(self, sums: Tensor) -> Tensor:
        """Right over decided."""
        right, decided = sums.unbind(-1)
        return right / decided


@dataclass(frozen=True, kw_only=True)
class MeanIou(PooledMetric):
    """Intersection over union, each summed over the data set, mean of background and object.

    Source: as `PixelAccuracy`. A side that neither maps nor annotation know is left out of the
        mean; undefined where both are.
    """

    name: ClassVar[str] = "mean_iou"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    requires: ClassVar[tuple[Annotation, ...]] = ("segments",)

    def parts(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """Intersections of background and object, then their unions."""
        segments = require_segments(self.key, passes.batch.segments, maps)
        shown, decided = foreground(maps), segments >= 0
        background, on_object = segments == 0, segments == 1
        return counts(
            ~shown & background,
            shown & on_object,
            (~shown | background) & decided,
            (shown | on_object) & decided,
        )

    def value(self, sums: Tensor) -> Tensor:
        """Mean over both sides."""
        intersections, unions = sums.unflatten(-1, (2, 2)).unbind(-2)
        return (intersections / unions).nanmean(-1)


@dataclass(frozen=True, kw_only=True)
class SegmentationMetric(Metric):
    """A metric of a map and the pixels of its object, whose rows are averaged."""

    requires: ClassVar[tuple[Annotation, ...]] = ("segments",)

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """Scores against the segments of the batch.

        Raises:
            ValueError: the batch has no segments, or they do not fit the maps.
        """
        segments = require_segments(self.key, passes.batch.segments, maps)
        return self.per_map(maps, segments)

    @abstractmethod
    def per_map(self, maps: Tensor, segments: Tensor) -> Tensor:
        """The equation: (N, H, W) float and (N, H, W) int8 to (N,), NaN where undefined."""


@dataclass(frozen=True, kw_only=True)
class AveragePrecision(SegmentationMetric):
    """Average precision of both sides at once: the map for the object, 1 - map for the background.

    A constant map says one half of every pixel and scores 1/2. Its mean over the images is the mAP
    of the papers. Undefined only without any decided pixel.

    Source: as `PixelAccuracy`; maps go to [0, 1] by their own extremes. Average precision is the
        step-wise sum of scikit-learn, not interpolated; equal values go together.
    """

    name: ClassVar[str] = "average_precision"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    chance: ClassVar[float | None] = 0.5

    def per_map(self, maps: Tensor, segments: Tensor) -> Tensor:
        """Mean over the decided pixels of the precision at their right side's value."""
        rows = max(1, SLAB_PX // (2 * max(1, maps[:1].numel())))
        slabs = zip(maps.split(rows), segments.split(rows), strict=True)
        return torch.cat([both_sides_precision(m, s) for m, s in slabs]).to(maps.dtype)


@dataclass(frozen=True, kw_only=True)
class SegmentationF1(SegmentationMetric):
    """F1 of the object's pixels. Undefined where neither map nor annotation know any.

    Source: as `PixelAccuracy`.
    Departs: the code takes the F1 of each row of pixels, 0 where undefined, and averages these,
        which no other F1 can be compared with: ``by_row``.
    """

    name: ClassVar[str] = "segmentation_f1"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    by_row: bool = False
    """Whether each row of pixels has an F1 of its own, as in the code."""

    def per_map(self, maps: Tensor, segments: Tensor) -> Tensor:
        """2 TP / (2 TP + FP + FN)."""
        shown, on_object = foreground(maps) & (segments >= 0), segments == 1
        axes = (2,) if self.by_row else (1, 2)
        marked = (shown.sum(axes) + on_object.sum(axes)).to(maps.dtype)
        f1 = 2 * (shown & on_object).sum(axes) / marked
        if not self.by_row:
            return f1
        known = (segments >= 0).any(2).any(1)
        return torch.where(known, f1.nan_to_num(0.0).mean(1), torch.nan)


def require_segments(key: str, segments: Tensor | None, maps: Tensor) -> Tensor:
    """The segments (N, H, W), int8, if there are any and they fit the maps.

    Raises:
        ValueError: names what is missing, or both shapes and the type.
    """
    if segments is None:
        raise ValueError(
            f"{key} needs segments and the batch has none; take a data set with segmentation"
        )
    if segments.shape != maps.shape or segments.dtype != torch.int8:
        raise ValueError(
            f"{key}: maps {tuple(maps.shape)} and segments {tuple(segments.shape)} of "
            f"{segments.dtype}: expected (N, H, W) both, segments of torch.int8"
        )
    return segments


def foreground(maps: Tensor) -> Tensor:
    """Pixels above the mean of their map, (N, H, W), bool; none of a constant map."""
    # From the smallest value, so that rounding puts no constant above its own mean.
    raised = maps.double() - maps.double().amin((1, 2), keepdim=True)
    return raised > raised.mean((1, 2), keepdim=True)


def counts(*regions: Tensor) -> Tensor:
    """Pixels of each of S regions (N, H, W), bool, as (N, S), float64."""
    return torch.stack([region.sum((1, 2)) for region in regions], 1).double()


def both_sides_precision(maps: Tensor, segments: Tensor) -> Tensor:
    """Average precision of [1 - map, map] against [background, object], (N,), float64."""
    raised = (maps.double() - maps.double().amin((1, 2), keepdim=True)).flatten(1)
    highest = raised.amax(1, keepdim=True)
    unit = torch.where(highest > 0, raised / highest, 0.5)
    labels = segments.flatten(1)
    values, order = torch.cat([1 - unit, unit], 1).sort(dim=1)
    right = torch.cat([labels == 0, labels == 1], 1).gather(1, order).double()
    decided = torch.cat([labels >= 0] * 2, 1).gather(1, order).double()
    # Sums over everything from the first of each group of equal values upwards.
    first = torch.searchsorted(values, values)
    rights, all_of_them = (x.flip(1).cumsum(1).flip(1).gather(1, first) for x in (right, decided))
    precision = torch.where(right > 0, rights / all_of_them.clamp(min=1), 0.0)
    return precision.sum(1) / right.sum(1)
