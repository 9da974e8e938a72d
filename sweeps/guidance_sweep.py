"""What the sweeps on model guidance share: baselines, controls, how maps are made, and the report.

Equal flags give equal results, whichever sweep asks: what one has computed, the others find.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import trainables.attribution
import trainables.losses
import trainables.models  # noqa: F401  (each registers its classes)
from data_pipelines.dataset import Dataset
from data_pipelines.manifest import Manifest
from sweeps.launch import Findings, Sweep
from sweeps.networks import named_network, starting_files
from sweeps.recipes import ATTRIBUTIONS, COCO, RECIPES, Recipe, kind_of, lambda_notes
from trainables.attribution.attribution import Attribution
from trainables.attribution_evaluation import AttributionEvaluation
from trainables.classifier_training import ClassifierTraining
from trainables.guided_training import GuidedTraining
from trainables.losses.loss import Loss
from trainables.models.network import Network
from trainables.models.pretrained import PretrainedWeights
from trainables.result import Result

Lambdas = Literal["all", "ends", "largest"]
"""Which of the paper's lambdas of a loss: the three, the smallest and the largest, or that."""
SMOKE_LAMBDA = 5e-3
"""Large enough for a smoke run to move something."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A named choice of what the flags leave open."""

    models: tuple[str, ...]
    losses: tuple[str, ...]
    lambdas: Lambdas = "all"
    layers: tuple[str, ...] = ("input", "final")
    supplement: bool = False
    """Whether Grad-CAM at the final layer and the recipe's depths between are there, too."""
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True, kw_only=True)
class GuidanceSweep(Sweep):
    """Flags of every sweep on model guidance."""

    grids: ClassVar[Mapping[str, Grid]]
    """By name: ``demo`` is the sample's unless told otherwise, ``paper`` that of published data."""

    grid: str = ""
    """What the other flags leave open."""
    dataset: str = "digit_scenes"
    """digit_scenes (generated); voc2007, coco2014 (as published); voc, coco (their layouts, other
    classes)."""
    split_file: str = ""
    """Which images of COCO's train2014 are validation, in a file relative to --data-root or
    absolute: file names, one a line, or an instances JSON. Empty: a random tenth, which is ours;
    the paper's cut comes from other work, and its sizes are not told."""
    models: tuple[str, ...] = ()
    """Networks: kinds of the paper (vanilla, xdnn, bcos: the dataset's own network of each), names,
    or package.module:build for a function that makes your own. Empty: those of the grid."""
    weights: tuple[str, ...] = ()
    """Checkpoint files that baselines start from, each as MODEL=FILE, where MODEL is one of the
    models: torchvision's, timm's, B-cos v2's or X-DNN's format, ImageNet's in the paper. A head for
    other classes is made anew. Models without one start from random weights."""
    losses: tuple[str, ...] | None = None
    """Localization losses to compare. None: those of the grid."""
    lambda_loc: tuple[float, ...] | None = None
    """Weights for every loss, on the paper's scale (64 images of 224 px per step); 0 is the
    control, which is always there. None: those of the grid, from the paper's three of each loss
    (its table D1)."""
    layers: tuple[str, ...] | None = None
    """Depths (input, mid1, mid2, mid3, final) or module paths whose maps are guided and judged.
    None: those of the grid."""
    attribution: str = ""
    """The method that makes the maps. Empty: the paper's of each kind of network, bcos for B-cos,
    input_x_gradient for others (on X-DNN it is integrated gradients)."""
    epochs: int = 0
    """Epochs of guided training. 0: 50 on VOC and 10 on COCO as in the paper, 1 on the sample."""
    baseline_epochs: int = 0
    """Epochs of the baseline. 0: 300 on VOC and 60 on COCO as in the paper, fewer on the sample."""
    baseline_learning_rate: float = 0.0
    """Of every baseline; guided trainings keep theirs. 0: 1e-4 (on COCO 1e-5 for X-DNNs), of which
    only B-cos's on VOC is known to be the paper's: it chose each from 1e-3, 1e-4 and 1e-5 by F1 on
    validation. On the sample those of its recipe."""

    @property
    def recipe(self) -> Recipe:
        """How the dataset is trained on.

        Raises:
            ValueError: an unknown dataset.
        """
        if self.dataset not in RECIPES:
            raise ValueError(f"unknown --dataset {self.dataset!r}; known: {', '.join(RECIPES)}")
        return RECIPES[self.dataset]

    def data(self) -> Dataset:
        layout = self.recipe.layout
        if layout and not self.data_root:
            raise ValueError(
                f"--dataset {self.dataset} needs --data-root, the folder that holds {layout}"
            )
        fields: dict[str, Any] = {}
        if self.smoke and not layout:
            fields |= {"images_train": 96, "images_val": 48, "images_test": 48}
        if self.split_file:
            if self.recipe is not COCO:
                known = ", ".join(name for name, recipe in RECIPES.items() if recipe is COCO)
                raise ValueError(
                    f"--split-file {self.split_file}: --dataset {self.dataset} has splits of its "
                    f"own; leave it out, or take one of {known}"
                )
            fields["split_file"] = self.split_file
        return Dataset.named(self.dataset, root=self.data_root, **fields)

    def check_data(self, manifest: Manifest) -> None:
        if self.split_file and manifest.converted:
            raise ValueError(
                f"--split-file {self.split_file}: the shards at {manifest.directory} have the cut "
                "they were converted with; leave it out, or give the published files"
            )

    def small(self) -> Self:
        return replace(
            self,
            losses=self.loss_names()[:2],
            lambda_loc=(SMOKE_LAMBDA,) if self.lambda_loc is None else self.lambda_loc,
            seeds=(self.seeds or (0,))[:1],
            epochs=self.epochs or 1,
            baseline_epochs=self.baseline_epochs or 1,
        )

    @property
    def chosen(self) -> Grid:
        """The named grid.

        Raises:
            ValueError: an unknown name.
        """
        published = self.recipe.layout and not self.smoke
        name = self.grid or ("paper" if published else "demo")
        if name not in self.grids:
            raise ValueError(f"unknown --grid {name!r}; known: {', '.join(self.grids)}")
        return self.grids[name]

    def loss_names(self) -> tuple[str, ...]:
        """Losses that are asked for."""
        return self.chosen.losses if self.losses is None else self.losses

    def chosen_losses(self) -> list[Loss]:
        """The losses, each once.

        Raises:
            ValueError: none, or an unknown one.
        """
        losses = [Loss.named(name) for name in dict.fromkeys(self.loss_names())]
        if not losses:
            raise ValueError("--losses needs at least one value; leave it out for the grid's")
        return losses

    def chosen_layers(self) -> tuple[str, ...]:
        """The flag's layers, or the grid's.

        Raises:
            ValueError: none.
        """
        if self.layers is None:
            return self.chosen.layers
        if not self.layers:
            raise ValueError("--layers needs at least one value; leave it out for the grid's")
        return self.layers

    def lambdas_of(self, loss: Loss) -> tuple[float, ...]:
        """Lambdas of a loss on the paper's scale, without the control's 0.

        Raises:
            ValueError: none, or a negative one.
        """
        weights = self.lambda_loc
        if weights is None:
            smallest, largest = loss.lambdas[:1], loss.lambdas[-1:]
            picked = {"all": loss.lambdas, "ends": smallest + largest, "largest": largest}
            return picked[self.chosen.lambdas]
        if not weights:
            raise ValueError("--lambda-loc needs at least one value; leave it out for the paper's")
        if min(weights) < 0:
            raise ValueError(
                f"--lambda-loc {min(weights):g}: must not be negative; 0 is the control"
            )
        return tuple(weight for weight in weights if weight)

    def networks(self) -> list[Network]:
        """The networks that are asked for, each once.

        Raises:
            ValueError: an unknown one.
        """
        own = self.recipe.networks
        names = self.models or self.chosen.models
        return list(dict.fromkeys(named_network("--models", name, own) for name in names))

    def pretrained(self) -> dict[Network, PretrainedWeights]:
        """The files that baselines start from, by their networks.

        Raises:
            ValueError, FileNotFoundError: as in ``starting_files``.
        """
        return starting_files(self.weights, self.recipe.networks, self.networks())

    def attribution_of(self, network: Network, layer: str, method: str = "") -> Attribution:
        """What makes the maps of a network at a layer.

        Args:
            network: whose kind decides where neither a flag nor the method does.
            layer: depth or module path.
            method: the grid's; empty for the paper's of each kind.
        """
        name = self.attribution or method or ATTRIBUTIONS[kind_of(network)]
        return Attribution.named(name, layer=layer)

    def baseline(self, network: Network, data: Dataset, seed: int) -> ClassifierTraining:
        """The training that guidance starts from."""
        kind = self.recipe.kind(network)
        return ClassifierTraining(
            network=network,
            data=data,
            pretrained=self.pretrained().get(network),
            image_size_px=self.recipe.size_px,
            epochs=self.baseline_epochs or kind.baseline_epochs,
            batch_size=self.recipe.baseline_batch_size,
            learning_rate=self.baseline_learning_rate or kind.baseline_learning_rate,
            seed=seed,
        )

    def control(self, baseline: ClassifierTraining) -> GuidedTraining:
        """The guided training without a loss; others are this one with theirs."""
        kind = self.recipe.kind(baseline.network)
        return GuidedTraining(
            start=baseline,
            epochs=self.epochs or kind.epochs,
            batch_size=self.recipe.batch_size,
            learning_rate=kind.learning_rate,
            seed=baseline.seed,
        )

    def references(self, control: GuidedTraining, attribution: Attribution) -> Iterator[Result]:
        """What guided trainings with these maps are compared with."""
        yield AttributionEvaluation(of=control.start, attribution=attribution)
        yield AttributionEvaluation(of=control, attribution=attribution)

    def notes(self) -> list[str]:
        lines = []
        if self.recipe.layout and not self.weights:
            lines.append(
                "baselines start from random weights; the paper's from ImageNet's: --weights"
            )
        recipe = self.recipe
        return lines + lambda_notes(self.chosen_losses(), recipe.batch_size, recipe.size_px)

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
