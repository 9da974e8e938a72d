"""Published fine-tuned networks: judged as they were published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from trainables.classifier_training import single_labels
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.models.pretrained import PretrainedWeights
from trainables.published_classifier import check_whole, published_epoch
from trainables.trial import Trial


@dataclass(frozen=True, kw_only=True)
class PublishedFinetuning(IdsdsFinetuning):
    """A network that somebody else has fine-tuned: nothing is trained, its one epoch is the file.

    A file does not say which deletions its network knows: grid and baseline are as they are stated.

    Source: IDSDS (Hesse et al., 2024), the authors' checkpoints: 16 patches, zero.
    """

    name: ClassVar[str] = "published_finetuning"

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
        how = f"{self.patches} patches, {self.baseline_image.key}"
        return f"published finetuning {how} {self.architecture.key} {self.pretrained.key}"

    @property
    def splits(self) -> tuple[str, ...]:
        return ("val",)

    def cost(self, images: dict[str, int]) -> float:
        """One look at the validation split."""
        return float(images["val"])

    def check(self) -> None:
        """The grid fits the images, and the whole file the network."""
        super().check()
        check_whole(self.pretrained, self.architecture, self.dataset)

    def compute(self, trial: Trial) -> None:
        single_labels(trial.images("val"))
        trial.finish(published_epoch(trial, self.architecture, self.pretrained))
