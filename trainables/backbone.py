"""Backbones: networks with weights from somewhere, frozen while probes are trained on them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from data_pipelines.configuration import Configuration
from trainables.checkpoint import read_weights
from trainables.models.checkpoint_layout import layouts_of
from trainables.models.network import Model, Network
from trainables.models.pretrained import PretrainedWeights, head_of
from trainables.models.published_weights import match_of
from trainables.training import Training, weights_path
from trainables.trial import Trial, seeded

if TYPE_CHECKING:
    from trainables.result import Result

CLASSES = 2
"""Of the classifier that a backbone is built with, and that nobody asks."""


@dataclass(frozen=True, kw_only=True)
class Backbone(Configuration, family=True):
    """A network whose features are probed."""

    @property
    @abstractmethod
    def architecture(self) -> Network:
        """The network."""

    @property
    @abstractmethod
    def pretraining(self) -> str:
        """What it has learned, in a word: supervised_ce, moco_v2, ...; ``none``."""

    @property
    def label(self) -> str:
        """A short text for people."""
        return f"{self.architecture.key} {self.pretraining}"

    @property
    def dependencies(self) -> tuple[Result, ...]:
        """Results whose weights it has."""
        return ()

    def check(self) -> None:
        """Refuse, before anything runs, weights that the network cannot have.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it does not fit.
        """

    @abstractmethod
    def build(self, trial: Trial) -> Model:
        """The network with its weights on the trial's device; its classifier means nothing."""


@dataclass(frozen=True, kw_only=True)
class UntrainedBackbone(Backbone):
    """Random weights: what a probe finds there is no merit of any training."""

    name: ClassVar[str] = "untrained"

    network: Network
    seed: int = 0
    """Of the weights."""

    @property
    def architecture(self) -> Network:
        return self.network

    @property
    def pretraining(self) -> str:
        return "none"

    def build(self, trial: Trial) -> Model:
        with seeded(self.seed):
            model = self.network.build(CLASSES)
        model.module.to(trial.device)
        return model


@dataclass(frozen=True, kw_only=True)
class TrainedBackbone(Backbone):
    """The weights of a training of ours, at the epoch that it selected."""

    name: ClassVar[str] = "trained"

    of: Training

    @property
    def architecture(self) -> Network:
        return self.of.architecture

    @property
    def pretraining(self) -> str:
        return self.of.pretraining

    @property
    def dependencies(self) -> tuple[Result, ...]:
        return (self.of,)

    def build(self, trial: Trial) -> Model:
        summary = trial.summary_of(self.of)
        path = weights_path(trial.storage / self.of.result_id, summary["epoch"])
        weights = read_weights(path, summary["weights"][str(summary["epoch"])])
        model = self.architecture.build(CLASSES)
        head = head_of(self.architecture)  # of other classes, and not asked
        kept = {name: tensor for name, tensor in weights.items() if name not in head}
        model.module.load_state_dict(model.module.state_dict() | kept)
        model.module.to(trial.device)
        return model


@dataclass(frozen=True, kw_only=True)
class PublishedBackbone(Backbone):
    """Weights from a published checkpoint file, all but those of a classifier.

    Raises:
        ValueError: no layout of such weights of the network is known, or they expect another
            encoding of pixels.
    """

    name: ClassVar[str] = "published"

    network: Network
    pretrained_by: str
    """What the weights have learned, which says how the file is laid out."""
    weights: PretrainedWeights

    def __post_init__(self) -> None:
        super().__post_init__()
        layouts_of(self.network, self.pretrained_by)
        expected = self.network.as_pretrained(self.pretrained_by)
        if self.network != expected:
            raise ValueError(
                f"{self.pretrained_by} weights expect the encoding of {expected}, not of "
                f"{self.network}"
            )

    @property
    def architecture(self) -> Network:
        return self.network

    @property
    def pretraining(self) -> str:
        return self.pretrained_by

    def check(self) -> None:
        self.account()

    def account(self) -> str:
        """A line that says where every tensor of the file goes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is another file than the one that was asked for, or does not fit.
        """
        weights = self.weights
        return _account(self.network, self.pretrained_by, weights.file(), weights.sha256)

    def build(self, trial: Trial) -> Model:
        match = match_of(self.network, self.pretrained_by, self.weights.file())
        model = self.network.build(CLASSES)
        match.fill(model.module)
        model.module.to(trial.device)
        return model


@cache
def _account(network: Network, pretraining: str, path: Path, _sha256: str) -> str:
    """What becomes of a file's tensors; read once, however many probes there are."""
    return str(match_of(network, pretraining, path))
