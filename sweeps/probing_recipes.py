"""How the study of probes trains probes and judges their maps, on each dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainables.attribution.attribution import Attribution
from trainables.models.bcos_network import BcosNetwork
from trainables.models.network import Network
from trainables.probe_recipes import RECIPES as PUBLISHED

CONVENTIONAL, BCOS, TRANSFORMER, BCOS_TRANSFORMER = (
    *("conventional", "bcos", "transformer", "bcos_transformer"),
)
"""Kinds of networks, by what explains them."""
METHODS: Mapping[str, tuple[str, ...]] = {
    CONVENTIONAL: (
        *("lrp", "integrated_gradients", "input_x_gradient", "grad_cam", "guided_backprop"),
    ),
    BCOS: ("bcos", "integrated_gradients", "input_x_gradient", "grad_cam"),
    TRANSFORMER: ("transformer_attribution", "rollout"),
    BCOS_TRANSFORMER: ("bcos",),
}
"""Methods of each kind that the paper compares, the one that it is about first. LIME and ScoreCAM
are asked for by name: a map of theirs costs hundreds of forwards."""


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What maps are made of, and how many."""

    images: int = 0
    """Images of the split; 0 for all."""
    grids: int = 500
    """Mosaics. 500 in the paper."""
    side: Literal[2, 3] = 3
    """Images along a side of a mosaic. 3 in the paper."""
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of methods that are not their defaults."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a dataset's backbones are probed."""

    probes: str
    """Name of the probes' recipe where no flag names another."""
    pretrainings: tuple[str, ...]
    """Of the backbones that are trained here; ``none`` is the control."""
    judging: Judging = Judging()
    transformer: str = ""
    """Network of the negative control, whose weights are random; empty for none."""


# Ours: what two cores learn in seconds.
SAMPLE_PROBES: Mapping[str, Any] = {
    "epochs": 16,
    "batch_size": 64,
    "learning_rate": 1e-2,
    "warmup_epochs": 1,
    "augmentation": "none",
}
PROBES: Mapping[str, Mapping[str, Any]] = {**PUBLISHED, "sample": SAMPLE_PROBES}
"""Fields of ``ProbeTraining`` by the names that ``--recipe-of-probes`` takes."""
FROM_SCRATCH = ("supervised", "moco_v2", "byol", "dino")
SAMPLE_JUDGING = Judging(
    images=32,
    grids=16,
    side=2,
    methods={
        "integrated_gradients": {"steps": 10},
        "lime": {"samples": 60},
        "rise": {"masks": 200},
    },
)
RECIPES: Mapping[str, Recipe] = {
    "digit_scenes": Recipe(
        probes="sample",
        pretrainings=("supervised", "moco_v3", "none"),
        judging=SAMPLE_JUDGING,
        transformer="small_vit",
    ),
    "imagenet": Recipe(probes="paper", pretrainings=FROM_SCRATCH),
    **dict.fromkeys(
        ("voc", "voc2007", "coco", "coco2014"),
        Recipe(probes="paper_multi_label", pretrainings=FROM_SCRATCH),
    ),
}
"""By the name of the dataset."""


def kind_of(network: Network) -> str:
    """Which kind a network is."""
    tokens = network.probe_form != "map"
    if isinstance(network, BcosNetwork):
        return BCOS_TRANSFORMER if tokens else BCOS
    return TRANSFORMER if tokens else CONVENTIONAL


def methods_of(network: Network, names: tuple[str, ...], judging: Judging) -> list[Attribution]:
    """The methods asked for, or the paper's for this kind of network.

    Raises:
        ValueError: an unknown one.
    """
    return [
        Attribution.named(name, **judging.methods.get(name, {}))
        for name in dict.fromkeys(names or METHODS[kind_of(network)])
    ]
