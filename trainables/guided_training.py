"""Guided training: classify, and look where the boxes are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import moocore
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import trainables.attribution
import trainables.losses
import trainables.metrics  # noqa: F401  (each registers its classes)
from data_pipelines.boxes import annotated_subset
from data_pipelines.dataset import Dataset
from data_pipelines.image_set import ImageSet
from trainables.arrangement import BACKWARD_COST
from trainables.attribution.attribution import Attribution
from trainables.attribution_evaluation import (
    AttributionEvaluation,
    guidance_protocols,
    leave_examples,
    leave_rows,
)
from trainables.batch import Batch
from trainables.classifier_training import ClassifierTraining
from trainables.coupling import coupled_behind
from trainables.losses.loss import Loss
from trainables.models.network import Model
from trainables.passes import Passes
from trainables.scoring import batch_of, score
from trainables.training import TARGETS, FromClassifier, Losses, best_epoch, restore
from trainables.trial import Trial

PAPER_BATCH_SIZE, PAPER_SIZE_PX = 64, 224
STEP_COST = {"input": 6.3, "mid1": 5.7, "mid2": 4.85, "mid3": 3.7, "final": 3.0}
"""Forwards that a guided step costs, by depth (ResNet-50, counted FLOPs); an unknown layer counts
as the input."""
OBJECTIVES = ("val/f1", "val/epg", "val/box_iou_tuned")
ROUNDING = 0.005
"""Values are also compared after rounding to multiples of this, as the authors' code does."""


@dataclass(frozen=True, kw_only=True)
class GuidedTraining(FromClassifier):
    """Binary cross-entropy plus lambda times the localization loss, summed over the batch.

    One class of each annotated image is explained per step.

    Starts from a baseline's best epoch. Without a loss it is the control: the same training,
    unguided.

    Source: Model Guidance (Rao et al., ICCV 2023), equation 1, section 4 and the authors' code.
    Departs: pairs whose mask is empty (a box rounded to nothing) are left out of the localization
        loss; there
        the reference's PPCE is NaN and its other losses give no signal. A B-cos network behind a
        layer is the network itself; the reference pools before the first norm there, which in
        train mode is another function.
    """

    name: ClassVar[str] = "guided_training"
    paper: ClassVar[str] = "Model Guidance, ICCV 2023"

    start: ClassifierTraining
    loss: Loss | None = None
    """None is the control."""
    attribution: Attribution | None = None
    """The maps that are guided, and by which the model is judged."""
    lambda_loc: float = 0.0
    """Weight of the localization loss on the paper's scale: 64 images of 224 px per step."""
    dilation: float = 0.0
    """Share of a box's width and height added on each side, in training only (Model Guidance,
    section 5.4)."""
    annotated_fraction: float = 1.0
    """Share of the training images whose boxes are used (Model Guidance, section 5.4)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lambda_loc < 0:
            raise ValueError(
                f"lambda_loc = {self.lambda_loc}: must not be negative; 0 is the control"
            )
        if (self.loss is None) != (self.attribution is None) or (self.loss is None) != (
            self.lambda_loc == 0
        ):
            raise ValueError(
                "a guided training has a loss, an attribution and a positive lambda; the "
                "control has none"
            )
        if self.attribution is not None and not self.attribution.differentiable:
            raise ValueError(
                f"attribution {self.attribution.key} cannot guide: it is not marked differentiable"
            )
        if not 0 < self.annotated_fraction <= 1 or self.dilation < 0:
            raise ValueError(
                f"annotated_fraction = {self.annotated_fraction}, dilation = {self.dilation}: "
                "the fraction must lie in (0, 1], the dilation must not be negative"
            )

    @property
    def label(self) -> str:
        what = "control" if self.loss is None else f"{self.loss.key} {self.lambda_loc:g}"
        where = "" if self.attribution is None else f" {self.attribution.key}"
        shares = f" {self.annotated_fraction:g} annotated" if self.annotated_fraction < 1 else ""
        shares += f" {self.dilation:g} dilated" if self.dilation else ""
        return f"{what}{where}{shares} {self.start.network.key} seed {self.seed}"

    @property
    def baseline(self) -> ClassifierTraining:
        return self.start

    @property
    def dataset(self) -> Dataset:
        return self.start.dataset

    @property
    def size_px(self) -> int:
        return self.start.size_px

    @property
    def dependencies(self) -> tuple[ClassifierTraining | AttributionEvaluation, ...]:
        """The baseline, and its evaluation that selected the IoU threshold."""
        return (self.start,) if self.reference is None else (self.start, self.reference)

    @property
    def reference(self) -> AttributionEvaluation | None:
        """The baseline's evaluation with the same attribution; the control has none."""
        return (
            None
            if self.attribution is None
            else AttributionEvaluation(of=self.start, attribution=self.attribution)
        )

    @property
    def directions(self) -> dict[str, str]:
        localization = {} if self.reference is None else self.reference.directions
        return self.start.directions | localization | {"localization_loss": "min"}

    @property
    def lambda_scale(self) -> float:
        """Factor from the paper's lambda to ours.

        The loss is summed over the batch, RRR* also over pixels.
        """
        scale = PAPER_BATCH_SIZE / self.batch_size
        if self.loss is not None and self.loss.summed_over_pixels:
            scale *= (PAPER_SIZE_PX / self.size_px) ** 2
        return scale

    def cost(self, images: dict[str, int]) -> float:
        """Training steps by depth; an evaluation is a forward and, by depth, a backward."""
        if self.attribution is None:
            return self.epochs * (3.0 * images["train"] + images["val"])
        step = STEP_COST.get(getattr(self.attribution, "layer", "input"), STEP_COST["input"])
        paying = 1 - (1 - self.annotated_fraction) ** self.batch_size  # batches with an annotation
        maps = 1 + 1.5 * (step - 3.0) / 3.3  # about 1.5 classes an image
        training = 3.0 + paying * (step - 3.0)  # at most: only batch statistics make all pay
        evaluation = maps * (self.epochs * images["val"] + images["test"])
        return self.epochs * training * images["train"] + evaluation

    def check(self) -> None:
        """The layer exists in the network."""
        if self.attribution is not None:
            self.attribution.check(self.start.network)

    def keeps(self, history: list[dict[str, float]]) -> set[int]:
        """The best validation F1, the last epoch, and this run's Pareto-dominant epochs.

        The pooled front of a configuration lies within the fronts of its runs, so no member is
        ever missing.
        """
        kept = {best_epoch(history, "val/f1"), len(history)}
        if self.attribution is None:  # a control is a reference: no front holds it
            return kept
        return kept | own_front(history) | own_front(history, accuracy="val/map")  # both are judged

    def compute(self, trial: Trial) -> None:
        images = trial.images("train")
        model = self.start.network.build(len(images.classes))
        model.module.to(trial.device)
        baseline = trial.summary_of(self.start)
        restore(trial, self.start, baseline, baseline["epoch"], model)
        protocols = None
        if self.reference is not None:
            protocols = guidance_protocols(trial.summary_of(self.reference)["iou_threshold"])
        annotated = np.zeros(len(images), dtype=bool)
        annotated[annotated_subset(len(images), self.annotated_fraction, self.seed)] = True
        if self.loss is not None and not annotated.any():
            raise ValueError(
                f"annotated_fraction = {self.annotated_fraction} of {len(images)} training images "
                "is none: take a larger fraction"
            )
        # so that the mean over an epoch's steps is the mean over its annotated images
        per_image = math.ceil(len(images) / self.batch_size) / max(int(annotated.sum()), 1)

        def step(epoch: int, chosen: np.ndarray) -> Losses:
            model.module.train()
            labels = torch.from_numpy(images.labels[chosen]).to(trial.device, torch.float32)
            if self.loss is None or self.attribution is None:
                x = model.encode(torch.from_numpy(images.images(chosen)).to(trial.device))
                loss = functional.binary_cross_entropy_with_logits(model.module(x), labels)
                loss.backward()
                return {"loss": loss.item()}
            explained, targets = draw_targets(trial, images, epoch, chosen)
            batch = batch_of(model, images, trial.device, chosen, explained, targets, self.dilation)
            used = torch.from_numpy(annotated[explained]).to(trial.device)
            classification, localization = guided_step(
                model,
                batch,
                labels,
                used,
                self.attribution,
                self.loss,
                self.lambda_loc * self.lambda_scale / trial.share,  # a sum over the images
            )
            return {
                "loss": classification,
                "localization_loss": localization * per_image / trial.share,
            }

        def evaluate() -> dict[str, float]:
            scores = score(model, trial.images("val"), trial.device, self.attribution, protocols)
            return scores.as_metrics("val") | {"lambda_used": self.lambda_loc * self.lambda_scale}

        state = self.fit(trial, model, step, evaluate)
        summary = {"epoch": best_epoch(state.history, "val/f1"), "weights": state.notes["weights"]}
        if self.attribution is not None:
            leave_examples(
                trial, model, self.attribution
            )  # of the last epoch, which the model holds
            rows = []
            for epoch in sorted(map(int, summary["weights"])):
                restore(trial, self, summary, epoch, model)
                scores = score(
                    model, trial.images("test"), trial.device, self.attribution, protocols
                )
                trial.report(epoch, scores.as_metrics("test"))
                rows.append(scores.rows.assign(split="test", epoch=epoch))
            leave_rows(trial, rows)
        trial.finish(summary)


def guided_step(
    model: Model,
    batch: Batch,
    labels: Tensor,
    annotated: Tensor,
    attribution: Attribution,
    loss: Loss,
    weight: float,
) -> tuple[float, float]:
    """One forward, one explanation backward, one outer backward; leaves the gradients.

    Only annotated images pay for explanations where the others do not change their maps. Where no
    batch statistics lie behind the layer, only they are explained; and where the network has none
    at all, the others go through it by themselves, unless the layer lies so deep that explaining
    costs nothing: a backward costs for every image in its graph. Losses and gradients are the same,
    but for the draws of dropout. Otherwise everybody is explained in one forward, as in the
    authors' code. A batch in which nobody is annotated is a plain step.

    Args:
        model: in the mode that it trains in.
        batch: images (B, C, H, W) with at most one explanation each and its mask.
        labels: multi-hot, (B, K), float.
        annotated: whether an explanation counts in the localization loss, (N,), bool.
        attribution: the maps that are guided.
        loss: the localization loss.
        weight: lambda, already at the scale of this batch and image size.

    Returns:
        The mean binary cross-entropy and the summed localization loss.
    """
    # only the weights': the images' own gradient would cost half a per cent more at the input
    weights = [p for p in model.module.parameters() if p.requires_grad]
    regions = batch.masks if batch.masks is not None else annotated.new_zeros(len(annotated), 1)
    counted = annotated & regions.flatten(1).any(1)
    if not bool(counted.any()):
        plain = functional.binary_cross_entropy_with_logits(model.module(batch.images), labels)
        plain.backward(inputs=weights)
        return plain.item(), 0.0
    regions = regions[counted]
    layers = [need.layer for need in attribution.needs(model)] or ["input"]
    explained, others = batch, batch.images[:0]
    few = int(counted.sum()) < len(batch.images)
    if few and not coupled_behind(model, layers, batch.images):
        explained, counted = batch.explaining(counted), counted[counted]
        expensive = max(BACKWARD_COST.get(layer, 1.0) for layer in layers) > 0
        if expensive and not coupled_behind(model, ["input"], batch.images):
            explained, order = explained.explained_alone()
            others, labels = batch.images[order[len(explained.images) :]], labels[order]
    with Passes(model, explained, create_graph=True) as passes:
        maps = attribution.at_image_size(loss.prepare(attribution(passes)), passes)
        localization = loss(maps[counted], regions).sum()
        logits = passes.logits
        if len(others):
            logits = torch.cat([logits, model.module(others)])
        classification = functional.binary_cross_entropy_with_logits(logits, labels)
        (classification + weight * localization).backward(inputs=weights)
    return classification.item(), localization.item()


def draw_targets(
    trial: Trial, images: ImageSet, epoch: int, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One positive class of each chosen image, drawn uniformly, anew each epoch.

    Images without any are left out.

    A function of (seed, epoch, image), whatever the batches are.
    """
    draws = trial.generator(TARGETS, epoch).random(len(images))
    explained, targets = [], []
    for index in chosen.tolist():
        positives = images.positives(index)
        if len(positives):
            explained.append(index)
            targets.append(int(positives[int(draws[index] * len(positives))]))
    return np.array(explained, dtype=np.int64), np.array(targets, dtype=np.int64)


def own_front(history: list[dict[str, float]], accuracy: str = OBJECTIVES[0]) -> set[int]:
    """Epochs (from 1) that no other dominates in accuracy, EPG and IoU, raw or rounded."""
    names = (accuracy, *OBJECTIVES[1:])
    points = np.array([[x.get(name, np.nan) for name in names] for x in history])
    points = np.nan_to_num(points, nan=-1.0)  # undefined is worse than anything
    rounded = np.round(points / ROUNDING)
    kept = moocore.is_nondominated(points, maximise=True, keep_weakly=True)
    kept = kept | moocore.is_nondominated(rounded, maximise=True)
    return {int(i) + 1 for i in np.flatnonzero(kept)}
