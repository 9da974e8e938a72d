"""Compute what is missing, then report and clean up."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray

from analysis.address import redacted
from data_pipelines.dataset import Dataset
from data_pipelines.manifest import Manifest
from sweeps.launch.cluster import Fed, check_room, check_shared, connect, feeds_for
from sweeps.launch.events import Events
from sweeps.launch.plan import Plan, closure, make_plan
from sweeps.launch.progress import Progress
from sweeps.launch.stages import run_stages, wait_for
from sweeps.launch.sweep import Sweep
from sweeps.launch.weights import prune
from trainables.lease import Lease, computed_elsewhere
from trainables.parts import discard, parts_folder
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.result import Result
from trainables.tracking import Tracking

DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130
SHOWN = 4
"""Figures whose paths are printed; the page shows them all."""


def run_launch(
    sweep: Sweep, storage: Path, dataset: Dataset, manifest: Manifest, results: list[Result]
) -> int:
    """Take the lease of the sweep's experiment and compute; returns the exit code.

    Raises:
        HeldError: another launch of the sweep is alive.
    """
    tracking = Tracking(sweep.tracking_uri, sweep.question, storage / "artifacts")
    lease = Lease(tracking)
    lease.acquire()
    try:
        return compute(sweep, storage, dataset, manifest, results, tracking)
    finally:
        lease.release()


def compute(
    sweep: Sweep,
    storage: Path,
    dataset: Dataset,
    manifest: Manifest,
    results: list[Result],
    tracking: Tracking,
) -> int:
    """Find what is missing, compute it, report, clean up."""
    images = manifest.images
    known = tracking.statuses({r.result_id for r in closure(results)})
    finished = (
        {i for i, entry in known.items() if entry.status == "FINISHED"} if sweep.resume else set()
    )
    plan = make_plan(results, lambda r: r.result_id in finished, storage, images)
    elsewhere = {i: plan.missing[i] for i in computed_elsewhere(tracking, plan.missing, known)}
    tracking.open_launch(sweep.question, flags_of(sweep))
    own = {i: r for i, r in plan.missing.items() if i not in elsewhere}
    # a finished result is missing again where its files are gone: its checkpoint would not bring
    # them back
    forget({i: r for i, r in own.items() if i in finished or not sweep.resume}, storage)
    tracking.schedule(own.values(), known)
    tracking.entries |= {i: known[i] for i in elsewhere}
    summary: dict[str, Any] = {
        "sweep": sweep.question,
        "flags": flags_of(sweep),
        "results": list(plan.wanted),
    }
    tracking.describe_launch(summary)
    print(
        f"{len(plan.wanted)} results: {len(plan.wanted) - len(plan.missing)} are there, "
        f"{len(own)} to compute in {sum(map(len, plan.stages))} trials"
    )
    progress = Progress(plan.missing, images)
    events = Events(tracking, progress, plan.missing, storage)
    try:
        with stoppable(events):
            if own:
                with ray_running(sweep, storage, plan, dataset, manifest) as fed:
                    run_stages(
                        *(plan, sweep, storage, dataset, manifest, fed),
                        *(tracking, events, elsewhere),
                    )
            else:
                wait_for(elsewhere, tracking, events)
    except BaseException as error:
        progress.end()
        left = [i for i in own if i not in events.finished | events.failed.keys()]
        tracking.killed(left)
        tracking.close_launch("KILLED", summary)
        if not isinstance(error, KeyboardInterrupt):
            raise
        print(
            f"interrupted: {len(left)} results stopped at their last finished epoch; the same "
            "command goes on there"
        )
        return INTERRUPTED
    progress.end()
    summary |= {"failed": events.failed, "trial_seconds": events.last_s - events.first_s}
    return finish(sweep, storage, plan, tracking, events, summary)


def finish(
    sweep: Sweep,
    storage: Path,
    plan: Plan,
    tracking: Tracking,
    events: Events,
    summary: dict[str, Any],
) -> int:
    """Print tables, write the report, keep the weights that count, list what failed."""
    ids = list(plan.wanted)
    files: list[Path] = []
    if any(i not in events.failed for i in ids):
        findings = sweep.report(storage / "reports" / tracking.launch_id, ids)
        files = findings.files
        print(findings.text)
        if not events.failed:
            prune(plan.wanted.values(), findings.kept, storage)
    tracking.close_launch("FINISHED" if not events.failed else "FAILED", summary, files)
    figures = [path for path in files if path.suffix == ".png"]
    for path in [f for f in files if f.suffix == ".html"] + figures[:SHOWN]:
        print(f"wrote {path}")
    if len(figures) > SHOWN:
        print(f"      and {len(figures) - SHOWN} more figures beside it")
    store = redacted(sweep.tracking_uri)
    served = store.startswith("http")
    viewer = store if served else f"mlflow ui --backend-store-uri {store}   (or: make ui)"
    print(f"compare the runs: {viewer}")
    if not events.failed:
        return DONE
    print(
        f"\n{len(events.failed)} results failed; the same command tries them again:",
        file=sys.stderr,
    )
    for result_id, reason in events.failed.items():
        print(f"  {plan.wanted[result_id].label} ({result_id}): {reason}", file=sys.stderr)
    return SOME_FAILED


@contextmanager
def ray_running(
    sweep: Sweep, storage: Path, plan: Plan, dataset: Dataset, manifest: Manifest
) -> Iterator[Fed]:
    """Ray with what the trials read."""
    started = time.monotonic()
    cpus, gpus = connect(sweep)
    try:
        check_room(sweep, max(r.threads for r in plan.missing.values()), cpus, gpus)
        check_shared(sweep, [storage, manifest.directory if manifest.converted else dataset.folder])
        fed = feeds_for(plan.missing.values(), dataset, manifest, sweep, cpus, gpus)
        for line in fed.lines:
            print(f"feed      {line}")
        feeds = fed.feeds.values()
        skipped = {i: why for feed in feeds for i, why in feed.annotations.skipped.items()}
        for image_id, why in skipped.items():
            print(f"skipped image {image_id}: {why}")
        decoded = sum(feed.images_decoded for feed in feeds)
        print(
            f"Ray is up with {cpus:g} CPU, {gpus:g} GPU; {decoded} images decoded once, in "
            f"{time.monotonic() - started:.0f} s"
        )
        yield fed
    finally:
        ray.shutdown()


def forget(results: Mapping[str, Result], storage: Path) -> None:
    """Drop checkpoints and parts, so that the results are computed from nothing."""
    for result_id, result in results.items():
        (storage / result_id / "checkpoint.safetensors").unlink(missing_ok=True)
        if isinstance(result, ProtocolEvaluation):
            discard(parts_folder(storage, result.bundle))


def flags_of(sweep: Sweep) -> dict[str, str]:
    """The flags as text, without passwords."""
    flags = {name: str(value) for name, value in vars(sweep).items()}
    return flags | {"tracking_uri": redacted(sweep.tracking_uri)}


@contextmanager
def stoppable(events: Events) -> Iterator[None]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt here; Tune would swallow or ignore them.

    While trials run they do so between two steps of Tune: a write to MLflow that is broken off
    comes out as an error of its database. A second signal does not wait.
    """
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if events.listening and not events.stop:
            events.stop = True
        else:
            raise KeyboardInterrupt

    signals = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, stop) for s in signals}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
