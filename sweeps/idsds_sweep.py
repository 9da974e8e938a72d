"""What the sweeps of IDSDS share: data, training, fine-tuning, methods at the sample's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from data_pipelines.dataset import Dataset
from data_pipelines.patches import Patches
from sweeps.idsds_recipes import RECIPES, SAMPLE_METHODS, network_recipe
from sweeps.launch import Sweep
from sweeps.networks import starting_files
from trainables.attribution.attribution import Attribution
from trainables.baselines import Baseline
from trainables.classifier_training import ClassifierTraining
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.models.network import Network
from trainables.models.pretrained import PretrainedWeights
from trainables.published_classifier import PublishedClassifier
from trainables.published_finetuning import PublishedFinetuning


@dataclass(frozen=True)
class Variant:
    """A way to fine-tune: the cells of the grid, what stands where one is deleted, the seed."""

    patches: Patches
    baseline: Baseline
    seed: int


@dataclass(frozen=True, kw_only=True)
class IdsdsSweep(Sweep):
    """Flags of both."""

    dataset: str = "digit_scenes"
    """digit_scenes (generated, one digit an image) or imagenet (as published)."""
    weights: tuple[str, ...] = ()
    """MODEL=FILE, published classifiers to fine-tune; without a file a network is trained first."""
    finetuned_weights: tuple[str, ...] = ()
    """MODEL=FILE, published fine-tuned classifiers: judged as they are, beside those of --weights.
    That they know the grid and the baseline that are asked for is taken on trust."""
    epochs: int = 0
    """Epochs of a classifier that is trained. 0: the recipe's, 90 and on the sample 9 to 16."""
    finetuning_epochs: int = 0
    """Epochs of fine-tuning. 0: 30 as in the paper, 3 on the sample."""
    kept_epoch: Literal["last", "held_out", "best"] = "last"
    """The fine-tuned network: its last epoch, the best on images held out of training, or the best
    on the images that are then judged, as in the paper's code."""

    def data(self) -> Dataset:
        if self.dataset not in RECIPES:
            raise ValueError(f"unknown --dataset {self.dataset!r}; known: {', '.join(RECIPES)}")
        if self.dataset == "digit_scenes":
            sizes = {"images_train": 96, "images_val": 24} if self.smoke else {}
            return Dataset.named(self.dataset, root=self.data_root, layout="imagenet", **sizes)
        if not self.data_root:
            raise ValueError(f"--dataset {self.dataset} needs --data-root, the published folder")
        return Dataset.named(self.dataset, root=self.data_root)

    def at_size(self, method: Attribution) -> Attribution:
        """The method with the sample's number of copies, on the sample."""
        fewer = SAMPLE_METHODS.get(method.name, {}) if self.dataset == "digit_scenes" else {}
        return replace(method, **fewer)

    def classifier(
        self, network: Network, data: Dataset, seed: int, file: PretrainedWeights | None
    ) -> ClassifierTraining:
        """The network before it knows deleted patches."""
        recipe, own = RECIPES[self.dataset], network_recipe(self.dataset, network)
        if file is not None:
            return PublishedClassifier(
                network=network,
                data=data,
                objective=own.objective,
                image_size_px=recipe.size_px,
                pretrained=file,
            )
        return ClassifierTraining(
            network=network,
            data=data,
            objective=own.objective,
            image_size_px=recipe.size_px,
            epochs=self.epochs or own.epochs,
            batch_size=recipe.batch_size,
            learning_rate=own.learning_rate,
            seed=seed,
        )

    def finetuned_files(
        self, networks: Sequence[Network], files: Mapping[Network, PretrainedWeights]
    ) -> dict[Network, PretrainedWeights]:
        """The files of --finetuned-weights by their networks.

        Args:
            networks: of the sweep.
            files: those of --weights.

        Raises:
            ValueError: as in ``starting_files``; or what a network was fine-tuned from has no file.
            FileNotFoundError: there is no such file.
        """
        flag, kinds = "--finetuned-weights", {network.name: network for network in networks}
        found = starting_files(self.finetuned_weights, kinds, networks, flag)
        for network in found:
            if network not in files:
                raise ValueError(
                    f"{flag} {network.name}: is compared with what it was fine-tuned from; give "
                    f"that, too: --weights {network.name}=FILE"
                )
        return found

    def finetuned(
        self,
        classifier: ClassifierTraining,
        variant: Variant,
        file: PretrainedWeights | None = None,
    ) -> IdsdsFinetuning:
        """The network once it knows them; a published classifier has no seed, its tuning has."""
        if file is not None:
            return PublishedFinetuning(
                start=classifier,
                patches=variant.patches,
                baseline_image=variant.baseline,
                pretrained=file,
            )
        recipe = RECIPES[self.dataset]
        own = network_recipe(self.dataset, classifier.network)
        return IdsdsFinetuning(
            start=classifier,
            patches=variant.patches,
            baseline_image=variant.baseline,
            epochs=self.finetuning_epochs or recipe.finetuning_epochs,
            batch_size=recipe.finetuning_batch_size,
            learning_rate=own.finetuning_learning_rate,
            step_epochs=recipe.step_epochs,
            augmentation=recipe.augmentation,
            kept_epoch=self.kept_epoch,
            seed=variant.seed,
        )
