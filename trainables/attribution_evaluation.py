"""Judge the maps of a trained network by one attribution, on validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

import trainables.attribution
import trainables.metrics  # noqa: F401  (each registers its classes)
from data_pipelines.boxes import boxes_of_class
from data_pipelines.dataset import Dataset
from data_pipelines.image_set import ImageSet
from trainables.attribution.attribution import Attribution
from trainables.attribution.identity import check_identities
from trainables.metrics.localization import (
    BoxIou,
    Epg,
    ThresholdSelection,
    select_iou_threshold,
)
from trainables.metrics.metric import Metric
from trainables.metrics.on_object import OnObjectEpg
from trainables.models.network import Model, Network, evaluating
from trainables.passes import Passes
from trainables.result import Result
from trainables.scoring import batch_of, batches, score
from trainables.training import FromClassifier, restore
from trainables.trial import Trial

TUNED = BoxIou(threshold="tuned")
EXAMPLES = 6
"""Images of the panel."""
CHECKED = 4
"""Images on which analytic identities are checked."""


@dataclass(frozen=True, kw_only=True)
class AttributionEvaluation(Result):
    """EPG and IoU of a training's kept epochs, over every (image, positive class) pair.

    The evaluation of a baseline selects the IoU threshold on the validation split; every other
    evaluation with the same attribution takes that one, so that one protocol judges all.
    """

    name: ClassVar[str] = "attribution_evaluation"
    paper: ClassVar[str] = "Model Guidance, ICCV 2023"

    of: FromClassifier
    """What is judged: its best epoch if it is a baseline, all its kept epochs otherwise."""
    attribution: Attribution

    @property
    def network(self) -> Network:
        """The network whose maps are judged."""
        return self.of.architecture

    @property
    def label(self) -> str:
        return f"maps of {self.of.label}: {self.attribution.key}"

    @property
    def dataset(self) -> Dataset:
        return self.of.dataset

    @property
    def size_px(self) -> int:
        return self.of.size_px

    @property
    def splits(self) -> tuple[str, ...]:
        return ("val", "test")

    @property
    def reference(self) -> AttributionEvaluation | None:
        """The evaluation that selected the IoU threshold; None where this one does."""
        if self.of is self.of.baseline:
            return None
        return AttributionEvaluation(of=self.of.baseline, attribution=self.attribution)

    @property
    def dependencies(self) -> tuple[Result, ...]:
        return (self.of,) if self.reference is None else (self.of, self.reference)

    @property
    def bundle(self) -> str:
        """It rides in the trial of what it judges."""
        return self.of.bundle

    @property
    def directions(self) -> dict[str, str]:
        metrics = guidance_protocols(0.5)
        if "segments" not in self.dataset.annotated:
            del metrics[OnObjectEpg().key]
        localization = {key: "max" if m.higher_is_better else "min" for key, m in metrics.items()}
        return self.of.baseline.directions | localization

    def cost(self, images: dict[str, int]) -> float:
        """About two forwards an image: one, and a backward for some of its classes."""
        return 2.0 * (2 * images["val"] + images["test"])

    def check(self) -> None:
        """The attribution suits the network."""
        self.attribution.check(self.network)

    def compute(self, trial: Trial) -> None:
        summary = trial.summary_of(self.of)
        model = self.network.build(len(trial.images("val").classes))
        model.module.to(trial.device)
        epochs = (
            [summary["epoch"]] if self.reference is None else sorted(map(int, summary["weights"]))
        )
        restore(trial, self.of, summary, epochs[0], model)
        if self.reference is None:
            threshold = self.select_threshold(model, trial.images("val"), trial.device)
        else:
            threshold = trial.summary_of(self.reference)["iou_threshold"]
        protocols, rows = guidance_protocols(threshold), []
        for epoch in epochs:
            restore(trial, self.of, summary, epoch, model)
            metrics = {"iou_threshold": threshold}
            metrics |= self_checks(trial, model, self.attribution)
            for split in self.splits:
                scores = score(
                    model, trial.images(split), trial.device, self.attribution, protocols
                )
                metrics |= scores.as_metrics(split)
                rows.append(scores.rows.assign(split=split, epoch=epoch))
            trial.report(epoch, metrics)
        leave_examples(trial, model, self.attribution)
        leave_rows(trial, rows)
        trial.finish({"iou_threshold": threshold, "epochs": epochs})

    def select_threshold(self, model: Model, images: ImageSet, device: torch.device) -> float:
        """The IoU threshold with the highest mean over the split's pairs."""
        selection = ThresholdSelection()
        with evaluating(model.module):
            for batch in batches(model, images, device):
                if len(batch.targets) and batch.masks is not None:
                    with Passes(model, batch) as passes:
                        maps = self.attribution.at_image_size(self.attribution(passes), passes)
                        selection += select_iou_threshold(maps, batch.masks)
        return selection.threshold


def guidance_protocols(iou_threshold: float) -> dict[str, Metric]:
    """The protocols by their keys: EPG, IoU at 0.5, IoU at the tuned threshold, on-object EPG.

    Source: Model Guidance (Rao et al., ICCV 2023), section 4; on-object EPG, which its code lacks,
        section 5.
    """
    return {
        Epg().key: Epg(),
        BoxIou().key: BoxIou(),
        TUNED.key: TUNED.at(iou_threshold),
        OnObjectEpg().key: OnObjectEpg(),
    }


def self_checks(trial: Trial, model: Model, attribution: Attribution) -> dict[str, float]:
    """Analytic identities that the method must meet on this model, on a few images.

    Returns:
        ``self_check.<identity>.error`` (relative) and ``.holds`` (1 or 0) of those that apply.
    """
    images = trial.images("val")
    indices, targets = images.pairs()
    chosen = np.unique(indices)[:CHECKED]
    pairs = np.isin(indices, chosen)
    batch = batch_of(model, images, trial.device, chosen, indices[pairs], targets[pairs])
    with evaluating(model.module):
        findings = check_identities(model, batch, [attribution])
    return {
        f"self_check.{finding.identity}.{what}": float(value)
        for finding in findings
        for what, value in (("error", finding.error), ("holds", finding.holds))
    }


def leave_examples(trial: Trial, model: Model, attribution: Attribution) -> None:
    """Leave maps of a few validation images, the same for all results, as ``examples.npz``."""
    images = trial.images("val")
    pairs = np.unique(images.pairs()[0])
    chosen = np.sort(np.random.default_rng(0).permutation(pairs)[:EXAMPLES])
    targets = np.array([images.positives(i)[0] for i in chosen], dtype=np.int64)
    boxes = [
        boxes_of_class(images.boxes[images.box_offsets[i] : images.box_offsets[i + 1]], c)
        for i, c in zip(chosen, targets, strict=True)
    ]
    batch = batch_of(model, images, trial.device, chosen, chosen, targets)
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = attribution.at_image_size(attribution(passes), passes).float().cpu().numpy()
    np.savez_compressed(
        trial.artifacts / "examples.npz",
        image_ids=images.image_ids[chosen],
        images=images.images(chosen).transpose(0, 2, 3, 1),
        maps=maps,
        targets=targets,
        class_names=np.array([images.classes[c] for c in targets]),
        boxes=np.concatenate(boxes) if boxes else np.zeros((0, 4), np.int32),
        box_offsets=np.cumsum([0, *map(len, boxes)]),
    )


def leave_rows(trial: Trial, rows: Sequence[pd.DataFrame]) -> None:
    """The score of every (image, class, protocol), as ``rows.parquet``."""
    pd.concat(rows, ignore_index=True).to_parquet(trial.artifacts / "rows.parquet", index=False)
