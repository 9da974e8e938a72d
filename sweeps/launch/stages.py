"""Run a plan as Tune trials, and stream what actors score."""

from __future__ import annotations

import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

import ray
from ray import tune

from data_pipelines.dataset import Dataset
from data_pipelines.manifest import Manifest
from sweeps.launch.cluster import Fed
from sweeps.launch.events import MAX_DEATHS, Events
from sweeps.launch.plan import Plan
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
POLL_S = 2.0
WAITING_BYTES = 2**28
"""Memory that a trial asks for while its workers work: Ray places nothing that asks for nothing."""


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
