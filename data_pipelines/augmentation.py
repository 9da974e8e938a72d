"""Augmentation: random windows and mirrorings of images, which their boxes and masks follow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_pipelines.image_set import ImageSet


@dataclass(frozen=True, eq=False)
class Windows:
    """A square window into each of N images, mirrored left to right or not."""

    size_px: int
    """Side of the windows."""
    top: NDArray[np.int64]
    """(N,) first row."""
    left: NDArray[np.int64]
    """(N,) first column."""
    mirrored: NDArray[np.bool_]
    """(N,)"""

    def of(self, pictures: NDArray[np.uint8], indices: ArrayLike) -> NDArray[np.uint8]:
        """What the windows show of pictures.

        Args:
            pictures: (B, C, H, W), or masks (B, 1, H, W).
            indices: (B,) window of each picture, in [0, N).

        Returns:
            (B, C, size_px, size_px), a copy.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        seen = np.empty((*pictures.shape[:2], self.size_px, self.size_px), dtype=pictures.dtype)
        for position, window in enumerate(chosen.tolist()):
            top, left = self.top[window], self.left[window]
            part = pictures[position, :, top : top + self.size_px, left : left + self.size_px]
            seen[position] = part[..., ::-1] if self.mirrored[window] else part
        return seen

    def boxes(self, corners: NDArray[np.int32], indices: ArrayLike) -> NDArray[np.int32]:
        """Boxes in pixels of the windows, cut at their sides; one that lies outside is empty.

        Args:
            corners: (M, 4) xmin, ymin, xmax, ymax, half-open, in pixels of the whole image.
            indices: (M,) window of each box.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        left, top = self.left[chosen, None], self.top[chosen, None]
        columns = np.clip(corners[:, ::2] - left, 0, self.size_px)
        rows = np.clip(corners[:, 1::2] - top, 0, self.size_px)
        turned = np.where(self.mirrored[chosen, None], self.size_px - columns[:, ::-1], columns)
        return np.stack([turned[:, 0], rows[:, 0], turned[:, 1], rows[:, 1]], 1).astype(np.int32)


def random_windows(draws: NDArray[np.float64], image_px: int, size_px: int) -> Windows:
    """Windows anywhere in the image, every second one mirrored.

    Args:
        draws: (N, 3) uniform in [0, 1): a function of seed, epoch and image, whatever the batches.
        image_px: side of the images.
        size_px: side of the windows, at most that of the images.
    """
    places = image_px - size_px + 1
    top, left = (np.floor(draws[:, k] * places).astype(np.int64) for k in (0, 1))
    return Windows(size_px, top, left, draws[:, 2] < 0.5)


def central_windows(n: int, image_px: int, size_px: int) -> Windows:
    """The middle of n images, as evaluation sees them: nothing is drawn, nothing mirrored."""
    margin = np.full(n, (image_px - size_px) // 2)
    return Windows(size_px, margin, margin, np.zeros(n, dtype=bool))


@dataclass(frozen=True, kw_only=True, eq=False)
class View(ImageSet):
    """An image set as windows show it; pixels are cut when they are asked for."""

    whole: ImageSet
    windows: Windows
    outside: bool = False
    """Whether masks are what lies outside the boxes: the background."""

    def expecting(self, batches: Sequence[NDArray[np.int64]]) -> AbstractContextManager[None]:
        return self.whole.expecting(batches)

    def images(self, indices: ArrayLike) -> NDArray[np.uint8]:
        return self.windows.of(self.whole.images(indices), indices)

    def mask(self, index: int, class_index: int, dilation: float = 0.0) -> NDArray[np.bool_]:
        inside = super().mask(index, class_index, dilation)
        return ~inside if self.outside else inside


def view(whole: ImageSet, windows: Windows, *, outside: bool = False) -> View:
    """An image set seen through one window an image; its boxes move and are cut with them."""
    same = {f.name: getattr(whole, f.name) for f in fields(ImageSet)}
    owners = np.repeat(np.arange(len(whole)), np.diff(whole.box_offsets))
    corners = windows.boxes(whole.boxes[:, 1:], owners)
    same |= {
        "size_px": windows.size_px,
        "boxes": np.concatenate([whole.boxes[:, :1], corners], axis=1),
        "class_maps": (),  # no dataset that is seen through windows has any
    }
    return View(**same, whole=whole, windows=windows, outside=outside)
