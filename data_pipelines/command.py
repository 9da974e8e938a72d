"""Convert a published dataset to Parquet shards with a manifest, which sweeps read as they are.

    python -m data_pipelines.shards --layout voc2007 --source /data/voc --out /data/shards
    python sweeps/guidance_lambda.py --dataset voc2007 --data-root /data/shards

``--source`` and ``--out`` are folders or addresses such as s3://bucket/voc (credentials and
endpoint in the environment). The same command goes on where a stopped one was. Every unusable image
is listed by name. Exit codes: 0 all is there, 1 too many images are unusable (no manifest is
written), 2 bad input, 3 an error of ours, 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from data_pipelines.configuration import import_file
from data_pipelines.conversion import (
    convert,
    finished,
    home_of,
    tidy,
    unusable,
    write_damaged,
)
from data_pipelines.dataset import Dataset
from data_pipelines.engine import check_address, runtime_env
from data_pipelines.location import names_in, reachable, refuse_credentials, write_whole
from data_pipelines.manifest import MAX_SKIPPED_FRACTION, Manifest, check_summaries
from data_pipelines.pace import minutes
from data_pipelines.row import source_digest

DONE, DAMAGED, BAD_INPUT, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 130
tell = partial(print, flush=True)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What is converted, from where to where."""

    layout: str
    """Name of a dataset: voc2007, imagenet, ... (an unknown one lists them)."""
    source: str
    """Folder or address that holds the published files, as a sweep's --data-root."""
    out: str
    """Folder or address; the dataset gets a folder of its own in it. Sweeps: --data-root."""
    splits: tuple[str, ...] = ()
    """Which to convert; empty for all, which is what a sweep over several splits needs."""
    fields: tuple[str, ...] = ()
    """Fields of the dataset that differ from their defaults, as difficult=drop."""
    address: str = ""
    """Ray to run on: empty starts a local one, ``auto`` joins the running cluster, HOST:PORT a
    given one."""
    verify: bool = True
    """Decode every image once, so that a damaged one is found now."""
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION
    """Share of a split, rounded up to whole images, that may be unusable."""
    plugins: tuple[Path, ...] = ()
    """Python files with your own datasets."""


def main() -> None:
    """Read the flags, convert, and exit with a code that says how it went."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        prog = "python -m data_pipelines.shards"
        code = run(tyro.cli(Conversion, prog=prog, description=__doc__))
    except (ValueError, FileNotFoundError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = BAD_INPUT
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from the last shard", file=sys.stderr)
        code = INTERRUPTED
    except Exception:  # the last line of defence: people get a code, and the trace to report
        traceback.print_exc()
        print("the same command goes on from the last shard", file=sys.stderr)
        code = INTERNAL
    sys.stdout.flush()
    sys.exit(code)


def run(flags: Conversion) -> int:
    """Everything from flags to manifest; returns the exit code.

    Raises:
        ValueError, FileNotFoundError: bad input, before anything is written.
    """
    started = time.monotonic()
    dataset, splits = chosen(flags)
    out = reachable("--out", flags.out)
    reachable("--source", flags.source)
    dataset.prepare()
    dataset.check_layout()
    home, files = home_of(dataset, out, splits), dataset.files()
    manifest = finished(home, source_digest(files), verify=flags.verify)
    if manifest is not None:
        code = report(manifest, flags.max_skipped_fraction)
        tell(f"nothing to do: {home} is complete")
        return code
    check_address(flags.address)
    check_writable(home)
    with ray_running(flags.address):
        converted = convert(dataset, home, splits, files, verify=flags.verify, say=tell)
    manifest, seconds = converted.manifest, time.monotonic() - started
    tidy(manifest)
    check_complete(manifest)
    write_damaged(manifest)
    code = report(manifest, flags.max_skipped_fraction)
    if code == DONE:
        replace(manifest, max_skipped_fraction=flags.max_skipped_fraction).write(home)
        tell(
            f"wrote {converted.written} shards, {converted.images} images, in {minutes(seconds)} "
            f"({converted.images / seconds:.1f} images/s), and {home / 'manifest.json'}"
        )
        tell(f"sweeps read it by: --dataset {dataset.name} --data-root {out}")
    return code


def chosen(flags: Conversion) -> tuple[Dataset, tuple[str, ...]]:
    """The dataset and the splits that the flags name.

    Raises:
        ValueError: there is no such dataset, field, value or split; or an address has credentials.
    """
    for place in (flags.source, flags.out):
        refuse_credentials(place)
        if place.startswith("~") or not place:
            raise ValueError(f"{place!r}: write the folder out, the shell did not expand it")
    if not 0 <= flags.max_skipped_fraction <= 1:
        raise ValueError(f"--max-skipped-fraction {flags.max_skipped_fraction}: expected 0 to 1")
    for path in flags.plugins:
        import_file(path)
    known = {f.name for f in fields(Dataset.class_named(flags.layout))} - {"root", "fingerprint"}
    values: dict[str, Any] = {}
    for said in flags.fields:
        name, equals, text = said.partition("=")
        if name not in known or not equals:
            raise ValueError(
                f"--fields {said}: expected FIELD=VALUE with a field of {flags.layout}: "
                f"{', '.join(sorted(known)) or 'it has none'}"
            )
        values[name] = value_of(text)
    dataset = Dataset.named(flags.layout, root=flags.source, **values)
    unknown = [split for split in flags.splits if split not in dataset.splits()]
    if unknown:
        raise ValueError(f"--splits {unknown[0]}: {flags.layout} has {', '.join(dataset.splits())}")
    splits = tuple(s for s in dataset.splits() if s in flags.splits) or dataset.splits()
    return dataset, splits


def value_of(text: str) -> Any:
    """A field's value: JSON (3, 0.5, true, [1, 2]), or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_complete(manifest: Manifest) -> None:
    """See that every shard is where the driver looks.

    Raises:
        ValueError: some lie on the disks of other nodes.
    """
    for split, counts in manifest.shards.items():
        folder = manifest.directory / f"{split}.shards"
        missing = sorted(counts.keys() - names_in(folder))
        if missing:
            raise ValueError(
                f"{folder}: {len(missing)} of {len(counts)} shards are not there, first "
                f"{missing[0]}: the workers wrote elsewhere; give an --out that all nodes see"
            )


def check_writable(home: Path) -> None:
    """Write and remove a small file.

    Raises:
        ValueError: it cannot be written; says why.
    """
    token = home / f".{os.getpid()}.try"
    try:
        write_whole(token, b"")
        token.unlink()
    except Exception as error:  # each protocol has errors of its own
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(f"--out: cannot write {home} ({type(error).__name__}: {first})") from error


def report(manifest: Manifest, max_skipped_fraction: float) -> int:
    """Say what there is and list what is unusable; 0, or 1 where that is too much."""
    for split, summary in manifest.splits.items():
        bad = len(summary.skipped) + len(summary.damaged)
        tell(
            f"{split}: {summary.images - len(summary.damaged)} images, {summary.pairs} labels, "
            f"{summary.boxes} boxes in {len(manifest.shards[split])} shards; {bad} unusable"
        )
    lines = unusable(manifest)
    for split, image_id, why in lines:
        print(f"unusable: {split}/{image_id}: {why}", file=sys.stderr)
    if lines:
        print(f"{len(lines)} unusable images, listed in {manifest.directory}", file=sys.stderr)
    try:
        check_summaries(manifest.identity["name"], manifest.splits, max_skipped_fraction)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return DAMAGED
    tell(f"fingerprint {manifest.fingerprint}")
    return DONE


@contextmanager
def ray_running(address: str) -> Iterator[None]:
    """A local Ray on loopback, or the cluster at that address."""
    import ray  # it takes a second that a run with nothing to do does not have

    for name in ("ray.data",):
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address:
        ray.init(address=address, runtime_env=runtime_env(), **quiet)
    else:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
    try:
        yield
    finally:
        ray.shutdown()
