"""A survey: what must be known of a split before it is streamed: damaged images, class maps."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from data_pipelines.class_map import pack_batch
from data_pipelines.location import location, parquet_file
from data_pipelines.order import WINDOWS
from data_pipelines.shard_rows import Shards
from data_pipelines.shards import ordered_execution
from data_pipelines.transforms import decode_batch


def class_maps(shards: Shards, classes: int, size_px: int) -> tuple[list[bytes], list[str]]:
    """Packed class maps of a split, in the order of ids, and what is wrong with each.

    They stay in memory: a map of 224 px takes about 2 KB.
    """
    maps: list[bytes] = []
    errors: list[str] = []
    with ordered_execution():
        items = [{"path": path} for path in shards.paths]
        packed = ray.data.from_items(items, override_num_blocks=len(items)).flat_map(
            partial(packed_maps, classes=classes, size_px=size_px)
        )
        for row in packed.iter_rows():
            maps.append(row["class_map"])
            errors.append(row["error"])
    return maps, errors


def packed_maps(item: dict[str, Any], classes: int, size_px: int) -> list[dict[str, Any]]:
    """The task: class_map and error of each row of a shard."""
    with parquet_file(location(item["path"])) as file:
        table = file.read(columns=["segmentation", "width", "height"], use_threads=False)
    sides = list(zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True))
    packed = pack_batch(table["segmentation"].to_pylist(), sides, classes, size_px)
    return [{"class_map": one, "error": error} for one, error in zip(*packed, strict=True)]


def damaged_images(shards: Shards, images: int) -> dict[str, str]:
    """Why each damaged image cannot be decoded, by image_id; all are decoded, on all free CPUs."""
    items = [{"rows": window.tolist()} for window in WINDOWS.of(np.arange(images))]
    with ordered_execution():
        found = (
            ray.data.from_items(items, override_num_blocks=len(items))
            .map_batches(partial(find_damage, shards=shards), batch_size=1, batch_format="pyarrow")
            .take_all()
        )
    return {row["image_id"]: row["error"] for row in found}


def find_damage(items: pa.Table, shards: Shards) -> pa.Table:
    """Rows of image_id and error, one for each damaged image of the windows."""
    damaged: dict[str, str] = {}
    for rows in items["rows"].to_pylist():
        ids, images = shards.read(np.array(rows, dtype=np.int64))
        for image_id, image in zip(ids, images, strict=True):
            (error,) = decode_batch([image], 1)[1]
            if error:
                damaged[image_id] = error
    names = pa.array(damaged.keys(), pa.string())
    return pa.table({"image_id": names, "error": pa.array(damaged.values(), pa.string())})
