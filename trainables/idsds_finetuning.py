"""Fine-tuning with deleted patches, so that deletions are what a network knows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

import trainables.metrics  # noqa: F401  (registers the metrics)
from data_pipelines.augmentation import Windows, central_windows
from data_pipelines.dataset import Dataset
from data_pipelines.image_set import ImageSet
from data_pipelines.patches import Patches, cell_sides, deleted_pixels
from data_pipelines.resized_crops import DRAWS, ResizedCrops, random_resized_crops
from trainables.baselines import Baseline, Zero
from trainables.batch import Batch
from trainables.classifier_training import ClassifierTraining, single_labels
from trainables.losses.classification import classification_loss
from trainables.models.network import Model, evaluating
from trainables.result import Result
from trainables.scoring import BATCH_SIZE, score
from trainables.training import (
    CROPPED,
    DELETED,
    HELD_OUT,
    FromClassifier,
    Losses,
    best_epoch,
    restore,
)
from trainables.trial import Trial


@dataclass(frozen=True)
class Plan:
    """What happens to each image of an epoch, drawn once: N is the split, not a batch.

    Attributes:
        epoch: which.
        cells: cell that is deleted, (N,).
        whole: whether the image stays whole all the same, (N,), bool.
        crops: what is seen of each image.
    """

    epoch: int
    cells: np.ndarray
    whole: np.ndarray
    crops: ResizedCrops | Windows


@dataclass(frozen=True, kw_only=True)
class IdsdsFinetuning(FromClassifier):
    """One random cell of half of the images is deleted, anew each epoch; the rest stays whole.

    The cell does not depend on the image or its class, so it tells nothing about the class. Starts
    from a classifier's best epoch and keeps its objective.

    Source: IDSDS (Hesse et al., 2024), section 3, appendices B and E, and the authors' code.
    Departs: crops are cut from the image resized to a square; draws are a function of (seed, epoch,
        image), where the code draws from one global stream.
    """

    name: ClassVar[str] = "idsds_finetuning"
    paper: ClassVar[str] = "IDSDS, NeurIPS Datasets and Benchmarks 2024"

    start: ClassifierTraining
    patches: Patches = field(default=16, metadata={"short": "p"})
    """Cells of the grid; 16 in the paper, with 4 and 64 as variants."""
    baseline_image: Baseline = field(default_factory=Zero)
    """What stands where a cell is deleted. Zero in the paper, with random and blur as variants."""
    epochs: int = field(default=30)
    """30 in the paper."""
    batch_size: int = field(default=256)
    """256 in the paper."""
    learning_rate: float = field(default=1e-3)
    """0.001 in the paper, 0.01 for its B-cos ResNet-50."""
    momentum: float = 0.9
    """Of stochastic gradient descent. 0.9 in the paper."""
    weight_decay: float = 1e-4
    """On all parameters. 0.0001 in the paper."""
    step_epochs: int = 10
    """Epochs after which the learning rate falls. 10 in the paper."""
    step_factor: float = 0.1
    """By what it is multiplied then. 0.1 in the paper."""
    augmentation: Literal["none", "crop"] = "none"
    """Whether the network sees random resized crops, mirrored or not, as in the paper; the cell is
    deleted from the crop. None by default: the sample's digits are no digits when mirrored."""
    crop_scale: float = 0.08
    """Least share of the image that a crop shows. 0.08 in the paper, torchvision's default."""
    kept_epoch: Literal["last", "held_out", "best"] = "last"
    """Whose weights are the result: the last, the best on images that are held out of training, or
    the best on the validation split, which the authors' code then reports."""
    held_out_share: float = 0.1
    """Share of the training images that select where ``kept_epoch`` says so. Ours. The classifier
    that it starts from has seen them: they tell when fine-tuning harms, not how well it does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.momentum < 1 and self.weight_decay >= 0):
            raise ValueError(
                f"momentum = {self.momentum}, weight_decay = {self.weight_decay}: the momentum "
                "must lie in [0, 1), the decay must not be negative"
            )
        if self.step_epochs < 1 or not 0 < self.step_factor <= 1:
            raise ValueError(
                f"step_epochs = {self.step_epochs}, step_factor = {self.step_factor}: the step "
                "must be at least 1 epoch, the factor must lie in (0, 1]"
            )
        if not 0 < self.crop_scale <= 1:
            raise ValueError(f"crop_scale = {self.crop_scale}: must lie in (0, 1]")
        if not 0 < self.held_out_share < 1:
            raise ValueError(
                f"held_out_share = {self.held_out_share}: must lie between 0 and 1, both excluded"
            )

    @property
    def selected_by(self) -> str:
        """The metric whose highest value tells the best epoch."""
        return "held_out/accuracy" if self.kept_epoch == "held_out" else "val/accuracy"

    @property
    def label(self) -> str:
        how = f"{self.patches} patches, {self.baseline_image.key}"
        return f"idsds finetuning {how} {self.start.network.key} seed {self.seed}"

    @property
    def baseline(self) -> ClassifierTraining:
        return self.start

    @property
    def dataset(self) -> Dataset:
        return self.start.dataset

    @property
    def size_px(self) -> int:
        return self.start.size_px

    @property
    def dependencies(self) -> tuple[Result, ...]:
        return (self.start,)

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    @property
    def directions(self) -> dict[str, str]:
        return self.start.directions

    def cost(self, images: dict[str, int]) -> float:
        """A step costs three forwards."""
        return self.epochs * (3.0 * images["train"] + images["val"])

    def check(self) -> None:
        """The grid fits the images."""
        cell_sides(self.patches, self.size_px, self.size_px)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            module.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def rate_at(self, epoch: int) -> float:
        """Multiplied by the factor after every so many epochs."""
        return self.learning_rate * self.step_factor ** ((epoch - 1) // self.step_epochs)

    def keeps(self, history: list[dict[str, float]]) -> set[int]:
        """The last epoch, or the best by what selects; the other would never be read."""
        last = self.kept_epoch == "last"
        return {len(history) if last else best_epoch(history, self.selected_by)}

    def held_out(self, trial: Trial, images: int) -> np.ndarray:
        """A share drawn by seed, if it is to select the epoch."""
        if self.kept_epoch != "held_out":
            return super().held_out(trial, images)
        order = trial.generator(HELD_OUT).permutation(images)
        return np.sort(order[: math.ceil(self.held_out_share * images)])

    def compute(self, trial: Trial) -> None:
        images, validation = trial.images("train"), trial.images("val")
        for split in (images, validation):
            single_labels(split)
        model = self.start.network.build(len(images.classes))
        model.module.to(trial.device)
        started = trial.summary_of(self.start)
        restore(trial, self.start, started, started["epoch"], model)
        plan_of = lru_cache(maxsize=1)(partial(self.plan, trial, images))  # of a whole epoch

        def step(epoch: int, chosen: np.ndarray) -> Losses:
            model.module.train()
            batch = self.deleted(trial, model, images, plan_of(epoch), chosen)
            labels = torch.from_numpy(images.labels[chosen]).to(batch.images)
            loss = classification_loss(self.start.objective, model.module(batch.images), labels)
            loss.backward()
            return {"loss": loss.item()}

        selecting = self.held_out(trial, len(images))

        def evaluate() -> dict[str, float]:
            metrics = score(model, validation, trial.device).as_metrics("val")
            if len(selecting):
                metrics["held_out/accuracy"] = accuracy(model, images, selecting, trial.device)
            return metrics

        state = self.fit(trial, model, step, evaluate)
        best = best_epoch(state.history, self.selected_by)
        kept = state.epoch if self.kept_epoch == "last" else best
        trial.finish({"epoch": kept, "weights": state.notes["weights"]})

    def plan(self, trial: Trial, images: ImageSet, epoch: int) -> Plan:
        """What happens to each image of an epoch."""
        cells, whole = draw_deletions(trial, self.patches, epoch, len(images))
        return Plan(epoch, cells, whole, self.crops(trial, epoch, images))

    def deleted(
        self, trial: Trial, model: Model, images: ImageSet, plan: Plan, chosen: np.ndarray
    ) -> Batch:
        """The chosen images of an epoch, encoded, some with one cell deleted; no explanations."""
        pixels = deleted_pixels(
            plan.cells[chosen], plan.whole[chosen], self.patches, images.size_px, images.size_px
        )
        seen = plan.crops.of(images.images(chosen), chosen)
        encoded = model.encode(torch.from_numpy(seen).to(trial.device))
        nobody = torch.empty(0, dtype=torch.long, device=trial.device)
        # the epoch is part of the names, so that a random baseline is drawn anew in each
        names = [f"{images.image_ids[index]} in epoch {plan.epoch}" for index in chosen]
        batch = Batch(images=encoded, image_ids=names, image_index=nobody, targets=nobody)
        mask = torch.from_numpy(pixels).to(trial.device).unsqueeze(1)
        return replace(batch, images=torch.where(mask, self.baseline_image.images(batch), encoded))

    def crops(self, trial: Trial, epoch: int, images: ImageSet) -> ResizedCrops | Windows:
        """What the network sees of each image in an epoch: a function of (seed, epoch, image)."""
        size_px = images.size_px
        if self.augmentation == "none":
            return central_windows(len(images), size_px, size_px)
        draws = trial.generator(CROPPED, epoch).random((len(images), DRAWS))
        return random_resized_crops(draws, size_px, size_px, (self.crop_scale, 1.0))


def accuracy(model: Model, images: ImageSet, chosen: np.ndarray, device: torch.device) -> float:
    """Share of the chosen images of one class each that are classified correctly."""
    correct = 0
    parts = np.split(chosen, range(BATCH_SIZE, len(chosen), BATCH_SIZE))
    with evaluating(model.module), torch.no_grad(), images.expecting(parts):
        for part in parts:
            logits = model.module(model.encode(torch.from_numpy(images.images(part)).to(device)))
            correct += int((logits.argmax(1).cpu().numpy() == images.labels[part].argmax(1)).sum())
    return correct / len(chosen)


def draw_deletions(
    trial: Trial, patches: int, epoch: int, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each image of an epoch a cell, (N,), and whether the image stays whole all the same.

    Both are independent and uniform: a function of (seed, epoch, image), whatever the batches are.
    """
    draws = trial.generator(DELETED, epoch)
    return draws.integers(patches, size=images), draws.integers(2, size=images).astype(bool)
