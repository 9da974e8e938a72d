"""On-object EPG: whether importance in a box lies on the object or on what surrounds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from trainables.metrics.localization import FAINT_SUM, positive_share, require_masks
from trainables.metrics.metric import Annotation, Undefined
from trainables.metrics.segmentation import require_segments
from trainables.metrics.smoothing import SmoothedMetric

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes


@dataclass(frozen=True, kw_only=True)
class OnObjectEpg(SmoothedMetric):
    """Share of the positive importance within the boxes that falls on the object's pixels.

    A uniform map scores the share of the boxes that the object fills. Pixels that the annotation
    does not decide count as not on it. Undefined where the annotation shows no pixel of the object,
    an image without segmentation included, and where positive importance within the boxes sums to
    less than 1e-7.

    Source: Model Guidance (Rao et al., ICCV 2023); its code has none. The object is
        taken within its boxes only, so that the score is at most 1. Undefined rows: the paper does
        not say; dropped here, for a map that misses the boxes says nothing of what lies in them.
    """

    name: ClassVar[str] = "on_object_epg"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    revision: ClassVar[int] = 2
    requires: ClassVar[tuple[Annotation, ...]] = ("boxes", "segments")

    undefined: Undefined = "drop"
    """What a map without positive importance in the boxes counts as."""

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """S_object / S_boxes of the positive part.

        Raises:
            ValueError: the batch lacks masks or segments, or they do not fit the maps.
        """
        boxes = passes.batch.masks
        if boxes is None:
            raise ValueError(
                f"{self.key} needs masks and the batch has none; annotate it with boxes"
            )
        require_masks(boxes, maps)
        on_object = require_segments(self.key, passes.batch.segments, maps) == 1
        share = positive_share(self.smoothed(maps), on_object, boxes, faint=FAINT_SUM)
        return torch.where(on_object.flatten(1).any(1), share, torch.nan)
