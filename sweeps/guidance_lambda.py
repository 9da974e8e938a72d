"""Which localization loss gives the best trade-off of F1 against EPG and IoU?

Model Guidance (Rao et al., ICCV 2023), section 5.1, figures 5 and 6, and its supplement.

    python sweeps/guidance_lambda.py                  # the generated sample, local Ray, minutes
    python sweeps/guidance_lambda.py --grid kinds     # the same with all three kinds of networks
    python sweeps/guidance_lambda.py --address auto --dataset voc2007 --data-root DIR

Every loss, lambda, layer, network and seed is one training that starts from the seed's baseline;
the control is the same training without a loss. `--dry-run` lists them with what they will cost.
Report: python -m analysis.report --experiment guidance_lambda
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar, Literal

from data_pipelines.dataset import Dataset
from sweeps.guidance_sweep import Grid, GuidanceSweep
from sweeps.launch import launch
from sweeps.recipes import KINDS, VANILLA
from trainables.losses.loss import Loss
from trainables.result import Result

Repeat = Literal["all", "largest"]
PAPER_LOSSES = ("energy", "l1", "ppce", "rrr_star")


@dataclass(frozen=True, kw_only=True)
class GuidanceLambda(GuidanceSweep):
    """Which localization loss gives the best trade-off of F1 against EPG and IoU?"""

    question: ClassVar[str] = "guidance_lambda"
    grids: ClassVar[Mapping[str, Grid]] = {
        "demo": Grid(models=(VANILLA,), losses=tuple(Loss.registered), seeds=(0, 1, 2)),
        "kinds": Grid(models=KINDS, losses=PAPER_LOSSES, lambdas="ends"),
        "paper": Grid(models=KINDS, losses=PAPER_LOSSES, supplement=True),
    }

    grid: str = ""
    """What the other flags leave open. demo: one conventional network, all losses with their three
    lambdas, input and final, three seeds. kinds: the three kinds of networks, the paper's losses
    with their smallest and largest lambda, input and final, one seed. paper: the same with the
    three lambdas, Grad-CAM at final, and mid1 to mid3 but on COCO. Empty: demo on the sample, paper
    on published data."""
    repeat: Repeat = "all"
    """What the seeds after the first repeat: all lambdas, or each loss's largest, which tells the
    spread at a third of the cost."""

    def maps(self) -> list[tuple[str, str]]:
        """Layers and methods, the empty one being the paper's of each kind of network.

        A flag that names either leaves the supplement out.
        """
        found = [(layer, "") for layer in self.chosen_layers()]
        if self.chosen.supplement and self.layers is None and not self.attribution:
            found += [("final", "grad_cam"), *((layer, "") for layer in self.recipe.depths)]
        return found

    def results(self, data: Dataset) -> Iterator[Result]:
        losses, maps = self.chosen_losses(), self.maps()
        seeds = self.seeds or self.chosen.seeds
        for network, seed in product(self.networks(), seeds):
            control = self.control(self.baseline(network, data, seed))
            yield control.start
            yield control
            for layer, method in maps:
                attribution = self.attribution_of(network, layer, method)
                yield from self.references(control, attribution)
                for loss in losses:
                    weights = self.lambdas_of(loss)
                    if seed != seeds[0] and self.repeat == "largest":
                        weights = tuple(sorted(weights)[-1:])
                    for weight in weights:
                        yield replace(
                            control, loss=loss, attribution=attribution, lambda_loc=weight
                        )


if __name__ == "__main__":
    launch(GuidanceLambda)
