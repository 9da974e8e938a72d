"""Judge methods on trained probes by protocols over the images of a split."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import trainables.attribution
import trainables.metrics  # noqa: F401  (each registers its classes)
from data_pipelines.image_set import ImageSet
from trainables.batch import Batch
from trainables.deletion_protocol import check_deletion_protocol
from trainables.gauge import AsTrained
from trainables.judged_probes import JudgedProbes
from trainables.judging import Pictures
from trainables.metrics.box_size import AREA_EDGES
from trainables.metrics.complexity import Entropy, Gini
from trainables.metrics.localization import Epg
from trainables.metrics.metric import Metric
from trainables.metrics.pixel_deletion import PixelDeletion
from trainables.metrics.single_deletion import SingleDeletion
from trainables.pack_scorer import PackScorer
from trainables.probe_judgement import ProbeJudgement
from trainables.protocol_evaluation import PROTOCOLS_COST, drawn_ids
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

    protocols: tuple[Metric, ...] = PROTOCOLS
    images: Literal["all", "own", "common"] = "all"
    """Which images: all of the split, those that the probe classifies correctly and surely, or
    those that all of ``compared`` classify correctly; the latter two for images of one class."""
    image_count: int = 0
    """Most images of these, drawn by seed; 0 for all of them."""

    def __post_init__(self) -> None:
        """Check the number of images."""
        super().__post_init__()
        if self.image_count < 0:
            raise ValueError(f"image_count = {self.image_count}: must not be negative; 0 takes all")

    @property
    def label(self) -> str:
        which = "" if self.images == "all" else f" on {self.images} images"
        gauge = "" if self.gauge == AsTrained() else f" {self.gauge.name}"
        return f"{self.attribution.key}{which} of{gauge} {self.of.label}"

    @property
    def choice(self) -> tuple[object, ...]:
        return (self.image_count,)

    @property
    def directions(self) -> dict[str, str]:
        """Also by box size."""
        own = super().directions
        sized = {
            f"{p.key}_area{low:g}-{high:g}": own[p.key]
            for p in self.protocols
            if "boxes" in p.requires
            for low, high in pairwise(AREA_EDGES)
        }
        return own | sized

    def cost(self, images: dict[str, int]) -> float:
        """The maps by themselves, a stand-in for the protocols; what is shared counts for each."""
        return (PROTOCOLS_COST + self.attribution.cost) * (self.image_count or images[self.split])

    def check(self) -> None:
        """As for all, and there is a protocol, for images without a mosaic's cells."""
        if not self.protocols:
            raise ValueError(f"{self.label}: needs at least one protocol")
        for protocol in self.protocols:
            if isinstance(protocol, SingleDeletion):
                check_deletion_protocol(protocol, self.of)
            if "cells" in protocol.requires:
                raise ValueError(
                    f"{self.label}: {protocol.key} judges mosaics; take probe_grid_evaluation"
                )
        super().check()

    def pictures(self, trial: Trial, images: ImageSet, probes: JudgedProbes) -> Pictures:
        """As many images at once as there is room for the explanations of all probes.

        Damaged ones are among them where nobody chooses.
        """
        names: Collection[str] = [*images.image_ids.tolist(), *images.skipped]
        total = len(names)
        if self.images != "all":
            names = images.image_ids[self.chosen(trial, images, per_class=total)].tolist()
        if not names:
            raise ValueError(
                f"{self.name}: there is none among {total} images of {self.split} that "
                f"{self.choosers}; take a lower confidence, or images = 'all'"
            )
        wanted = sorted(drawn_ids(names, self.image_count, self.seed))
        rows = np.flatnonzero(np.isin(images.image_ids, wanted))

        def batches(scorer: PackScorer, part: list[int]) -> Iterator[Batch]:
            chosen = rows[part]
            counts = images.labels[chosen].sum(1)
            for count in np.unique(counts[counts > 0]).tolist():
                alike = chosen[counts == count]
                size = scorer.images_at_once(count, images.size_px**2, trial.device)
                for start in range(0, len(alike), size):
                    yield annotated(images, alike[start : start + size], probes)

        def expecting(parts: list[list[int]]) -> AbstractContextManager[None]:
            asked = [rows[part] for part in parts]
            return images.expecting([part[images.labels[part].any(1)] for part in asked])

        skipped = {name: why for name, why in images.skipped.items() if name in wanted}
        about = {"chosen_fraction": len(names) / total}
        return Pictures(images.image_ids[rows].tolist(), batches, skipped, about, expecting)


def annotated(images: ImageSet, rows: NDArray[np.int64], probes: JudgedProbes) -> Batch:
    """A batch of images of equally many classes, with an explanation of each class."""
    which, targets = np.nonzero(images.labels[rows])
    device = probes.trial.device
    batch = batch_of(probes.backbone, images, device, rows, rows[which], targets)
    if len(targets) > len(rows):
        return batch
    return replace(batch, labels=torch.from_numpy(targets).to(device))
