"""Run a plan as Tune trials and write what they tell."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import ray
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.experiment import Trial as TuneTrial

from data_pipelines.dataset import Dataset
from data_pipelines.manifest import Manifest
from sweeps.launch.cluster import Fed
from sweeps.launch.plan import Plan
from sweeps.launch.progress import Progress
from sweeps.launch.queue import Bundle, Queue
from sweeps.launch.sweep import Sweep
from trainables.lease import holder_of
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.result import Result
from trainables.source import source_fingerprint
from trainables.streamed_evaluation import READER_CPUS, stream
from trainables.tracking import Tracking
from trainables.training import Training
from trainables.trial import tune_trial

Kind = Literal["team", "alone", "streamed"]
"""Trials of several workers, of one, and what actors score; computed in this order."""
MAX_DEATHS = 2
"""How often a trial whose process died is started again."""
DIED = f"the worker process died {MAX_DEATHS + 1} times; it may have run out of memory"
POLL_S = 2.0
WAITING_BYTES = 2**28
"""Memory that a trial asks for while its workers work: Ray places nothing that asks for nothing."""


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


def run_stages(
    plan: Plan,
    sweep: Sweep,
    storage: Path,
    dataset: Dataset,
    manifest: Manifest,
    fed: Fed,
    tracking: Tracking,
    events: Events,
    elsewhere: Mapping[str, Result],
) -> None:
    """Compute every missing result; failures are written, not raised.

    Args:
        plan: what to do.
        sweep: for its resources.
        storage: folder of checkpoints and weights.
        dataset: with its files.
        manifest: of the dataset.
        fed: what the trials read.
        tracking: where runs are written.
        events: takes what the trials tell.
        elsewhere: results that another live launch is computing; waited for where they are needed.
    """
    needed: dict[int, set[str]] = {}  # asked for at every step of Tune: ids take their time

    def startable(bundle: Bundle) -> Bundle | None:
        if needed[id(bundle)] - events.finished - events.failed.keys():
            return None
        ready = []
        for result in bundle:
            before = [d.result_id for d in result.dependencies if d.result_id in events.failed]
            if before:
                events.fail(result.result_id, f"not run: {before[0]} failed")
            else:
                ready.append(result)
        return ready

    for kind, wave in waves(plan, elsewhere):
        for bundle in wave:
            own = {result.result_id for result in bundle}
            needed[id(bundle)] = dependencies(bundle) & plan.missing.keys() - own
            wait_for(needed[id(bundle)] & elsewhere.keys(), tracking, events)
        if kind != "streamed":
            workers = sweep.workers if kind == "team" else 1
            fit(wave, startable, sweep, storage, fed, events, workers)
        for bundle in wave:
            if kind == "streamed" and (ready := startable(bundle)):
                score(ready, sweep, storage, dataset, manifest, events)
            events.settle(bundle)
    wait_for(elsewhere.keys(), tracking, events)


def waves(plan: Plan, elsewhere: Container[str]) -> Iterator[tuple[Kind, list[Bundle]]]:
    """Bundles of one kind that run one after the other without a break, by their dependencies.

    Trials come before what is streamed, which has all CPUs for itself. Where another live launch
    computes something, each wave depends on earlier ones only, so that it is waited for late.
    """
    left = [[r for r in b if r.result_id not in elsewhere] for s in plan.stages for b in s]
    left = [bundle for bundle in left if bundle]
    waiting = {result.result_id for bundle in left for result in bundle}
    while left:
        for kind in get_args(Kind):
            wave: list[Bundle] = []
            behind = set(waiting)
            for bundle in left:
                own = {result.result_id for result in bundle}
                if kind_of(bundle) == kind and not dependencies(bundle) & behind - own:
                    wave.append(bundle)
                    if not elsewhere:
                        behind -= own
            if wave:
                yield kind, wave
                left = [bundle for bundle in left if bundle not in wave]
                waiting = {result.result_id for bundle in left for result in bundle}


def kind_of(bundle: Bundle) -> Kind:
    """How a bundle is computed."""
    if bundle[0].streamed:
        return "streamed"
    workers = max((r.workers for r in bundle if isinstance(r, Training)), default=1)
    return "team" if workers > 1 else "alone"


def dependencies(bundle: Bundle) -> set[str]:
    """Ids of what the results of a bundle depend on."""
    return {dependency.result_id for result in bundle for dependency in result.dependencies}


def fit(
    bundles: list[Bundle],
    startable: Callable[[Bundle], Bundle | None],
    sweep: Sweep,
    storage: Path,
    fed: Fed,
    events: Events,
    workers: int = 1,
) -> None:
    """Bundles as Tune trials: a function trainable on reused workers, a bundle each.

    Where a trial has several workers, it only waits for them and needs no CPU itself.

    Tune's own folder is scratch under a unique name: what counts lies in the storage by result id.
    """
    trainable = tune.with_parameters(
        tune_trial,
        feeds=dict(fed.feeds),
        storage=str(storage),
        source=source_fingerprint(),
        workers=workers,
        gpus=int(sweep.gpus_per_trial > 0),
    )
    resources = {
        "cpu": max(r.threads for b in bundles for r in b),
        "gpu": min(sweep.gpus_per_trial, 1.0),
    }
    if workers > 1:
        resources = {"cpu": 0, "memory": WAITING_BYTES}
    name = uuid.uuid4().hex
    # a searcher's trials would else wait for one another's workers to start
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "200")
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=Queue(bundles, startable),
            num_samples=len(bundles),
            reuse_actors=True,
            max_concurrent_trials=fed.max_concurrent or None,
            trial_dirname_creator=lambda trial: trial.trial_id,  # a configuration is no folder name
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(storage / "tune"),
            failure_config=tune.FailureConfig(max_failures=MAX_DEATHS),
            callbacks=[events],
            verbose=0,
        ),
    )
    events.listening = True
    try:
        tuner.fit()
    finally:
        events.listening = False
        shutil.rmtree(storage / "tune" / name, ignore_errors=True)
    if events.stop:  # asked for after the last step
        raise KeyboardInterrupt


def score(
    bundle: list[Result],
    sweep: Sweep,
    storage: Path,
    dataset: Dataset,
    manifest: Manifest,
    events: Events,
) -> None:
    """Stream a bundle of evaluations through actors; no trial runs meanwhile.

    Each node keeps half a CPU for reading and decoding; its actors, one for each CPU (or as many
    as have their threads), share the rest evenly.
    """
    gpus = min(sweep.gpus_per_trial, 1.0)
    cpus = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    each, actors = shares(cpus, max(result.threads for result in bundle))
    if gpus:
        actors = max(1, min(actors, int(ray.cluster_resources().get("GPU", 0.0) / gpus)))
    if sweep.max_concurrent:
        actors = min(actors, sweep.max_concurrent)
    evaluations = [r for r in bundle if isinstance(r, ProtocolEvaluation)]
    events.listening = True
    try:
        stream(
            *(evaluations, storage, dataset, manifest, events.take_or_stop),
            actors=actors,
            cpus=each,
            gpus=gpus,
        )
    finally:
        events.listening = False
    if events.stop:
        raise KeyboardInterrupt


def shares(cpus: list[float], threads: int) -> tuple[float, int]:
    """CPUs that an actor asks for, and how many actors fit beside the readers.

    Args:
        cpus: of each node.
        threads: of an actor.
    """
    largest = max(cpus)
    each = (largest - 2 * READER_CPUS) / max(1, int(largest / threads))
    each = math.floor(each * 1000) / 1000  # Ray counts in steps of 0.0001
    fitting = (int((node - 2 * READER_CPUS) / each) for node in cpus)
    return each, max(1, sum(max(0, actors) for actors in fitting))  # a head may have no CPU at all


def wait_for(result_ids: Iterable[str], tracking: Tracking, events: Events) -> None:
    """Wait for results that another live launch computes; one whose launch dies has failed."""
    for result_id in sorted(result_ids):
        if result_id in events.finished | events.failed.keys():
            continue
        entry = tracking.entries[result_id]
        events.say(f"waiting for {events.label(result_id)}, which another launch is computing")
        while (status := tracking.status(result_id)) in ("RUNNING", "SCHEDULED"):
            holder = holder_of(tracking, entry.experiment_id)
            if holder is None or holder.seconds_left == 0:
                break
            time.sleep(POLL_S)
        if status == "FINISHED":
            events.finished.add(result_id)
        else:
            events.failed[result_id] = f"the other launch left it {status}; run the command again"
