"""A learner: one probe of a pack, with its own weights, optimizer, rates, and end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from data_pipelines.image_set import ImageSet
from trainables.checkpoint import TrainingState, load_training, save_training, save_weights
from trainables.classifier_training import single_labels
from trainables.losses.classification import classification_loss
from trainables.metrics.classification import ClassificationMetric
from trainables.models.probe import Features
from trainables.pooled_head import PooledHead
from trainables.training import weights_path
from trainables.trial import DivergedError, Trial, seeded

if TYPE_CHECKING:
    from trainables.probe_training import ProbeTraining

FAULTS = (ValueError, RuntimeError, TypeError)
"""What data, a checkpoint or a head of a user's own may raise, and torch about shapes."""


@dataclass(eq=False)
class Learner:
    """One probe of a pack, whatever the others are.

    Attributes:
        trial: through which it tells.
        training: what is asked for.
        head: what is trained.
        optimizer: of the head.
        state: its finished epochs.
        failed: whether it is out.
        losses: of the steps of this epoch.
    """

    trial: Trial
    training: ProbeTraining
    head: PooledHead
    optimizer: torch.optim.Optimizer
    state: TrainingState = field(default_factory=TrainingState)
    failed: bool = False
    losses: list[float] = field(default_factory=list)

    @classmethod
    def start(
        cls, trial: Trial, training: ProbeTraining, features: Features, splits: list[ImageSet]
    ) -> Learner:
        """From the newest complete checkpoint, or from the weights of its seed.

        Raises:
            ValueError: the data do not suit the objective.
        """
        if training.objective == "ce":
            for images in splits:
                single_labels(images)
        with seeded(training.seed):
            module = training.probe.head(features, len(splits[0].classes))
        module.to(trial.device)
        learner = cls(trial, training, PooledHead(module), training.optimizer(module))
        learner.state = load_training(checkpoint_path(trial), module, learner.optimizer)
        for epoch, metrics in enumerate(learner.state.history, 1):
            trial.report(epoch, metrics)
        return learner

    @property
    def over(self) -> bool:
        """Whether its training is at its end."""
        return self.training.is_over(self.state.history)

    def learns_in(self, epoch: int) -> bool:
        """Whether this epoch is its next one."""
        return not self.failed and not self.over and self.state.epoch == epoch - 1

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of its logits (B, K) with labels (B, K), float."""
        training = self.training
        return classification_loss(training.objective, outputs, labels, training.off_target)

    def step(self, loss: float, epoch: int, number: int, steps: int) -> None:
        """Update the weights by their gradients, or fail where the loss is no number.

        Args:
            loss: of the batch.
            epoch: from 1.
            number: of the step in the epoch, from 1.
            steps: of an epoch.
        """
        rate = self.training.rate_in(epoch, number, steps)
        if not math.isfinite(loss):
            self.diverged(f"loss is {loss} at epoch {epoch}, step {number}", rate)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.losses.append(loss)

    def diverged(self, what: str, rate: float) -> None:
        """Fail with the rate that may be at fault; who shares the pack goes on."""
        self.fail(DivergedError(f"{what}, learning rate {rate:g}; lower the learning rate"))

    def fail(self, error: Exception) -> None:
        """Tell why this probe cannot be had."""
        self.trial.fail(f"{type(error).__name__}: {error}")
        self.failed = True

    @contextmanager
    def failing_alone(self) -> Iterator[None]:
        """What a head raises inside fails its probe; who shares the pack goes on."""
        try:
            yield
        except FAULTS as error:
            self.fail(error)

    def scores(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Every classification metric by its key, the loss, and how many images they are of.

        Args:
            logits: (N, K), float64, finite.
            labels: (N, K), 1 where the class is there.
        """
        metrics = (metric() for metric in ClassificationMetric.registered.values())
        scores = {metric.key: metric(logits, labels) for metric in metrics}
        truth = torch.from_numpy(labels).double()
        loss = self.loss(torch.from_numpy(logits), truth).item()
        return scores | {"loss": loss, "images": float(len(labels))}

    def count_epoch(self, metrics: dict[str, float]) -> None:
        """The epoch is over; workers that do not write keep no metrics of it."""
        self.state.history.append(metrics)
        self.state.epoch = len(self.state.history)
        self.losses.clear()

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """Checkpoint first, then log."""
        self.count_epoch(metrics)
        save_training(checkpoint_path(self.trial), self.head.module, self.optimizer, self.state)
        self.trial.report(self.state.epoch, metrics)

    def finish(self, **notes: object) -> None:
        """Leave the head of the last epoch, and what dependents read."""
        epoch = self.state.epoch
        path = weights_path(self.trial.folder, epoch)
        weights = {str(epoch): save_weights(path, self.head.module)}
        self.trial.finish({"epoch": epoch, "weights": weights, **notes})


def checkpoint_path(trial: Trial) -> Path:
    """Where the newest complete checkpoint of a trial's result lies."""
    return trial.folder / "checkpoint.safetensors"
