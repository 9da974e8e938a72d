"""A manifest: what a dataset holds, as tables of rows without pixels, made before Ray starts."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipelines.dataset import Dataset
from data_pipelines.location import in_threads, location, read_table, write_whole
from data_pipelines.pace import Pace
from data_pipelines.row import (
    FileHashes,
    add_to_digest,
    annotation_rows,
    files_of,
    hashes_of,
    new_digest,
    source_digest,
)

logger = logging.getLogger(__name__)

FORMAT = 3
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
    damaged: dict[str, str] = field(default_factory=dict)
    """Why an image cannot be decoded, by image_id, where the converter has looked. Its bytes count
    and are in the shards, as where nobody has looked; it is left out when it is decoded."""


@dataclass(frozen=True)
class Manifest:
    """The rows of a dataset's splits on disk, sorted by image_id, and their fingerprint."""

    directory: Path
    """``<dataset name>-<hex digits>``: manifest.json, <split>.parquet, and the shards."""
    identity: dict[str, Any]
    """Canonical form of the dataset without its fingerprint."""
    classes: tuple[str, ...]
    fingerprint: str
    """16 hex digits of the sha256 over annotations and image bytes of these splits."""
    sources: str
    """Digest of names, sizes and times of the published files when they were indexed."""
    splits: dict[str, SplitSummary]
    shards: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of a converted dataset: rows of each split's shards by their names, in the order of ids. All
    are there, so that the published files are not needed. Empty where shards are written as they
    are asked for."""
    verified: bool = False
    """Whether every image was decoded once to see if it is sound."""
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION
    """Share of a split that may be unusable, as it was accepted when it was converted."""

    @property
    def converted(self) -> bool:
        """Whether the shards stand for the published files."""
        return bool(self.shards)

    def converted_shards(self, split: str) -> list[Path]:
        """Where the shards of a converted split lie, in the order of ids."""
        self.summary(split)
        return [self.directory / f"{split}.shards" / name for name in self.shards[split]]

    def summary(self, split: str) -> SplitSummary:
        """Counts of a split; ValueError lists the indexed ones."""
        if split not in self.splits:
            raise ValueError(f"split {split!r} is not indexed; known: {', '.join(self.splits)}")
        return self.splits[split]

    def table(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """The rows of a split by ANNOTATION_SCHEMA, sorted by image_id."""
        self.summary(split)
        return read_table(self.directory / f"{split}.parquet", columns)

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
        """Write manifest.json, whole."""
        content = {"format": FORMAT, **asdict(replace(self, directory=Path()))}
        del content["directory"]
        write_whole(directory / "manifest.json", json.dumps(content, indent=1).encode())


def indexed(
    dataset: DatasetT,
    directory: Path,
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
    say: Callable[[str], None] = logger.info,
) -> tuple[DatasetT, Manifest]:
    """The dataset with its fingerprint filled in, and the manifest of all its splits.

    What was converted to shards at the dataset's root is taken as it is. Else a generated dataset
    is generated first; see ``index`` for the rest.

    Raises:
        ValueError: the dataset bears another fingerprint: its files have changed since.
    """
    manifest, place = converted_manifest(dataset), dataset.root
    if manifest is None:
        dataset.prepare()
        manifest = index(dataset, directory, dataset.splits(), max_skipped_fraction, say)
        place = str(dataset.folder)
    fraction = max(max_skipped_fraction, manifest.max_skipped_fraction)
    check_summaries(dataset.name, manifest.splits, fraction)
    if dataset.fingerprint not in ("", manifest.fingerprint):
        raise ValueError(
            f"{place} has fingerprint {manifest.fingerprint}, not {dataset.fingerprint}: "
            "restore the files, or leave the fingerprint empty to accept these"
        )
    return replace(dataset, fingerprint=manifest.fingerprint), manifest


def converted_manifest(dataset: Dataset) -> Manifest | None:
    """What ``python -m data_pipelines.shards`` left at the dataset's root; None where nothing.

    Raises:
        ValueError: there are several, or only such with other fields; names them.
    """
    if not dataset.root:
        return None
    root, identity = location(dataset.root), identity_of(dataset)
    read = [
        Manifest.read(path.parent) for path in sorted(root.glob(f"{dataset.name}-*/manifest.json"))
    ]
    found = [manifest for manifest in read if manifest and manifest.converted]
    fit = [manifest for manifest in found if manifest.identity == identity]
    whole = [manifest for manifest in fit if tuple(manifest.splits) == dataset.splits()]
    # a conversion of some splits serves those who need no others, unless the published files do
    fit = whole or ([] if dataset.folder.exists() else fit)
    if len(fit) > 1:
        names = ", ".join(manifest.directory.name for manifest in fit)
        raise ValueError(f"{root} holds {names}: which is meant? Keep one of them there")
    if found and not fit and not dataset.folder.exists():
        raise ValueError(
            f"{found[0].directory} was converted as {found[0].identity}, asked for is {identity}: "
            "convert it with these fields too"
        )
    return fit[0] if fit else None


def identity_of(dataset: Dataset) -> dict[str, Any]:
    """Canonical form without the fingerprint, as JSON gives it back."""
    identity: dict[str, Any] = json.loads(json.dumps(replace(dataset, fingerprint="").canonical()))
    return identity


def index(
    dataset: Dataset,
    directory: Path,
    splits: tuple[str, ...],
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
    say: Callable[[str], None] = logger.info,
) -> Manifest:
    """Read all annotations and hash all images once; reuse the result while no file changes.

    Args:
        dataset: whose published files are read.
        directory: where ``<dataset name>-<fingerprint>`` is put; outside the dataset's folder.
        splits: in the order that the fingerprint is made in.
        max_skipped_fraction: share of a split, rounded up to whole images, that may be unusable.
        say: takes a line now and then where it takes long.

    Raises:
        FileNotFoundError: the published layout is not there.
        ValueError: too many images are unusable (names the first), or one is listed twice.
    """
    dataset.check_layout()
    directory = Path(directory)
    identity, sources = identity_of(dataset), source_digest(dataset.files())
    manifest = known_manifest(dataset.name, directory, (identity, sources, splits))
    if manifest is None:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{dataset.name}-", dir=directory) as unfinished:
            digest = new_digest(dataset)
            counts = {
                split: write_rows(dataset, split, Path(unfinished, f"{split}.parquet"), digest, say)
                for split in splits
            }
            fingerprint = digest.hexdigest()[:16]
            home = directory / f"{dataset.name}-{fingerprint}"
            manifest = Manifest(home, identity, dataset.classes(), fingerprint, sources, counts)
            manifest.write(Path(unfinished))
            move_files(Path(unfinished), home)
    check_summaries(dataset.name, manifest.splits, max_skipped_fraction)
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


def write_rows(
    dataset: Dataset, split: str, path: Path, digest: Any, say: Callable[[str], None]
) -> SplitSummary:
    """Write the usable rows of a split, and add their annotations and bytes to the digest."""
    rows, skipped = annotation_rows(dataset, split, say)
    pace = Pace(f"{dataset.name}/{split}: hashed", len(rows), say)
    hashes: list[FileHashes] = []
    for found in in_threads(partial(hashes_of, folder=dataset.folder), files_of(rows)):
        hashes.append(found)
        pace.add()
    usable, summary = usable_rows(rows, hashes, skipped)
    add_to_digest(digest, split, usable, [found for found in hashes if not isinstance(found, str)])
    pq.write_table(usable, path)
    return summary


def usable_rows(
    rows: pa.Table,
    hashes: Sequence[FileHashes],
    skipped: dict[str, str],
    damaged: dict[str, str] | None = None,
) -> tuple[pa.Table, SplitSummary]:
    """The rows whose files could be read, and the counts of the split.

    Args:
        rows: by ANNOTATION_SCHEMA.
        hashes: of each row; a reason where its files could not be read.
        skipped: why further images have no row, by image_id.
        damaged: see SplitSummary.
    """
    readable = [not isinstance(found, str) for found in hashes]
    unreadable = zip(rows["image_id"].to_pylist(), hashes, strict=True)
    skipped = skipped | {i: found for i, found in unreadable if isinstance(found, str)}
    usable = rows.filter(pa.array(readable, pa.bool_()))
    noted = pc.greater(pc.list_value_length(usable["notes"]), 0)
    notes = usable.select(["image_id", "notes"]).filter(noted)
    return usable, SplitSummary(
        images=len(usable),
        pairs=len(pc.list_flatten(usable["labels"])),
        boxes=len(pc.list_flatten(usable["boxes"])),
        skipped=dict(sorted(skipped.items())),
        notes=dict(zip(notes["image_id"].to_pylist(), notes["notes"].to_pylist(), strict=True)),
        damaged=damaged or {},
    )


def check_summaries(name: str, splits: dict[str, SplitSummary], fraction: float) -> None:
    """``check_skipped`` of every split, damaged images included."""
    for split, summary in splits.items():
        unusable = summary.skipped | summary.damaged
        check_skipped(f"{name}/{split}", summary.images - len(summary.damaged), unusable, fraction)


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


def move_files(unfinished: Path, finished: Path) -> None:
    """Put complete files in their place; where the fingerprint stands already, renew its files."""
    finished.mkdir(exist_ok=True)
    # manifest.json is what readers look for: it comes last.
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name == "manifest.json"):
        os.replace(path, finished / path.name)
