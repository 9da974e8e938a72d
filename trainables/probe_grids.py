"""The grid pointing game of trained probes: mosaics ask each probe where each class is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from data_pipelines.grids import Grids, draw_grids, require_classes
from data_pipelines.image_set import ImageSet
from trainables.batch import Batch
from trainables.gauge import AsTrained
from trainables.grid_evaluation import check_takes, mosaics
from trainables.judged_probes import JudgedProbes
from trainables.judging import Pictures
from trainables.metrics.grid_pg import GridPg
from trainables.metrics.smoothing import Kernel
from trainables.pack_scorer import PackScorer
from trainables.probe_judgement import ProbeJudgement
from trainables.protocol_evaluation import PROTOCOLS_COST
from trainables.trial import Trial


@dataclass(frozen=True, kw_only=True)
class ProbeGridEvaluation(ProbeJudgement):
    """Scores of a method's maps of mosaics: a row for each cell, whose class is explained.

    Image k of ``rows.parquet`` is a mosaic. On common images all probes that are compared are
    judged on the same mosaics, so that they differ in pairs, and share the forwards.

    Source: How to Probe (ICLR 2025), section 4, and its code: 500 mosaics of 3 x 3.
    """

    name: ClassVar[str] = "probe_grid_evaluation"

    images: Literal["all", "own", "common"] = "own"
    """Of what the mosaics are made: of images that the probe itself is surest of, as in the paper;
    of those that all of ``compared`` classify correctly; or of any images, whatever a probe makes
    of them. A probe that is right about too few classes for a mosaic fails alone, and says of how
    many: a control that has learned nothing is judged on ``all``."""
    side: Literal[2, 3] = 3
    """Cells along a side of a mosaic. 3 in the paper, 2 as a variant of its code."""
    grids: int = 500
    """Mosaics. 500 in the paper."""
    smooth_px: int = field(default=5, metadata={"short": "smooth"})
    """Side of the filter of the maps. 5 in the authors' code; 129 for input times gradient and
    integrated gradients."""
    smooth_kernel: Kernel = "mean"
    """``gaussian`` for these two."""

    @property
    def protocols(self) -> tuple[GridPg, ...]:
        return (GridPg(side=self.side, smooth_px=self.smooth_px, smooth_kernel=self.smooth_kernel),)

    @property
    def label(self) -> str:
        which = "" if self.images == "own" else f"{self.images} "
        gauge = "" if self.gauge == AsTrained() else f"{self.gauge.name} "
        return (
            f"{self.attribution.key} on {which}{self.side}x{self.side} grids of {gauge}"
            f"{self.of.label}"
        )

    @property
    def choice(self) -> tuple[object, ...]:
        return (self.side, self.grids)

    def cost(self, images: dict[str, int]) -> float:
        """The maps by themselves and a stand-in for the rest; what is shared counts for each."""
        return (PROTOCOLS_COST + self.attribution.cost) * self.grids * self.side**2

    def check(self) -> None:
        """As for all; the network takes mosaics, and there are classes for their cells."""
        if self.grids < 1:
            raise ValueError(f"{self.label}: grids = {self.grids}: expected at least 1 mosaic")
        super().check()
        try:
            classes = len(self.dataset.classes())
        except OSError:
            classes = 0
        if classes:  # data that are not there are refused when they are indexed, with the remedy
            require_classes(classes, self.side, f"{self.dataset.name} has")
        takes(self.network, self.side * self.size_px)

    def drawn(self, images: ImageSet, rows: NDArray[np.int64]) -> Grids:
        """The mosaics: a function of the seed and of the images that are chosen.

        Raises:
            ValueError: these have too few classes; says how many there are.
        """
        labels = images.labels.argmax(1)
        found, cells = len(np.unique(labels[rows])), self.side**2
        if found < cells:
            raise ValueError(
                f"grid_pg: {len(rows)} of {len(images)} images of {self.split} are such that "
                f"{self.choosers}, and they show {found} of {len(images.classes)} classes; a "
                f"mosaic of {self.side} x {self.side} needs {cells}: take fewer cells or a lower "
                "confidence, or leave out what has learned nothing"
            )
        return draw_grids(rows, labels, side=self.side, count=self.grids, seed=self.seed)

    def pictures(self, trial: Trial, images: ImageSet, probes: JudgedProbes) -> Pictures:
        """One mosaic at a time: it has the pixels of several images and as many explanations."""
        rows = self.chosen(trial, images)
        grids = self.drawn(images, rows)
        ids = grids.ids(images.image_ids.tolist())

        def batches(_scorer: PackScorer, part: list[int]) -> Iterator[Batch]:
            for row in part:
                yield mosaics(probes.backbone, images, grids, ids, [row], trial.device)

        return Pictures(ids, batches, metrics={"chosen_fraction": len(rows) / len(images)})


takes = cache(check_takes)
"""Asked once, whatever the number of probes."""
