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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import ClassVar, Literal, Self

import trainables.attribution
import trainables.metrics
import trainables.models  # noqa: F401  (each registers its classes)
from data_pipelines.dataset import Dataset
from data_pipelines.patches import Patches
from sweeps.idsds_recipes import RECIPES
from sweeps.idsds_sweep import IdsdsSweep, Variant
from sweeps.launch import Findings, launch
from sweeps.networks import starting_files
from trainables.attribution.after_softmax import AfterSoftmax
from trainables.attribution.attribution import Attribution
from trainables.attribution.cam import GradCam
from trainables.attribution.sets import SETS, choose
from trainables.baselines import Baseline
from trainables.deletion_protocol import as_read_by, deletion_protocol
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.metrics.incremental_deletion import Ids
from trainables.metrics.metric import Metric
from trainables.metrics.network_response import NetworkResponse
from trainables.metrics.single_deletion import Output
from trainables.models.network import Network
from trainables.models.user_network import network_of
from trainables.network_comparison import NetworkComparison
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.result import Result
from trainables.training import Training

VARIED_PATCHES: tuple[Patches, ...] = (4, 16, 64)
VARIED_BASELINES = ("zero", "random", "blur")
"""Grids and baselines of the paper's section on stability."""
FEW_IMAGES = 256
"""With no more than these, networks are judged side by side, a trial each: a stream that has all
CPUs for one network takes longer to start than to score them."""


@dataclass(frozen=True, kw_only=True)
class IdsdsModels(IdsdsSweep):
    """Which network designs can be explained correctly?"""

    question: ClassVar[str] = "idsds_models"

    models: tuple[str, ...] = ()
    """Networks. Empty: on the sample a small one for every contrast, else the paper's."""
    methods: tuple[str, ...] = ()
    """Methods by name, a named set (idsds_as_run, corrected), or all that suit each network. Empty:
    idsds_as_run, on the sample its cheap ones."""
    patches: tuple[Patches, ...] = (16,)
    """Cells of the deletion grid, of all networks: 4, 16, 64."""
    baselines: tuple[Literal["zero", "random", "blur"], ...] = ("zero",)
    """What stands where a cell is deleted, of all networks."""
    stability: bool = True
    """Fine-tune resnet50 (on the sample its small sibling) also with the other grids, the other
    baselines and further seeds, one thing varied at a time, as in the paper."""
    attribution_output: tuple[Output, ...] = ("logit", "probability")
    """What the methods explain of fine-tuned networks: logits, and the same after the softmax.
    Other networks are judged by the first alone."""
    softmax_models: tuple[str, ...] = ()
    """Fine-tuned networks whose methods explain every output; of the others, the first alone.
    Empty: resnet50 and vgg16 as in the paper's code, on the sample their small siblings."""
    drop_output: Literal["logit", "as_explained"] = "logit"
    """Of what drops are taken: of the logit for both arms as in the paper's text, or of what is
    explained, as in its code."""
    images: int = 0
    """Images that are judged. 0: all 50,000 as in the paper, 100 on the sample."""

    def small(self) -> Self:
        return replace(
            self,
            models=self.models or ("small_resnet", "small_xresnet"),
            methods=self.methods or ("input_x_gradient", "grad_cam"),
            images=self.images or 12,
            epochs=self.epochs or 1,
            stability=False,
            finetuning_epochs=self.finetuning_epochs or 1,
            seeds=(self.seeds or (0,))[:1],
        )

    def results(self, data: Dataset) -> Iterator[Result]:
        for name in ("patches", "baselines"):
            if not getattr(self, name):
                raise ValueError(f"--{name}: give at least one value")
        if "logit" not in self.attribution_output:
            raise ValueError(
                f"--attribution-output {' '.join(self.attribution_output)}: needs logit, which the "
                "probability is compared with"
            )
        names = self.models or RECIPES[self.dataset].designs
        networks = [network_of(name) for name in dict.fromkeys(names)]
        strangers = sorted(set(self.softmax_models) - {network.name for network in networks})
        if strangers:
            raise ValueError(
                f"--softmax-models {strangers[0]}: not a network of this sweep, which are: "
                + ", ".join(network.name for network in networks)
            )
        files = starting_files(self.weights, {n.name: n for n in networks}, networks)
        ready = self.finetuned_files(networks, files)
        if ready and len(self.patches) * len(self.baselines) > 1:
            raise ValueError(
                f"--finetuned-weights {next(iter(ready)).name}: its network knows one grid and one "
                "baseline; give one of --patches and one of --baselines"
            )
        methods = {network: self.methods_of(network) for network in networks}
        for seed in self.seeds or (0,):
            looked_at: dict[str, ProtocolEvaluation] = {}
            for network in networks:
                classifier = self.classifier(network, data, seed, files.get(network))
                yield classifier
                variants = self.variants(network, seed)
                further = [] if network in ready else self.further(network, seed)
                everything = [*variants, *further]
                before = list(self.evaluations(classifier, methods[network], everything))
                yield from before
                for variant in everything:
                    tuned = self.finetuned(classifier, variant, ready.get(network))
                    yield tuned
                    outputs = self.outputs(network) if variant in variants else ("logit",)
                    after = list(self.evaluations(tuned, methods[network], [variant], outputs))
                    yield from after
                    yield from self.comparisons(before, after)
                for evaluation in before:
                    if asked(evaluation) and isinstance(evaluation.attribution, GradCam):
                        looked_at[network.name] = evaluation
            yield from self.yardstick(looked_at)

    def variants(self, network: Network, seed: int) -> list[Variant]:
        """How every network is fine-tuned."""
        return [
            Variant(p, as_read_by(network, Baseline.named(b)), seed)
            for p in dict.fromkeys(self.patches)
            for b in dict.fromkeys(self.baselines)
        ]

    def further(self, network: Network, seed: int) -> list[Variant]:
        """How a network is fine-tuned as well, to see whether its scores are stable."""
        recipe, first = RECIPES[self.dataset], self.variants(network, seed)[0]
        if not (self.stability and network.name in recipe.stability and seed == self.first_seed):
            return []
        others = [as_read_by(network, Baseline.named(b)) for b in VARIED_BASELINES]
        varied = [
            *(replace(first, patches=p) for p in VARIED_PATCHES),
            *(replace(first, baseline=b) for b in others),
            *(replace(first, seed=seed + k) for k in range(recipe.stability_seeds)),
        ]
        return [v for v in dict.fromkeys(varied) if v not in self.variants(network, seed)]

    def outputs(self, network: Network) -> tuple[Output, ...]:
        """What methods explain of a fine-tuned network."""
        several = network.name in (self.softmax_models or RECIPES[self.dataset].after_softmax)
        return tuple(dict.fromkeys(self.attribution_output)) if several else ("logit",)

    @property
    def first_seed(self) -> int:
        """The seed of the networks whose stability is looked at."""
        return (self.seeds or (0,))[0]

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

    def evaluations(
        self,
        training: Training,
        methods: Sequence[Attribution],
        variants: Sequence[Variant],
        outputs: Sequence[Output] = ("logit",),
    ) -> Iterator[ProtocolEvaluation]:
        """All methods, explaining each output, by the deletion score of what the network is.

        A network that was not fine-tuned is judged by the score of every grid and baseline, and the
        one on which the paper ranks methods by incremental deletion as well; beside Grad-CAM (or
        the first method) stands what the network says of each image.
        """
        tuned, recipe = isinstance(training, IdsdsFinetuning), RECIPES[self.dataset]
        settings = list(dict.fromkeys((one.patches, one.baseline) for one in variants))
        looked_at = next((m for m in methods if isinstance(m, GradCam)), methods[0])
        for output in outputs:
            drop: Output = output if self.drop_output == "as_explained" else "logit"
            for method in methods:
                if output == "probability" and method.explains != "logit":
                    continue  # it has no other arm
                protocols: list[Metric] = [
                    deletion_protocol(training, patches, baseline, drop_output=drop)
                    for patches, baseline in settings
                ]
                if not tuned and training.architecture.name in recipe.models:
                    protocols.append(Ids())
                    protocols += [Ids(updated=True)] if method.single_pass else []
                if output == "logit" and method == looked_at:
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

    def yardstick(self, looked_at: Mapping[str, ProtocolEvaluation]) -> Iterator[NetworkComparison]:
        """Two unrelated networks: the paper's, or else the first two that were asked alike.

        B-cos networks have deletions of their own.
        """
        pairs = [RECIPES[self.dataset].yardstick, *combinations(looked_at, 2)]
        for pair in pairs:
            if all(name in looked_at for name in pair):
                first, second = (looked_at[name] for name in pair)
                if asked(second)[0] in asked(first):
                    yield NetworkComparison(first=first, second=second)
                    return

    def notes(self) -> list[str]:
        lines = [f"every method is judged on {self.judged or 'all'} validation images"]
        left_out = RECIPES[self.dataset].left_out
        if left_out and not self.methods:
            lines.append(f"left out on the sample for their cost: {', '.join(left_out)}")
        return lines

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
