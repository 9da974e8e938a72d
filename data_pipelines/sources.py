"""Sources: the digit bitmaps and photographs that scenes are made of, divided among the splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

PixelT = TypeVar("PixelT", bound=np.generic)

CLASSES = 10
TILES = (4, 6)
"""Rows and columns that a photograph is cut into, so that no two splits share a pixel of it."""
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
"""Share of each class's bitmaps, and of each photograph's tiles, that a split draws from."""


@dataclass(frozen=True)
class Sources:
    """What one split draws from."""

    bitmaps: tuple[NDArray[np.float32], ...]
    """(m, 8, 8) in [0, 1] of each class."""
    tiles: tuple[NDArray[np.uint8], ...]
    """(height, width, 3) each."""
    places: tuple[int, ...] = ()
    """Index of the photograph that each tile is of."""

    def at(self, place: int) -> Sources:
        """The same bitmaps with the tiles of one photograph alone."""
        kept = [tile for tile, of in zip(self.tiles, self.places, strict=True) if of == place]
        return Sources(self.bitmaps, tuple(kept), (place,) * len(kept))


def partitioned_sources(seed: int) -> dict[str, Sources]:
    """Digit bitmaps and photograph tiles of each split, disjoint between splits.

    Source: the handwritten digits (1797 of 8 x 8) and two photographs that ship with scikit-learn.
    """
    # Imported here: it takes a second or two that only generation needs.
    from sklearn.datasets import load_digits, load_sample_images

    rng = np.random.default_rng(seed)
    digits = load_digits()
    bitmaps = []
    for label in range(CLASSES):
        # Equal bitmaps count once, lest they straddle splits.
        unique = np.unique(digits.images[digits.target == label], axis=0)
        bitmaps.append(partition((rng.permutation(unique) / 16).astype(np.float32)))
    tiles = [partition(rng.permutation(grid(image))) for image in load_sample_images().images]
    return {
        split: Sources(
            bitmaps=tuple(parts[split] for parts in bitmaps),
            tiles=tuple(tile for parts in tiles for tile in parts[split]),
            places=tuple(place for place, parts in enumerate(tiles) for _ in parts[split]),
        )
        for split in SHARES
    }


def grid(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photograph (H, W, 3) as TILES of equal size, (n, height, width, 3), remainders left out."""
    height, width = photograph.shape[0] // TILES[0], photograph.shape[1] // TILES[1]
    return np.stack(
        [
            photograph[row * height : (row + 1) * height, column * width : (column + 1) * width]
            for row, column in np.ndindex(*TILES)
        ]
    )


def partition(items: NDArray[PixelT]) -> dict[str, NDArray[PixelT]]:
    """Consecutive parts of the items in SHARES."""
    ends = np.rint(np.cumsum(list(SHARES.values())) * len(items)).astype(int)
    return dict(zip(SHARES, np.split(items, ends[:-1]), strict=True))
