"""Which attribution method can be trusted?

IDSDS (Hesse et al., NeurIPS Datasets and Benchmarks 2024): how well each method ranks the patches
of an image by what their deletion does to the logit, on a network that knows deleted patches;
beside it the protocols of the other papers, on the same maps.

    python sweeps/idsds_methods.py                  # the generated sample, local Ray, minutes
    python sweeps/idsds_methods.py --address auto --dataset imagenet --data-root DIR
        --models resnet50 --methods idsds_as_run

A classifier is trained, then fine-tuned with deleted patches; all methods that suit the network are
judged on both by all protocols, from shared passes. `--dry-run` lists everything with its cost.
Report: python -m analysis.report --experiment idsds_methods
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import trainables.attribution
import trainables.metrics
import trainables.models  # noqa: F401  (each registers its classes)
from data_pipelines.dataset import Dataset
from data_pipelines.patches import Patches
from sweeps.idsds_recipes import RECIPES, SAMPLE_METHODS
from sweeps.idsds_sweep import IdsdsSweep, Variant
from sweeps.launch import Findings, launch
from sweeps.networks import starting_files
from trainables.attribution.attribution import Attribution
from trainables.attribution.sets import choose
from trainables.baselines import Zero
from trainables.classifier_training import ClassifierTraining
from trainables.deletion_protocol import as_read_by, deletion_protocol
from trainables.grid_evaluation import GridEvaluation
from trainables.metrics.grid_pg import GridPg
from trainables.metrics.incremental_deletion import Ids
from trainables.metrics.metric import Metric
from trainables.models.user_network import network_of
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.result import Result
from trainables.training import Training

APART = ("sds", "idsds", "map_similarity", "class_sensitivity", "network_response")
"""Protocols that are not asked for by name as they are: the deletion score is what the network is,
and the others compare two networks or two classes."""


@dataclass(frozen=True, kw_only=True)
class IdsdsMethods(IdsdsSweep):
    """Which attribution method can be trusted?"""

    question: ClassVar[str] = "idsds_methods"

    methods: tuple[str, ...] = ("all",)
    """Methods by name, a named set (idsds_as_run, corrected), or all that suit the network."""
    protocols: tuple[str, ...] = ("all",)
    """Protocols by name, or all; the deletion score is sds or idsds, as the network is."""
    models: tuple[str, ...] = ()
    """Networks. Empty: resnet50 as in the paper, small_resnet on the sample."""
    patches: Patches = 16
    """Cells of the deletion grid: 4, 16 or 64. 16 in the paper."""
    images: int = 0
    """Images that are judged. 0: all 50,000 as in the paper, 100 on the sample."""
    save_maps: tuple[str, ...] = ("4",)
    """Images whose maps are kept and shown: how many, or which ids."""
    grids: int = 0
    """Mosaics of the grid pointing game. 0: 500 as in How to Probe, 25 on the sample, which makes
    100 explanations."""
    grid_side: Literal[0, 2, 3] = 0
    """Images along a side of a mosaic. 0: 3 as in How to Probe, 2 on the sample."""
    grid_images: Literal["own", "common"] = "own"
    """Of which images: those that each network is surest of, or those that all networks of the
    sweep classify correctly."""

    def small(self) -> Self:
        return replace(
            self,
            images=self.images or 12,
            epochs=self.epochs or 1,
            finetuning_epochs=self.finetuning_epochs or 1,
            seeds=(self.seeds or (0,))[:1],
        )

    def results(self, data: Dataset) -> Iterator[Result]:
        recipe = RECIPES[self.dataset]
        if not self.methods:
            raise ValueError("--methods: give at least one method")
        if not self.protocols:
            raise ValueError("--protocols: give at least one protocol")
        networks = [network_of(name) for name in self.models or recipe.models]
        files = starting_files(self.weights, {n.name: n for n in networks}, networks)
        ready = self.finetuned_files(networks, files)
        methods = {n: choose(self.methods, n, self.at_size).methods for n in networks}
        for seed in self.seeds or (0,):
            classifiers = [self.classifier(n, data, seed, files.get(n)) for n in networks]
            for classifier in classifiers:
                zero = as_read_by(classifier.network, Zero())
                variant = Variant(self.patches, zero, seed)
                finetuned = self.finetuned(classifier, variant, ready.get(classifier.network))
                of_network = methods[classifier.network]
                yield classifier
                if self.grids_asked_for:
                    yield from self.grid_evaluations(classifier, of_network, classifiers)
                if not self.streamed_protocols:
                    continue
                yield finetuned
                trainings: tuple[Training, ...] = (classifier, finetuned)
                for training in trainings:
                    for method in of_network:
                        yield ProtocolEvaluation(
                            of=training,
                            attribution=method,
                            protocols=tuple(self.chosen_protocols(training, method, data)),
                            images=self.images or recipe.images,
                            save_maps=self.save_maps,
                        )

    @property
    def streamed_protocols(self) -> tuple[str, ...]:
        """Protocols over the images themselves, each name once."""
        return tuple(name for name in dict.fromkeys(self.protocols) if name != GridPg.name)

    @property
    def grids_asked_for(self) -> bool:
        """Whether mosaics are judged, too; never in a smoke run, whose network knows no class."""
        return not self.smoke and not {"all", GridPg.name}.isdisjoint(self.protocols)

    def grid_evaluations(
        self,
        classifier: ClassifierTraining,
        methods: Sequence[Attribution],
        compared: Sequence[ClassifierTraining],
    ) -> Iterator[GridEvaluation]:
        """The grid pointing game of a network as it was trained, which is the one that it is for.

        Args:
            classifier: the network.
            methods: those that suit it.
            compared: all networks of its seed, which choose common images.
        """
        recipe = RECIPES[self.dataset]
        for method in methods:
            yield GridEvaluation(
                of=classifier,
                attribution=method,
                side=self.grid_side or recipe.grid_side,
                grids=self.grids or recipe.grids,
                images=self.grid_images,
                compared=tuple(compared) if self.grid_images == "common" else (),
            )

    def chosen_protocols(
        self, training: Training, method: Attribution, data: Dataset
    ) -> Iterator[Metric]:
        """The protocols asked for, as this network, method and dataset can be judged by them.

        Raises:
            ValueError: an unknown name, or one that needs what the images do not come with.
        """
        known = [name for name in Metric.registered if name not in APART]
        for name in self.streamed_protocols:
            if name == "all":
                yield deletion_protocol(training, self.patches)
                candidates = [Metric.named(other) for other in known]
                yield from (p for p in candidates if set(p.requires) <= data.annotated)
                if method.single_pass:
                    yield Ids(updated=True)
            elif name in ("sds", "idsds"):
                yield deletion_protocol(training, self.patches)
            else:
                protocol = Metric.named(name)
                missing = sorted(set(protocol.requires) - data.annotated)
                if missing or name in APART:
                    raise ValueError(
                        f"--protocols {name}: needs {' and '.join(missing) or 'a second network'}, "
                        f"which the images of {self.dataset} do not come with; "
                        f"known here: {', '.join(known)}"
                    )
                yield protocol

    def notes(self) -> list[str]:
        images = self.images or RECIPES[self.dataset].images
        lines = [f"every protocol judges {images or 'all'} validation images"]
        if self.grids_asked_for:
            recipe = RECIPES[self.dataset]
            side = self.grid_side or recipe.grid_side
            grids = self.grids or recipe.grids
            lines.append(f"{GridPg.name} judges {grids} mosaics of {side} x {side} images")
        elif self.smoke:
            lines.append(f"{GridPg.name} is left out: the network of a smoke run knows no class")
        if self.dataset == "digit_scenes":
            lines += [
                f"{name}: {field} {value} on the sample"
                for name, fields in SAMPLE_METHODS.items()
                for field, value in fields.items()
            ]
        return lines

    def report(self, folder: Path, result_ids: list[str]) -> Findings:
        # only here: drawing and MLflow take seconds to import, and flags must be checked at once
        from analysis.ranking_report import RankingFrames
        from analysis.report import as_text, finished_runs, write_files

        runs = finished_runs(self.question, self.tracking_uri, result_ids)
        frames = RankingFrames.of(runs)
        return Findings(text=as_text(runs, frames), files=write_files(runs, frames, folder))


if __name__ == "__main__":
    launch(IdsdsMethods)
