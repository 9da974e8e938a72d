"""A manifest: what a dataset holds, as tables of rows without pixels, made before Ray starts."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.dataset import Dataset, Record, Skipped

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
FORMAT = 2
"""Of manifest.json and the tables; raised when they change, so that older ones are made anew."""
MAX_SKIPPED_FRACTION = 0.01
"""Share of a split, rounded up to whole images, that may be unusable."""

DatasetT = TypeVar("DatasetT", bound=Dataset)


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one split, and by name what was left out or mended."""

    images: int
    pairs: int
    """(image, class) pairs: labels over all images."""
    boxes: int
    skipped: dict[str, str]
    """Reason by image_id."""
    notes: dict[str, list[str]]
    """Clipped and dropped boxes by image_id."""


@dataclass(frozen=True)
class Manifest:
    """The rows of a dataset's splits on disk, sorted by image_id, and their fingerprint."""

    directory: Path
    """``<dataset name>-<fingerprint>``: manifest.json, <split>.parquet, later the shards."""
    identity: dict[str, Any]
    """Canonical form of the dataset without its fingerprint."""
    classes: tuple[str, ...]
    fingerprint: str
    """16 hex digits of the sha256 over annotations and image bytes of these splits."""
    sources: str
    """Digest of names, sizes and times of the published files when they were indexed."""
    splits: dict[str, SplitSummary]

    def summary(self, split: str) -> SplitSummary:
        """Counts of a split; ValueError lists the indexed ones."""
        if split not in self.splits:
            raise ValueError(f"split {split!r} is not indexed; known: {', '.join(self.splits)}")
        return self.splits[split]

    def table(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """The rows of a split by ANNOTATION_SCHEMA, sorted by image_id."""
        self.summary(split)
        return pq.read_table(self.directory / f"{split}.parquet", columns=columns)

    def image_ids(self, split: str) -> tuple[str, ...]:
        """Ids of a split, sorted."""
        return tuple(self.table(split, ["image_id"])["image_id"].to_pylist())

    @property
    def images(self) -> dict[str, int]:
        """Usable images of each split."""
        return {split: summary.images for split, summary in self.splits.items()}

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """The manifest that was written to the directory; None if it has an older format."""
        content = json.loads((directory / "manifest.json").read_text())
        if content.pop("format") != FORMAT:
            return None
        content["classes"] = tuple(content["classes"])
        content["splits"] = {s: SplitSummary(**counts) for s, counts in content["splits"].items()}
        return cls(directory=directory, **content)

    def write(self, directory: Path) -> None:
        """Write manifest.json."""
        content = {"format": FORMAT, **asdict(self)}
        del content["directory"]
        (directory / "manifest.json").write_text(json.dumps(content, indent=1))


def indexed(
    dataset: DatasetT, directory: Path, max_skipped_fraction: float = MAX_SKIPPED_FRACTION
) -> tuple[DatasetT, Manifest]:
    """The dataset with its fingerprint filled in, and the manifest of all its splits.

    A generated dataset is generated first; see ``index`` for the rest.

    Raises:
        ValueError: the dataset bears another fingerprint: its files have changed since.
    """
    dataset.prepare()
    manifest = index(dataset, directory, dataset.splits(), max_skipped_fraction)
    if dataset.fingerprint not in ("", manifest.fingerprint):
        raise ValueError(
            f"{dataset.folder} has fingerprint {manifest.fingerprint}, not {dataset.fingerprint}: "
            "restore the files, or leave the fingerprint empty to accept these"
        )
    return replace(dataset, fingerprint=manifest.fingerprint), manifest


def index(
    dataset: Dataset,
    directory: Path,
    splits: tuple[str, ...],
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
) -> Manifest:
    """Read all annotations and hash all images once; reuse the result while no file changes.

    Args:
        dataset: whose published files are read.
        directory: where ``<dataset name>-<fingerprint>`` is put; outside the dataset's folder.
        splits: in the order that the fingerprint is made in.
        max_skipped_fraction: share of a split, rounded up to whole images, that may be unusable.

    Raises:
        FileNotFoundError: the published layout is not there.
        ValueError: too many images are unusable (names the first), or one is listed twice.
    """
    dataset.check_layout()
    directory = Path(directory)
    identity, sources = replace(dataset, fingerprint="").canonical(), source_digest(dataset)
    manifest = known_manifest(dataset.name, directory, (identity, sources, splits))
    if manifest is None:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{dataset.name}-", dir=directory) as unfinished:
            digest = hashlib.sha256(json.dumps(dataset.classes()).encode())
            counts = {
                split: write_rows(dataset, split, Path(unfinished, f"{split}.parquet"), digest)
                for split in splits
            }
            fingerprint = digest.hexdigest()[:16]
            home = directory / f"{dataset.name}-{fingerprint}"
            manifest = Manifest(home, identity, dataset.classes(), fingerprint, sources, counts)
            manifest.write(Path(unfinished))
            move_files(Path(unfinished), home)
    for split, summary in manifest.splits.items():
        where = f"{dataset.name}/{split}"
        check_skipped(where, summary.images, summary.skipped, max_skipped_fraction)
    return manifest


def known_manifest(
    name: str, directory: Path, wanted: tuple[dict[str, Any], str, tuple[str, ...]]
) -> Manifest | None:
    """A manifest of that identity, source digest and splits, if one was made before."""
    for path in sorted(directory.glob(f"{name}-*/manifest.json")):
        manifest = Manifest.read(path.parent)
        if manifest and (manifest.identity, manifest.sources, tuple(manifest.splits)) == wanted:
            return manifest
    return None


def write_rows(dataset: Dataset, split: str, path: Path, digest: Any) -> SplitSummary:
    """Write the usable records of a split, and add their annotations and bytes to the digest.

    Raises:
        ValueError: an image is listed twice.
    """
    records: list[Record] = []
    skipped: dict[str, str] = {}
    seen: set[str] = set()
    for record in sorted(dataset.records(split), key=lambda record: record.image_id):
        if record.image_id in seen:
            raise ValueError(f"{dataset.folder}: {split} lists image {record.image_id} twice")
        seen.add(record.image_id)
        if isinstance(record, Skipped):
            skipped[record.image_id] = record.reason
            continue
        try:
            files = [sha256_of(record.path), record.segmentation and sha256_of(record.segmentation)]
        except OSError as error:
            skipped[record.image_id] = f"{error.strerror}: {error.filename}"
            continue
        size = (record.width, record.height)
        row = [split, record.image_id, size, record.labels, record.boxes, record.group, files]
        row.append(record.regions)
        digest.update(json.dumps(row).encode())
        records.append(record)
    rows = [row_of(record, dataset.folder) for record in records]
    pq.write_table(pa.Table.from_pylist(rows, ANNOTATION_SCHEMA), path)
    return SplitSummary(
        images=len(records),
        pairs=sum(len(record.labels) for record in records),
        boxes=sum(len(record.boxes) for record in records),
        skipped=skipped,
        notes={record.image_id: list(record.notes) for record in records if record.notes},
    )


def row_of(record: Record, folder: Path) -> dict[str, Any]:
    """A row of ANNOTATION_SCHEMA; relative paths, so that a moved dataset keeps its manifest."""
    segmentation = record.segmentation and str(record.segmentation.relative_to(folder))
    return vars(record) | {
        "path": str(record.path.relative_to(folder)),
        "segmentation": segmentation,
    }


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_skipped(where: str, usable: int, skipped: dict[str, str], fraction: float) -> None:
    """Raise ValueError, naming the first, when more images are unusable than the share allows."""
    total, first = usable + len(skipped), min(skipped, default="")
    allowed = math.ceil(fraction * total)
    if len(skipped) > allowed:
        raise ValueError(
            f"{where}: {len(skipped)} of {total} images are unusable, {allowed} allowed; first "
            f"{first}: {skipped[first]}; repair the files or raise max_skipped_fraction"
        )
    if not usable:
        raise ValueError(f"{where}: no usable image of {total} {skipped}")


def source_digest(dataset: Dataset) -> str:
    """What notices a changed file without reading it: names, sizes and modification times."""
    digest, start = hashlib.sha256(), len(str(dataset.folder))
    for path in dataset.files():
        status = os.stat(path)
        line = f"{path[start:]}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(line.encode())
    return digest.hexdigest()[:16]


def move_files(unfinished: Path, finished: Path) -> None:
    """Put complete files in their place; where the fingerprint stands already, renew its files."""
    finished.mkdir(exist_ok=True)
    # manifest.json is what readers look for: it comes last.
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name == "manifest.json"):
        os.replace(path, finished / path.name)
