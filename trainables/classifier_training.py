"""Train a classifier: the baseline that guided trainings and fine-tunings start from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

import trainables.models  # noqa: F401  (registers the networks)
from data_pipelines.dataset import Dataset
from data_pipelines.image_set import ImageSet
from trainables.losses.classification import Objective, classification_loss
from trainables.metrics.classification import ClassificationMetric
from trainables.models.network import Network
from trainables.models.pretrained import PretrainedWeights
from trainables.scoring import score
from trainables.training import FromClassifier, Losses, best_epoch
from trainables.trial import Trial


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining(FromClassifier):
    """Training from random or pretrained weights; the epoch is selected on the validation split.

    Source: Model Guidance (Rao et al., ICCV 2023), section 4 and D.1.1, for several classes an
        image.
    """

    name: ClassVar[str] = "classifier_training"
    paper: ClassVar[str] = "Model Guidance, ICCV 2023"

    network: Network
    data: Dataset
    image_size_px: int = 224
    """Side that images are resized to, aspect ignored. 224 in the paper."""
    epochs: int = field(default=300)
    """300 on VOC, 60 on COCO."""
    pretrained: PretrainedWeights | None = None
    """A checkpoint file to start from, its head replaced. ImageNet's in the paper; None starts from
    random weights."""
    objective: Objective = "bce"
    """Binary cross-entropy on every class, selected by F1; or cross-entropy over the classes, for
    images of exactly one, selected by accuracy."""

    @property
    def label(self) -> str:
        start = "" if self.pretrained is None else f" from {self.pretrained.key}"
        objective = "" if self.objective == "bce" else f" {self.objective}"
        return f"baseline {self.network.key}{objective}{start} seed {self.seed}"

    @property
    def baseline(self) -> ClassifierTraining:
        return self

    @property
    def dataset(self) -> Dataset:
        return self.data

    @property
    def size_px(self) -> int:
        return self.image_size_px

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    @property
    def selected_by(self) -> str:
        """The metric whose highest value tells the best epoch."""
        return "val/f1" if self.objective == "bce" else "val/accuracy"

    @property
    def directions(self) -> dict[str, str]:
        metrics = (cls() for cls in ClassificationMetric.registered.values())
        return {m.key: "max" if m.higher_is_better else "min" for m in metrics} | {"loss": "min"}

    def cost(self, images: dict[str, int]) -> float:
        """A step costs three forwards (counted: spec of the paper's ResNet-50)."""
        return self.epochs * (3.0 * images["train"] + images["val"])

    def check(self) -> None:
        """The pretrained weights fit the network."""
        if self.pretrained is not None:
            self.pretrained.check(self.network)

    def keeps(self, history: list[dict[str, float]]) -> set[int]:
        """The best epoch on validation, which dependents start from, and the last."""
        return {best_epoch(history, self.selected_by), len(history)}

    def compute(self, trial: Trial) -> None:
        images = trial.images("train")
        if self.objective == "ce":
            single_labels(images)
        model = self.network.build(len(images.classes))
        if self.pretrained is not None:
            self.pretrained.load(model.module, self.network)
        model.module.to(trial.device)

        def step(_epoch: int, batch: np.ndarray) -> Losses:
            model.module.train()
            x = model.encode(torch.from_numpy(images.images(batch)).to(trial.device))
            labels = torch.from_numpy(images.labels[batch]).to(x)
            loss = classification_loss(self.objective, model.module(x), labels)
            loss.backward()
            return {"loss": loss.item()}

        def evaluate() -> dict[str, float]:
            return score(model, trial.images("val"), trial.device).as_metrics("val")

        state = self.fit(trial, model, step, evaluate)
        trial.finish(
            {
                "epoch": best_epoch(state.history, self.selected_by),
                "weights": state.notes["weights"],
                "skipped": dict(images.skipped),
            }
        )


def single_labels(images: ImageSet) -> np.ndarray:
    """The one class of each image, (N,), int64.

    Raises:
        ValueError: an image has none or several; names it.
    """
    counts = images.labels.sum(1)
    if (counts != 1).any():
        index = int(np.flatnonzero(counts != 1)[0])
        raise ValueError(
            f"image {str(images.image_ids[index])!r} has {counts[index]} classes, expected exactly "
            "one: take data of one class an image, such as digit_scenes with layout imagenet"
        )
    return images.labels.argmax(1)
