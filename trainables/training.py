"""Training epoch by epoch: resumable, replayable, with the weights of chosen epochs kept."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from data_pipelines.configuration import Configuration, annotated_fields, holds_configuration
from data_pipelines.grids import Output
from data_pipelines.order import WINDOWS
from trainables.checkpoint import (
    TrainingState,
    load_training,
    load_weights,
    save_training,
    save_weights,
)
from trainables.models.network import Model, Network
from trainables.result import Result
from trainables.team import Dismissed
from trainables.trial import DivergedError, Trial

if TYPE_CHECKING:
    from trainables.classifier_training import ClassifierTraining

SHUFFLE, TARGETS, DELETED, VIEWS = 1, 2, 3, 4
"""Streams of random numbers: (seed, stream, epoch)."""

ConfigurationT = TypeVar("ConfigurationT", bound=Configuration)
Losses = dict[str, float]
Step = Callable[[int, np.ndarray], Losses]
"""Takes the epoch and the indices of a batch, updates gradients, returns its losses by name."""


@dataclass(frozen=True, kw_only=True)
class Training(Result):
    """A result that trains a network: with Adam at a constant rate, unless a subclass differs.

    Source: Model Guidance (Rao et al., ICCV 2023), section 4.
    """

    epochs: int = 50
    """Epochs. 50 for guided VOC, 10 for guided COCO, 300 and 60 for the baselines (Model Guidance,
    D.1)."""
    batch_size: int = 64
    """Images per step. 64 in the paper; its lambdas belong to it."""
    learning_rate: float = 1e-4
    """1e-4 in the paper."""
    shuffle: Literal["all", "windows"] = "all"
    """All images of an epoch together, or windows of neighbours: what a streamed feed can bring. By
    either feed the same order gives the same numbers."""
    workers: int = 1
    """Processes that take their shares of each batch; batch statistics are those of a share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size", "learning_rate", "workers"):
            if getattr(self, name) <= 0:
                raise ValueError(
                    f"{type(self).__name__}.{name} = {getattr(self, name)}: must be positive"
                )
        if self.workers > self.batch_size:
            raise ValueError(
                f"{type(self).__name__}.workers = {self.workers}: each needs an image of a batch, "
                f"and there are {self.batch_size}"
            )

    @property
    @abstractmethod
    def architecture(self) -> Network:
        """The network that is trained, and that evaluations judge."""

    @property
    @abstractmethod
    def output(self) -> Output:
        """What makes a probability of its logits, as its objective has it."""

    @property
    def pretraining(self) -> str:
        """What the network has learned, in a word, where probes are trained on it."""
        return self.name

    def model_at(self, trial: Trial, classes: int) -> Model:
        """The network after the epoch that was selected, on the device of the trial.

        Args:
            trial: that reads this training's files.
            classes: number of logits.
        """
        summary = trial.summary_of(self)
        model = self.architecture.build(classes)
        model.module.to(trial.device)
        restore(trial, self, summary, summary["epoch"], model)
        return model

    @abstractmethod
    def keeps(self, history: list[dict[str, float]]) -> set[int]:
        """Epochs (from 1) whose weights must be kept, given the metrics so far."""

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """What updates the weights; its learning rate is set anew at each epoch."""
        return torch.optim.Adam(module.parameters(), lr=self.learning_rate)

    def rate_at(self, epoch: int) -> float:
        """Learning rate in an epoch (from 1), whatever came before."""
        return self.learning_rate

    def kept(self, module: nn.Module) -> nn.Module:
        """The part of what is trained whose weights are the result."""
        return module

    def fit(
        self, trial: Trial, model: Model, step: Step, evaluate: Callable[[], dict[str, float]]
    ) -> TrainingState:
        """Train from the newest complete checkpoint, or from the model as it is.

        Checkpoint first, then log: an epoch that was logged is never computed again, and an epoch
        that was
        computed but not logged is logged from the checkpoint. Of several workers each takes its
        share of the batches; the first evaluates and writes, and returns alone.

        Raises:
            DivergedError: a loss is no number; names epoch and step.
            Dismissed: this worker is not the first, and the training is over.
        """
        optimizer = self.optimizer(model.module)
        path = trial.folder / "checkpoint.safetensors"
        state = load_training(path, model.module, optimizer)
        for epoch, metrics in enumerate(state.history, 1):
            trial.report(epoch, metrics)
        for epoch in range(state.epoch + 1, self.epochs + 1):
            torch.manual_seed(_seed_of(trial, epoch))  # for layers that draw, such as dropout
            for group in optimizer.param_groups:
                group["lr"] = self.rate_at(epoch)
            with closing(self._batches(trial, epoch)) as batches:
                losses = [
                    self._step(trial, epoch, n, batch, step, optimizer) for n, batch in batches
                ]
            if not trial.team.leads:
                continue
            metrics = {
                f"train/{name}": float(np.mean([x[name] for x in losses])) for name in losses[0]
            }
            with _located(f"evaluation after epoch {epoch}"):
                metrics |= evaluate()
            state.history.append(metrics)
            state.epoch = epoch
            weights: dict[str, str] = state.notes.setdefault("weights", {})
            weights[str(epoch)] = save_weights(
                weights_path(trial.folder, epoch), self.kept(model.module)
            )
            unkept = {e for e in weights if int(e) not in self.keeps(state.history)}
            for e in unkept:
                del weights[e]
            save_training(path, model.module, optimizer, state)
            for e in unkept:
                weights_path(trial.folder, int(e)).unlink(missing_ok=True)
            trial.report(epoch, metrics)
        if not trial.team.leads:
            raise Dismissed
        return state

    def _batches(self, trial: Trial, epoch: int) -> Generator[tuple[int, np.ndarray], None, None]:
        """Shuffled batches of image indices; the order is a function of (seed, epoch)."""
        images, random = trial.images("train"), trial.generator(SHUFFLE, epoch)
        if self.shuffle == "windows":
            order = WINDOWS.shuffled(images.rows, random)
        else:
            order = random.permutation(len(images))
        batches = np.split(order, self.batch_starts(len(order))[1:])
        with images.expecting([trial.team.share_of(batch) for batch in batches]):
            yield from enumerate(batches, 1)

    @property
    def least_batch(self) -> int:
        """Images that a batch must have: one for each worker."""
        return self.workers

    def batch_starts(self, images: int) -> list[int]:
        """Where each batch of an epoch begins; one that is too small joins the one before."""
        starts = list(range(0, images, self.batch_size))
        if len(starts) > 1 and images - starts[-1] < self.least_batch:
            del starts[-1]
        return starts

    def _step(
        self,
        trial: Trial,
        epoch: int,
        number: int,
        batch: np.ndarray,
        step: Step,
        optimizer: torch.optim.Optimizer,
    ) -> Losses:
        optimizer.zero_grad(set_to_none=True)
        mine = trial.team.share_of(batch)
        trial.share = len(mine) / len(batch)
        with _located(f"epoch {epoch}, step {number}"):
            losses = step(epoch, mine)
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        losses = trial.team.sum_up(weights, losses, trial.share)
        for name, value in losses.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"{name} is {value} at epoch {epoch}, step {number}; lower the learning "
                    "rate or lambda"
                )
        optimizer.step()
        return losses


@dataclass(frozen=True, kw_only=True)
class FromClassifier(Training):
    """The training of a classifier, or one that starts from a classifier and keeps its objective.

    What is compared with the classifier, its baseline.
    """

    @property
    @abstractmethod
    def baseline(self) -> ClassifierTraining:
        """The training that this one started from, or is."""

    @property
    def architecture(self) -> Network:
        return self.baseline.network

    @property
    def output(self) -> Output:
        return "sigmoid" if self.baseline.objective == "bce" else "softmax"

    @property
    def pretraining(self) -> str:
        return f"supervised_{self.baseline.objective}"


def in_every_training(configuration: ConfigurationT, **values: Any) -> ConfigurationT:
    """The configuration with these fields set in itself and in all it holds that are trainings."""
    changed: dict[str, Any] = dict(values) if isinstance(configuration, Training) else {}
    for f, _ in annotated_fields(type(configuration)):
        value = getattr(configuration, f.name)
        if isinstance(value, Configuration):
            changed[f.name] = in_every_training(value, **values)
        elif holds_configuration(value):
            changed[f.name] = tuple(in_every_training(one, **values) for one in value)
    return replace(configuration, **changed) if changed else configuration


@contextmanager
def _located(place: str) -> Iterator[None]:
    """Say where a ValueError came about: weights that diverge show in maps and logits first."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _seed_of(trial: Trial, epoch: int) -> int:
    """Another one for each worker, but the first has that of a training by one."""
    rank = (trial.team.rank,) if trial.team.rank else ()
    return int(trial.generator(0, epoch, *rank).integers(2**62))


def weights_path(folder: Path, epoch: int) -> Path:
    """Where the weights after an epoch lie."""
    return folder / "weights" / f"epoch-{epoch:04d}.safetensors"


def best_epoch(history: list[dict[str, float]], metric: str) -> int:
    """The first epoch (from 1) with the highest value; an undefined one never wins."""
    values = [x.get(metric, math.nan) for x in history]
    return int(np.argmax([-math.inf if math.isnan(v) else v for v in values])) + 1


def restore(
    trial: Trial, training: Result, summary: dict[str, Any], epoch: int, model: Model
) -> None:
    """Fill a model with the kept weights of another result's epoch."""
    path = weights_path(trial.storage / training.result_id, epoch)
    load_weights(path, model.module, summary["weights"][str(epoch)])
