"""Published classifiers: judged, and fine-tuned, as they were published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from trainables.checkpoint import save_weights
from trainables.classifier_training import ClassifierTraining
from trainables.models.pretrained import PretrainedWeights
from trainables.scoring import score
from trainables.training import weights_path
from trainables.trial import Trial


@dataclass(frozen=True, kw_only=True)
class PublishedClassifier(ClassifierTraining):
    """A classifier that somebody else has trained: nothing is trained, its one epoch is the file.

    Its classes are the dataset's in their order, as ImageNet's are in the order of their synsets.

    Source: IDSDS (Hesse et al., 2024), appendix E: fine-tuning starts from public weights.
    """

    name: ClassVar[str] = "published_classifier"
    paper: ClassVar[str] = "IDSDS, NeurIPS Datasets and Benchmarks 2024"

    pretrained: PretrainedWeights = field()
    """The file, its head as well."""
    epochs: int = field(default=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs != 1:
            raise ValueError(
                f"epochs = {self.epochs}: the one epoch of a published one is its file"
            )

    @property
    def label(self) -> str:
        return f"published {self.network.key} {self.pretrained.key}"

    @property
    def splits(self) -> tuple[str, ...]:
        return ("val",)

    def cost(self, images: dict[str, int]) -> float:
        """One look at the validation split."""
        return float(images["val"])

    def check(self) -> None:
        """The whole file fits, its head as well, where the number of classes is known."""
        try:
            classes = len(self.data.classes())
        except OSError:  # data that are not there are refused when they are indexed
            return
        self.pretrained.check(self.network, classes)

    def compute(self, trial: Trial) -> None:
        images = trial.images("val")
        model = self.network.build(len(images.classes))
        self.pretrained.load_whole(model.module)
        model.module.to(trial.device)
        metrics = score(model, images, trial.device).as_metrics("val")
        weights = {"1": save_weights(weights_path(trial.folder, 1), model.module)}
        trial.report(1, metrics)
        trial.finish({"epoch": 1, "weights": weights})
