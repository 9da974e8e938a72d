"""Judge a backbone by the nearest neighbours of its features, whatever it was trained by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from data_pipelines.dataset import Dataset
from trainables.backbone import Backbone
from trainables.neighbors import knn_accuracy, pooled_features
from trainables.result import Result
from trainables.trial import Trial


@dataclass(frozen=True, kw_only=True)
class KnnEvaluation(Result):
    """Accuracy of nearest neighbours on validation images, with the training images as the bank.

    Source: DINO (Caron et al., ICCV 2021), table 2 and appendix E.
    """

    name: ClassVar[str] = "knn_evaluation"
    paper: ClassVar[str] = "How to Probe, ICLR 2025"

    backbone: Backbone
    data: Dataset
    image_size_px: int = 224
    """Side that images are resized to, and of what the network sees."""
    neighbors: int = 20
    """That vote on the class of an image. 20 in DINO."""
    temperature: float = 0.07
    """Of their votes. 0.07 in DINO."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbors < 1 or self.temperature <= 0:
            raise ValueError(
                f"KnnEvaluation.neighbors = {self.neighbors}, temperature = {self.temperature}: at "
                "least one neighbour, a positive temperature"
            )

    @property
    def label(self) -> str:
        return f"neighbours {self.backbone.label}"

    @property
    def tags(self) -> dict[str, str]:
        return {
            "backbone": self.backbone.architecture.key,
            "pretraining": self.backbone.pretraining,
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
    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    @property
    def directions(self) -> dict[str, str]:
        return {"knn_accuracy": "max"}

    def cost(self, images: dict[str, int]) -> float:
        """A forward of each image."""
        return float(sum(images.values()))

    def check(self) -> None:
        self.backbone.check()

    def compute(self, trial: Trial) -> None:
        model = self.backbone.build(trial)
        bank, judged = trial.images("train"), trial.images("val")
        accuracy = knn_accuracy(
            pooled_features(model, bank, trial.device),
            bank.labels,
            pooled_features(model, judged, trial.device),
            judged.labels,
            neighbors=self.neighbors,
            temperature=self.temperature,
        )
        trial.report(0, {"val/knn_accuracy": accuracy})
        trial.finish({})
