"""What trials tell: written to MLflow and shown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.experiment import Trial as TuneTrial

from sweeps.launch.progress import Progress
from trainables.result import Result
from trainables.tracking import Tracking
from trainables.training import Training

MAX_DEATHS = 2
"""How often a trial whose process died is started again."""
DIED = f"the worker process died {MAX_DEATHS + 1} times; it may have run out of memory"


class Events(tune.Callback):
    """What trials tell, written to MLflow and shown; keeps the reasons of failures.

    Attributes:
        failed: reason by result id.
        finished: ids of the results that are complete.
        first_s, last_s: first and last moment at which a trial told something.
        listening: whether trials run, so that a stop can wait for the end of a step.
        stop: whether a stop was asked for.
    """

    def __init__(
        self, tracking: Tracking, progress: Progress, results: Mapping[str, Result], storage: Path
    ):
        self._tracking, self._progress, self._results, self._storage = (
            tracking,
            progress,
            results,
            storage,
        )
        self.failed: dict[str, str] = {}
        self.finished: set[str] = set()
        self.running: set[str] = set()
        self.first_s = self.last_s = 0.0
        self.listening = self.stop = False

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Take one event of a trial."""
        if "event" in result:
            self.take(json.loads(result["event"]))

    def take(self, event: dict[str, Any]) -> None:
        """Write an event where it belongs."""
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        result_id = event["result_id"]
        if event["event"] == "running":
            self.running.add(result_id)
            self._tracking.running(result_id, pid=str(event["pid"]), device=event["device"])
            self._progress.event(result_id, "running", 0.0)
        elif event["event"] == "epoch":
            self._tracking.log(result_id, event["step"], event["metrics"])
            result = self._results[result_id]
            share = event["step"] / result.epochs if isinstance(result, Training) else 0.5
            text = f"epoch {event['step']}: " + ", ".join(
                f"{key} {value:.3f}"
                for key, value in event["metrics"].items()
                if key in ("train/loss", "val/f1", "val/epg", "val/box_iou_tuned")
            )
            self._progress.event(result_id, "running", min(share, 0.99), text)
        elif event["event"] == "progress":
            self._progress.event(result_id, "running", min(event["share"], 0.99), event["text"])
        elif event["event"] == "finished":
            self.running.discard(result_id)
            self.finished.add(result_id)
            self._tracking.finished(
                result_id, event["seconds"], self._storage / result_id / "artifacts"
            )
            self._progress.event(result_id, "finished", 1.0, f"in {event['seconds']:.0f} s")
        else:
            self.fail(result_id, event["reason"], event.get("traceback", ""))

    def take_or_stop(self, event: dict[str, Any]) -> None:
        """Take an event of the launch's own process, and stop where that was asked for."""
        self.take(event)
        if self.stop:
            raise KeyboardInterrupt

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Stop where it was asked for: here nothing is being written."""
        if self.stop:
            raise KeyboardInterrupt

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Fail what a trial has left when it ended for good."""
        error = trial.get_pickled_error()
        if isinstance(error, RayTaskError):
            self.settle(trial.config["bundle"], f"{type(error.cause).__name__}: {error.cause}")
        else:  # its process just died
            self.settle(trial.config["bundle"])

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Nothing may wait for a result of which its trial told no end."""
        self.settle(trial.config["bundle"], "its trial ended without it")

    def settle(self, bundle: Iterable[Result], reason: str = DIED) -> None:
        """Fail the results of a bundle that are neither finished nor failed."""
        for result in bundle:
            if result.result_id not in self.finished | self.failed.keys():
                self.fail(result.result_id, reason)

    def say(self, line: str) -> None:
        """Tell people something."""
        self._progress.say(line)

    def label(self, result_id: str) -> str:
        """What a result is called."""
        return self._results[result_id].label

    def fail(self, result_id: str, reason: str, trace: str = "") -> None:
        """Write that a result cannot be had."""
        self.running.discard(result_id)
        self.failed[result_id] = reason
        self._tracking.failed(result_id, reason, trace)
        self._progress.event(result_id, "failed", 0.0, reason)
