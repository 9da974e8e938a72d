"""Judge methods on trained probes by protocols over the images of a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import torch

import trainables.attribution
import trainables.metrics  # noqa: F401  (each registers its classes)
from data_pipelines.image_set import ImageSet
from trainables.batch import Batch
from trainables.judged_probes import JudgedProbes
from trainables.judging import judge
from trainables.metrics.complexity import Entropy, Gini
from trainables.metrics.localization import Epg
from trainables.metrics.metric import Metric
from trainables.metrics.pixel_deletion import PixelDeletion
from trainables.pack_scorer import PackScorer
from trainables.probe_judgement import ProbeJudgement
from trainables.scoring import batch_of
from trainables.trial import Trial

PROTOCOLS = (
    *(Epg(smooth_px=5), PixelDeletion()),
    *(Gini(), Gini(unit_sum=True), Entropy(), Entropy(unit_sum=True)),
)
"""What the paper judges maps of images by; each measure of complexity with the control that no
difference is one of the maps' scale."""


@dataclass(frozen=True, kw_only=True)
class ProbeEvaluation(ProbeJudgement):
    """Scores of a method's maps of a split's images, a row for each (image, true class).

    Source: How to Probe (ICLR 2025), section 4 and appendices C and E: EPG, Gini index, entropy and
        pixel deletion.
    """

    name: ClassVar[str] = "probe_evaluation"

    protocols: tuple[Metric, ...] = PROTOCOLS  # type: ignore[assignment]
    images: Literal["all", "own", "common"] = "all"
    """Which images: all of the split, those that the probe classifies correctly and surely, or
    those that all of ``compared`` classify correctly; the latter two for images of one class."""
    image_count: int = 0
    """Most images of these, drawn by seed; 0 for all of them."""
