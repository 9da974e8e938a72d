"""Train probes on a frozen backbone: many of them on one stream of features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from data_pipelines.dataset import Dataset
from data_pipelines.grids import Output
from trainables.backbone import Backbone
from trainables.classifier_training import Objective
from trainables.models.network import Network
from trainables.models.probe import Probe
from trainables.models.probed import ProbedNetwork
from trainables.result import Result
from trainables.training import Training
from trainables.trial import Trial


@dataclass(frozen=True, kw_only=True)
class ProbeTraining(Training):
    """A probe on a frozen backbone; its last epoch is the result.

    Source: How to Probe (Gairola et al., ICLR 2025), section 4.
    """

    name: ClassVar[str] = "probe_training"
    paper: ClassVar[str] = "How to Probe, ICLR 2025"
    together: ClassVar[bool] = True

    backbone: Backbone
    probe: Probe
    data: Dataset
    image_size_px: int = 224
    """Side that images are resized to, and of what the network sees."""
    objective: Objective = "ce"
    off_target: Literal["zero", "uniform"] = "zero"
    """What BCE wants of an absent class: 0 as in the paper, or 1/C as in its code."""
    epochs: int = field(default=100)
    batch_size: int = field(default=256)
    learning_rate: float = field(default=1e-3)
    optimizer_name: Literal["adam", "sgd"] = "adam"
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    warmup_epochs: int = 5
    momentum: float = 0.9
    """Of stochastic gradient descent."""
    step_epochs: tuple[int, ...] = (60, 80)
    """After which the step schedule multiplies the rate by 0.1."""
    augmentation: Literal["none", "flip", "crop"] = "crop"
    crop_scale: float = 0.08
    """Least share of the image that a crop shows."""

    @property
    def architecture(self) -> Network:
        return ProbedNetwork(network=self.backbone.architecture, probe=self.probe)

    @property
    def output(self) -> Output:
        return "sigmoid" if self.objective == "bce" else "softmax"

    @property
    def loss_name(self) -> str:
        """``ce``, ``bce`` or ``bce_uniform``."""
        uniform = self.objective == "bce" and self.off_target == "uniform"
        return f"{self.objective}_uniform" if uniform else self.objective

    @property
    def label(self) -> str:
        return f"{self.probe.key} {self.loss_name} probe on {self.backbone.label} seed {self.seed}"

    @property
    def tags(self) -> dict[str, str]:
        return {
            "backbone": self.backbone.architecture.key,
            "pretraining": self.backbone.pretraining,
            "probe": self.probe.key,
            "loss": self.loss_name,
        }

    @property
    def dataset(self) -> Dataset:
        return self.data

    @property
    def size_px(self) -> int:
        return self.image_size_px

    @property
    def dependencies(self) -> tuple[Result, ...]:
        return self.backbone.dependencies

    @property
    def bundle(self) -> str:
        """The pack: probes that can share each batch and its forward through the backbone."""
        stream = (self.data.result_id, self.image_size_px, self.batch_size, self.shuffle)
        drawn = (self.augmentation, self.crop_scale, self.seed, self.threads)
        text = repr((self.backbone.result_id, *stream, *drawn))
        return f"probes-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def keeps(self, history: list[dict[str, float]]) -> set[int]:
        """The last epoch."""
        return {len(history)}

    def cost(self, images: dict[str, int]) -> float:
        return float(self.epochs * images["train"])

    def check(self) -> None:
        self.backbone.check()

    def compute(self, trial: Trial) -> None:
        self.compute_together([trial])
