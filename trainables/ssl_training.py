"""Train a network without labels: the backbones of probes, where no checkpoint is at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

import trainables.models
import trainables.ssl  # noqa: F401  (both register their classes)
from data_pipelines.dataset import Dataset
from data_pipelines.grids import Output
from trainables.backbone import CLASSES
from trainables.models.network import WHY_NOT, Model, Network
from trainables.neighbors import knn_accuracy, pooled_features
from trainables.ssl.method import SslMethod
from trainables.ssl.schooling import Schooling
from trainables.ssl.view import DRAWS
from trainables.training import VIEWS, Losses, Training
from trainables.trial import Trial


@dataclass(frozen=True, kw_only=True)
class SslTraining(Training):
    """A student matches its teacher on other views; the last epoch's network is the result.

    Only the bare network is kept, with the classifier that it was built with and never used. How
    good its features are, nearest neighbours tell as it learns, beside the untrained network's.

    Source: How to Probe (Gairola et al., ICLR 2025), section 4, and the papers of the methods.
    Departs: rates change between epochs, in the warm-up too, where some of the code changes them
        between steps.
    """

    name: ClassVar[str] = "ssl_training"
    paper: ClassVar[str] = "How to Probe, ICLR 2025"

    network: Network
    data: Dataset
    method: SslMethod
    image_size_px: int = 224
    """Side that images are resized to, before views are cut from them."""
    epochs: int = field(default=200)
    """200 in How to Probe."""
    batch_size: int = field(default=256)
    """256 on four devices in How to Probe."""
    learning_rate: float = field(default=0.03)
    """0.03 for MoCo v2 and DINO on ResNet-50 in How to Probe."""
    optimizer_name: Literal["sgd", "adam", "adamw", "lars"] = "sgd"
    momentum: float = 0.9
    """Of SGD and LARS."""
    weight_decay: float = 1e-4
    """0.0001 for MoCo v2 and DINO on ResNet-50 in How to Probe."""
    decays: Literal["all", "weights"] = "all"
    """Whether everything decays, or neither norms nor biases do, as for BYOL and DINO; such LARS
    does not scale either."""
    warmup_epochs: int = 0
    """In which the rate rises evenly; it falls as a half cosine afterwards."""
    gradient_limit: float = 0.0
    """Longest gradient of each parameter; 0 for none. 3 for DINO."""
    judged_every: int = 1
    """Epochs from one judgement by neighbours to the next; the last epoch always has one."""
    neighbors: int = 20
    """That vote on the class of an image."""
    temperature: float = 0.07
    """Of their votes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("momentum", "weight_decay", "warmup_epochs", "gradient_limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"SslTraining.{name} = {getattr(self, name)}: at least 0")
        if self.momentum >= 1:
            raise ValueError(f"SslTraining.momentum = {self.momentum}: must lie in [0, 1)")
        if self.neighbors < 1 or self.temperature <= 0:
            raise ValueError(
                f"SslTraining.neighbors = {self.neighbors}, temperature = {self.temperature}: at "
                "least one neighbour, a positive temperature"
            )
        if self.workers > 1:
            raise ValueError(
                f"SslTraining.workers = {self.workers}: queue, center and norms are those of one "
                "worker; take 1"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"SslTraining.warmup_epochs = {self.warmup_epochs}: fewer than the {self.epochs} "
                "epochs"
            )

    @property
    def architecture(self) -> Network:
        return self.network

    @property
    def output(self) -> Output:
        return "softmax"

    @property
    def pretraining(self) -> str:
        return self.method.name

    @property
    def label(self) -> str:
        return f"{self.method.name} {self.network.key} seed {self.seed}"

    @property
    def tags(self) -> dict[str, str]:
        return {"backbone": self.network.key, "pretraining": self.pretraining}

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
        return {"knn_accuracy": "max", "knn_accuracy_untrained": "max", "loss": "min"}

    def cost(self, images: dict[str, int]) -> float:
        """Forwards of the teacher, thrice as much of the student, and the neighbours'."""
        views = self.method.views
        shares = [((v.size_px or self.size_px) / self.size_px) ** 2 for v in views]
        step = 3 * sum(shares[self.method.student_views]) + sum(shares[self.method.teacher_views])
        return self.epochs * (step * images["train"] + sum(images.values()))

    def check(self) -> None:
        """The loss takes such batches, and the network has features that can be pooled."""
        self.method.check(self.batch_size)
        if not self.network.probed_at:
            raise ValueError(f"{self.network.name} cannot learn without labels: {WHY_NOT}")

    def keeps(self, history: list[dict[str, float]]) -> set[int]:
        """The last epoch."""
        return {len(history)}

    def rate_at(self, epoch: int) -> float:
        """Rises evenly to the learning rate, then falls as a half cosine."""
        if epoch <= self.warmup_epochs:
            return self.learning_rate * epoch / self.warmup_epochs
        progress = (epoch - 1 - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return self.learning_rate * (math.cos(math.pi * progress) + 1) / 2

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """Of the student and its heads; the teacher follows after each of its steps."""
        learning = [p for p in module.parameters() if p.requires_grad]
        vectors = [p for p in learning if p.ndim < 2 and self.decays == "weights"]
        spared = {id(p) for p in vectors}
        groups: list[dict[str, Any]] = [{"params": [p for p in learning if id(p) not in spared]}]
        if vectors:
            groups.append({"params": vectors, "weight_decay": 0.0})
        options: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        optimizer: torch.optim.Optimizer
        if self.optimizer_name == "adam":
            optimizer = torch.optim.Adam(groups, **options)
        elif self.optimizer_name == "adamw":
            optimizer = torch.optim.AdamW(groups, **options)
        elif self.optimizer_name == "sgd":
            optimizer = torch.optim.SGD(groups, momentum=self.momentum, **options)
        else:
            from timm.optim import Lars  # only here: it takes seconds

            optimizer = Lars(groups, momentum=self.momentum, **options)
        if isinstance(module, Schooling):
            optimizer.register_step_post_hook(lambda *_: module.follow())
        return optimizer

    def kept(self, module: nn.Module) -> nn.Module:
        """The bare network of student or teacher."""
        return module.kept.network if isinstance(module, Schooling) else module

    def compute(self, trial: Trial) -> None:
        images, validation = trial.images("train"), trial.images("val")
        if len(images) % self.batch_size == 1:
            raise ValueError(
                f"batch_size = {self.batch_size}: the last of {len(images)} images would be a "
                "batch by itself, which has no statistics; take another"
            )
        model = self.network.build(CLASSES)
        model.module.to(trial.device)

        def neighbors(judged: Model) -> float:
            return knn_accuracy(
                pooled_features(judged, images, trial.device),
                images.labels,
                pooled_features(judged, validation, trial.device),
                validation.labels,
                neighbors=self.neighbors,
                temperature=self.temperature,
            )

        trial.report(0, {"val/knn_accuracy_untrained": neighbors(model)})
        steps = self.epochs * math.ceil(len(images) / self.batch_size)
        schooling = Schooling(self.method, model, steps).to(trial.device)

        def step(epoch: int, batch: np.ndarray) -> Losses:
            schooling.train()
            views = self.seen(trial, images.images(batch), epoch, batch)
            loss = schooling([model.encode(view) for view in views], epoch)
            loss.backward()
            for parameter in self.method.frozen(schooling.student.head, epoch):
                parameter.grad = None
            if self.gradient_limit:
                for parameter in schooling.parameters():
                    nn.utils.clip_grad_norm_(parameter, self.gradient_limit)
            return {"loss": loss.item()}

        def evaluate() -> dict[str, float]:
            epoch = int(schooling.steps) * self.epochs // steps
            if epoch % self.judged_every and epoch < self.epochs:
                return {}
            kept = replace(model, module=schooling.kept.network)
            return {"val/knn_accuracy": neighbors(kept)}

        state = self.fit(trial, replace(model, module=schooling), step, evaluate)
        trial.finish(
            {
                "epoch": state.epoch,
                "weights": state.notes["weights"],
                "skipped": dict(images.skipped),
            }
        )

    def seen(
        self, trial: Trial, pictures: np.ndarray, epoch: int, batch: np.ndarray
    ) -> list[torch.Tensor]:
        """Views of an epoch's pictures (B, 3, H, H), uint8; a function of seed, epoch and image."""
        views = self.method.views
        draws = np.stack(
            [trial.generator(VIEWS, epoch, int(i)).random((len(views), DRAWS)) for i in batch]
        )
        return [view.of(pictures, draws[:, n], trial.device) for n, view in enumerate(views)]
