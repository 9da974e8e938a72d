"""Score a model on a split: its classification and its maps, in one pass over the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipelines.image_set import ImageSet
from trainables.attribution.attribution import Attribution
from trainables.batch import Batch
from trainables.metrics.classification import ClassificationMetric
from trainables.metrics.metric import Metric
from trainables.models.network import Model, evaluating
from trainables.passes import Passes

BATCH_SIZE = 64
"""Images per evaluation batch: bounds memory only, in eval mode no score depends on it."""
RUN_IMAGES = 1024
"""Neighbours of a split among which images of equally many classes are put together."""


@dataclass
class Scores:
    """What one model is worth on one split.

    Attributes:
        means: metric key to mean over (image, class) pairs, with ``<key>_defined_fraction``.
        rows: one line per (image, class, protocol).
        logits: (N, K), in the order of the images.
    """

    means: dict[str, float] = field(default_factory=dict)
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    logits: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def as_metrics(self, split: str) -> dict[str, float]:
        """The means under ``<split>/<key>``."""
        return {f"{split}/{key}": value for key, value in self.means.items()}


def score(
    model: Model,
    images: ImageSet,
    device: torch.device,
    attribution: Attribution | None = None,
    protocols: Mapping[str, Metric] | None = None,
) -> Scores:
    """Classification metrics over images, protocols over the maps of (image, class) pairs.

    The targets of an image share its forward (Passes), and images of equally many classes share a
    batch, so that no backward runs for an image that has no target in it; the reference code runs
    one backward per class through the whole batch. The maps are processed in one fixed way, raw map
    -> image size -> protocol, whatever loss the model was trained with. Protocols that need
    segmentation are left out where no image has any; an image without it is undefined to them.
    """
    protocols = {
        key: protocol
        for key, protocol in (protocols or {}).items()
        if "segments" not in protocol.requires or any(images.class_maps)
    }
    indices, targets = images.pairs()
    logits, order = [], []
    table = np.full((len(indices), len(protocols)), np.nan)
    area = np.full(len(indices), np.nan)
    parts = chunks(images, explained=attribution is not None)
    with evaluating(model.module), images.expecting([chosen for chosen, _ in parts]):
        for chosen, pairs in parts:
            batch = batch_of(model, images, device, chosen, indices[pairs], targets[pairs])
            with Passes(model, batch) as passes:
                if attribution is not None and len(batch.targets):
                    maps = attribution.at_image_size(attribution(passes), passes)
                    columns = [p(passes, maps).double().cpu().numpy() for p in protocols.values()]
                    table[pairs] = np.stack(columns, axis=1)
                    if batch.masks is not None:
                        area[pairs] = batch.masks.double().mean((1, 2)).cpu().numpy()
                logits.append(passes.logits.double().cpu().numpy())
            order.append(chosen)
    result = Scores(logits=np.concatenate(logits)[np.argsort(np.concatenate(order))])
    for cls in ClassificationMetric.registered.values():
        metric = cls()
        result.means[metric.key] = metric(result.logits, images.labels)
    if attribution is not None:
        for (key, protocol), column in zip(protocols.items(), table.T, strict=True):
            result.means[key] = protocol.reduce(column)
            result.means[f"{key}_defined_fraction"] = protocol.defined_fraction(column)
        result.rows = pd.concat(
            pd.DataFrame(
                {
                    "image_id": images.image_ids[indices],
                    "target": targets,
                    "box_area_fraction": area,
                    "method_key": attribution.key,
                    "protocol_key": key,
                    "score": column,
                }
            )
            for key, column in zip(protocols, table.T, strict=True)
        )
    return result


def chunks(
    images: ImageSet, *, explained: bool = True
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Images of each batch, ascending, and which of ``images.pairs()`` are theirs.

    Images of equally many classes go together, within runs of RUN_IMAGES neighbours: a streamed set
    brings these at one time. All go in order, without any pair, if no map is asked for.
    """
    indices, _ = images.pairs()
    counts = np.bincount(indices, minlength=len(images)) * explained
    found = []
    for run in np.split(np.arange(len(images)), range(RUN_IMAGES, len(images), RUN_IMAGES)):
        for count in np.unique(counts[run]):
            alike = run[counts[run] == count]
            for start in range(0, len(alike), BATCH_SIZE):
                chosen = alike[start : start + BATCH_SIZE]
                found.append((chosen, np.flatnonzero(np.isin(indices, chosen) & explained)))
    return found


def batches(
    model: Model, images: ImageSet, device: torch.device, explained: bool = True
) -> Iterator[Batch]:
    """The images as in `chunks`, each with all its positive classes; or in order, without any."""
    indices, targets = images.pairs()
    parts = chunks(images, explained=explained)
    with images.expecting([chosen for chosen, _ in parts]):
        for chosen, pairs in parts:
            yield batch_of(model, images, device, chosen, indices[pairs], targets[pairs])


def batch_of(
    model: Model,
    images: ImageSet,
    device: torch.device,
    chosen: np.ndarray,
    indices: np.ndarray,
    targets: np.ndarray,
    dilation: float = 0.0,
) -> Batch:
    """A batch of the chosen images, one explanation per (index, target) pair.

    It has segments where the image set has class maps.
    """
    segments = None
    if any(images.class_maps):
        segments = torch.from_numpy(images.segments(indices, targets)).to(device)
    where = {image: position for position, image in enumerate(chosen.tolist())}
    return Batch(
        images=model.encode(torch.from_numpy(images.images(chosen)).to(device)),
        image_ids=[str(images.image_ids[i]) for i in chosen],
        image_index=_index([where[i] for i in indices.tolist()], device),
        targets=_index(targets.tolist(), device),
        masks=torch.from_numpy(images.masks(indices, targets, dilation)).to(device),
        segments=segments,
    )


def _index(values: list[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.long, device=device)
