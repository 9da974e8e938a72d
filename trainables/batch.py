"""A batch: B images and N explanations asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """B images and N explanations asked of them.

    Attributes:
        images: encoded images, (B, C, H, W), float.
        image_ids: names of the images, B of them; noise is a function of these.
        image_index: which image each explanation is about, (N,), int64.
        targets: the class whose logit each explains, (N,), int64.
        masks: region of each explanation's object, (N, H, W), bool, or None: its boxes, or its
            cell of a mosaic.
        labels: the one true class of each image, (B,), int64, or None where it has several.
        segments: pixels of each explanation's object, (N, H, W), int8: 1 on it, 0 elsewhere, -1
            where the annotation does not say; or None.

    Raises:
        ValueError: the shapes disagree; both are named.
    """

    images: Tensor
    image_ids: Sequence[str]
    image_index: Tensor
    targets: Tensor
    masks: Tensor | None = None
    labels: Tensor | None = None
    segments: Tensor | None = None

    def __post_init__(self) -> None:
        """Check that everything speaks of the same B and N."""
        b, n = len(self.images), len(self.targets)
        if len(self.image_ids) != b or len(self.image_index) != n:
            raise ValueError(
                f"{b} images with {len(self.image_ids)} ids, {n} targets with "
                f"{len(self.image_index)} image indices: the numbers must agree"
            )
        for what, regions in (("masks", self.masks), ("segments", self.segments)):
            if regions is not None and regions.shape != (n, *self.images.shape[2:]):
                raise ValueError(
                    f"{what} {tuple(regions.shape)} for {n} explanations of images "
                    f"{tuple(self.images.shape)}"
                )

    @classmethod
    def single(cls, images: Tensor, targets: Tensor, masks: Tensor | None = None) -> Batch:
        """One explanation per image: N = B."""
        index = torch.arange(len(images), device=images.device)
        ids = [str(i) for i in range(len(images))]
        return cls(images=images, image_ids=ids, image_index=index, targets=targets, masks=masks)

    def explaining(self, chosen: Tensor) -> Batch:
        """The same images, asked only for the chosen explanations, (N,), bool."""
        return replace(
            self,
            image_index=self.image_index[chosen],
            targets=self.targets[chosen],
            masks=None if self.masks is None else self.masks[chosen],
            segments=None if self.segments is None else self.segments[chosen],
        )

    def explained_alone(self) -> tuple[Batch, Tensor]:
        """The images that are explained, without the others, and the positions of all images.

        The positions, (B,), name first those of the smaller batch in its order, then the others.
        """
        asked = torch.zeros(len(self.images), dtype=torch.bool, device=self.images.device)
        asked[self.image_index] = True
        rows, others = asked.nonzero().squeeze(1), (~asked).nonzero().squeeze(1)
        smaller = replace(
            self,
            images=self.images[rows],
            image_ids=[self.image_ids[row] for row in rows.tolist()],
            image_index=torch.searchsorted(rows, self.image_index),
            labels=None if self.labels is None else self.labels[rows],
        )
        return smaller, torch.cat([rows, others])
