"""Orders: in which an epoch goes through the images, a function of its random numbers alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Neighbours that are read together, and how many of such groups are shuffled together.

    However the shards are cut, the order stays the same.
    """

    group_images: int = 16
    """Rows of a group: 1.8 MB of ImageNet's JPEGs, for each read of a file or an object store."""
    groups: int = 128
    """Of a window: 2048 images, 230 MB of ImageNet. Its published rows are sorted by class, so a
    window draws from 128 places of the split."""

    def shuffled(self, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """Every image once: the groups in any order, then the images of each window in any order.

        A reader needs one window at a time: its memory does not grow with the images.

        Args:
            rows: (N,) row of each image in the manifest, ascending.
            random: of the seed and the epoch.

        Returns:
            (N,) positions in ``rows``.

        Raises:
            ValueError: the rows do not ascend.
        """
        if (np.diff(rows) <= 0).any():
            raise ValueError("rows must ascend: groups are made of neighbours in the manifest")
        begins = np.flatnonzero(np.diff(rows // self.group_images, prepend=-1))
        groups = np.split(np.arange(len(rows)), begins[1:])
        mixed = [groups[group] for group in random.permutation(len(groups))]
        windows = [
            mixed[start : start + self.groups] for start in range(0, len(mixed), self.groups)
        ]
        return np.concatenate([random.permutation(np.concatenate(window)) for window in windows])

    def of(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """An order of rows, cut where it goes on beyond the groups of a window.

        A shuffled order falls into its windows again, rows in their order into runs of groups.

        Raises:
            ValueError: the order would have groups read more than twice on average.
        """
        windows = list(self._cut(rows))
        read = [np.unique(window // self.group_images) for window in windows]
        reads, groups = sum(map(len, read)), len(np.unique(np.concatenate(read)))
        if reads > 2 * groups:
            raise ValueError(
                f"this order reads each part of the shards {reads / groups:.0f} times: a streamed "
                'split is read in order or in windows (shuffle = "windows")'
            )
        return windows

    def _cut(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        seen: set[int] = set()
        start = 0
        for position, group in enumerate((rows // self.group_images).tolist()):
            if group not in seen and len(seen) == self.groups:
                yield rows[start:position]
                seen, start = set(), position
            seen.add(group)
        yield rows[start:]


WINDOWS = Windows()
"""Those of every training that shuffles in windows: part of what it is."""
