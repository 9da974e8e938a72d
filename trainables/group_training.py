"""Group training: two classes whose background tells them in training, and not in the test."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional

import trainables.attribution
import trainables.losses  # noqa: F401  (each registers its classes)
from data_pipelines.augmentation import View, central_windows, random_windows, view
from data_pipelines.boxes import annotated_subset
from data_pipelines.image_set import ImageSet
from trainables.attribution.attribution import Attribution
from trainables.attribution_evaluation import (
    AttributionEvaluation,
    guidance_protocols,
    leave_examples,
    leave_rows,
)
from trainables.classifier_training import ClassifierTraining
from trainables.groups import ACCURACIES, SeenTrial, Setting, group_accuracies, labelled
from trainables.guided_training import (
    PAPER_BATCH_SIZE,
    PAPER_SIZE_PX,
    STEP_COST,
    draw_targets,
    guided_step,
)
from trainables.losses.loss import Loss
from trainables.scoring import Scores, batch_of, score
from trainables.training import Losses, best_epoch, restore
from trainables.trial import Trial

WINDOWS = 11
"""Stream of random numbers beside those of training.py: (seed, stream, epoch), then by image."""


@dataclass(frozen=True, kw_only=True)
class GroupTraining(ClassifierTraining):
    """Two logits and binary cross-entropy on one-hot labels; guided if it has a loss.

    Baseline and guided training start alike, from the same pretrained file (ImageNet's in the
    paper) or from the random weights of the seed where there is none, never from a trained
    baseline; they differ in the localization loss alone. The explained class is the label. Images
    are random windows, mirrored or not, and the boxes follow. The epoch is selected by accuracy on
    the validation images of G1 and G4, the last of equals, and that epoch is tested.

    In training the bird tells the place, so both settings have equal labels there, and one baseline
    serves both: its test values are ``accuracy*`` by birds and ``place_accuracy*`` by places. A
    guided training has one setting, whose labels its ``accuracy*`` are about. (The paper's table
    C1 says so: its reversed baselines are the conventional ones with G2 and G3 complemented.)

    Source: Model Guidance (Rao et al., ICCV 2023), section 5.5 and D.1.2, on Waterbirds-100.
    Departs: without released code, these are ours: the windows (224 of 256 px anywhere in training,
        the middle in evaluation), the two one-hot logits, the selection by one checkpoint. The
        learning rate is lost; 1e-5 is that of a public re-run. Of epochs of equal accuracy, which
        are many where the background tells the class, the last is selected.
    """

    name: ClassVar[str] = "group_training"

    image_size_px: int = field(default=256)
    """Side that images are resized to, before windows are cut. Ours."""
    crop_px: int = 224
    """Side of the windows that the network sees."""
    epochs: int = field(default=350)
    """350 in the paper."""
    learning_rate: float = field(default=1e-5)
    """Of a public re-run; the paper's is lost."""
    setting: Setting = "conventional"
    """What is labelled and where the maps are guided to: the bird, or all but the bird."""
    loss: Loss | None = None
    """None is the baseline."""
    attribution: Attribution | None = None
    """The maps that are guided, and by which the model is judged."""
    lambda_loc: float = 0.0
    """Weight of the localization loss on the paper's scale: 64 images of 224 px per step."""
    annotated_fraction: float = 0.01
    """Share of the training images whose boxes are used. 0.01 in the paper: 47 images."""
    annotation_seed: int = 0
    """Of the drawing of these images, apart from ``seed``: the paper crosses both."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective != "bce":
            raise ValueError(f"objective = {self.objective!r}: a group training takes 'bce'")
        if not 0 < self.crop_px <= self.image_size_px:
            raise ValueError(
                f"crop_px = {self.crop_px}: must lie between 1 and image_size_px = "
                f"{self.image_size_px}"
            )
        parts = (self.loss is None, self.attribution is None, self.lambda_loc == 0)
        if self.lambda_loc < 0 or len(set(parts)) > 1:
            raise ValueError(
                f"lambda_loc = {self.lambda_loc}: a guided training has a loss, an attribution and "
                "a positive lambda; the baseline has none"
            )
        if self.attribution is not None and not self.attribution.differentiable:
            raise ValueError(
                f"attribution {self.attribution.key} cannot guide: it is not marked differentiable"
            )
        if not 0 < self.annotated_fraction <= 1 or self.annotation_seed < 0:
            raise ValueError(
                f"annotated_fraction = {self.annotated_fraction}, annotation_seed = "
                f"{self.annotation_seed}: the fraction must lie in (0, 1], the seed be at least 0"
            )
        own = (self.setting, self.annotated_fraction, self.annotation_seed)
        if self.loss is None and own != ("conventional", 0.01, 0):
            raise ValueError(
                f"setting, annotated_fraction, annotation_seed = {own}: a baseline uses no boxes "
                "and serves both settings; leave them at their defaults"
            )

    @property
    def label(self) -> str:
        if self.loss is None or self.attribution is None:
            return super().label
        return (
            f"{self.loss.key} {self.lambda_loc:g} {self.attribution.key} {self.setting} "
            f"{self.network.key} seed {self.seed} subset {self.annotation_seed}"
        )

    @property
    def baseline(self) -> GroupTraining:
        """The same training without a loss, of the same seed; it serves both settings."""
        if self.loss is None:
            return self
        return replace(
            self,
            setting="conventional",
            loss=None,
            attribution=None,
            lambda_loc=0.0,
            annotated_fraction=0.01,
            annotation_seed=0,
        )

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "val", "test")

    @property
    def selected_by(self) -> str:
        """Accuracy on G1 and G4, whatever else the validation split holds."""
        return "val/accuracy_tied"

    def best(self, history: list[dict[str, float]]) -> int:
        """The last epoch (from 1) with the highest accuracy."""
        return len(history) + 1 - best_epoch(history[::-1], self.selected_by)

    def keeps(self, history: list[dict[str, float]]) -> set[int]:
        """The best epoch, and the last."""
        return {self.best(history), len(history)}

    @property
    def dependencies(self) -> tuple[GroupEvaluation, ...]:
        """The baseline's evaluation, which selected the IoU threshold; no weights are taken."""
        return () if self.reference is None else (self.reference,)

    @property
    def reference(self) -> GroupEvaluation | None:
        """The baseline's evaluation with the same attribution and setting."""
        if self.attribution is None:
            return None
        return GroupEvaluation(of=self.baseline, attribution=self.attribution, setting=self.setting)

    @property
    def directions(self) -> dict[str, str]:
        accuracies = {f"{of}{key}": "max" for key in ACCURACIES for of in ("", "place_")}
        localization = {} if self.reference is None else self.reference.localization_directions
        return super().directions | accuracies | localization | {"localization_loss": "min"}

    @property
    def lambda_scale(self) -> float:
        """Factor from the paper's lambda to ours, as in guided training."""
        scale = PAPER_BATCH_SIZE / self.batch_size
        if self.loss is not None and self.loss.summed_over_pixels:
            scale *= (PAPER_SIZE_PX / self.crop_px) ** 2
        return scale

    def cost(self, images: dict[str, int]) -> float:
        """Steps whose batch holds an annotated image cost more, by depth."""
        step = 3.0
        if self.attribution is not None:
            guided = STEP_COST.get(getattr(self.attribution, "layer", "input"), STEP_COST["input"])
            step += (guided - step) * (1 - (1 - self.annotated_fraction) ** self.batch_size)
        return self.epochs * (step * images["train"] + images["val"]) + 2.0 * images["test"]

    def check(self) -> None:
        """The pretrained weights fit the network, and the layer exists in it."""
        super().check()
        if self.attribution is not None:
            self.attribution.check(self.network)

    def seen(self, images: ImageSet) -> View:
        """A split as evaluation sees it: the middle of each image, in the setting."""
        windows = central_windows(len(images), images.size_px, self.crop_px)
        return view(labelled(images, self.setting), windows, outside=self.setting == "reversed")

    def augmented(self, trial: Trial, images: ImageSet, epoch: int) -> View:
        """A split as an epoch of training sees it: a function of seed, epoch and image."""
        draws = trial.generator(WINDOWS, epoch).random((len(images), 3))
        windows = random_windows(draws, images.size_px, self.crop_px)
        return view(labelled(images, self.setting), windows, outside=self.setting == "reversed")

    def annotated(self, images: ImageSet) -> np.ndarray:
        """Whether an image's box is used, (N,), bool.

        Raises:
            ValueError: the fraction comes to no image at all.
        """
        chosen = annotated_subset(len(images), self.annotated_fraction, self.annotation_seed)
        if self.loss is not None and not len(chosen):
            raise ValueError(
                f"annotated_fraction = {self.annotated_fraction} of {len(images)} training images "
                "is none: take a larger fraction"
            )
        return np.isin(np.arange(len(images)), chosen)

    def compute(self, trial: Trial) -> None:
        images = trial.images("train")
        annotated, birds = self.annotated(images), labelled(images, "conventional").labels
        if self.setting == "reversed" and (birds != labelled(images, "reversed").labels).any():
            raise ValueError(
                "reversed: the training split holds G2 or G3, so that no baseline by birds is one "
                "by places; take data of G1 and G4 alone, such as waterbirds with tied"
            )
        model = self.network.build(birds.shape[1])
        if self.pretrained is not None:
            self.pretrained.load(model.module, self.network)
        model.module.to(trial.device)
        weight = self.lambda_loc * self.lambda_scale
        # so that the mean over an epoch's steps is the mean over its annotated images
        per_image = math.ceil(len(images) / self.batch_size) / max(int(annotated.sum()), 1)

        def step(epoch: int, chosen: np.ndarray) -> Losses:
            model.module.train()
            seen = self.augmented(trial, images, epoch)
            labels = torch.from_numpy(seen.labels[chosen]).to(trial.device, torch.float32)
            if self.loss is None or self.attribution is None:
                x = model.encode(torch.from_numpy(seen.images(chosen)).to(trial.device))
                loss = functional.binary_cross_entropy_with_logits(model.module(x), labels)
                loss.backward()
                return {"loss": loss.item()}
            explained, targets = draw_targets(trial, seen, epoch, chosen)
            batch = batch_of(model, seen, trial.device, chosen, explained, targets)
            used = torch.from_numpy(annotated[explained]).to(trial.device)
            share = weight / trial.share  # a sum over the images
            classification, localization = guided_step(
                model, batch, labels, used, self.attribution, self.loss, share
            )
            return {
                "loss": classification,
                "localization_loss": localization * per_image / trial.share,
            }

        def evaluate() -> dict[str, float]:
            val = self.seen(trial.images("val"))
            scores = score(model, val, trial.device)
            return self.metrics(scores, val, "val") | {"lambda_used": weight}

        state = self.fit(trial, model, step, evaluate)
        best = self.best(state.history)
        summary = {
            "epoch": best,
            "weights": state.notes["weights"],
            "skipped": dict(images.skipped),
        }
        restore(trial, self, summary, best, model)
        protocols, rows = None, []
        if self.reference is not None:
            protocols = guidance_protocols(trial.summary_of(self.reference)["iou_threshold"])
        for split in ("val", "test"):
            seen = self.seen(trial.images(split))
            scores = score(model, seen, trial.device, self.attribution, protocols)
            trial.report(best, self.metrics(scores, seen, split))
            rows.append(scores.rows.assign(split=split, epoch=best))
        if self.attribution is not None:
            leave_examples(SeenTrial(trial, self.seen), model, self.attribution)
            leave_rows(trial, rows)
        trial.finish(summary)

    def metrics(self, scores: Scores, seen: View, split: str) -> dict[str, float]:
        """Everything that is logged about a split, by ``<split>/<key>``."""
        groups = seen.groups
        if groups is None:  # which ``labelled`` has refused
            raise ValueError(f"{split} has no groups")
        found = scores.means | group_accuracies(scores.logits, seen.labels, groups)
        if self.loss is None:
            places = labelled(seen.whole, "reversed").labels
            of_places = group_accuracies(scores.logits, places, groups)
            found |= {f"place_{key}": value for key, value in of_places.items()}
        return {f"{split}/{key}": value for key, value in found.items()}


@dataclass(frozen=True, kw_only=True)
class GroupEvaluation(AttributionEvaluation):
    """EPG and IoU of a baseline in one setting; selects the IoU threshold of the guided trainings.

    Source: Model Guidance (Rao et al., ICCV 2023), section 5.5 and figure C1.
    """

    name: ClassVar[str] = "group_evaluation"

    of: GroupTraining
    """The baseline that is judged."""
    setting: Setting = "conventional"
    """Whether maps belong into the box or out of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of.loss is not None:
            raise ValueError(
                f"of = {self.of.label}: a guided group training judges its own maps; give a "
                "baseline"
            )

    @property
    def label(self) -> str:
        return f"{super().label} {self.setting}"

    @property
    def localization_directions(self) -> dict[str, str]:
        """``max`` or ``min`` for each protocol."""
        metrics = guidance_protocols(0.5)
        return {key: "max" if m.higher_is_better else "min" for key, m in metrics.items()}

    def seen(self, images: ImageSet) -> View:
        """A split as the baseline sees it, with the labels and masks of the setting."""
        seen = self.of.seen(images)
        return view(
            labelled(images, self.setting), seen.windows, outside=self.setting == "reversed"
        )

    def compute(self, trial: Trial) -> None:
        super().compute(SeenTrial(trial, self.seen))
