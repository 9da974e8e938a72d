"""Published classifiers: judged, and fine-tuned, as they were published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from data_pipelines.dataset import Dataset
from trainables.checkpoint import save_weights
from trainables.classifier_training import ClassifierTraining
from trainables.models.network import Network
from trainables.models.pretrained import PretrainedWeights
from trainables.scoring import score
from trainables.training import weights_path
from trainables.trial import Trial


@dataclass(frozen=True, kw_only=True)
class PublishedClassifier(ClassifierTraining):
    """A classifier that somebody else has trained: nothing is trained, its one epoch is the file.

    Its classes are the dataset's in their order, as ImageNet's are in the order of their synsets.

    Source: IDSDS (Hesse et al., 2024), appendix E: fine-tuning starts from public weights.
    Departs: images are squeezed into a square, as everywhere here; published accuracies are of the
        central square of an image whose shorter side is 256 px, and differ a little.
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
        check_whole(self.pretrained, self.network, self.data)

    def compute(self, trial: Trial) -> None:
        trial.finish(published_epoch(trial, self.network, self.pretrained))


def check_whole(file: PretrainedWeights, network: Network, data: Dataset) -> None:
    """Refuse a file that does not fill a network of the dataset's classes, its head as well.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another file than the one that was asked for, or does not fit.
    """
    try:
        classes = len(data.classes())
    except OSError:  # data that are not there are refused when they are indexed
        return
    file.check(network, classes)


def published_epoch(trial: Trial, network: Network, file: PretrainedWeights) -> dict[str, Any]:
    """Judge a network as a file has it on the validation split; keep its weights as epoch 1.

    Returns:
        The summary that the trial finishes with.
    """
    images = trial.images("val")
    model = network.build(len(images.classes))
    file.load_whole(model.module)
    model.module.to(trial.device)
    metrics = score(model, images, trial.device).as_metrics("val")
    weights = {"1": save_weights(weights_path(trial.folder, 1), model.module)}
    trial.report(1, metrics)
    return {"epoch": 1, "weights": weights}
