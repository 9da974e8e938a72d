"""Sweeps run as people run them: a process with a data home of its own, and what it left there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "sweeps" / "guidance_lambda.py"
TIMEOUT_S = 900
"""Against hanging for ever; a sweep of these takes less than half a minute."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Home:
    """The data home of one user: the store, the results and the reports of their sweeps."""

    path: Path
    data_root: Path
    script: Path = SCRIPT

    @property
    def folder(self) -> Path:
        return self.path / "attribution-sweeps"

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def variables(self) -> dict[str, str]:
        """The environment of a process of this user."""
        strangers = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "PYTEST_CURRENT_TEST")
        kept = {key: value for key, value in os.environ.items() if key not in strangers}
        # Ray gives way with its workers: beside other stories these would stand still for minutes
        own = {"XDG_DATA_HOME": str(self.path), "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
        return kept | own

    @contextmanager
    def started(self, *flags: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """A sweep that runs; it is killed at the end if it still does."""
        process = subprocess.Popen(
            [sys.executable, str(self.script), "--data-root", str(self.data_root), *flags],
            cwd=self.path,
            env=self.variables() | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a shell's background job ignores interrupts, and its children would inherit that
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def run(self, *flags: str, **variables: str) -> Ended:
        """A sweep from its first line to its last."""
        with self.started(*flags, **variables) as process:
            return end_of(process)

    def runs(self) -> dict[str, Run]:
        """The runs of results, by result id; each has one, or this fails."""
        client = self.client()
        ids = [e.experiment_id for e in client.search_experiments()]
        runs = list(client.search_runs(ids, "tags.result_id != ''"))
        by_id = {run.data.tags["result_id"]: run for run in runs}
        assert len(by_id) == len(runs), "a result has several runs"
        return by_id

    def launches(self) -> list[Run]:
        """The runs of launches, the newest first."""
        client = self.client()
        ids = [e.experiment_id for e in client.search_experiments()]
        return list(client.search_runs(ids, "tags.kind = 'launch'"))

    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri)

    def histories(self, run: Run) -> dict[str, list[tuple[int, float]]]:
        """(step, value) of every metric that the run logged, in order."""
        client = self.client()
        return {
            key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }

    def summaries(self) -> dict[str, dict[str, Any]]:
        """What the results left for their dependents, by result id; holds the weights' sha256."""
        paths = self.storage.glob("*/result.json")
        return {path.parent.name: json.loads(path.read_text()) for path in paths}

    def epochs(self) -> dict[str, int]:
        """Epochs in the checkpoint of each training that has one, by result id."""
        found = {}
        for path in self.storage.glob("*/checkpoint.safetensors"):
            try:
                with safe_open(path, framework="np") as file:
                    found[path.parent.name] = int(json.loads(file.metadata()["state"])["epoch"])
            except FileNotFoundError:  # pruned while we looked
                continue
        return found

    def processes(self) -> dict[int, str]:
        """Commands by pid, told by what they inherited; zombies have inherited nothing."""
        mark = f"XDG_DATA_HOME={self.path}".encode()
        found = {}
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes().split(b"\0"):
                    command = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(path.parent.name)] = command.decode(errors="replace")
            except OSError:  # it ended while we looked
                continue
        return found

    def rows(self) -> dict[str, pd.DataFrame]:
        """The score of every (image, class, protocol), by result id."""
        paths = self.storage.glob("*/artifacts/rows.parquet")
        return {path.parents[1].name: pd.read_parquet(path) for path in paths}

    def parts(self) -> dict[Path, int]:
        """Parts of evaluations that are under way, with the time of each."""
        found = {}
        for path in self.storage.glob("parts/*/*.parquet"):
            try:
                found[path] = path.stat().st_mtime_ns
            except FileNotFoundError:  # discarded while we looked
                continue
        return found

    def scoring(self) -> set[int]:
        """Processes that score images."""
        return {pid for pid, command in self.processes().items() if "ScoringActor" in command}

    def report(self) -> dict[str, pd.DataFrame]:
        """The tables of the newest report, by name."""
        newest = max(self.storage.glob("reports/*"), key=lambda folder: folder.stat().st_mtime)
        return {path.stem: pd.read_csv(path) for path in newest.glob("*.csv")}


def end_of(process: subprocess.Popen[str]) -> Ended:
    """Wait for a process."""
    out, err = process.communicate(timeout=TIMEOUT_S)
    return Ended(process.returncode, out, err)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that a running sweep does; fails if the sweep ends before."""
    deadline = time.monotonic() + TIMEOUT_S
    while not happened():
        if process.poll() is not None:
            out, err = process.communicate()
            raise AssertionError(f"the sweep ended first ({process.returncode})\n{out}\n{err}")
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)
