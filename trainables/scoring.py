"""Score a model on a split: its classification and its maps, in one pass over the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
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
    -> image size -> protocol, whatever loss the model was trained with.
    """
    protocols = protocols or {}
    indices, targets = images.pairs()
    logits, order = [], []
    table = np.full((len(indices), len(protocols)), np.nan)
    with evaluating(model.module):
        for chosen, pairs in chunks(images, explained=attribution is not None):
            batch = batch_of(model, images, device, chosen, indices[pairs], targets[pairs])
            with Passes(model, batch) as passes:
                if attribution is not None and len(batch.targets):
                    maps = attribution.at_image_size(attribution(passes), passes)
                    columns = [p(passes, maps).double().cpu().numpy() for p in protocols.values()]
                    table[pairs] = np.stack(columns, axis=1)
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
        area = images.masks(indices, targets).mean((1, 2))
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


def chunks(images: ImageSet, *, explained: bool = True) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images of a batch, ascending, and which of ``images.pairs()`` are theirs.

    Images of equally many classes go together, those of fewest first; or all in order, without any
    pair, if no map is asked for.
    """
    indices, _ = images.pairs()
    counts = np.bincount(indices, minlength=len(images)) * explained
    for count in np.unique(counts):
        alike = np.flatnonzero(counts == count)
        for start in range(0, len(alike), BATCH_SIZE):
            chosen = alike[start : start + BATCH_SIZE]
            yield chosen, np.flatnonzero(np.isin(indices, chosen) & explained)


def batches(
    model: Model, images: ImageSet, device: torch.device, explained: bool = True
) -> Iterator[Batch]:
    """The images as in `chunks`, each with all its positive classes; or in order, without any."""
    indices, targets = images.pairs()
    for chosen, pairs in chunks(images, explained=explained):
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
    """A batch of the chosen images (sorted), one explanation per (index, target) pair."""
    where = {image: position for position, image in enumerate(chosen.tolist())}
    return Batch(
        images=model.encode(torch.from_numpy(images.images(chosen)).to(device)),
        image_ids=[str(images.image_ids[i]) for i in chosen],
        image_index=_index([where[i] for i in indices.tolist()], device),
        targets=_index(targets.tolist(), device),
        masks=torch.from_numpy(images.masks(indices, targets, dilation)).to(device),
    )


def _index(values: list[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.long, device=device)
