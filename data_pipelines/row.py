"""A row: one image of a manifest's table, without pixels, and what a fingerprint takes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.dataset import Dataset, Record, Skipped
from data_pipelines.location import reason
from data_pipelines.pace import Pace

ANNOTATION_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),  # relative to the dataset's folder
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("labels", pa.list_(pa.int32()), nullable=False),
        pa.field("boxes", pa.list_(pa.list_(pa.float64(), 6)), nullable=False),  # see dataset.Box
        pa.field("segmentation", pa.string()),  # relative to the dataset's folder
        pa.field("regions", pa.string(), nullable=False),  # see dataset.Record
        pa.field("group", pa.int32()),
        pa.field("notes", pa.list_(pa.string()), nullable=False),
    ]
)
IDENTIFYING = ["image_id", "width", "height", "labels", "boxes", "group", "regions"]
"""Columns that the fingerprint covers; paths are covered by what the files hold."""
ROWS_AT_ONCE = 4096
"""Rows that are plain Python objects at one time."""
FileHashes = tuple[str, str | None] | str
"""Sha256 of an image and of its segmentation; or why they could not be read."""


def annotation_rows(
    dataset: Dataset, split: str, say: Callable[[str], None]
) -> tuple[pa.Table, dict[str, str]]:
    """Every annotated image by ANNOTATION_SCHEMA, sorted by image_id; why the others have none.

    Raises:
        ValueError: an image is listed twice.
    """
    tables, rows, folder = [ANNOTATION_SCHEMA.empty_table()], [], dataset.folder
    skipped: dict[str, str] = {}
    seen: set[str] = set()
    pace = Pace(f"{dataset.name}/{split}: annotations", 0, say)
    for record in dataset.records(split):
        if record.image_id in seen:
            raise ValueError(f"{folder}: {split} lists image {record.image_id} twice")
        seen.add(record.image_id)
        pace.add()
        if isinstance(record, Skipped):
            skipped[record.image_id] = record.reason
            continue
        rows.append(row_of(record, folder))
        if len(rows) == ROWS_AT_ONCE:  # columns take a tenth of the room
            tables.append(pa.Table.from_pylist(rows, ANNOTATION_SCHEMA))
            rows = []
    tables.append(pa.Table.from_pylist(rows, ANNOTATION_SCHEMA))
    return pa.concat_tables(tables).sort_by("image_id").combine_chunks(), dict(
        sorted(skipped.items())
    )


def row_of(record: Record, folder: Path) -> dict[str, Any]:
    """A row of ANNOTATION_SCHEMA; relative paths, so that a moved dataset keeps its manifest."""
    segmentation = record.segmentation and str(record.segmentation.relative_to(folder))
    return vars(record) | {
        "path": str(record.path.relative_to(folder)),
        "segmentation": segmentation,
    }


def files_of(rows: pa.Table) -> list[tuple[str, str | None]]:
    """Image and segmentation of each row, relative to the dataset's folder."""
    return list(zip(rows["path"].to_pylist(), rows["segmentation"].to_pylist(), strict=True))


def hashes_of(files: tuple[str, str | None], folder: Path) -> FileHashes:
    """Sha256 of an image's files; why one of them cannot be read."""
    image, segmentation = files
    path = folder / image
    try:
        of_image = sha256(path.read_bytes())
        if segmentation is None:
            return of_image, None
        path = folder / segmentation
        return of_image, sha256(path.read_bytes())
    except OSError as error:
        return reason(error, path)


def sha256(content: bytes) -> str:
    """64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def new_digest(dataset: Dataset) -> Any:
    """A fingerprint's beginning: the classes."""
    return hashlib.sha256(json.dumps(dataset.classes()).encode())


def add_to_digest(
    digest: Any, split: str, rows: pa.Table, hashes: Sequence[tuple[str, str | None]]
) -> None:
    """Add what makes up a split: annotations and hashes of the files, in the order of ids."""
    digest.update(json.dumps([split, len(rows), hashes]).encode())
    add_rows(digest, rows.select(IDENTIFYING))


def add_rows(digest: Any, rows: pa.Table) -> None:
    """Add the values of every column, whatever chunks they are in."""
    for name in rows.column_names:
        digest.update(name.encode())
        add_values(digest, rows[name].combine_chunks())


def add_values(digest: Any, values: pa.Array) -> None:
    """Add an array, column by column: a million rows take a second, as Python objects minutes."""
    digest.update(values.is_null().to_numpy(zero_copy_only=False).tobytes())
    if pa.types.is_list(values.type):
        lengths = pc.fill_null(pc.list_value_length(values), 0)
        digest.update(lengths.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        add_values(digest, values.flatten())
    elif pa.types.is_fixed_size_list(values.type):
        add_values(digest, values.flatten())
    elif pa.types.is_string(values.type):
        digest.update(json.dumps(values.to_pylist()).encode())
    else:
        kind = "<f8" if pa.types.is_floating(values.type) else "<i8"
        digest.update(pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(kind).tobytes())


def source_digest(files: dict[str, str]) -> str:
    """What notices a changed file without reading it: names, sizes and modification times."""
    digest = hashlib.sha256()
    for name, version in files.items():
        digest.update(f"{name}\0{version}\n".encode())
    return digest.hexdigest()[:16]
