"""How Model Guidance trains on each dataset: the three kinds of networks that it compares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trainables.guided_training import PAPER_BATCH_SIZE, PAPER_SIZE_PX
from trainables.losses.loss import Loss
from trainables.models.bcos_network import BcosNetwork
from trainables.models.bcos_resnet import BcosResNet50, SmallBcosResNet
from trainables.models.fixup_resnet import SmallXResNet, XNetwork, XResNet50
from trainables.models.network import Network
from trainables.models.small_resnet import SmallResNet
from trainables.models.torchvision_resnet import ResNet50

VANILLA, XDNN, BCOS = "vanilla", "xdnn", "bcos"
KINDS = (VANILLA, XDNN, BCOS)
"""Conventional, homogeneous (X-DNN) and B-cos networks."""
ATTRIBUTIONS: Mapping[str, str] = {
    VANILLA: "input_x_gradient",
    XDNN: "input_x_gradient",  # without biases it is integrated gradients with a zero baseline
    BCOS: "bcos",
}
"""The method by which the paper explains each kind (its section 4)."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A dataset's network of one kind, and how it is trained."""

    network: Network
    baseline_learning_rate: float
    """Of Adam. The paper's search is not repeated; see VOC and COCO."""
    learning_rate: float
    baseline_epochs: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a dataset is trained on."""

    size_px: int
    baseline_batch_size: int
    batch_size: int
    kinds: Mapping[str, Kind]
    depths: tuple[str, ...] = ()
    """Depths between input and final that the paper guides too (its supplement)."""
    layout: str = ""
    """What lies in the published folder; empty for what is generated."""

    @property
    def networks(self) -> dict[str, Network]:
        """The dataset's own, by their kinds."""
        return {name: kind.network for name, kind in self.kinds.items()}

    def kind(self, network: Network) -> Kind:
        """How a network is trained: as the dataset's own of its kind."""
        return self.kinds[kind_of(network)]


def kind_of(network: Network) -> str:
    """Which of KINDS a network is; whatever is neither B-cos nor X-DNN is conventional."""
    if isinstance(network, BcosNetwork):
        return BCOS
    return XDNN if isinstance(network, XNetwork) else VANILLA


def lambda_notes(losses: Iterable[Loss], batch_size: int, side_px: int) -> list[str]:
    """By which factor the lambda of each loss is the paper's, where it is another."""
    lines = []
    batch, area = PAPER_BATCH_SIZE / batch_size, (PAPER_SIZE_PX / side_px) ** 2
    for loss in losses:
        factor = batch * area if loss.summed_over_pixels else batch
        if factor != 1:
            pixels = f" x (224/{side_px})^2 pixels" if factor != batch else ""
            lines.append(
                f"lambda of {loss.name}: the paper's x {factor:g} (64/{batch_size} images{pixels})"
            )
    return lines


def paper_kind(network: Network, rate: float, *, baseline_epochs: int, epochs: int) -> Kind:
    """A network of the paper; guided at its one rate, whatever the baseline's is."""
    return Kind(
        network=network,
        baseline_learning_rate=rate,
        learning_rate=1e-4,
        baseline_epochs=baseline_epochs,
        epochs=epochs,
    )


def sample_kind(network: Network, rate: float, *, baseline_epochs: int) -> Kind:
    """A small network, guided for an epoch at the rate of its baseline."""
    return Kind(
        network=network,
        baseline_learning_rate=rate,
        learning_rate=rate,
        baseline_epochs=baseline_epochs,
        epochs=1,
    )


RESNET50 = ResNet50().with_new_head()
XRESNET50 = XResNet50().with_new_head()
BCOS_RESNET50 = BcosResNet50().with_new_head()
"""The paper's three. As in the authors' code, the X-DNN has a new head with a bias, and the B-cos
network keeps the logit bias of ImageNet's 1000 classes."""
# Epochs, batches, sides and the guided rate: Model Guidance, D.1. It chose each baseline's rate
# from 1e-3, 1e-4, 1e-5 by F1 on validation and tells B-cos's on VOC alone, 1e-4. Departs: the
# baselines' rates of vanilla and X-DNN on VOC are ours, taken from it and not searched; those on
# COCO are of a public re-run. --baseline-learning-rate takes another.
VOC = Recipe(
    size_px=PAPER_SIZE_PX,
    baseline_batch_size=PAPER_BATCH_SIZE,
    batch_size=PAPER_BATCH_SIZE,
    kinds={
        VANILLA: paper_kind(RESNET50, 1e-4, baseline_epochs=300, epochs=50),
        XDNN: paper_kind(XRESNET50, 1e-4, baseline_epochs=300, epochs=50),
        BCOS: paper_kind(BCOS_RESNET50, 1e-4, baseline_epochs=300, epochs=50),
    },
    depths=("mid1", "mid2", "mid3"),
    layout="VOCdevkit/VOC2007",
)
COCO = Recipe(
    size_px=PAPER_SIZE_PX,
    baseline_batch_size=PAPER_BATCH_SIZE,
    batch_size=PAPER_BATCH_SIZE,
    kinds={
        VANILLA: paper_kind(RESNET50, 1e-4, baseline_epochs=60, epochs=10),
        XDNN: paper_kind(XRESNET50, 1e-5, baseline_epochs=60, epochs=10),
        BCOS: paper_kind(BCOS_RESNET50, 1e-4, baseline_epochs=60, epochs=10),
    },
    layout="annotations/instances_*.json",
)
# Ours: what two cores learn in minutes. Each kind's rate and epochs were chosen once, by the F1 on
# validation of the baseline of seed 0, for 0.75 to 0.90 in the fewest seconds, before any guided
# result of theirs was seen; guided trainings take the baseline's rate, as on VOC. Reached: vanilla
# 0.89; xdnn 0.82 (seeds 1 and 2: 0.83, 0.73; otherwise 0.75 after 16 epochs at 1e-3, 0.27 after 10
# at 3e-3, 0.06 after 10 at 6e-3); bcos 0.83 (seed 1: 0.83; at 3e-3, 5e-3, 1e-2 after 6 epochs 0.69,
# 0.71, 0.49).
SAMPLE = Recipe(
    size_px=64,
    baseline_batch_size=8,
    batch_size=16,
    kinds={
        VANILLA: sample_kind(SmallResNet(), 1.5e-3, baseline_epochs=9),
        XDNN: sample_kind(SmallXResNet().with_new_head(), 2e-3, baseline_epochs=16),
        # keeps its own logit bias: with it the rate was chosen, and it was never ImageNet's
        BCOS: sample_kind(SmallBcosResNet(), 3e-3, baseline_epochs=9),
    },
    depths=("mid1", "mid2", "mid3"),
)
RECIPES: Mapping[str, Recipe] = {
    "digit_scenes": SAMPLE,
    "voc": VOC,
    "voc2007": VOC,
    "coco": COCO,
    "coco2014": COCO,
}
"""By the name of the dataset."""


def check_share(flag: str, fraction: float, images: int) -> None:
    """Refuse a share of annotated images that comes to none of a training split.

    Raises:
        ValueError: names the flag, the share and the least that is allowed.
    """
    if int(fraction * images) < 1:
        raise ValueError(
            f"{flag} {fraction:g}: of {images} training images none would be annotated; give at "
            f"least {math.ceil(1e4 / images) / 1e4:g}"
        )
