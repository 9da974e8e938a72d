"""Localization metrics: how much of a map, and which shape of it, lies on the object."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from trainables.metrics.metric import Annotation, Undefined
from trainables.metrics.smoothing import SmoothedMetric

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes

FAINT_SUM = 1e-7
"""Positive importance below which EPG is undefined. From the authors' code."""
FLAT_SPREAD = 1e-7
"""Spread of a positive map below which it counts as constant. From the authors' code."""
IOU_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Candidates for the threshold of box_iou. Ours: the paper does not name its grid."""
SLAB_PX = 2**22
"""Pixels that threshold selection looks at at once: about 150 MB on top of the maps, measured."""


@dataclass(frozen=True, kw_only=True)
class LocalizationMetric(SmoothedMetric):
    """A metric that knows a map and the mask of its object, and nothing of the model."""

    requires: ClassVar[tuple[Annotation, ...]] = ("boxes",)

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """Scores against the masks of the batch.

        Raises:
            ValueError: the batch has no masks, or their shape or type does not fit the maps.
        """
        masks = passes.batch.masks
        if masks is None:
            raise ValueError(
                f"{self.key} needs masks and the batch has none; annotate it with boxes"
            )
        require_masks(masks, maps)
        return self.per_map(self.smoothed(maps), masks)

    @abstractmethod
    def per_map(self, maps: Tensor, masks: Tensor) -> Tensor:
        """The equation: smoothed (N, H, W) float, (N, H, W) bool to (N,), NaN where undefined."""


@dataclass(frozen=True, kw_only=True)
class Epg(LocalizationMetric):
    """Energy pointing game: share of the positive importance that falls inside the mask.

    A uniform map scores the mask's share of the image, a map inside the mask 1. Undefined where
    positive importance sums to less than 1e-7.

    Source: Wang et al., 2020 (Score-CAM); Model Guidance (Rao et al., ICCV 2023), equation 2.
        Undefined rows: the authors' code counts them as 0, the paper does not say; 0 here. How to
        Probe (ICLR 2025) smooths first: ``Epg(smooth_px=5)``.
    Departs: How to Probe's code adds 1e-12 to the sum, has no ``faint`` and rounds each score to
        two decimals; the first two are fields, the third is left out.
    """

    name: ClassVar[str] = "epg"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    undefined: Undefined = "zero"
    """What a map without positive importance counts as. 0 in the authors' code."""
    faint: float = FAINT_SUM
    """Positive importance below which the score is undefined. 1e-7 in Model Guidance's code."""
    epsilon: float = field(default=0.0, metadata={"short": "eps"})
    """Added to the sum that is divided by. 1e-12 in How to Probe's code."""

    def per_map(self, maps: Tensor, masks: Tensor) -> Tensor:
        """S_in / S of the positive part."""
        return positive_share(maps, masks, faint=self.faint, epsilon=self.epsilon)


@dataclass(frozen=True, kw_only=True)
class BoxIou(LocalizationMetric):
    """Intersection over union of the mask and the pixels whose scaled value passes a threshold.

    Undefined where mask and pixels are both empty. With ``threshold="tuned"`` it names the protocol
    whose threshold is selected on the validation split of the baseline; score with
    ``at(selection.threshold)``.

    Source: Model Guidance (Rao et al., ICCV 2023), section 3.3; scaling, strict comparison and the
        fixed threshold 0.5 are the authors' code's. Selection on held-out data is what the paper
        describes, the code has none. Undefined rows: the code counts them as 0, the paper does not
        say; 0 here.

    Raises:
        ValueError: the threshold is outside [0, 1); at a call, it is still to be tuned.
    """

    name: ClassVar[str] = "box_iou"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    threshold: float | Literal["tuned"] = field(default=0.5, metadata={"short": "t"})
    """Share of the map's range above which a pixel counts. 0.5 in the authors' code."""
    undefined: Undefined = "zero"
    """What an empty union counts as. 0 in the authors' code."""

    def __post_init__(self) -> None:
        """Check the threshold."""
        super().__post_init__()
        if self.threshold != "tuned" and not 0 <= self.threshold < 1:
            raise ValueError(
                f"box_iou.threshold = {self.threshold}: expected 'tuned' or a number in [0, 1)"
            )

    def at(self, threshold: float) -> Self:
        """The same metric with this threshold."""
        return replace(self, threshold=threshold)

    def per_map(self, maps: Tensor, masks: Tensor) -> Tensor:
        """|above and inside| / |above or inside|."""
        if self.threshold == "tuned":
            raise ValueError(
                "box_iou.threshold = 'tuned': select it first, then score with at(threshold)"
            )
        above = to_unit_range(maps) > self.threshold
        union = (above | masks).sum((1, 2)).to(maps.dtype)
        return torch.where(union == 0, torch.nan, (above & masks).sum((1, 2)) / union)


def positive_share(
    maps: Tensor,
    masks: Tensor,
    within: Tensor | None = None,
    *,
    faint: float = 0.0,
    epsilon: float = 0.0,
) -> Tensor:
    """Share of the positive importance that falls inside the masks, (N,), within [0, 1].

    Args:
        maps: (N, H, W), float.
        masks: (N, H, W), bool.
        within: where importance counts at all, (N, H, W), bool; everywhere by default.
        faint: sum below which the share is NaN, as it is where nothing is positive.
        epsilon: added to the sum that is divided by.
    """
    positive = maps.relu() if within is None else maps.relu() * within
    total, inside = positive.sum((1, 2)), (positive * masks).sum((1, 2))
    return torch.where((total < faint) | (total == 0), torch.nan, inside / (total + epsilon))


def to_unit_range(maps: Tensor) -> Tensor:
    """Positive parts (N, H, W) brought to [0, 1] by their own smallest and largest value.

    A map without positive importance stays all zero, a constant positive one becomes all ones;
    spread below 1e-7 counts as constant up to the division by its maximum, as in the authors' code.
    """
    positive = maps.relu()
    low, high = positive.amin((1, 2), keepdim=True), positive.amax((1, 2), keepdim=True)
    flat = high - low < FLAT_SPREAD
    scaled = (positive - torch.where(flat, 0.0, low)) / torch.where(flat, high, high - low)
    return torch.where(high == 0, 0.0, scaled)


@dataclass(frozen=True)
class ThresholdSelection:
    """IoU at every candidate threshold, summed over explanations; selections of batches add up.

    Attributes:
        sums: sum of the IoU over the explanations, one a threshold; an empty union adds 0, as in
            the code.
        count: number of explanations.
        thresholds: the candidates, ascending.
    """

    sums: tuple[float, ...] = (0.0,) * len(IOU_THRESHOLDS)
    count: int = 0
    thresholds: tuple[float, ...] = IOU_THRESHOLDS

    def __add__(self, other: ThresholdSelection) -> ThresholdSelection:
        """Both sets of explanations together.

        Raises:
            ValueError: their candidates differ.
        """
        if self.thresholds != other.thresholds:
            raise ValueError(f"thresholds {self.thresholds} and {other.thresholds} do not add up")
        sums = tuple(a + b for a, b in zip(self.sums, other.sums, strict=True))
        return ThresholdSelection(sums, self.count + other.count, self.thresholds)

    @property
    def means(self) -> np.ndarray:
        """Mean IoU at each candidate, (T,), float64, within [0, 1]; NaN without explanations."""
        return np.asarray(self.sums) / self.count if self.count else np.full(len(self.sums), np.nan)

    @property
    def threshold(self) -> float:
        """The candidate of the highest mean IoU; the lowest of equals.

        Raises:
            ValueError: there are no explanations to choose from.
        """
        if self.count == 0:
            raise ValueError(
                "no explanation to select a threshold from: the split has no annotated object"
            )
        return self.thresholds[int(np.argmax(self.means))]


def select_iou_threshold(
    maps: Tensor,
    masks: Tensor,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    slab_px: int = SLAB_PX,
) -> ThresholdSelection:
    """IoU of maps at image size (N, H, W) with masks (N, H, W), bool, at all candidates at once.

    Equal to ``BoxIou.at`` for each candidate. Start from ``ThresholdSelection()`` and add the
    batches. Give a protocol that smooths its ``smoothed`` maps.

    Source: Model Guidance (Rao et al., ICCV 2023), section 3.3: a threshold from held-out data.
        Ours: one per dataset, model, method and layer, from the baseline, kept for all runs that
        are compared.

    Raises:
        ValueError: shapes or type of the masks do not fit, a map is not finite, or the candidates
            do not ascend.
    """
    require_masks(masks, maps)
    if not bool(torch.isfinite(maps).all()):
        raise ValueError("no threshold can be selected from maps that hold a NaN or an infinity")
    candidates = torch.tensor(thresholds, dtype=maps.dtype, device=maps.device)
    if not bool((candidates.diff() > 0).all()):
        raise ValueError(f"thresholds {tuple(thresholds)} must ascend")
    total = torch.zeros(len(candidates), dtype=torch.float64, device=maps.device)
    rows = max(1, slab_px // math.prod(maps.shape[1:]))
    for some_maps, some_masks in zip(maps.detach().split(rows), masks.split(rows), strict=True):
        total += _iou_at(candidates, some_maps, some_masks).sum(0)
    return ThresholdSelection(tuple(total.tolist()), len(maps), tuple(thresholds))


def require_masks(masks: Tensor, maps: Tensor) -> None:
    """Refuse masks that do not fit the maps.

    Raises:
        ValueError: names both shapes, or the type.
    """
    if maps.ndim != 3 or masks.shape != maps.shape or masks.dtype != torch.bool:
        raise ValueError(
            f"maps {tuple(maps.shape)} and masks {tuple(masks.shape)} of {masks.dtype}: "
            "expected (N, H, W) both, masks of torch.bool"
        )


def _iou_at(candidates: Tensor, maps: Tensor, masks: Tensor) -> Tensor:
    """IoU of each map at each candidate, (N, T), float64, 0 where the union is empty.

    Every pixel is sorted once into the number of candidates that it exceeds; counts of pixels above
    a candidate are then sums over the tail of a histogram.
    """
    n, levels = len(maps), len(candidates) + 1
    # The left side of the search is the strict comparison.
    exceeded = torch.searchsorted(candidates, to_unit_range(maps).contiguous(), right=False)
    row = torch.arange(n, device=maps.device).view(-1, 1, 1) * levels
    histogram = torch.bincount(((row + exceeded) * 2 + masks).flatten(), minlength=n * levels * 2)
    tails = histogram.view(n, levels, 2).flip(1).cumsum(1).flip(1)
    outside, inside = tails[:, 1:].unbind(-1)
    union = outside + masks.sum((1, 2)).unsqueeze(1)
    return inside.double() / union.clamp(min=1)
