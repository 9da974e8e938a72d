"""Parts: the scores of a few images each, written whole or not at all, put together at the end."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainables.checkpoint import write_bytes
from trainables.evaluator import ROWS


@dataclass(frozen=True)
class Part:
    """What a part says of itself.

    Attributes:
        result_ids: the results that it holds the rows of.
        image_ids: its images.
        skipped: why an image could not be read, by image id.
        failed: reason and trace of each method that failed.
    """

    result_ids: tuple[str, ...]
    image_ids: tuple[str, ...]
    skipped: dict[str, str]
    failed: dict[str, tuple[str, str]]


def write_part(
    folder: Path,
    result_ids: Sequence[str],
    image_ids: Sequence[str],
    tables: Iterable[pa.Table],
    skipped: dict[str, str],
    failed: dict[str, tuple[str, str]],
) -> None:
    """Leave the rows of some images; a part that is there is complete."""
    about = {
        "result_ids": list(result_ids),
        "image_ids": list(image_ids),
        "skipped": skipped,
        "failed": failed,
    }
    table = pa.concat_tables([ROWS.empty_table(), *tables])
    table = table.replace_schema_metadata({"about": json.dumps(about)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_bytes(part_path(folder, result_ids, image_ids), buffer.getvalue())


def part_path(folder: Path, result_ids: Sequence[str], image_ids: Sequence[str]) -> Path:
    """Where the part of these results and images lies, once it is complete."""
    name = hashlib.sha256("\0".join([*result_ids, "", *image_ids]).encode()).hexdigest()[:16]
    return folder / f"{name}.parquet"


def parts_of(folder: Path) -> list[Path]:
    """The parts in a folder, in the order of their names."""
    return sorted(folder.glob("*.parquet")) if folder.is_dir() else []


def about(path: Path) -> Part:
    """What a part says of itself; its rows are not read."""
    said = json.loads(pq.read_schema(path).metadata[b"about"])
    failed = {key: (reason, trace) for key, (reason, trace) in said["failed"].items()}
    return Part(tuple(said["result_ids"]), tuple(said["image_ids"]), said["skipped"], failed)


def done_ids(folder: Path, result_ids: Collection[str]) -> set[str]:
    """Images that need not be scored again for these results."""
    said = [about(path) for path in parts_of(folder)]
    whole = [part for part in said if set(result_ids) <= set(part.result_ids)]
    return {image_id for part in whole for image_id in part.image_ids}


def gather(folder: Path, result_id: str, method_key: str, wanted: Collection[str]) -> pa.Table:
    """All rows of one result, sorted by protocol, image and target, each image once.

    Parts of a worker that died may hold an image again: the first part counts.
    """
    seen: set[str] = set()
    tables = [ROWS.empty_table()]
    for path in parts_of(folder):
        part = about(path)
        if result_id not in part.result_ids:
            continue
        fresh = [i for i in part.image_ids if i in wanted and i not in seen]
        seen.update(fresh)
        rows = pq.read_table(path, filters=pc.field("method_key") == method_key)
        kept = pc.is_in(rows["image_id"], value_set=pa.array(fresh, pa.string()))
        tables.append(rows.filter(kept).replace_schema_metadata(None))
    return pa.concat_tables(tables).sort_by(
        [("protocol_key", "ascending"), ("image_id", "ascending"), ("target", "ascending")]
    )


def traces_of(rows: pa.Table) -> np.ndarray | None:
    """The traces of rows of one method and protocol, (N, S); None where there are none."""
    traces = [trace for trace in rows["trace"].to_pylist() if trace is not None]
    return np.array(traces, dtype=np.float64) if traces else None


def mean_curve(curves: np.ndarray) -> np.ndarray:
    """Mean of the defined curves (N, S) with a normal 95 % interval, (S, 3): mean, low, high."""
    defined = curves[np.isfinite(curves).all(1)]
    if not len(defined):
        return np.empty((0, 3))
    mean = defined.mean(0)
    spread = defined.std(0, ddof=1) if len(defined) > 1 else np.zeros_like(mean)
    error = 1.96 * spread / np.sqrt(len(defined))
    return np.stack([mean, mean - error, mean + error], axis=1)


def parts_folder(storage: Path, bundle: str) -> Path:
    """Where the parts of a bundle lie until they are put together."""
    return storage / "parts" / hashlib.sha256(bundle.encode()).hexdigest()[:16]


def discard(folder: Path) -> None:
    """Remove parts that have been put together."""
    shutil.rmtree(folder, ignore_errors=True)
