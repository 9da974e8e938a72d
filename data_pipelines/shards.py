"""Shards: Parquet files of published image bytes and annotations, written by Ray Data."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data import DataContext

from data_pipelines.dataset import Dataset
from data_pipelines.manifest import ANNOTATION_SCHEMA, Manifest
from data_pipelines.order import WINDOWS

logger = logging.getLogger(__name__)

IMAGES_PER_SHARD = 256
"""One work item of writing, reading and decoding: 20 MB of VOC's JPEGs, 39 MB decoded at 224 px."""

COPIED = ("image_id", "width", "height", "labels", "boxes", "group")
SHARD_SCHEMA = pa.schema(
    [
        pa.field("image", pa.binary(), nullable=False),  # as published, never encoded again
        *(ANNOTATION_SCHEMA.field(name) for name in COPIED),
        pa.field("segmentation", pa.binary()),  # the published PNG
    ]
)
QUIETED = {
    "ray.data._internal.execution.streaming_executor": logging.WARNING,  # a line per execution
    "ray.data._internal.datasource.parquet_datasource": logging.WARNING,  # two lines per read
    "ray.data._internal.progress": logging.ERROR,  # that progress bars are off
}


def shard_paths(manifest: Manifest, split: str) -> list[Path]:
    """Where the shards of a split lie: rows sorted by image_id, named by the first and the end."""
    images, folder = manifest.summary(split).images, manifest.directory / f"{split}.shards"
    firsts = range(0, images, IMAGES_PER_SHARD)
    ends = [min(first + IMAGES_PER_SHARD, images) for first in firsts]
    return [folder / f"{a:08d}-{b:08d}.parquet" for a, b in zip(firsts, ends, strict=True)]


def write_shards(dataset: Dataset, manifest: Manifest, split: str) -> Path:
    """Write the missing shards of a split and return their folder.

    A shard is one work item, written under a temporary name and renamed: what is there is complete,
    and a call after an interruption goes on where that one stopped.

    Raises:
        FileNotFoundError: an image is gone since the dataset was indexed (by way of a Ray error).
    """
    paths, folder = shard_paths(manifest, split), manifest.directory / f"{split}.shards"
    folder.mkdir(exist_ok=True)
    missing = [{"shard": str(path)} for path in paths if not path.exists()]
    if missing:
        logger.info("%s: writing %d of %d shards", folder, len(missing), len(paths))
        table = str(manifest.directory / f"{split}.parquet")
        write = partial(write_shard, table=table, folder=str(dataset.folder))
        with ordered_execution():
            ray.data.from_items(missing, override_num_blocks=len(missing)).map(write).materialize()
    return folder


def write_shard(item: dict[str, Any], table: str, folder: str) -> dict[str, Any]:
    """Write one shard.

    Args:
        item: ``shard``, its path, whose name tells the rows.
        table: the split's rows in the manifest.
        folder: of the dataset, which the rows' paths are relative to.
    """
    first, end = map(int, Path(item["shard"]).stem.split("-"))
    rows = pq.read_table(table).slice(first, end - first)
    images = [Path(folder, path).read_bytes() for path in rows["path"].to_pylist()]
    masks = [path and Path(folder, path).read_bytes() for path in rows["segmentation"].to_pylist()]
    columns = {name: rows[name] for name in COPIED} | {"image": images, "segmentation": masks}
    unfinished = f"{item['shard']}.{os.getpid()}.tmp"
    content = pa.table(columns, schema=SHARD_SCHEMA)
    pq.write_table(content, unfinished, row_group_size=WINDOWS.group_images)
    os.replace(unfinished, item["shard"])
    return {"shard": item["shard"], "images": len(rows)}


@contextmanager
def ordered_execution() -> Iterator[None]:
    """Ray Data that keeps the order of rows, without progress; its warnings still come through."""
    context = DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # The newer Parquet source starts listing actors for every execution and reads all shards in one
    # task: 4 to 10 s for the sample, against 0.2 to 0.6 s this way (ray 2.60, 2 cores).
    context.use_datasource_v2 = False
    before = {name: logging.getLogger(name).level for name in QUIETED}
    for name, level in QUIETED.items():
        logging.getLogger(name).setLevel(level)
    try:
        with DataContext.current(context):
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
