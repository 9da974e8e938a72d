"""What the engine adds to the trainings: images decoded, and wall time against the bare trainings.

    python tests/benchmarks/sweep_overhead.py             # five minutes on two cores
    python tests/benchmarks/sweep_overhead.py --losses energy --layers final
    python tests/benchmarks/sweep_overhead.py --smoke     # whether it runs; the ratio means nothing

A guidance_lambda sweep runs as a process with a data home of its own; then the same results are
computed one after the other in this process, and must be equal. Goals: images decoded / images in
the splits = 1.00; trials' wall time (first trial's start to last trial's end) / max(critical path,
bare time / CPUs) at most 1.15. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tyro
from mlflow import MlflowClient

from data_pipelines.image_set import ImageSet, load_locally
from data_pipelines.manifest import indexed
from sweeps.guidance_lambda import GuidanceLambda
from sweeps.launch.plan import Plan, make_plan
from trainables.losses.loss import Loss
from trainables.result import Result
from trainables.trial import FeedKey, feed_key, run

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class SweepOverhead:
    """The grid; two seeds, so that the first stage fills two cores."""

    losses: tuple[str, ...] = tuple(Loss.registered)
    lambda_loc: tuple[float, ...] | None = None
    layers: tuple[str, ...] = ("input",)
    seeds: tuple[int, ...] = (0, 1)
    epochs: int = 0
    baseline_epochs: int = 0
    smoke: bool = False

    def sweep(self, home: Path) -> GuidanceLambda:
        """The sweep as the process will see it, with everything in one folder."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        sweep = GuidanceLambda(
            **values,
            data_root=str(home / "data"),
            storage_path=str(home / "storage"),
            tracking_uri=f"sqlite:///{home / 'mlflow.db'}",
        )
        return sweep.small() if self.smoke else sweep


@dataclass(frozen=True)
class Loaded:
    """A split that lies in this process already."""

    images: ImageSet

    def load(self) -> ImageSet:
        """The same arrays for every trial."""
        return self.images


@dataclass(frozen=True)
class Swept:
    """What the process showed: seconds are counted from its start."""

    first_trial_s: float
    whole_s: float
    images_decoded: int
    trials_s: float


def swept(sweep: GuidanceLambda) -> Swept:
    """Run the sweep as a process and read when its first trial was heard of."""
    flags: list[str] = []
    for f in fields(sweep):
        value = getattr(sweep, f.name)
        if value in ("", (), None, False) or f.name in ("resume", "gpus_per_trial"):
            continue
        words = value if isinstance(value, tuple) else () if value is True else (value,)
        flags += [f"--{f.name.replace('_', '-')}", *map(str, words)]
    started, first, decoded = time.monotonic(), 0.0, 0
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "sweeps" / "guidance_lambda.py"), *flags],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout or ():
        print(line, end="")
        if line.startswith("[") and not first:
            first = time.monotonic() - started
        if "images decoded once" in line:
            decoded = int(line.split(" images decoded")[0].split()[-1])
    if process.wait() != 0:
        sys.exit(f"the sweep ended with {process.returncode}")
    whole = time.monotonic() - started
    client = MlflowClient(sweep.tracking_uri)
    experiment = client.get_experiment_by_name(sweep.question)
    (launch,) = client.search_runs([experiment.experiment_id], "tags.kind = 'launch'")
    path = client.download_artifacts(launch.info.run_id, "sweep.json")
    return Swept(first, whole, decoded, json.loads(Path(path).read_text())["trial_seconds"])


def bare_seconds(plan: Plan, feeds: Mapping[FeedKey, Loaded], storage: Path) -> list[list[float]]:
    """Seconds of every trial when nothing is around it, by stage."""

    def seconds(bundle: list[Result]) -> float:
        started = time.monotonic()
        for result in bundle:
            if not run(result, storage, feeds, lambda _: None):
                sys.exit(f"{result.label} failed")
        return time.monotonic() - started

    return [[seconds(bundle) for bundle in stage] for stage in plan.stages]


def check_equal(plan: Plan, swept_in: Path, bare_in: Path) -> None:
    """Both computed the same, or the ratio says nothing."""
    for result_id, result in plan.wanted.items():
        one, other = (
            json.loads((storage / result_id / "result.json").read_text())
            for storage in (swept_in, bare_in)
        )
        if one != other:
            sys.exit(f"{result.label}: the sweep and the bare training differ")


def main() -> None:
    """Measure both and print the ratios."""
    grid = tyro.cli(SweepOverhead, description=__doc__)
    with tempfile.TemporaryDirectory(prefix="sweep-overhead-") as folder:
        home = Path(folder)
        sweep = grid.sweep(home)
        dataset, manifest = indexed(sweep.data(), home / "index")
        results = list(sweep.results(dataset))
        plan = make_plan(results, lambda _: False, home / "bare", manifest.images)
        measured = swept(sweep)
        feeds = {
            feed_key(results[0], split): Loaded(
                load_locally(dataset, manifest, split, results[0].size_px)
            )
            for split in dataset.splits()
        }
        seconds = bare_seconds(plan, feeds, home / "bare")
        check_equal(plan, home / "storage", home / "bare")
    show(plan, measured, seconds, sum(manifest.images.values()))


def show(plan: Plan, measured: Swept, seconds: list[list[float]], images: int) -> None:
    """Print the ratios with what they are made of."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bare, critical = sum(map(sum, seconds)), sum(map(max, seconds))
    rows: list[tuple[str, Any]] = [
        (
            "results",
            f"{len(plan.wanted)} in {sum(map(len, seconds))} trials, {len(seconds)} stages",
        ),
        ("images decoded", f"{measured.images_decoded} of {images} in the splits"),
        ("  ratio (goal 1.00)", f"{measured.images_decoded / images:.2f}"),
        ("bare trainings, one process", f"{bare:.1f} s; critical path {critical:.1f} s"),
        ("trials' wall time", f"{measured.trials_s:.1f} s on {cpus} CPUs"),
        ("  ratio (goal <= 1.15)", f"{measured.trials_s / max(critical, bare / cpus):.2f}"),
        ("start-up to the first trial", f"{measured.first_trial_s:.1f} s"),
        ("whole command", f"{measured.whole_s:.1f} s"),
    ]
    print()
    for name, value in rows:
        print(f"{name:<30} {value}")


if __name__ == "__main__":
    main()
