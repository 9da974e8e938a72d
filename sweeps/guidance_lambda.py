"""Which localization loss gives the best trade-off of F1 against EPG and IoU?

Model Guidance (Rao et al., ICCV 2023), section 5.1, figures 5 and 6.

    python sweeps/guidance_lambda.py                  # the generated sample, local Ray, minutes
    python sweeps/guidance_lambda.py --address auto --dataset voc2007 --data-root DIR --models
    resnet50

Every loss, lambda, layer, network and seed is one training that starts from the seed's baseline;
the control
is the same training without a loss. `--dry-run` lists them with what they will cost.
Report: python -m analysis.report --experiment guidance_lambda
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import ClassVar, Literal, Self

import trainables.attribution
import trainables.losses
import trainables.models  # noqa: F401  (each registers its classes)
from data_pipelines.dataset import Dataset
from sweeps.launch import Findings, Sweep, launch
from trainables.attribution.attribution import Attribution
from trainables.attribution_evaluation import AttributionEvaluation
from trainables.classifier_training import ClassifierTraining
from trainables.guided_training import PAPER_BATCH_SIZE, PAPER_SIZE_PX, GuidedTraining
from trainables.losses.loss import Loss
from trainables.models.user_network import network_of
from trainables.result import Result

Repeat = Literal["all", "largest"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a dataset is trained on."""

    size_px: int
    baseline_epochs: int
    baseline_batch_size: int
    baseline_learning_rate: float
    epochs: int
    batch_size: int
    learning_rate: float
    models: tuple[str, ...]
    seeds: tuple[int, ...]


VOC = Recipe(  # Model Guidance, D.1
    size_px=PAPER_SIZE_PX,
    baseline_epochs=300,
    baseline_batch_size=PAPER_BATCH_SIZE,
    baseline_learning_rate=1e-4,
    epochs=50,
    batch_size=PAPER_BATCH_SIZE,
    learning_rate=1e-4,
    models=("resnet50",),
    seeds=(0,),
)
SAMPLE = Recipe(  # ours: what two cores learn in minutes
    size_px=64,
    baseline_epochs=9,
    baseline_batch_size=8,
    baseline_learning_rate=1.5e-3,
    epochs=1,
    batch_size=16,
    learning_rate=1.5e-3,
    models=("small_resnet",),
    seeds=(0, 1, 2),
)
RECIPES = {"digit_scenes": SAMPLE, "voc": VOC, "voc2007": VOC}


@dataclass(frozen=True, kw_only=True)
class GuidanceLambda(Sweep):
    """Which localization loss gives the best trade-off of F1 against EPG and IoU?"""

    question: ClassVar[str] = "guidance_lambda"

    dataset: str = "digit_scenes"
    """digit_scenes (generated), voc2007 (as published), or voc (its layout, other classes)."""
    losses: tuple[str, ...] = tuple(Loss.registered)
    """Localization losses to compare."""
    lambda_loc: tuple[float, ...] | None = None
    """Weights for every loss, on the paper's scale (64 images of 224 px per step); 0 is the
    control, which is always there. None: the paper's three of each loss (its table D1)."""
    layers: tuple[str, ...] = ("input", "final")
    """Depths (input, mid1, mid2, mid3, final) or module paths whose maps are guided and judged."""
    attribution: str = "input_x_gradient"
    """The method that makes the maps; the paper's for conventional networks."""
    models: tuple[str, ...] = ()
    """Networks by name, or package.module:build for a function that makes your own. Empty: resnet50
    as in the paper, small_resnet on the sample."""
    repeat: Repeat = "all"
    """What the seeds after the first repeat: all lambdas, or each loss's largest, which tells the
    spread at a third of the cost."""
    epochs: int = 0
    """Epochs of guided training. 0: 50 as in the paper, 1 on the sample."""
    baseline_epochs: int = 0
    """Epochs of the baseline. 0: 300 as in the paper, 9 on the sample."""

    def data(self) -> Dataset:
        if self.dataset not in RECIPES:
            raise ValueError(f"unknown --dataset {self.dataset!r}; known: {', '.join(RECIPES)}")
        sample = {"images_train": 96, "images_val": 48, "images_test": 48} if self.smoke else {}
        sizes = sample if self.dataset == "digit_scenes" else {}
        if not self.data_root and self.dataset != "digit_scenes":
            raise ValueError(
                f"--dataset {self.dataset} needs --data-root, the folder that holds "
                "VOCdevkit/VOC2007"
            )
        return Dataset.named(self.dataset, root=self.data_root, **sizes)

    def small(self) -> Self:
        return replace(
            self,
            losses=self.losses[:2],
            lambda_loc=(5e-3,) if self.lambda_loc is None else self.lambda_loc,
            seeds=(self.seeds or (0,))[:1],
            epochs=self.epochs or 1,
            baseline_epochs=self.baseline_epochs or 1,
        )

    def results(self, data: Dataset) -> Iterator[Result]:
        recipe = RECIPES[self.dataset]
        losses = [Loss.named(name) for name in self.losses]
        attributions = [Attribution.named(self.attribution, layer=layer) for layer in self.layers]
        if not losses or not attributions:
            raise ValueError("--losses and --layers need at least one value each")
        weights = self.lambda_loc
        if weights is not None and not weights:
            raise ValueError("--lambda-loc needs at least one value; leave it out for the paper's")
        if weights and min(weights) < 0:
            raise ValueError(
                f"--lambda-loc {min(weights):g}: must not be negative; 0 is the control"
            )
        seeds = self.seeds or recipe.seeds
        for name, seed in product(self.models or recipe.models, seeds):
            baseline = ClassifierTraining(
                network=network_of(name),
                data=data,
                image_size_px=recipe.size_px,
                epochs=self.baseline_epochs or recipe.baseline_epochs,
                batch_size=recipe.baseline_batch_size,
                learning_rate=recipe.baseline_learning_rate,
                seed=seed,
            )
            control = GuidedTraining(
                start=baseline,
                epochs=self.epochs or recipe.epochs,
                batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                seed=seed,
            )
            yield baseline
            yield control
            for attribution in attributions:
                yield AttributionEvaluation(of=baseline, attribution=attribution)
                yield AttributionEvaluation(of=control, attribution=attribution)
                for loss in losses:
                    grid = weights or loss.lambdas
                    if seed != seeds[0] and self.repeat == "largest":
                        grid = (max(grid),)
                    for weight in grid:
                        if weight:
                            yield replace(
                                control, loss=loss, attribution=attribution, lambda_loc=weight
                            )

    def notes(self) -> list[str]:
        recipe, lines = RECIPES[self.dataset], []
        batch = PAPER_BATCH_SIZE / recipe.batch_size
        area = (PAPER_SIZE_PX / recipe.size_px) ** 2
        for name in self.losses:
            factor = batch * area if Loss.class_named(name).summed_over_pixels else batch
            if factor != 1:
                pixels = f" x (224/{recipe.size_px})^2 pixels" if factor != batch else ""
                lines.append(
                    f"lambda of {name}: the paper's x {factor:g} (64/{recipe.batch_size} "
                    f"images{pixels})"
                )
        return lines

    def report(self, folder: Path, result_ids: list[str]) -> Findings:
        # only here: drawing and MLflow take seconds to import, and flags must be checked at once
        from analysis.guidance_report import GuidanceFrames
        from analysis.report import as_text, finished_runs, write_files

        runs = finished_runs(self.question, self.tracking_uri, result_ids)
        frames = GuidanceFrames.of(runs)
        members = frames.front.groupby("result_id")["epoch"]
        return Findings(
            text=as_text(runs, frames),
            files=write_files(runs, frames, folder),
            kept={str(result_id): {int(e) for e in epochs} for result_id, epochs in members},
        )


if __name__ == "__main__":
    launch(GuidanceLambda)
