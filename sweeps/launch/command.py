"""The whole of a launch, in the order in which it happens."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path

import tyro

from analysis.address import Unavailable, probe, redacted
from data_pipelines.engine import check_address
from data_pipelines.location import reachable
from data_pipelines.manifest import Manifest, indexed
from sweeps.launch.plan import Plan, make_plan
from sweeps.launch.progress import minutes
from sweeps.launch.sweep import Sweep, import_plugins

DONE, SOME_FAILED, BAD_INPUT, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 130
FORWARDS_PER_S = 4000.0
"""Small ResNet, 64 px, one core: only for the estimate of a dry run on the sample."""


def launch(sweep_class: type[Sweep]) -> None:
    """Read the flags, run the sweep, and exit with a code that says how it went.

    0 all done; 1 some results failed; 2 bad input; 3 an error of ours; 130 interrupted.
    """
    sweep = tyro.cli(sweep_class, description=sys.modules[sweep_class.__module__].__doc__)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        code = run(sweep.small() if sweep.smoke else sweep)
    except (ValueError, FileNotFoundError, Unavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        code = BAD_INPUT
    except BrokenPipeError:  # the reader of our output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except KeyboardInterrupt:
        print("\ninterrupted before anything ran", file=sys.stderr)
        code = INTERRUPTED
    except Exception:  # the last line of defence: people get a code, and the trace to report
        traceback.print_exc()
        code = INTERNAL
    sys.stdout.flush()
    sys.exit(code)


def run(sweep: Sweep) -> int:
    """Everything from flags to report; returns the exit code.

    Raises:
        ValueError, FileNotFoundError: bad input, before anything is computed.
        Unavailable: Ray or MLflow do not answer.
    """
    import_plugins(sweep.plugins)
    for place in (sweep.storage_path, sweep.data_root):
        if place.startswith("~"):
            raise ValueError(f"{place}: write the folder out, the shell did not expand ~")
    if "://" in sweep.storage_path:
        raise ValueError(
            f"--storage-path {sweep.storage_path}: checkpoints need a folder, on several nodes one "
            "that all see; only --data-root may be an address"
        )
    storage = Path(sweep.storage_path).absolute()
    results = sweep.asked(sweep.data())  # a bad grid fails here, before the data are looked at
    if not results:
        raise ValueError("the grid is empty: give at least one value to every flag")
    for result in results:
        result.check()
    from sweeps.launch import (
        cluster,  # Ray takes a second to import: not before the flags are known to be good
    )

    check_address(sweep.address)
    threads = max(result.threads for result in results)
    if not sweep.address:
        cluster.check_room(sweep, threads, *cluster.local_resources())
    check_tracking(sweep.tracking_uri)
    make_folder("--storage-path", storage)
    if "://" in sweep.data_root:
        reachable("--data-root", sweep.data_root)
    dataset, manifest = indexed(sweep.data(), storage / "index", say=print)
    sweep.check_data(manifest)
    results = sweep.asked(dataset)
    describe(sweep, storage, manifest)
    if sweep.dry_run:
        plan = make_plan(results, lambda _: False, storage, manifest.images)
        print(dry_run_text(plan, manifest.images))
        for line in sweep.savings(plan.missing.values(), manifest.images):
            print(line)
        return DONE
    prepare_store(sweep.tracking_uri)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # it tells how it makes its tables
    # with a server it prints two addresses for every run that ends
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from sweeps.launch.computation import run_launch  # MLflow takes two

    return run_launch(sweep, storage, dataset, manifest, results)


def describe(sweep: Sweep, storage: Path, manifest: Manifest) -> None:
    """Say where things lie and what was mended in the data."""
    print(f"storage   {storage}")
    print(f"tracking  {redacted(sweep.tracking_uri)}")
    counts = ", ".join(f"{summary.images} {split}" for split, summary in manifest.splits.items())
    print(f"data      {manifest.directory.name}: {counts} images, {len(manifest.classes)} classes")
    for split, summary in manifest.splits.items():
        for image_id, why in summary.skipped.items():
            print(f"skipped image {image_id} ({split}): {why}")
        if summary.notes:
            first = next(iter(summary.notes.items()))
            print(
                f"mended boxes in {len(summary.notes)} {split} images; first {first[0]}: "
                f"{'; '.join(first[1])}"
            )
    for line in sweep.notes():
        print(line)


def dry_run_text(plan: Plan, images: dict[str, int]) -> str:
    """Every result with its cost in forwards of one image."""
    lines = [f"{'stage':>5} {'cost':>12}  result"]
    total = 0.0
    for number, stage in enumerate(plan.stages, 1):
        for result in (r for bundle in stage for r in bundle):
            total += result.cost(images)
            lines.append(
                f"{number:>5} {result.cost(images):>12,.0f}  {result.label}  {result.result_id}"
            )
    lines.append(f"{len(plan.missing)} results, {total:,.0f} forwards of one image in all")
    lines.append(
        f"on the sample's small network about {minutes(total / FORWARDS_PER_S)} of one core; "
        "a forward of ResNet-50 at 224 px is 8.2 GFLOP"
    )
    return "\n".join(lines)


def check_tracking(uri: str) -> None:
    """Ask MLflow's store for a sign of life; a SQLite file that is not there yet will be made.

    Raises:
        Unavailable: nothing answers.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        probe(uri)


def prepare_store(uri: str) -> None:
    """Make the folder of a SQLite store."""
    path = sqlite_path(uri)
    if path is not None:
        make_folder("--tracking-uri", path.parent)


def make_folder(flag: str, path: Path) -> None:
    """Make a folder that a flag names.

    Raises:
        ValueError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{flag}: {path} cannot be made ({error.strerror}); name another"
        ) from None
    if not os.access(path, os.W_OK):
        raise ValueError(f"{flag}: {path} cannot be written to; name another")


def sqlite_path(uri: str) -> Path | None:
    """File of a SQLite store; None for a server."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
