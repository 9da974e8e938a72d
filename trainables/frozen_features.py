"""Features of a frozen backbone: one forward for all who ask, or none where they are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipelines.image_set import ImageSet
from trainables.models.network import Model
from trainables.models.probed import features_of
from trainables.scoring import BATCH_SIZE

CACHE_BYTES = 2**29
"""What the features of a split may take in memory, whole ones and pooled ones each. A constant, so
that whether a probe reads kept features never depends on what else runs."""

Kind = Literal["whole", "pooled"]


class FrozenBackbone:
    """A network that gives features only: in eval mode, without gradients.

    Attributes:
        forwards: images that went through it.
    """

    def __init__(self, model: Model):
        model.module.eval().requires_grad_(False)
        self.model, self.forwards = model, 0
        self.device = next(model.module.parameters()).device

    def __call__(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Features of pictures (B, 3, H, W): (B, D, h, w), (B, D) or (B, T, D)."""
        self.forwards += len(pictures)
        images = self.model.encode(torch.from_numpy(pictures).to(self.device))
        return features_of(self.model, images)


class BatchFeatures:
    """Features of one batch; each kind is made when somebody first asks for it."""

    def __init__(self, make: Callable[[], Tensor], kept: dict[Kind, Tensor] | None = None):
        self._make, self._kept = make, kept or {}

    @cached_property
    def whole(self) -> Tensor:
        """(B, D, h, w), (B, D) or (B, T, D)."""
        return self._kept["whole"] if "whole" in self._kept else self._make()

    @cached_property
    def pooled(self) -> Tensor:
        """Their mean over places, (B, D)."""
        return self._kept["pooled"] if "pooled" in self._kept else pooled(self.whole)


class SplitFeatures:
    """Features of a split, unaugmented ones computed once where they fit."""

    def __init__(self, backbone: FrozenBackbone, images: ImageSet):
        self.backbone, self.images = backbone, images
        self.kept: dict[Kind, Tensor] = {}

    def keep(self, kinds: Iterable[Kind], budget_bytes: int = CACHE_BYTES) -> None:
        """Compute features of all images and keep those kinds that fit, each for itself."""
        wanted, parts = set(kinds), dict[Kind, list[Tensor]]()
        with self.images.expecting(chunks := in_order(self.images)):
            for chunk in chunks:
                whole = self.backbone(self.images.images(chunk))
                made: dict[Kind, Tensor] = {"whole": whole, "pooled": pooled(whole)}
                for kind in tuple(wanted):
                    row = made[kind][0]
                    if row.numel() * row.element_size() * len(self.images) > budget_bytes:
                        wanted.remove(kind)
                    else:
                        parts.setdefault(kind, []).append(made[kind])
                if not wanted:
                    return
        self.kept = {kind: torch.cat(rows) for kind, rows in parts.items()}

    def of(
        self, indices: NDArray[np.int64], augment: Callable[..., NDArray[np.uint8]] | None = None
    ) -> BatchFeatures:
        """Features of a batch.

        Args:
            indices: (B,) of the images.
            augment: maps pictures and their indices to what the backbone sees; nothing kept serves
                then.
        """

        def make() -> Tensor:
            pictures = self.images.images(indices)
            return self.backbone(pictures if augment is None else augment(pictures, indices))

        if augment is not None:
            return BatchFeatures(make)
        rows = torch.from_numpy(indices).to(self.backbone.device)
        return BatchFeatures(make, {kind: kept[rows] for kind, kept in self.kept.items()})


def in_order(images: ImageSet) -> list[NDArray[np.int64]]:
    """All images of a split in batches, in order."""
    return np.split(np.arange(len(images)), range(BATCH_SIZE, len(images), BATCH_SIZE))


def pooled(whole: Tensor) -> Tensor:
    """The mean over places: pixels of a map or tokens; a class token is one place."""
    if whole.ndim == 4:
        return whole.mean((2, 3))
    return whole.mean(1) if whole.ndim == 3 else whole
