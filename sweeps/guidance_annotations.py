"""How few annotations does guidance need, and how exact must their boxes be?

Model Guidance (Rao et al., ICCV 2023), section 5.4: a share of the training images keeps its
boxes, or all boxes are dilated.

    python sweeps/guidance_annotations.py                  # the generated sample, minutes
    python sweeps/guidance_annotations.py --address auto --dataset voc2007 --data-root DIR

Baselines, controls and the trainings with all boxes as they are belong to guidance_lambda, too:
what one of the two has computed, the other finds. `--dry-run` lists everything with its cost.
Report: python -m analysis.report --experiment guidance_annotations
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar, Self

from data_pipelines.dataset import Dataset
from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.manifest import Manifest
from sweeps.guidance_sweep import Grid, GuidanceSweep
from sweeps.launch import launch
from sweeps.recipes import BCOS, KINDS, check_share
from trainables.guided_training import GuidedTraining
from trainables.result import Result

PAPER_FRACTIONS = (0.01, 0.1, 1.0)
PAPER_DILATIONS = (0.0, 0.1, 0.25, 0.5)


@dataclass(frozen=True, kw_only=True)
class GuidanceAnnotations(GuidanceSweep):
    """How few annotations does guidance need, and how exact must their boxes be?"""

    question: ClassVar[str] = "guidance_annotations"
    grids: ClassVar[Mapping[str, Grid]] = {
        "demo": Grid(models=(BCOS,), losses=("energy", "l1"), lambdas="largest"),
        "paper": Grid(models=KINDS, losses=("energy", "l1")),
    }

    grid: str = ""
    """What the other flags leave open. demo: a B-cos network, energy and l1 with their largest
    lambda. paper: the three kinds of networks, energy and l1 with their three lambdas. Both: shares
    at input and final, dilation at the input, one seed. Empty: demo on the sample, paper on
    published data."""
    fractions: tuple[float, ...] = PAPER_FRACTIONS
    """Shares of the training images whose boxes are used, with boxes as they are."""
    dilations: tuple[float, ...] = PAPER_DILATIONS
    """Shares of a box's width and height added on each side in training, with all boxes used;
    results are judged by boxes as they are."""
    dilated_layers: tuple[str, ...] = ("input",)
    """Where dilated boxes are guided."""
    compensate: bool = True
    """Whether lambda is divided by the share of annotated images (ours), which keeps the weight of
    the localization loss: it is summed over annotated images. The paper's own lambdas for few
    annotations (its table D2) cannot be had."""

    def small(self) -> Self:
        return replace(
            super().small(),
            layers=self.chosen_layers()[:1],
            # one in a hundred of so few images would be none
            fractions=tuple(f for f in self.fractions if f >= 0.1) or self.fractions,
            dilations=self.dilations[-1:],
        )

    def results(self, data: Dataset) -> Iterator[Result]:
        self.check_shares(data)
        layers = self.chosen_layers()
        for network, seed in product(self.networks(), self.seeds or self.chosen.seeds):
            control = self.control(self.baseline(network, data, seed))
            yield control.start
            yield control
            for layer, fraction in product(layers, self.fractions):
                yield from self.guided(replace(control, annotated_fraction=fraction), layer)
            for layer, dilation in product(self.dilated_layers, self.dilations):
                yield from self.guided(replace(control, dilation=dilation), layer)

    def guided(self, plain: GuidedTraining, layer: str) -> Iterator[Result]:
        """The trainings at a layer with every loss and lambda, and their references.

        Args:
            plain: without a loss, with the share of annotations and the dilation.
            layer: depth or module path.
        """
        attribution = self.attribution_of(plain.start.network, layer)
        control = replace(plain, annotated_fraction=1.0, dilation=0.0)
        yield from self.references(control, attribution)
        scale = plain.annotated_fraction if self.compensate else 1.0
        for loss in self.chosen_losses():
            for weight in self.lambdas_of(loss):
                scaled = float(f"{weight / scale:.12g}")  # 0.05 and not 0.05000000000000001
                yield replace(plain, loss=loss, attribution=attribution, lambda_loc=scaled)

    def check_shares(self, data: Dataset) -> None:
        """Refuse shares that cannot be, by their flags.

        Raises:
            ValueError: a fraction outside (0, 1], a negative dilation, or nothing to do.
        """
        for fraction in self.fractions:
            if not 0 < fraction <= 1:
                raise ValueError(f"--fractions {fraction:g}: must lie above 0 and not above 1")
        for dilation in self.dilations:
            if not 0 <= dilation < math.inf:
                raise ValueError(f"--dilations {dilation:g}: must be 0 or more")
        if not self.fractions and not (self.dilations and self.dilated_layers):
            raise ValueError("give at least one of --fractions, or of --dilations")
        if isinstance(data, DigitScenes):  # it need not be generated to be counted
            self.check_counts(data.images("train"))

    def check_data(self, manifest: Manifest) -> None:
        super().check_data(manifest)
        self.check_counts(manifest.images["train"])

    def check_counts(self, images: int) -> None:
        """Refuse shares that come to no image of a training split."""
        for fraction in self.fractions:
            check_share("--fractions", fraction, images)

    def notes(self) -> list[str]:
        scaled = [f"{f:g}" for f in self.fractions if f != 1 and self.compensate]
        lines = [f"lambda is divided by the annotated share (ours): {', '.join(scaled)}"]
        return super().notes() + (lines if scaled else [])


if __name__ == "__main__":
    launch(GuidanceAnnotations)
