"""What does a network learn without labels, and what with them?

How to Probe (Gairola et al., ICLR 2025), section 4: the backbones of the study, trained here where
no checkpoint is at hand: MoCo v2, BYOL and DINO (and MoCo v3), and classifiers, conventional and
B-cos.

    python sweeps/pretraining.py                  # the generated sample, local Ray, minutes
    python sweeps/pretraining.py --dataset imagenet --data-root DIR --gpus-per-trial 1
        --networks resnet50 --methods moco_v2

Each is judged by the nearest neighbours of its features, as it learns and at the end, beside the
same network without training. The other sweeps on probes find these backbones and do not train them
again. `--dry-run` lists everything with its cost.
Report: python -m analysis.report --experiment pretraining
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import ClassVar, Self

from data_pipelines.dataset import Dataset
from sweeps.launch import Findings, launch
from sweeps.pretraining_sweep import UNTRAINED, PretrainingSweep
from trainables.knn_evaluation import KnnEvaluation
from trainables.result import Result


@dataclass(frozen=True, kw_only=True)
class Pretraining(PretrainingSweep):
    """What does a network learn without labels, and what with them?"""

    question: ClassVar[str] = "pretraining"

    methods: tuple[str, ...] = ()
    """moco_v2, moco_v3, byol, dino, supervised (by the loss that suits the data), supervised_ce,
    supervised_bce. Empty: supervised with moco_v2, byol and dino as in the paper, with moco_v3 on
    the sample. The untrained network is always there."""

    def small(self) -> Self:
        return replace(
            self,
            networks=self.networks or self.recipe.networks[:1],
            methods=self.methods or self.recipe.methods,
            pretraining_epochs=self.pretraining_epochs or 1,
            seeds=(self.seeds or (0,))[:1],
        )

    def results(self, data: Dataset) -> Iterator[Result]:
        self.check_epochs()
        names = dict.fromkeys((UNTRAINED, *(self.methods or self.recipe.methods)))
        for seed, network, name in product(self.seeds or (0,), self.architectures(), names):
            backbone = self.backbone(network, name, data, seed)
            yield from backbone.dependencies
            yield KnnEvaluation(
                backbone=backbone, data=data, image_size_px=self.recipe.size_px, seed=seed
            )

    def report(self, folder: Path, result_ids: list[str]) -> Findings:
        # only here: drawing and MLflow take seconds to import, and flags must be checked at once
        from analysis.report import as_text, finished_runs, frames_of, write_files

        runs = finished_runs(self.question, self.tracking_uri, result_ids)
        frames = frames_of(runs)
        return Findings(text=as_text(runs, frames), files=write_files(runs, frames, folder))


if __name__ == "__main__":
    launch(Pretraining)
