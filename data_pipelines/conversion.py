"""A conversion: a whole dataset to shards and a manifest, by Ray Data, in one pass over its images.

Every shard is written whole and carries the hashes of its images and a digest of what it is made
from, so a conversion that was stopped goes on: a shard that is there and whose images have not
changed since is not written again. The manifest comes last.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines import shards
from data_pipelines.class_map import is_wanted
from data_pipelines.dataset import Dataset
from data_pipelines.location import in_threads, is_local, names_in, write_table, write_whole
from data_pipelines.manifest import FORMAT, Manifest, SplitSummary, identity_of, usable_rows
from data_pipelines.pace import Pace
from data_pipelines.row import (
    add_rows,
    add_to_digest,
    annotation_rows,
    files_of,
    new_digest,
    source_digest,
)

logger = logging.getLogger(__name__)

DAMAGED = "damaged.csv"
"""Beside the manifest: split, image_id and reason of every unusable image."""
OURS = re.compile(r"\d{8}-\d{8}\.parquet(\.\d+\.tmp)?")
"""Names of shards, whole or begun."""

Reports = dict[str, dict[str, Any]]
"""What ``shards.write_shard`` says of each shard, by its path."""


@dataclass(frozen=True)
class Piece:
    """What becomes one shard."""

    path: Path
    rows: pa.Table
    source: str
    """Digest of annotations, and of the files' names, sizes and versions."""
    classes: int
    """K where class maps are judged; 0 where not."""


@dataclass(frozen=True)
class Converted:
    """What came of it."""

    manifest: Manifest
    """Written unless ``damaged`` is more than is allowed; the caller's to check."""
    written: int
    """Shards that were missing."""
    images: int
    """Images in them."""


def home_of(dataset: Dataset, out: Path, splits: tuple[str, ...]) -> Path:
    """``<dataset name>-<hex digits>`` at ``out``: one folder for the same choice of data.

    An object store renames nothing, so the digits cannot be those of the fingerprint, which is
    known when the last image has been read. They are those of the fields and the splits.

    Raises:
        ValueError: a manifest of something else is in the way, or ``out`` lies in the source.
    """
    identity = identity_of(dataset)
    text = json.dumps([FORMAT, shards.IMAGES_PER_SHARD, splits, identity], sort_keys=True)
    home = out / f"{dataset.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if (out / "manifest.json").exists():
        raise ValueError(
            f"--out {out} holds a dataset's manifest itself: give the folder above it, or another"
        )
    if f"{home}/".startswith(f"{dataset.folder}/"):
        raise ValueError(f"--out {out} lies within the source {dataset.folder}: choose another")
    if (home / "manifest.json").exists():
        found = Manifest.read(home)
        if found is not None and (found.identity, tuple(found.splits)) != (identity, splits):
            raise ValueError(
                f"{home} holds the manifest of {found.identity}, {', '.join(found.splits)}: "
                "choose another --out"
            )
    return home


def finished(home: Path, sources: str, *, verify: bool) -> Manifest | None:
    """The manifest of an earlier conversion of the same files; None where there is work to do.

    Args:
        home: see ``home_of``.
        sources: digest of the files as they are now.
        verify: whether an unverified conversion will not do.

    Raises:
        ValueError: it was made from other files.
    """
    manifest = Manifest.read(home) if (home / "manifest.json").exists() else None
    if manifest is not None and manifest.sources != sources:
        raise ValueError(
            f"{home} was converted from files that have changed since: choose another --out, or "
            f"remove its manifest.json to bring it up to date"
        )
    return manifest if manifest and (manifest.verified or not verify) else None


def pieces(
    split: str,
    rows: pa.Table,
    skipped: dict[str, str],
    folder: Path,
    files: dict[str, str],
    classes: int,
) -> Iterator[Piece]:
    """The shards of a split.

    They are cut by position among all listed images, the unusable ones included: an annotation that
    is repaired later moves no other shard.

    Args:
        split: whose rows they are.
        rows: by ANNOTATION_SCHEMA, sorted by image_id.
        skipped: further image_ids.
        folder: of the shards.
        files: size and version of the published files by name.
        classes: K.
    """
    judged = classes if is_wanted(split) else 0
    ids = np.array(rows["image_id"].to_pylist(), dtype=object)
    listed = np.sort(np.concatenate([ids, np.array(list(skipped), dtype=object)]))
    cuts = [*np.searchsorted(ids, listed[:: shards.IMAGES_PER_SHARD]), len(ids)]
    for order, (first, end) in enumerate(pairwise(cuts)):
        if first == end:
            continue
        some = rows.slice(first, end - first)
        made_of = [[name, files.get(name or "")] for pair in files_of(some) for name in pair]
        digest = hashlib.sha256(json.dumps([split, made_of]).encode())
        add_rows(digest, some)
        name = shards.shard_name(order * shards.IMAGES_PER_SHARD, len(listed))
        yield Piece(folder / name, some, digest.hexdigest()[:16], judged)


def convert(
    dataset: Dataset,
    home: Path,
    splits: tuple[str, ...],
    files: dict[str, str],
    *,
    verify: bool,
    say: Callable[[str], None],
) -> Converted:
    """Write what is missing of a dataset's shards; the manifest is returned, not yet written.

    Ray must be running.

    Args:
        dataset: with its published files.
        home: see ``home_of``.
        splits: which to convert.
        files: size and version of the published files by name.
        verify: whether to decode every image once, to find damaged ones.
        say: takes lines of progress.

    Raises:
        ValueError: an image is listed twice.
    """
    plan: dict[str, list[Piece]] = {}
    skipped: dict[str, dict[str, str]] = {}
    classes = len(dataset.classes())
    for split in splits:
        rows, skipped[split] = annotation_rows(dataset, split, say)
        folder = home / f"{split}.shards"
        plan[split] = list(pieces(split, rows, skipped[split], folder, files, classes))
    every = [piece for split in splits for piece in plan[split]]
    reports = done_before(every, verify=verify)
    missing = [piece for piece in every if str(piece.path) not in reports]
    images = sum(len(piece.rows) for piece in missing)
    if missing:
        say(
            f"{home}: {len(missing)} of {len(every)} shards to write, {images} images"
            + (", each decoded once to see if it is sound" if verify else "")
        )
        write(missing, dataset, reports, Pace(dataset.name, images, say), verify=verify)
    digest, summaries, names = new_digest(dataset), {}, {}
    for split in splits:
        summaries[split] = conclude(split, plan[split], reports, skipped[split], home, digest)
        counts = {p.path.name: len(reports[str(p.path)]["files"]) for p in plan[split]}
        names[split] = {name: count for name, count in counts.items() if count}
    manifest = Manifest(
        home,
        identity_of(dataset),
        dataset.classes(),
        digest.hexdigest()[:16],
        source_digest(files),
        summaries,
        names,
        verify,
    )
    return Converted(manifest, len(missing), images)


def done_before(every: list[Piece], *, verify: bool) -> Reports:
    """Reports of the shards that are there and need not be written again."""
    present = {folder: names_in(folder) for folder in {piece.path.parent for piece in every}}
    there = [piece for piece in every if piece.path.name in present[piece.path.parent]]
    reports: Reports = {}
    for piece, report in zip(there, in_threads(report_of_piece, there), strict=True):
        if not report or report["unreadable"]:  # what was unreadable may be there by now
            continue
        if report["source"] == piece.source and (report["verified"] or not verify):
            reports[str(piece.path)] = report
    return reports


def report_of_piece(piece: Piece) -> dict[str, Any] | None:
    """What the shard on disk says of itself."""
    return shards.report_of(piece.path)


def write(
    missing: list[Piece], dataset: Dataset, reports: Reports, pace: Pace, *, verify: bool
) -> None:
    """Have the shards written, and add their reports."""
    if is_local(missing[0].path):
        for folder in {piece.path.parent for piece in missing}:
            folder.mkdir(parents=True, exist_ok=True)
    items = [
        shards.work_item(piece.path, piece.rows, piece.source, piece.classes) for piece in missing
    ]
    sizes = {str(piece.path): len(piece.rows) for piece in missing}
    for report in shards.written(items, dataset.folder, verify=verify, lenient=True):
        reports[report["shard"]] = report
        pace.add(sizes[report["shard"]])


def conclude(
    split: str,
    plan: list[Piece],
    reports: Reports,
    skipped: dict[str, str],
    home: Path,
    digest: Any,
) -> SplitSummary:
    """Write a split's table of usable rows, and add it to the fingerprint."""
    hashes: list[Any] = []
    damaged: dict[str, str] = {}
    for piece in plan:
        report = reports[str(piece.path)]
        damaged |= report["damaged"]
        files = iter(report["files"])
        hashes += [
            report["unreadable"].get(image_id) or tuple(next(files))
            for image_id in piece.rows["image_id"].to_pylist()
        ]
    rows = pa.concat_tables([shards.ANNOTATION_SCHEMA.empty_table(), *(p.rows for p in plan)])
    usable, summary = usable_rows(rows, hashes, skipped, damaged)
    add_to_digest(digest, split, usable, [found for found in hashes if not isinstance(found, str)])
    write_table(home / f"{split}.parquet", usable)
    return summary


def tidy(manifest: Manifest) -> None:
    """Remove shards that are not the manifest's, and what a killed worker had begun."""
    for split, names in manifest.shards.items():
        folder = manifest.directory / f"{split}.shards"
        for name in names_in(folder) - names.keys():
            if OURS.fullmatch(name):
                (folder / name).unlink()


def unusable(manifest: Manifest) -> list[tuple[str, str, str]]:
    """Split, image_id and reason of every image that is skipped or damaged."""
    return [
        (split, image_id, why)
        for split, summary in manifest.splits.items()
        for image_id, why in sorted((summary.skipped | summary.damaged).items())
    ]


def write_damaged(manifest: Manifest) -> Path:
    """Write the list beside the manifest; without an unusable image there is none."""
    path, lines = manifest.directory / DAMAGED, unusable(manifest)
    if lines:
        text = io.StringIO()
        csv.writer(text).writerows([("split", "image_id", "reason"), *lines])
        write_whole(path, text.getvalue().encode())
    elif path.exists():
        path.unlink()
    return path
