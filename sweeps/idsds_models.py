"""Which network designs can be explained correctly?

IDSDS (Hesse et al., NeurIPS Datasets and Benchmarks 2024): each network is fine-tuned so that
deleted patches are in the domain; then every method that suits it is judged by the in-domain single
deletion score. Depth, width, normalization, bias, softmax and architecture are compared on the same
images; beside it the score without fine-tuning, incremental deletion, and how alike the fine-tuned
network is to what it was.

    python sweeps/idsds_models.py                   # small networks on the generated sample
    python sweeps/idsds_models.py --address auto --dataset imagenet --data-root DIR
        --models resnet18 resnet50 fixup_resnet50 --weights resnet18=r18.pth resnet50=r50.pth ...

Report: python -m analysis.report --experiment idsds_models
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, Self

import trainables.attribution
import trainables.metrics
import trainables.models  # noqa: F401  (each registers its classes)
from data_pipelines.dataset import Dataset
from data_pipelines.patches import Patches
from sweeps.idsds_recipes import RECIPES, network_recipe
from sweeps.idsds_sweep import IdsdsSweep
from sweeps.launch import Findings, launch
from sweeps.networks import starting_files
from trainables.attribution.after_softmax import AfterSoftmax
from trainables.attribution.attribution import Attribution
from trainables.attribution.cam import GradCam
from trainables.attribution.sets import SETS, choose
from trainables.baselines import Baseline
from trainables.classifier_training import ClassifierTraining
from trainables.idsds_finetuning import IdsdsFinetuning, as_read_by, deletion_protocol
from trainables.metrics.incremental_deletion import Ids
from trainables.metrics.metric import Metric
from trainables.metrics.network_response import NetworkResponse
from trainables.metrics.single_deletion import Output
from trainables.models.network import Network
from trainables.models.pretrained import PretrainedWeights
from trainables.models.user_network import network_of
from trainables.network_comparison import NetworkComparison
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.published_classifier import PublishedClassifier
from trainables.result import Result
from trainables.training import Training

FEW_IMAGES = 256
"""With no more than these, networks are judged side by side, a trial each: a stream that has all
CPUs for one network takes longer to start than to score them."""


@dataclass(frozen=True, kw_only=True)
class IdsdsModels(IdsdsSweep):
    """Which network designs can be explained correctly?"""

    question: ClassVar[str] = "idsds_models"

    models: tuple[str, ...] = ()
    """Networks. Empty: on the sample a small one for every contrast, else the paper's."""
    weights: tuple[str, ...] = ()
    """MODEL=FILE, published classifiers to fine-tune; without a file a network is trained first."""
    methods: tuple[str, ...] = ()
    """Methods by name, a named set (idsds_as_run, corrected), or all that suit each network. Empty:
    idsds_as_run, on the sample its cheap ones."""
    patches: tuple[Patches, ...] = (16,)
    """Cells of the deletion grid; several for the stability of the score: 4, 16, 64."""
    baselines: tuple[str, ...] = ("zero",)
    """What stands where a cell is deleted; several for the stability: zero, random, blur."""
    attribution_output: tuple[Output, ...] = ("logit", "probability")
    """What the methods explain of fine-tuned networks: logits, and the same after the softmax.
    Other networks are judged by the first alone."""
    softmax_models: tuple[str, ...] = ()
    """Fine-tuned networks whose methods explain every output; of the others, the first alone.
    Empty: resnet50 and vgg16 as in the paper's code, on the sample their small siblings."""
    drop_output: Literal["logit", "as_explained"] = "logit"
    """Of what drops are taken: of the logit for both arms as in the paper's text, or of what is
    explained, as in its code."""
    kept_epoch: Literal["last", "held_out", "best"] = "last"
    """The fine-tuned network: its last epoch, the best on images held out of training, or the best
    on the images that are then judged, as in the paper's code."""
    images: int = 0
    """Images that are judged. 0: all 50,000 as in the paper, 64 on the sample."""
    epochs: int = 0
    """Epochs of a classifier that is trained. 0: the recipe's."""
    finetuning_epochs: int = 0
    """Epochs of fine-tuning. 0: 30 as in the paper, 3 on the sample."""

    def small(self) -> Self:
        return replace(
            self,
            models=self.models or ("small_resnet", "small_xresnet"),
            methods=self.methods or ("input_x_gradient", "grad_cam"),
            images=self.images or 12,
            epochs=self.epochs or 1,
            finetuning_epochs=self.finetuning_epochs or 1,
            seeds=(self.seeds or (0,))[:1],
        )

    def results(self, data: Dataset) -> Iterator[Result]:
        for name in ("patches", "baselines", "attribution_output"):
            if not getattr(self, name):
                raise ValueError(f"--{name.replace('_', '-')}: give at least one value")
        names = self.models or RECIPES[self.dataset].designs
        networks = [network_of(name) for name in dict.fromkeys(names)]
        files = starting_files(self.weights, {n.name: n for n in networks}, networks)
        methods = {network: self.methods_of(network) for network in networks}
        for seed in self.seeds or (0,):
            looked_at: list[ProtocolEvaluation] = []
            for network in networks:
                classifier = self.classifier(network, data, seed, files.get(network))
                yield classifier
                before = list(self.evaluations(classifier, methods[network]))
                yield from before
                for patches in self.patches:
                    for name in self.baselines:
                        tuned = self.finetuned(classifier, patches, Baseline.named(name), seed)
                        yield tuned
                        after = list(self.evaluations(tuned, methods[network]))
                        yield from after
                        yield from self.comparisons(before, after)
                looked_at += [e for e in before if asked(e) and isinstance(e.attribution, GradCam)]
            for first, second in pairwise(looked_at[:2]):  # the yardstick: two unrelated networks
                if asked(first) == asked(second):  # B-cos networks have deletions of their own
                    yield NetworkComparison(first=first, second=second)

    @property
    def judged(self) -> int:
        """Images that are judged; 0 for all of the split."""
        return self.images or RECIPES[self.dataset].design_images

    def methods_of(self, network: Network) -> list[Attribution]:
        """The methods that suit the network, Grad-CAM among them where it does."""
        recipe = RECIPES[self.dataset]
        names, left_out = (self.methods, ()) if self.methods else (recipe.methods, recipe.left_out)
        found: dict[str, Attribution] = {}
        for name in names:
            chosen = suited(name, network, self.at_size)
            found |= {method.key: method for method in chosen if method.name not in left_out}
        if not found:
            raise ValueError(f"--methods: none of {', '.join(names)} suits {network.key}")
        return list(found.values())

    def classifier(
        self, network: Network, data: Dataset, seed: int, file: PretrainedWeights | None
    ) -> ClassifierTraining:
        """The network before it knows deleted patches."""
        recipe, own = RECIPES[self.dataset], network_recipe(self.dataset, network)
        if file is not None:
            return PublishedClassifier(
                network=network,
                data=data,
                objective=own.objective,
                image_size_px=recipe.size_px,
                pretrained=file,
            )
        return ClassifierTraining(
            network=network,
            data=data,
            objective=own.objective,
            image_size_px=recipe.size_px,
            epochs=self.epochs or own.epochs,
            batch_size=recipe.batch_size,
            learning_rate=own.learning_rate,
            seed=seed,
        )

    def finetuned(
        self, classifier: ClassifierTraining, patches: Patches, baseline: Baseline, seed: int
    ) -> IdsdsFinetuning:
        """The network once it knows them; a published classifier has no seed, its tuning has."""
        recipe = RECIPES[self.dataset]
        own = network_recipe(self.dataset, classifier.network)
        return IdsdsFinetuning(
            start=classifier,
            patches=patches,
            baseline_image=as_read_by(classifier.network, baseline),
            epochs=self.finetuning_epochs or recipe.finetuning_epochs,
            batch_size=recipe.finetuning_batch_size,
            learning_rate=own.finetuning_learning_rate,
            step_epochs=recipe.step_epochs,
            augmentation=recipe.augmentation,
            kept_epoch=self.kept_epoch,
            seed=seed,
        )

    def evaluations(
        self, training: Training, methods: Sequence[Attribution]
    ) -> Iterator[ProtocolEvaluation]:
        """All methods, explaining each output, by the deletion score of what the network is.

        A network that was not fine-tuned is judged by the score of every grid and baseline, and the
        one on which the paper ranks methods by incremental deletion as well; beside Grad-CAM (or
        the first method) stands what the network says of each image.
        """
        tuned, recipe = None, RECIPES[self.dataset]
        if isinstance(training, IdsdsFinetuning):
            tuned = training
        settings = [
            (patches, as_read_by(training.architecture, Baseline.named(name)))
            for patches in self.patches
            for name in self.baselines
        ]
        if tuned is not None:
            settings = [(tuned.patches, tuned.baseline_image)]
        looked_at = next((m for m in methods if isinstance(m, GradCam)), methods[0])
        several = tuned and training.architecture.name in (
            self.softmax_models or recipe.after_softmax
        )
        for output in self.attribution_output[: None if several else 1]:
            drop: Output = output if self.drop_output == "as_explained" else "logit"
            for method in methods:
                protocols: list[Metric] = [
                    deletion_protocol(training, patches, baseline, drop_output=drop)
                    for patches, baseline in settings
                ]
                if tuned is None and training.architecture.name in recipe.models:
                    protocols.append(Ids())
                    protocols += [Ids(updated=True)] if method.single_pass else []
                if output == self.attribution_output[0] and method == looked_at:
                    protocols += [
                        NetworkResponse(patches=patches, baseline=baseline)
                        for patches, baseline in settings
                    ]
                yield ProtocolEvaluation(
                    of=training,
                    attribution=method if output == "logit" else AfterSoftmax(of=method),
                    protocols=tuple(protocols),
                    images=self.judged,
                    streamed=not 0 < self.judged <= FEW_IMAGES,
                    save_maps=("0",),
                )

    def comparisons(
        self, before: Sequence[ProtocolEvaluation], after: Sequence[ProtocolEvaluation]
    ) -> Iterator[NetworkComparison]:
        """The fine-tuned network beside what it was."""
        for first, second in zip(filter(asked, before), filter(asked, after), strict=True):
            yield NetworkComparison(first=first, second=second)

    def notes(self) -> list[str]:
        return [f"every method is judged on {self.judged or 'all'} validation images"]

    def report(self, folder: Path, result_ids: list[str]) -> Findings:
        # only here: drawing and MLflow take seconds to import, and flags must be checked at once
        from analysis.designs_report import DesignFrames
        from analysis.report import as_text, finished_runs, write_files

        runs = finished_runs(self.question, self.tracking_uri, result_ids)
        frames = DesignFrames.of(runs)
        return Findings(text=as_text(runs, frames), files=write_files(runs, frames, folder))


def asked(evaluation: ProtocolEvaluation) -> tuple[Metric, ...]:
    """What an evaluation asks of the network itself, beside its maps."""
    return tuple(p for p in evaluation.protocols if isinstance(p, NetworkResponse))


def suited(
    name: str, network: Network, adapt: Callable[[Attribution], Attribution]
) -> tuple[Attribution, ...]:
    """The methods of a name that suit a network; none, if it is one that does not."""
    if name == "all" or name in SETS:
        return choose((name,), network, adapt).methods
    method = adapt(Attribution.named(name))  # an unknown name is refused whatever the network
    try:
        method.check(network)
    except ValueError:
        return ()
    return (method,)


if __name__ == "__main__":
    launch(IdsdsModels)
