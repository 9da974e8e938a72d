"""The only writer of MLflow: one run per result, found or created by its result id."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from trainables.result import Result, parameters
from trainables.source import ROOT, source_fingerprint

PAGE = 1000
"""Runs asked for at once."""
BATCH = 100
"""Parameters or metrics in one request; what MLflow's servers accept."""
CONFLICTS = ("BAD_REQUEST", "TEMPORARILY_UNAVAILABLE")
"""MLflow's answers where its database lets only one of two writers through."""


@dataclass(frozen=True)
class Entry:
    """A result's run as MLflow holds it."""

    run_id: str
    status: str
    started_ms: int
    launch: str
    """Run id of the launch that computes or computed it."""
    experiment_id: str


class Tracking:
    """Runs of one experiment, written synchronously by one process.

    Attributes:
        entries: the run of each scheduled result, by result id.
        launch_id: run id of this launch.
    """

    def __init__(self, uri: str, experiment: str, artifacts: Path):
        """Find or create the experiment.

        Args:
            uri: MLflow's store.
            experiment: its name.
            artifacts: folder for files of runs, where there is no server that has its own.
        """
        self.client = MlflowClient(uri)
        known = self.client.get_experiment_by_name(experiment)
        # without a server MLflow would put files into ./mlruns of wherever the sweep was started
        place = None if uri.startswith("http") else (artifacts / experiment).as_uri()
        self.experiment_id = (
            known.experiment_id if known else self.client.create_experiment(experiment, place)
        )
        self.entries: dict[str, Entry] = {}
        self.launch_id = ""

    def statuses(self, result_ids: set[str]) -> dict[str, Entry]:
        """What all experiments hold of these results; a finished run stands before others."""
        found: dict[str, Entry] = {}
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        for run in self._search(experiments, "tags.result_id != ''"):
            entry = _entry(run)
            result_id = run.data.tags["result_id"]
            if result_id in result_ids and (result_id not in found or entry.status == "FINISHED"):
                found[result_id] = entry
        return found

    def open_launch(self, sweep: str, flags: Mapping[str, Any]) -> None:
        """Start the parent run; launches of this experiment that seem to run end as KILLED."""
        for run in self._search([self.experiment_id], "tags.kind = 'launch'"):
            if run.info.status == "RUNNING":
                self.client.set_terminated(run.info.run_id, "KILLED")
        tags = {
            "kind": "launch",
            "sweep": sweep,
            "git_commit": git_commit(),
            "source": source_fingerprint(),
        }
        name = f"{sweep} {time.strftime('%Y-%m-%d %H:%M')}"
        self.launch_id = self.client.create_run(
            self.experiment_id, tags=tags, run_name=name
        ).info.run_id
        texts = [Param(key, str(value)[:500]) for key, value in flags.items()]
        self.client.log_batch(self.launch_id, params=texts)

    def schedule(self, results: Iterable[Result], known: Mapping[str, Entry]) -> None:
        """Find or create the run of each result that will be computed, as SCHEDULED."""
        for result in results:
            tags = {
                "kind": result.name,
                "result_id": result.result_id,
                "label": result.label,
                "launch": self.launch_id,
                "mlflow.parentRunId": self.launch_id,
                "paper": result.paper,
                "start": _start_of(result),
                "git_commit": git_commit(),
                "reason": "",
            }
            tags |= {f"direction.{key}": way for key, way in result.directions.items()}
            tags |= result.tags
            entry = known.get(result.result_id)
            if entry is None:
                run = self.client.create_run(self.experiment_id, tags=tags, run_name=result.label)
                pairs = [Param(key, text[:6000]) for key, text in parameters(result).items()]
                for first in range(0, len(pairs), BATCH):
                    self.client.log_batch(run.info.run_id, params=pairs[first : first + BATCH])
                entry = _entry(run)
            else:
                self._tag(entry.run_id, tags)
            self.client.update_run(entry.run_id, status="SCHEDULED")
            self.entries[result.result_id] = entry

    def running(self, result_id: str, **tags: str) -> None:
        """A trial has begun the result; counts the attempts.

        The tag ``began`` is when, in ms as MLflow has them: its own start is that of the schedule.
        """
        run_id, began = self.entries[result_id].run_id, str(time.time_ns() // 1_000_000)
        attempt = int(self.client.get_run(run_id).data.tags.get("attempt", "0")) + 1
        self.client.update_run(run_id, status="RUNNING")
        own = {"attempt": str(attempt), "began": began, "host": platform.node()}
        self._tag(run_id, own | tags)

    def log(self, result_id: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step; logging the same again changes nothing.

        The timestamp is a function of the run and the step, so MLflow drops an equal value.
        """
        entry = self.entries[result_id]
        values = [
            Metric(key, value, entry.started_ms + step, step) for key, value in metrics.items()
        ]
        self.client.log_batch(entry.run_id, metrics=values)

    def finished(self, result_id: str, seconds: float, artifacts: Path) -> None:
        """The result is complete: its files and its duration are logged first, its status last."""
        run_id = self.entries[result_id].run_id
        if artifacts.is_dir():
            self.client.log_artifacts(run_id, str(artifacts))
        self.client.log_metric(run_id, "seconds", seconds)
        self.client.set_terminated(run_id, "FINISHED")

    def failed(self, result_id: str, reason: str, trace: str = "") -> None:
        """The result cannot be had; the reason is a tag, the traceback an artifact."""
        run_id = self.entries[result_id].run_id
        self._tag(run_id, {"reason": reason})
        if trace:
            self.client.log_text(run_id, trace, "traceback.txt")
        self.client.set_terminated(run_id, "FAILED")

    def killed(self, result_ids: Iterable[str]) -> None:
        """The launch was interrupted before these were complete."""
        for result_id in result_ids:
            self.client.set_terminated(self.entries[result_id].run_id, "KILLED")

    def close_launch(
        self, status: str, summary: Mapping[str, Any], files: Iterable[Path] = ()
    ) -> None:
        """End the parent run with ``sweep.json`` and the report's files."""
        self.describe_launch(summary)
        for path in files:
            self.client.log_artifact(self.launch_id, str(path))
        self.client.set_terminated(self.launch_id, status)

    def describe_launch(self, summary: Mapping[str, Any]) -> None:
        """Write ``sweep.json``: the analysis selects tables by the result ids in it."""
        self.client.log_dict(self.launch_id, dict(summary), "sweep.json")

    def status(self, result_id: str) -> str:
        """Status of a result's run now."""
        return str(self.client.get_run(self.entries[result_id].run_id).info.status)

    def experiment_tag(self, key: str, experiment_id: str = "") -> str:
        """A tag of the experiment; empty where there is none."""
        return str(
            self.client.get_experiment(experiment_id or self.experiment_id).tags.get(key, "")
        )

    def set_experiment_tag(self, key: str, value: str) -> bool:
        """Set a tag of the experiment; False where another process wrote it at the same moment."""
        try:
            self.client.set_experiment_tag(self.experiment_id, key, value)
        except MlflowException as error:
            if error.error_code not in CONFLICTS:
                raise
            return False
        return True

    def _tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        self.client.log_batch(
            run_id, tags=[RunTag(key, value[:5000]) for key, value in tags.items()]
        )

    def _search(self, experiment_ids: list[str], where: str) -> Iterable[Run]:
        token: str | None = None
        while True:
            page = self.client.search_runs(
                experiment_ids, where, max_results=PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return


def _entry(run: Run) -> Entry:
    info, tags = run.info, run.data.tags
    status = info.status if isinstance(info.status, str) else RunStatus.to_string(info.status)
    return Entry(info.run_id, status, info.start_time, tags.get("launch", ""), info.experiment_id)


def _start_of(result: Result) -> str:
    """Result id of what it started from or evaluates."""
    return result.dependencies[0].result_id if result.dependencies else ""


@cache
def git_commit() -> str:
    """Commit of the code: baked into the image, else of the checkout; ``unknown`` elsewhere."""
    if baked := os.environ.get("ATTRIBUTION_SWEEPS_COMMIT"):
        return baked
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
