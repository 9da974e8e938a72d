"""Shards: Parquet files of published image bytes and annotations, written by Ray Data.

``python -m data_pipelines.shards --help`` converts a whole dataset.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.class_map import PUBLISHED, drawn_png, pack
from data_pipelines.dataset import Dataset
from data_pipelines.location import is_local, location, names_in, read_each, reason, write_table
from data_pipelines.manifest import Manifest
from data_pipelines.order import WINDOWS
from data_pipelines.row import ANNOTATION_SCHEMA, files_of, sha256
from data_pipelines.transforms import damage

if TYPE_CHECKING:  # Ray takes more than a second: only what runs it imports it
    import ray.data

logger = logging.getLogger(__name__)

IMAGES_PER_SHARD = 256
"""One work item of writing, reading and decoding: 20 MB of VOC's JPEGs, 39 MB decoded at 224 px."""

COPIED = ("image_id", "width", "height", "labels", "boxes", "group")
SHARD_SCHEMA = pa.schema(
    [
        pa.field("image", pa.binary(), nullable=False),  # as published, never encoded again
        *(ANNOTATION_SCHEMA.field(name) for name in COPIED),
        pa.field("segmentation", pa.binary()),  # a class map, PNG
    ]
)
STORED = {
    "use_dictionary": ["image_id"],
    "compression": {name: "SNAPPY" if name in COPIED else "NONE" for name in SHARD_SCHEMA.names},
    "write_statistics": ["image_id"],
    "row_group_size": WINDOWS.group_images,
}
"""How Parquet stores them: pictures are compressed already, and no two are alike."""
MAP_PX = 8
"""Side at which a class map is looked at: it is decoded whole, and its resized values checked."""
REPORT = b"attribution_sweeps"
"""Key of a shard's report in the metadata of the Parquet file."""
QUIETED = {
    "ray.data._internal.execution.streaming_executor": logging.WARNING,  # a line per execution
    "ray.data._internal.datasource.parquet_datasource": logging.WARNING,  # two lines per read
    "ray.data._internal.progress": logging.ERROR,  # that progress bars are off
}


def shard_paths(manifest: Manifest, split: str) -> list[Path]:
    """Where the shards of a split lie: rows sorted by image_id, named by the first and the end."""
    if manifest.converted:
        return manifest.converted_shards(split)
    images, folder = manifest.summary(split).images, manifest.directory / f"{split}.shards"
    return [folder / shard_name(first, images) for first in range(0, images, IMAGES_PER_SHARD)]


def shard_firsts(manifest: Manifest, split: str) -> list[int]:
    """Row of the manifest that each shard begins with."""
    if not manifest.converted:
        return list(range(0, manifest.summary(split).images, IMAGES_PER_SHARD))
    # the names of a conversion count unusable images too
    return [0, *accumulate(manifest.shards[split].values())][:-1]


def shard_name(first: int, images: int) -> str:
    """File name of the shard that begins at an image of so many."""
    return f"{first:08d}-{min(first + IMAGES_PER_SHARD, images):08d}.parquet"


def write_shards(dataset: Dataset, manifest: Manifest, split: str) -> Path:
    """Write the missing shards of a split and return their folder.

    A shard is one work item, written whole: what is there is complete, and a call after an
    interruption goes on where that one stopped. Of a converted dataset nothing is written.

    Raises:
        FileNotFoundError: an image is gone since the dataset was indexed (by way of a Ray error),
            or a shard since it was converted.
    """
    paths, folder = shard_paths(manifest, split), manifest.directory / f"{split}.shards"
    present = names_in(folder)
    missing = {path: order for order, path in enumerate(paths) if path.name not in present}
    if missing and manifest.converted:
        raise FileNotFoundError(
            f"{next(iter(missing))}: {len(missing)} of {len(paths)} shards are gone; remove "
            f"{manifest.directory / 'manifest.json'} and convert again"
        )
    if missing:
        logger.info("%s: writing %d of %d shards", folder, len(missing), len(paths))
        rows = manifest.table(split)
        items = [
            work_item(path, rows.slice(order * IMAGES_PER_SHARD, IMAGES_PER_SHARD))
            for path, order in missing.items()
        ]
        for _ in written(items, dataset.folder, verify=False, lenient=False):
            pass
    return folder


def work_item(path: Path, rows: pa.Table, source: str = "", classes: int = 0) -> dict[str, Any]:
    """One shard to write.

    Args:
        path: of the shard.
        rows: by ANNOTATION_SCHEMA.
        source: digest of what it is made from; comes back in its report.
        classes: K where class maps are verified with the images, else 0.
    """
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return {"shard": str(path), "rows": sink.getvalue(), "source": source, "classes": classes}


def written(
    items: list[dict[str, Any]], folder: Path, *, verify: bool, lenient: bool
) -> Iterator[dict[str, Any]]:
    """Write shards by Ray Data and yield each one's report, with ``shard``, as it is done."""
    import ray.data

    write = partial(write_shard, folder=str(folder), verify=verify, lenient=lenient)
    with ordered_execution():
        done = ray.data.from_items(items, override_num_blocks=len(items)).map(write)
        for row in done.iter_rows():
            yield {"shard": row["shard"], **json.loads(row["report"])}


def write_shard(
    item: dict[str, Any], folder: str, *, verify: bool, lenient: bool
) -> dict[str, Any]:
    """Write one shard of the rows whose files can be read, unless there are none.

    Args:
        item: made by ``work_item``.
        folder: of the dataset, which the rows' paths are relative to.
        verify: whether to decode every image to see if it is sound.
        lenient: whether to name a file that cannot be read, not to stop at it.

    Returns:
        ``shard``, its path, and ``report``, which is also in its metadata, as JSON: ``source``,
        ``verified``, ``unreadable`` and ``damaged`` (reason by image_id), ``files`` (sha256 of the
        image and of the segmentation of each written row).
    """
    rows, place = pa.ipc.open_stream(item["rows"]).read_all(), location(folder)
    images, masks = (
        [None if name is None else place / name for name in names]
        for names in zip(*files_of(rows), strict=True)
    )
    unreadable: dict[str, str] = {}
    damaged: dict[str, str] = {}
    kept: list[tuple[int, bytes, bytes | None]] = []
    files: list[tuple[str, str | None]] = []
    contents = zip(rows["image_id"].to_pylist(), read_each(images), read_each(masks), strict=True)
    published = rows.select(PUBLISHED).to_pylist()
    for row, (image_id, image, mask) in enumerate(contents):
        if isinstance(image, bytes) and not isinstance(mask, OSError):
            files.append((sha256(image), None if mask is None else sha256(mask)))
            png = drawn_png(published[row]) if mask is None else mask
            kept.append((row, image, png))
            why, path = damage(image) if verify else "", images[row]
            if verify and not why and item["classes"]:
                sides = (published[row]["width"], published[row]["height"])
                why, path = pack(png, *sides, item["classes"], MAP_PX)[1], masks[row]
            if why:
                damaged[image_id] = f"{why}: {path or images[row]}"
            continue
        error, path = (image, images[row]) if isinstance(image, OSError) else (mask, masks[row])
        if not lenient:
            raise FileNotFoundError(f"{reason(error, path)}: it was there when it was indexed")
        unreadable[image_id] = reason(error, path)
    report = json.dumps(
        {
            "source": item["source"],
            "verified": verify,
            "unreadable": unreadable,
            "damaged": damaged,
            "files": files,
        }
    )
    if kept:
        order, pictures, segmentations = zip(*kept, strict=True)
        columns = {name: rows[name].take(list(order)) for name in COPIED}
        columns |= {"image": pictures, "segmentation": segmentations}
        table = pa.table(columns, schema=SHARD_SCHEMA.with_metadata({REPORT: report}))
        write_table(location(item["shard"]), table, **STORED)
    return {"shard": item["shard"], "report": report}


def report_of(path: Path) -> dict[str, Any] | None:
    """The report of a shard that is there; None where it is absent, broken or without one."""
    try:
        with path.open("rb") as file:
            metadata = pq.read_metadata(file).metadata or {}
        return {"shard": str(path), **json.loads(metadata[REPORT])}
    except (FileNotFoundError, pa.ArrowInvalid, KeyError):
        return None


def read_shards(manifest: Manifest, split: str, **options: Any) -> ray.data.Dataset:
    """The shards of a split as a Ray dataset, one block a shard, wherever they lie.

    Args:
        manifest: whose shards are all there.
        split: one of the manifest's.
        options: of ``ray.data.read_parquet``.
    """
    import ray.data

    paths = shard_paths(manifest, split)
    options["override_num_blocks"] = len(paths)
    if is_local(paths[0]):
        return ray.data.read_parquet([str(path) for path in paths], **options)
    remote: list[Any] = list(paths)
    # fsspec's own, not Arrow's: credentials and endpoint then come from one place
    return ray.data.read_parquet([path.path for path in remote], filesystem=remote[0].fs, **options)


@contextmanager
def ordered_execution() -> Iterator[None]:
    """Ray Data that keeps the order of rows, without progress; its warnings still come through."""
    from ray.data import DataContext

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


if __name__ == "__main__":
    from data_pipelines.command import main

    main()
