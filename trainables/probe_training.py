"""Train probes on a frozen backbone: what each is, and by which recipe it learns."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data_pipelines.augmentation import Windows
from data_pipelines.dataset import Dataset
from data_pipelines.grids import Output
from data_pipelines.resized_crops import DRAWS, random_resized_crops
from trainables.backbone import Backbone
from trainables.checkpoint import load_weights
from trainables.losses.classification import Objective, OffTarget
from trainables.metrics.classification import ClassificationMetric
from trainables.models.network import Model, Network
from trainables.models.probe import Probe
from trainables.models.probe_pack import PackProbabilities
from trainables.models.probed import ProbedNetwork, features_kind, probed
from trainables.probe_pack_training import train_pack
from trainables.result import Result
from trainables.training import Training, weights_path
from trainables.trial import Trial

AUGMENTED = 31
"""Stream of random numbers beside those of training.py: (seed, stream, epoch), then by image."""
Augment = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.uint8]]
"""Maps pictures (B, 3, H, W) and the indices of their images to pictures."""


@dataclass(frozen=True, kw_only=True)
class ProbeTraining(Training):
    """A probe on a frozen backbone; its last epoch is the result.

    Probes that see the same batches train side by side: one forward of the backbone serves them
    all. Each has its own weights, from its own seed, its own optimizer, rates and end.

    Source: How to Probe (Gairola et al., ICLR 2025), section 4; the recipes are in
        probe_recipes.py.
    Departs: crops come from images that were resized to a square, in training as in evaluation.
        Crops, order and first weights are functions of seed, epoch and image, where the code draws
        from one global stream.
    """

    name: ClassVar[str] = "probe_training"
    paper: ClassVar[str] = "How to Probe, ICLR 2025"
    together: ClassVar[bool] = True

    backbone: Backbone
    probe: Probe
    data: Dataset
    image_size_px: int = 224
    """Side that images are resized to, and of what the network sees. 224 in the paper, 448 on VOC
    and COCO."""
    objective: Objective = "ce"
    """Cross-entropy, for images of exactly one class; or binary cross-entropy on every class, for
    images of one or of several."""
    off_target: OffTarget = "zero"
    """What BCE wants of an absent class: 0 as in the paper, or 1/C as in its code."""
    epochs: int = field(default=100)
    """100 in the paper, 50 on VOC and COCO."""
    batch_size: int = field(default=256)
    """256 in the paper."""
    learning_rate: float = field(default=1e-3)
    """Of the authors' code with Adam; it takes 30 with stochastic gradient descent."""
    optimizer_name: Literal["adam", "sgd"] = "adam"
    """Adam in the paper. Neither decays weights."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """How the rate falls, epoch by epoch: to zero by a cosine after the warm-up, or by steps."""
    warmup_epochs: int = 5
    """In which the rate rises linearly, step by step. A shorter training ends within them."""
    warmup_start: float = 0.01
    """Share of the rate at the first step of the warm-up."""
    momentum: float = 0.9
    """Of stochastic gradient descent."""
    step_epochs: tuple[int, ...] = (60, 80)
    """After which the step schedule multiplies the rate by 0.1."""
    patience: int = 0
    """Epochs without a lower validation loss after which the probe stops; 0 for never, as in the
    paper."""
    augmentation: Literal["none", "flip", "crop"] = "crop"
    """Of the training images: a crop of random area and aspect, mirrored or not, as in the paper;
    mirroring alone; or nothing, which has features computed once where they fit into memory."""
    crop_scale: float = 0.08
    """Least share of the image that a crop shows. 0.08 in the paper's code, 0.7 on VOC and COCO."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (
            ("warmup_epochs", 0, math.inf),
            ("patience", 0, math.inf),
            ("warmup_start", 0, 1),
            ("momentum", 0, 0.9999),
            ("crop_scale", 1e-4, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"ProbeTraining.{name} = {getattr(self, name)}: must lie in [{low}, {high}]"
                )

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
        stream = (
            self.data.result_id,
            self.image_size_px,
            self.batch_size,
            self.shuffle,
            self.workers,
        )
        drawn = (self.augmentation, self.crop_scale, self.seed, self.threads)
        text = repr((self.backbone.result_id, *stream, *drawn))
        return f"probes-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in ("train", "val", "test") if split in self.data.splits())

    @property
    def directions(self) -> dict[str, str]:
        metrics = (cls() for cls in ClassificationMetric.registered.values())
        return {m.key: "max" if m.higher_is_better else "min" for m in metrics} | {"loss": "min"}

    def keeps(self, history: list[dict[str, float]]) -> set[int]:
        """The last epoch."""
        return {len(history)}

    def is_over(self, history: list[dict[str, float]]) -> bool:
        """Whether these epochs are all: their number is reached, or patience is at its end."""
        if len(history) >= self.epochs or not history:
            return len(history) >= self.epochs
        losses = [metrics["val/loss"] for metrics in history]
        return bool(self.patience) and len(losses) - 1 - int(np.argmin(losses)) >= self.patience

    def cost(self, images: dict[str, int]) -> float:
        return float(self.epochs * images["train"])

    def check(self) -> None:
        """The backbone has its weights; that it can be probed, its architecture has checked."""
        self.backbone.check()
        self.architecture  # noqa: B018  (it refuses a network without features)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """No weight decay in any recipe; one kernel a tensor, which a small head gains much by."""
        parameters = list(module.parameters())
        if self.optimizer_name == "adam":
            return torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)
        return torch.optim.SGD(
            parameters, lr=self.learning_rate, momentum=self.momentum, fused=True
        )

    def rate_at(self, epoch: int) -> float:
        """Learning rate in an epoch (from 1) by the schedule; the warm-up comes on top of it."""
        if self.schedule == "step":
            return self.learning_rate * 0.1 ** sum(epoch > last for last in self.step_epochs)
        done = epoch - 1 - self.warmup_epochs
        if self.schedule == "constant" or done < 0:
            return self.learning_rate
        falling = self.epochs - self.warmup_epochs
        return self.learning_rate * (1 + math.cos(math.pi * done / falling)) / 2

    def rate_in(self, epoch: int, step: int, steps: int) -> float:
        """Learning rate of a step (from 1) of an epoch (from 1) that has so many steps.

        It rises linearly step by step through the warm-up, then falls epoch by epoch.
        """
        done, warmup = (epoch - 1) * steps + step - 1, self.warmup_epochs * steps
        share = min(done / warmup, 1.0) if warmup else 1.0
        return self.rate_at(epoch) * (self.warmup_start + (1 - self.warmup_start) * share)

    @property
    def least_batch(self) -> int:
        """Two for each worker: the norms between layers see vectors where networks have tokens."""
        return 2 * self.workers

    def batches(
        self, trial: Trial, epoch: int
    ) -> Generator[tuple[int, NDArray[np.int64]], None, None]:
        """Number and images of each batch of an epoch: a function of (seed, epoch)."""
        return self._batches(trial, epoch)

    def augmentation_of(self, trial: Trial, images: int, epoch: int) -> Augment | None:
        """What is done to pictures in an epoch; None where nothing is.

        A function of (seed, epoch, image), whatever the batches are.

        Args:
            trial: whose seed counts.
            images: of the split.
            epoch: from 1.
        """
        random = trial.generator(AUGMENTED, epoch)
        if self.augmentation == "none":
            return None
        if self.augmentation == "flip":
            corner = np.zeros(images, dtype=np.int64)
            return Windows(self.image_size_px, corner, corner, random.random(images) < 0.5).of
        draws = random.random((images, DRAWS))
        scale = (self.crop_scale, 1.0)
        return random_resized_crops(draws, self.image_size_px, self.image_size_px, scale).of

    def model_at(self, trial: Trial, classes: int) -> Model:
        """The backbone with its own weights and the trained head."""
        summary = trial.summary_of(self)
        model = self.backbone.build(trial)
        head = self.probe.head(features_kind(model), classes)
        path = weights_path(trial.storage / self.result_id, summary["epoch"])
        load_weights(path, head, summary["weights"][str(summary["epoch"])])
        return replace(probed(model, head), probabilities=PackProbabilities((self.output,)))

    def compute(self, trial: Trial) -> None:
        self.compute_together([trial])

    @classmethod
    def compute_together(cls, trials: Sequence[Trial]) -> None:
        """The pack."""
        train_pack(trials, [t.result for t in trials if isinstance(t.result, cls)])
