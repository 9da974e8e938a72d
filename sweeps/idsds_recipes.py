"""How IDSDS trains and judges on each dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from trainables.attribution.sets import AS_RUN
from trainables.classifier_training import Objective
from trainables.models.bcos_network import BcosNetwork
from trainables.models.network import Network

SAMPLE_TRAININGS: dict[str, tuple[int, float]] = {
    "small_bcos_resnet": (9, 3e-3),
    "small_fixup_resnet": (12, 2e-3),
    "small_vit": (12, 3e-4),
    "small_xresnet": (16, 2e-3),
}
"""Epochs and rate of networks that learn the sample otherwise than small_resnet."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a dataset is trained on and judged."""

    size_px: int
    epochs: int
    batch_size: int
    learning_rate: float
    finetuning_epochs: int
    finetuning_batch_size: int
    finetuning_learning_rate: float
    step_epochs: int
    augmentation: Literal["none", "crop"]
    """What fine-tuning sees of an image, beside its deletions."""
    models: tuple[str, ...]
    """Networks of the ranking of methods."""
    designs: tuple[str, ...]
    """Networks of the comparison of designs."""
    after_softmax: tuple[str, ...]
    """Of these, the networks whose methods explain probabilities as well."""
    yardstick: tuple[str, str]
    """Of these, the two unrelated networks that show what a large difference is."""
    stability: tuple[str, ...]
    """Of these, the networks that are fine-tuned with other grids, baselines and seeds, too."""
    stability_seeds: int
    """With how many seeds."""
    methods: tuple[str, ...]
    """Methods of that comparison."""
    design_images: int = 0
    """Images on which designs are compared; 0 for all of the split."""
    left_out: tuple[str, ...] = ()
    """Of these, by name: what would take the sample's minutes."""
    images: int
    grids: int
    grid_side: Literal[2, 3]


IMAGENET = (
    Recipe(  # IDSDS, appendix E; the classifier's epochs are ours: the paper has published weights
        size_px=224,
        epochs=90,
        batch_size=256,
        learning_rate=1e-3,
        finetuning_epochs=30,
        finetuning_batch_size=256,
        finetuning_learning_rate=1e-3,
        step_epochs=10,
        augmentation="crop",
        models=("resnet50",),
        designs=(
            *("resnet18", "resnet50", "resnet101", "resnet152", "wide_resnet50_2"),
            *("fixup_resnet50", "xresnet50", "vgg11", "vgg13", "vgg16", "vgg19", "vgg16_bn"),
            *("xvgg16", "vit_base_patch16", "bcos_resnet50", "bagnet33"),
        ),
        after_softmax=("resnet50", "vgg16"),  # those of the paper's code
        yardstick=("resnet50", "vgg16"),
        stability=("resnet50",),
        stability_seeds=5,
        methods=(AS_RUN,),
        images=0,
        grids=500,  # How to Probe
        grid_side=3,
    )
)
SAMPLE = Recipe(  # ours: what two cores do in minutes
    size_px=64,
    epochs=9,
    batch_size=8,
    learning_rate=1.5e-3,
    finetuning_epochs=3,
    finetuning_batch_size=16,
    finetuning_learning_rate=1e-2,
    step_epochs=2,
    augmentation="none",  # a mirrored digit is none
    models=("small_resnet",),
    designs=(
        *("small_resnet", "small_deep_resnet", "small_wide_resnet", "small_fixup_resnet"),
        *("small_xresnet", "small_vgg", "small_vit", "small_bcos_resnet", "small_bagnet"),
    ),
    after_softmax=("small_resnet", "small_vgg"),
    yardstick=("small_resnet", "small_vgg"),
    stability=("small_resnet",),
    stability_seeds=2,
    methods=(AS_RUN,),
    design_images=100,  # the gate is about a point of accuracy: an image
    left_out=("rise", "smooth_grad_integrated_gradients"),
    images=100,
    grids=25,
    grid_side=2,
)
RECIPES = {"digit_scenes": SAMPLE, "imagenet": IMAGENET}


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe:
    """How a network is trained where it is not as the others."""

    objective: Objective = "ce"
    epochs: int
    learning_rate: float
    finetuning_learning_rate: float


def network_recipe(dataset: str, network: Network) -> NetworkRecipe:
    """How a network is trained on a dataset, and fine-tuned.

    B-cos networks learn by BCE; on ImageNet their fine-tuning has ten times the rate.

    Source: IDSDS (Hesse et al., 2024), appendix E. The sample's numbers are ours.
    """
    recipe = RECIPES[dataset]
    objective: Objective = "bce" if isinstance(network, BcosNetwork) else "ce"
    if dataset == "imagenet":
        factor = 10.0 if objective == "bce" else 1.0
        return NetworkRecipe(
            objective=objective,
            epochs=recipe.epochs,
            learning_rate=recipe.learning_rate,
            finetuning_learning_rate=factor * recipe.finetuning_learning_rate,
        )
    epochs, rate = SAMPLE_TRAININGS.get(network.name, (recipe.epochs, recipe.learning_rate))
    return NetworkRecipe(
        objective=objective,
        epochs=epochs,
        learning_rate=rate,
        finetuning_learning_rate=recipe.finetuning_learning_rate,
    )


SAMPLE_METHODS: dict[str, dict[str, Any]] = {
    "lime": {"samples": 60},
    "rise": {"masks": 200},
    "smooth_grad": {"samples": 8},
    "smooth_grad_input_x_gradient": {"samples": 8},
    "smooth_grad_integrated_gradients": {"samples": 4, "steps": 16},
    "smooth_grad_saliency": {"samples": 8},
}
"""Fewer perturbed copies on the sample, whose images are small; said before it starts."""
