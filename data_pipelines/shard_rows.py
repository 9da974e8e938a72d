"""Rows of shards: some images of a split, in any order, whichever shards hold them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_pipelines.location import location, parquet_file

READER_THREADS = 8
"""Shards that a task reads at once: an object store takes longer to answer than to send."""


@dataclass(frozen=True)
class Shards:
    """The shards of one split."""

    paths: tuple[str, ...]
    firsts: tuple[int, ...]
    """Row of the manifest that each begins with."""

    def read(self, rows: NDArray[np.int64]) -> tuple[list[str], list[bytes]]:
        """Ids and published bytes of some rows of the manifest, in the order asked for.

        No other columns are read, and of each shard only the row groups that hold a wanted row.
        """
        holders = np.searchsorted(self.firsts, rows, side="right") - 1
        ids, images = [""] * len(rows), [b""] * len(rows)

        def read(holder: int) -> None:
            wanted = np.flatnonzero(holders == holder)
            table = read_shard_rows(self.paths[holder], rows[wanted] - self.firsts[holder])
            columns = (table["image_id"].to_pylist(), table["image"].to_pylist())
            for position, image_id, image in zip(wanted.tolist(), *columns, strict=True):
                ids[position], images[position] = image_id, image

        with ThreadPoolExecutor(READER_THREADS) as threads:
            list(threads.map(read, np.unique(holders).tolist()))
        return ids, images


def read_shard_rows(path: str, rows: NDArray[np.int64]) -> pa.Table:
    """Columns image_id and image of some rows of a shard, in the order asked for."""
    with parquet_file(location(path)) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.unique(np.searchsorted(ends, rows, side="right")).tolist()
        table = file.read_row_groups(groups, columns=["image_id", "image"], use_threads=False)
    held = np.concatenate([np.arange(ends[group] - sizes[group], ends[group]) for group in groups])
    return table.take(np.searchsorted(held, rows))
