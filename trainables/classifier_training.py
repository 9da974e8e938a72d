"""Train a multi-label classifier: the baseline that guided trainings start from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional

import trainables.models  # noqa: F401  (registers the networks)
from data_pipelines.dataset import Dataset
from trainables.metrics.classification import ClassificationMetric
from trainables.models.network import Network
from trainables.scoring import score
from trainables.training import Losses, Training, best_epoch
from trainables.trial import Trial


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining(Training):
    """Binary cross-entropy on every class, from random weights; validation F1 selects the epoch.

    Source: Model Guidance (Rao et al., ICCV 2023), section 4 and D.1.1.
    """

    name: ClassVar[str] = "classifier_training"
    paper: ClassVar[str] = "Model Guidance, ICCV 2023"

    network: Network
    data: Dataset
    image_size_px: int = 224
    """Side that images are resized to, aspect ignored. 224 in the paper."""
    epochs: int = field(default=300)
    """300 on VOC, 60 on COCO."""

    @property
    def label(self) -> str:
        return f"baseline {self.network.key} seed {self.seed}"

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
    def directions(self) -> dict[str, str]:
        metrics = (cls() for cls in ClassificationMetric.registered.values())
        return {m.key: "max" if m.higher_is_better else "min" for m in metrics} | {"loss": "min"}

    def cost(self, images: dict[str, int]) -> float:
        """A step costs three forwards (counted: spec of the paper's ResNet-50)."""
        return self.epochs * (3.0 * images["train"] + images["val"])

    def check(self) -> None:
        """Nothing beyond construction."""

    def keeps(self, history: list[dict[str, float]]) -> set[int]:
        """The epoch with the best validation F1, which dependents start from, and the last."""
        return {best_epoch(history, "val/f1"), len(history)}

    def compute(self, trial: Trial) -> None:
        images = trial.images("train")
        model = self.network.build(len(images.classes))
        model.module.to(trial.device)

        def step(_epoch: int, batch: np.ndarray) -> Losses:
            model.module.train()
            x = model.encode(torch.from_numpy(images.images(batch)).to(trial.device))
            labels = torch.from_numpy(images.labels[batch]).to(x)
            loss = functional.binary_cross_entropy_with_logits(model.module(x), labels)
            loss.backward()
            return {"loss": loss.item()}

        def evaluate() -> dict[str, float]:
            return score(model, trial.images("val"), trial.device).as_metrics("val")

        state = self.fit(trial, model, step, evaluate)
        trial.finish(
            {
                "epoch": best_epoch(state.history, "val/f1"),
                "weights": state.notes["weights"],
                "skipped": dict(images.skipped),
            }
        )
