"""How backbones are pre-trained on each dataset: from labels, or by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trainables.models.bcos_network import BcosNetwork
from trainables.models.network import Network
from trainables.ssl.byol import Byol
from trainables.ssl.dino import Dino
from trainables.ssl.method import SslMethod
from trainables.ssl.moco_v2 import MocoV2
from trainables.ssl.view import View


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """How a backbone is trained from labels, by Adam at a constant rate."""

    epochs: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """How a backbone is trained without labels: a method, and fields of ``SslTraining``."""

    method: SslMethod
    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a dataset's backbones are trained."""

    size_px: int
    networks: tuple[str, ...]
    methods: tuple[str, ...]
    supervised: Supervised
    bcos_supervised: Supervised
    """Of B-cos networks."""
    unlabelled: Mapping[str, Unlabelled]
    bcos_unlabelled: Mapping[str, Unlabelled]
    """Of B-cos networks, where they differ."""
    layout: str = ""
    """What lies in the published folder; empty for what is generated."""
    several: bool = False
    """Whether an image has several classes."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Images by split of the generated dataset."""

    def supervised_of(self, network: Network) -> Supervised:
        """From labels."""
        return self.bcos_supervised if isinstance(network, BcosNetwork) else self.supervised

    def unlabelled_of(self, network: Network, method: str) -> Unlabelled:
        """Without labels.

        Raises:
            ValueError: an unknown method.
        """
        known = dict(self.unlabelled)
        if isinstance(network, BcosNetwork):
            known |= self.bcos_unlabelled
        if method not in known:
            raise ValueError(f"unknown pre-training {method!r}; known: {', '.join(known)}")
        return known[method]


# How to Probe, appendix, and its code (spec of probing, section 5): batches of 256, rates for them.
MOCO_V2 = Unlabelled(
    method=MocoV2(),
    fields={
        "epochs": 200,
        "batch_size": 256,
        "optimizer_name": "sgd",
        "learning_rate": 0.03,
        "momentum": 0.9,
        "weight_decay": 1e-4,
    },
)
BYOL = Unlabelled(
    method=Byol(),
    fields={
        "epochs": 200,
        "batch_size": 256,
        "optimizer_name": "lars",
        "learning_rate": 0.3,  # 4.8 for a batch of 4096
        "weight_decay": 1e-6,
        "decays": "weights",
        "warmup_epochs": 10,
    },
)
DINO = Unlabelled(
    method=Dino(),
    fields={
        "epochs": 200,
        "batch_size": 256,
        "optimizer_name": "sgd",
        "learning_rate": 0.03,
        "weight_decay": 1e-4,
        "decays": "weights",
        "warmup_epochs": 10,
        "gradient_limit": 3.0,
    },
)
BCOS_DINO = Unlabelled(
    method=Dino(local_views=8, temperature_epochs=30),
    fields={
        "epochs": 200,
        "batch_size": 256,
        "optimizer_name": "adamw",
        "learning_rate": 1e-3,  # Adam's in the paper; its code's README says 3e-3
        "weight_decay": 0.0,
        "decays": "weights",
        "warmup_epochs": 10,
        "gradient_limit": 3.0,
    },
)
PUBLISHED = {"moco_v2": MOCO_V2, "byol": BYOL, "dino": DINO}
METHODS = ("supervised", *PUBLISHED)
PAPER_NETWORKS = ("resnet50", "bcos_resnet50")


def published(layout: str, *, size_px: int, supervised: Supervised, several: bool = True) -> Recipe:
    """The recipe of a published dataset: the paper's for ImageNet, at another size."""
    return Recipe(
        size_px=size_px,
        networks=PAPER_NETWORKS,
        methods=METHODS,
        supervised=supervised,
        bcos_supervised=supervised,
        unlabelled=PUBLISHED,
        bcos_unlabelled={"dino": BCOS_DINO},
        layout=layout,
        several=several,
    )


# Departs: the rate of supervised trainings is constant, where the code's falls as a cosine.
IMAGENET = published(
    "one folder per class",
    size_px=224,
    supervised=Supervised(epochs=100, batch_size=256, learning_rate=1e-3),
    several=False,
)
# Ours: the paper pre-trains on ImageNet alone. Epochs and rate are those of Model Guidance.
VOC = published(
    "VOCdevkit/VOC2007",
    size_px=224,
    supervised=Supervised(epochs=300, batch_size=64, learning_rate=1e-4),
)
COCO = published(
    "annotations/instances_*.json",
    size_px=448,
    supervised=Supervised(epochs=60, batch_size=64, learning_rate=1e-4),
)
# Ours: what two cores learn in minutes. Digits have a direction, so that views are not mirrored.
SEEN = View(flip=0.0, crop_scale=(0.4, 1.0), blur=0.2, blur_sigma_px=(0.1, 0.6))
SAMPLE_FIELDS: Mapping[str, Any] = {
    "epochs": 16,
    "batch_size": 64,
    "optimizer_name": "adam",
    "learning_rate": 2e-3,
    "weight_decay": 0.0,
    "warmup_epochs": 1,
}
SAMPLE_UNLABELLED = {
    "moco_v2": Unlabelled(
        method=MocoV2(view=SEEN, queue=512, momentum=0.99, channels=64), fields=SAMPLE_FIELDS
    ),
    "byol": Unlabelled(
        method=Byol(view=SEEN, other_view=SEEN, hidden=128, channels=64), fields=SAMPLE_FIELDS
    ),
    "dino": Unlabelled(
        method=Dino(
            view=SEEN,
            other_view=SEEN,
            local_view=replace(SEEN, size_px=32, crop_scale=(0.2, 0.4)),
            local_views=2,
            hidden=128,
            bottleneck=64,
            prototypes=256,
            temperature_epochs=4,
            center_momentum=0.9,
        ),
        fields=SAMPLE_FIELDS | {"gradient_limit": 3.0},
    ),
}
SAMPLE = Recipe(
    size_px=64,
    networks=("small_resnet", "small_bcos_resnet"),
    methods=METHODS,
    supervised=Supervised(epochs=9, batch_size=8, learning_rate=1.5e-3),
    bcos_supervised=Supervised(epochs=9, batch_size=8, learning_rate=3e-3),
    unlabelled=SAMPLE_UNLABELLED,
    bcos_unlabelled={},
)
RECIPES: Mapping[str, Recipe] = {
    "digit_scenes": SAMPLE,
    "imagenet": IMAGENET,
    "voc": VOC,
    "voc2007": VOC,
    "coco": COCO,
    "coco2014": COCO,
}
"""By the name of the dataset."""
