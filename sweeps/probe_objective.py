"""Does the loss of a probe decide how well its network explains: cross-entropy or binary?

How to Probe (Gairola et al., ICLR 2025), sections 4 and 5.1: linear and B-cos probes on frozen
backbones, trained by CE and BCE; their maps judged by mosaics, boxes, complexity and deletion.

    python sweeps/probe_objective.py                  # the generated sample, local Ray, minutes
    python sweeps/probe_objective.py --dataset imagenet --data-root DIR --gpus-per-trial 1
        --backbones resnet50=moco_v2:moco.pth.tar bcos_resnet50=dino:dino.pth

All probes of a backbone are trained on one stream of its features and judged side by side. Beside
them: networks trained as a whole by both losses; the same probes on untrained networks; and probes
whose classes' mean is taken out, exchanged or shifted, which no cross-entropy sees and every map
does. `--dry-run` lists everything with its cost.
Report: python -m analysis.report --experiment probe_objective
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar, Self

from data_pipelines.dataset import Dataset
from sweeps.launch import launch
from sweeps.pretraining_sweep import OBJECTIVES, UNTRAINED
from sweeps.probing_recipes import CONVENTIONAL, kind_of
from sweeps.probing_sweep import BCE, BCE_UNIFORM, CE, ProbingSweep, suits
from trainables.attribution.attribution import Attribution
from trainables.backbone import Backbone
from trainables.gauge import Centered, Exchanged, Shifted
from trainables.grid_evaluation import GridEvaluation
from trainables.models.network import Network
from trainables.models.probe import Probe
from trainables.probe_grids import ProbeGridEvaluation
from trainables.result import Result


@dataclass(frozen=True, kw_only=True)
class ProbeObjective(ProbingSweep):
    """Does the loss of a probe decide how well its network explains?"""

    question: ClassVar[str] = "probe_objective"
    compared: ClassVar[tuple[str, ...]] = (CE, BCE, BCE_UNIFORM)

    gauges: bool = True
    """Whether the linear probes are also judged without their classes' mean, and the one by ce with
    that of the one by bce, by the first method of each network."""
    alphas: tuple[float, ...] = (-1.0, 1.0, 5.0, 20.0)
    """Lengths of what is added to all classes of the linear ce probe of one backbone, to show what
    that alone does to mosaics."""
    references: bool = True
    """Whether networks trained as a whole by ce and by bce stand beside the probes."""

    blind: bool = True
    """Whether pure attention rollout, which sees no probe, is judged on an untrained transformer,
    on mosaics of any images: the negative control. On the sample alone."""

    def small(self) -> Self:
        return replace(self, **self.smaller(), gauges=False, alphas=(), blind=False)

    def check_flags(self, data: Dataset) -> None:
        super().check_flags(data)
        if self.several:
            raise ValueError(
                f"--dataset {self.dataset}: images of several classes cannot be learned by ce, and "
                "this sweep compares it with bce; take imagenet, or digit_scenes with --layout "
                "imagenet; sweeps/probe_depth.py takes all"
            )

    def of_backbone(self, backbone: Backbone, data: Dataset, seed: int) -> Iterator[Result]:
        kinds, losses = dict.fromkeys(self.probes), self.named_losses()
        trained = {
            (kind, loss): self.probe(backbone, Probe.named(kind), loss, data, seed)
            for kind, loss in product(kinds, losses)
        }
        yield from trained.values()
        if backbone.pretraining == UNTRAINED:
            return
        methods = self.methods(backbone.architecture)
        for probe in trained.values():
            yield from self.judged(probe, methods)
        if not self.played:
            return
        linear = {loss: probe for (kind, loss), probe in trained.items() if kind == "conventional"}
        if self.gauges:
            for probe in linear.values():
                yield from self.judged(probe, methods[:1], Centered(), images=False)
            if CE in linear and BCE in linear:
                carries = Exchanged(other=linear[BCE])
                yield from self.judged(linear[CE], methods[:1], carries, images=False)
        if CE in linear and backbone == self.shifted(data, seed):
            for alpha in self.alphas:
                shift = Shifted(alpha=alpha)
                yield from self.judged(linear[CE], methods[:1], shift, images=False)

    def shifted(self, data: Dataset, seed: int) -> Backbone | None:
        """The backbone of the demonstration: the first conventional one that is trained."""
        fitting = (
            one
            for one in self.frozen(data, seed)
            if one.pretraining != UNTRAINED and kind_of(one.architecture) == CONVENTIONAL
        )
        return next(fitting, None)

    def beside(self, data: Dataset, seed: int) -> Iterator[Result]:
        if self.references and self.named_pretrainings():
            yield from self.whole(data, seed)
        if self.blind and self.played and self.probing.transformer:
            yield from self.blind_to_probes(data, seed)

    def blind_to_probes(self, data: Dataset, seed: int) -> Iterator[Result]:
        """Rollout through a transformer under every probe."""
        network = Network.named(self.probing.transformer)
        backbone = self.backbone(network, UNTRAINED, data, seed)
        for kind, loss in product(dict.fromkeys(self.probes), self.named_losses()):
            probe = self.probe(backbone, Probe.named(kind), loss, data, seed)
            yield probe
            yield ProbeGridEvaluation(
                of=probe,
                attribution=Attribution.named("rollout"),
                images="all",
                side=self.judging.side,
                grids=self.judging.grids,
                split=self.split,
                seed=seed,
            )

    def whole(self, data: Dataset, seed: int) -> Iterator[Result]:
        """Networks trained as a whole, on mosaics of images that both classify correctly."""
        for network in self.architectures():
            pair = tuple(
                self.supervised(network, objective, data, seed) for objective in OBJECTIVES.values()
            )
            yield from pair
            if not self.played:
                continue
            for training, method in product(pair, self.methods(network)):
                if suits(method, network):
                    yield GridEvaluation(
                        of=training,
                        attribution=method,
                        side=self.judging.side,
                        grids=self.judging.grids,
                        images="common",
                        compared=pair,
                        seed=seed,
                    )


if __name__ == "__main__":
    launch(ProbeObjective)
