"""Do deeper probes classify better, and what do their networks' explanations lose or win?

How to Probe (Gairola et al., ICLR 2025), section 5.2: one to three layers, conventional or B-cos,
on frozen backbones; accuracy and mosaics where an image has one class, F1 and boxes where it has
several.

    python sweeps/probe_depth.py                  # the generated sample, local Ray, minutes
    python sweeps/probe_depth.py --layout voc     # the same, several digits an image
    python sweeps/probe_depth.py --dataset coco2014 --data-root DIR --gpus-per-trial 1
        --backbones resnet50=dino:dino_resnet50_pretrain.pth

All probes of a backbone are trained on one stream of its features and judged side by side. Those of
one layer belong to probe_objective, too: what one of the two has computed, the other finds.
`--dry-run` lists everything with its cost.
Report: python -m analysis.report --experiment probe_depth
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar, Self

from data_pipelines.dataset import Dataset
from sweeps.launch import launch
from sweeps.pretraining_sweep import UNTRAINED
from sweeps.probing_sweep import BCE, CE, ProbingSweep
from trainables.attribution.attribution import Attribution
from trainables.backbone import Backbone
from trainables.models.network import Network
from trainables.models.probe import Probe
from trainables.result import Result

LAYERS = (1, 2, 3)
FIRST_METHODS = 2
"""Of the paper's for each kind of network, where no flag names others: how depth changes maps shows
in them."""


@dataclass(frozen=True, kw_only=True)
class ProbeDepth(ProbingSweep):
    """Do deeper probes classify better, and what do explanations lose or win?"""

    question: ClassVar[str] = "probe_depth"
    compared: ClassVar[tuple[str, ...]] = (CE, BCE)

    layers: tuple[int, ...] = LAYERS
    """Of every kind."""

    def small(self) -> Self:
        return replace(self, **self.smaller())

    def check_flags(self, data: Dataset) -> None:
        super().check_flags(data)
        if not self.layers or not set(self.layers) <= set(LAYERS):
            raise ValueError(f"--layers {self.layers}: expected some of 1, 2, 3")

    def of_backbone(self, backbone: Backbone, data: Dataset, seed: int) -> Iterator[Result]:
        forms = [
            Probe.named(kind, layers=layers)
            for kind, layers in product(dict.fromkeys(self.probes), dict.fromkeys(self.layers))
        ]
        trained = [
            self.probe(backbone, form, loss, data, seed)
            for form, loss in product(forms, self.named_losses())
        ]
        yield from trained
        if backbone.pretraining == UNTRAINED:
            return
        methods = self.methods(backbone.architecture)
        for probe in trained:
            yield from self.judged(probe, methods)

    def methods(self, network: Network) -> list[Attribution]:
        found = super().methods(network)
        return found if self.attributions else found[:FIRST_METHODS]


if __name__ == "__main__":
    launch(ProbeDepth)
