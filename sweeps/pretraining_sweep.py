"""What the sweeps on pre-trained backbones share: the data, the networks, how they are trained.

Equal flags give equal results, whichever sweep asks: what one has computed, the others find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import trainables.attribution
import trainables.models
import trainables.ssl  # noqa: F401  (each registers its classes)
from data_pipelines.dataset import Dataset
from sweeps.launch import Sweep
from sweeps.pretraining_recipes import RECIPES, Recipe
from trainables.backbone import Backbone, TrainedBackbone, UntrainedBackbone
from trainables.classifier_training import ClassifierTraining, Objective
from trainables.models.network import Network
from trainables.models.user_network import network_of
from trainables.ssl_training import SslTraining
from trainables.training import Training

UNTRAINED, SUPERVISED = "none", "supervised"
OBJECTIVES: dict[str, Objective] = {"supervised_ce": "ce", "supervised_bce": "bce"}


@dataclass(frozen=True, kw_only=True)
class PretrainingSweep(Sweep):
    """Flags of every sweep whose backbones may be trained here."""

    dataset: str = "digit_scenes"
    """digit_scenes (generated); imagenet, voc2007, coco2014 (as published); voc, coco (their
    layouts, other classes)."""
    layout: Literal["imagenet", "voc", "coco"] = "imagenet"
    """Of digit_scenes: one digit an image (imagenet), or several (voc, coco)."""
    networks: tuple[str, ...] = ()
    """Networks by name, or package.module:build. Empty: resnet50 and bcos_resnet50 as in the paper,
    small_resnet and small_bcos_resnet on the sample."""
    pretraining_epochs: int = 0
    """Epochs of every pre-training. 0: those of its recipe, 200 without labels and 100 with them on
    ImageNet as in the paper."""

    @property
    def recipe(self) -> Recipe:
        """How the dataset's backbones are trained.

        Raises:
            ValueError: an unknown dataset.
        """
        if self.dataset not in RECIPES:
            raise ValueError(f"unknown --dataset {self.dataset!r}; known: {', '.join(RECIPES)}")
        return RECIPES[self.dataset]

    @property
    def several(self) -> bool:
        """Whether an image has several classes."""
        return self.recipe.several or (not self.recipe.layout and self.layout != "imagenet")

    def data(self) -> Dataset:
        layout = self.recipe.layout
        if layout and not self.data_root:
            raise ValueError(
                f"--dataset {self.dataset} needs --data-root, the folder that holds {layout}"
            )
        fields: dict[str, Any] = {}
        if not layout:
            fields["layout"] = self.layout
            if self.smoke:
                fields |= {"images_train": 96, "images_val": 24}
                if self.several:
                    fields |= {"images_val": 48, "images_test": 48}
        return Dataset.named(self.dataset, root=self.data_root, **fields)

    def architectures(self) -> list[Network]:
        """The networks that are asked for, each once.

        Raises:
            ValueError: an unknown one, or one without features that could be probed.
        """
        found = [network_of(name) for name in self.networks or self.recipe.networks]
        for network in found:
            if not network.probed_at:
                raise ValueError(
                    f"--networks {network.name}: says nothing of where its features are "
                    "(probed_at); take another"
                )
        return list(dict.fromkeys(found))

    def backbone(self, network: Network, pretraining: str, data: Dataset, seed: int) -> Backbone:
        """A network with the weights of a pre-training of ours, or the random ones of the seed.

        Args:
            network: the architecture.
            pretraining: ``none``, ``supervised`` (by the loss that suits the data),
                ``supervised_ce``, ``supervised_bce`` or a self-supervised method.
            data: what it is trained on.
            seed: of the weights.

        Raises:
            ValueError: an unknown pre-training.
        """
        if pretraining == UNTRAINED:
            return UntrainedBackbone(network=network, seed=seed)
        return TrainedBackbone(of=self.training(network, pretraining, data, seed))

    def training(self, network: Network, pretraining: str, data: Dataset, seed: int) -> Training:
        """The training behind a backbone.

        Raises:
            ValueError: an unknown pre-training, or cross-entropy where an image has several
                classes.
        """
        if pretraining == SUPERVISED:
            pretraining = "supervised_bce" if self.several else "supervised_ce"
        if pretraining in OBJECTIVES:
            return self.supervised(network, OBJECTIVES[pretraining], data, seed)
        recipe = self.recipe.unlabelled_of(network, pretraining)
        values = dict(recipe.fields)
        if self.pretraining_epochs:
            values["epochs"] = self.pretraining_epochs
            values["warmup_epochs"] = min(
                values.get("warmup_epochs", 0), self.pretraining_epochs - 1
            )
        return SslTraining(
            network=network,
            data=data,
            method=recipe.method,
            image_size_px=self.recipe.size_px,
            seed=seed,
            **values,
        )

    def supervised(
        self, network: Network, objective: Objective, data: Dataset, seed: int
    ) -> ClassifierTraining:
        """The network trained as a whole, from labels.

        Raises:
            ValueError: cross-entropy where an image has several classes.
        """
        if objective == "ce" and self.several:
            raise ValueError(
                f"supervised_ce: images of {self.dataset} have several classes and cross-entropy "
                "needs one; take supervised_bce"
            )
        recipe = self.recipe.supervised_of(network)
        return ClassifierTraining(
            network=network,
            data=data,
            objective=objective,
            image_size_px=self.recipe.size_px,
            epochs=self.pretraining_epochs or recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            seed=seed,
        )

    def check_epochs(self) -> None:
        """Refuse a negative number of epochs, by its flag."""
        if self.pretraining_epochs < 0:
            raise ValueError(
                f"--pretraining-epochs {self.pretraining_epochs}: expected 1 or more, or 0 for the "
                "recipe's"
            )
