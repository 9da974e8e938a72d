"""Ray: reached or started, checked for room, and fed."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data_pipelines.dataset import Dataset
from data_pipelines.engine import runtime_env
from data_pipelines.location import is_local
from data_pipelines.manifest import Manifest
from data_pipelines.streamed_set import StreamedSplit, streamed
from data_pipelines.streaming import ResidentSplit, object_store_bytes, resident, store_arithmetic
from sweeps.launch.sweep import Sweep
from trainables.result import Result
from trainables.training import Training
from trainables.trial import FeedKey, feed_key

DATA_CPUS = 1
"""CPUs, at least, of a Data execution beside the trial that owns it."""


def check_room(
    sweep: Sweep, threads: int, cpus: float, gpus: float, *, streaming: bool = False
) -> None:
    """Refuse what can never be scheduled, with the arithmetic.

    Where trials stream, each needs a CPU more, for its Data execution: without one it would wait
    for ever while trials hold them all.

    Raises:
        ValueError: one trial, or ``--max-concurrent`` of them, need more than there is; or a GPU
            is cut into
            parts that do not add up.
    """
    share = sweep.gpus_per_trial
    if (
        share < 0
        or (0 < share < 1 and abs(1 / share - round(1 / share)) > 1e-6)
        or (share > 1 and share % 1)
    ):
        raise ValueError(
            f"--gpus-per-trial {share:g}: expected 0, a whole number, or 1/k (0.5, 0.25, ...)"
        )
    if sweep.max_concurrent < 0:
        raise ValueError(
            f"--max-concurrent {sweep.max_concurrent}: expected 0 (as many as fit) or more"
        )
    if sweep.workers_per_trial < 0 or (
        share and sweep.workers_per_trial not in (0, max(1, int(share)))
    ):
        raise ValueError(
            f"--workers-per-trial {sweep.workers_per_trial} --gpus-per-trial {share:g}: expected 0 "
            "or more, and with GPUs none or as many as them"
        )
    trials, workers = max(1, sweep.max_concurrent), sweep.workers
    data = DATA_CPUS if streaming or sweep.feed == "streamed" else 0
    rows = (("CPU", threads, data, cpus), ("GPU", share / workers, 0, gpus))
    for what, each, extra, have in rows:
        if trials * workers * (each + extra) > have + 1e-6:
            one = f"({each:g} + {extra} for its Data execution)" if extra else f"{each:g}"
            one = f"{workers} workers x {one}" if workers > 1 else one
            rest = ", or take --feed resident" if extra else ""
            raise ValueError(
                f"the grid cannot be scheduled: {trials} trial(s) x {one} {what} = "
                f"{trials * workers * (each + extra):g} {what}, and there are {have:g}; lower "
                f"--max-concurrent, --gpus-per-trial or the threads{rest}"
            )


def room_for_streams(sweep: Sweep, threads: int, cpus: float, gpus: float) -> tuple[int, int]:
    """Trials at once where each worker owns a Data execution, and the CPUs that one may use.

    Raises:
        ValueError: there is no room for one, or for ``--max-concurrent``.
    """
    check_room(sweep, threads, cpus, gpus, streaming=True)
    workers = sweep.workers
    trials = sweep.max_concurrent or int(cpus / (workers * (threads + DATA_CPUS)) + 1e-6)
    if sweep.gpus_per_trial:
        trials = min(trials, int(gpus / sweep.gpus_per_trial + 1e-6))
    return trials, int(cpus / (trials * workers) - threads + 1e-6)


def local_resources() -> tuple[float, float]:
    """CPUs and GPUs of this machine, before any Ray has started."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return float(cpus or 1), float(torch.cuda.device_count())


def connect(sweep: Sweep) -> tuple[float, float]:
    """Join the cluster, or start a local one on loopback; returns its CPUs and GPUs."""
    quiet = keep_quiet()
    if not sweep.address:
        cpus, gpus = local_resources()
        ray.init(
            address="local",
            num_cpus=int(cpus),
            num_gpus=int(gpus),
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
    else:
        ray.init(address=sweep.address, runtime_env=runtime_env(), **quiet)
    resources = ray.cluster_resources()
    return resources.get("CPU", 0.0), resources.get("GPU", 0.0)


def keep_quiet() -> dict[str, Any]:
    """Leave the terminal to our own lines; what goes wrong comes as the reason of a failure.

    Returns:
        What ``ray.init`` must be told for it.
    """
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's tables, which verbose=0 does not turn off
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # CSV, JSON and TensorBoard files
    for name in ("ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return {"log_to_driver": False, "logging_level": "error"}


def check_shared(sweep: Sweep, folders: Iterable[Path]) -> None:
    """On several nodes, refuse a store or a folder that some node cannot see.

    Raises:
        ValueError: names the store or the folder, the node and the remedy.
    """
    nodes = [
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) > 0
    ]
    nodes = list(dict.fromkeys([*nodes, ray.get_runtime_context().get_node_id()]))  # this one, too
    if len(nodes) < 2:
        return
    if sweep.tracking_uri.startswith("sqlite"):
        raise ValueError(
            f"--tracking-uri {sweep.tracking_uri}: SQLite serves one node and the cluster has "
            f"{len(nodes)}; "
            "start `mlflow server` and give its http:// address"
        )
    for folder in folders:
        if not is_local(folder):  # an object store is everybody's
            continue
        token = folder / f".visible-{uuid.uuid4().hex}"
        try:
            token.touch()
        except OSError:  # data may be read-only: then that the folder is there must do
            token = folder
        try:
            tasks = [
                ray.remote(_exists)
                .options(
                    num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
                )
                .remote(str(token))
                for node in nodes
            ]
            blind = [node for node, seen in zip(nodes, ray.get(tasks), strict=True) if not seen]
        finally:
            if token != folder:
                token.unlink()
        if blind:
            raise ValueError(
                f"{folder} is not visible on {len(blind)} of {len(nodes)} nodes; "
                "give a shared folder with --storage-path and --data-root"
            )


@dataclass(frozen=True)
class Fed:
    """What trials read, and how many of them may run at once.

    Attributes:
        feeds: by what they hold.
        max_concurrent: trials at once; 0 for as many as fit.
        lines: the arithmetic behind both, to be shown.
    """

    feeds: Mapping[FeedKey, ResidentSplit | StreamedSplit]
    max_concurrent: int
    lines: tuple[str, ...] = ()


def feeds_for(
    results: Iterable[Result],
    dataset: Dataset,
    manifest: Manifest,
    sweep: Sweep,
    cpus: float,
    gpus: float,
) -> Fed:
    """Choose a feed for each split that a trial reads, and make it.

    Resident where the decoded split fits the object store, else streamed; ``--feed`` decides
    otherwise.

    Raises:
        ValueError: a split can only be streamed, and a training shuffles all its images together;
            or there is no room for a Data execution beside a trial.
    """
    readers = [result for result in results if not result.streamed]
    keys = {feed_key(r, split): r.size_px for r in readers for split in r.splits}
    store_bytes = object_store_bytes()
    lines, streams = [], set()
    for key, size_px in keys.items():
        where, images = f"{dataset.name}/{key[1]}", manifest.summary(key[1]).images
        fits, arithmetic = store_arithmetic(where, images, size_px, store_bytes)
        if sweep.feed == "streamed" or (sweep.feed == "auto" and not fits):
            streams.add(key)
        how = "streamed" if key in streams else "resident"
        asked = "" if sweep.feed == "auto" else f" (--feed {sweep.feed})"
        lines.append(f"{arithmetic}: {how} feed{asked}")
    trials, data_cpus = sweep.max_concurrent, 0
    threads = max((result.threads for result in readers), default=1)
    if sweep.workers > 1 and not trials:  # Tune sees nothing of what the workers take
        trials = int(cpus / (sweep.workers * threads))
        if sweep.gpus_per_trial:
            trials = min(trials, int(gpus / sweep.gpus_per_trial))
    if streams:
        refuse_shuffled(readers, streams, lines)
        trials, data_cpus = room_for_streams(sweep, threads, cpus, gpus)
        lines.append(
            f"{trials} trial(s) at once x {sweep.workers} worker(s) x ({threads} + {data_cpus} for "
            f"its Data execution) of {cpus:g} CPU"
        )
    feeds: dict[FeedKey, ResidentSplit | StreamedSplit] = {}
    for key, size_px in keys.items():
        if key in streams:
            feeds[key] = streamed(dataset, manifest, key[1], size_px, data_cpus)
        else:
            feeds[key] = resident(dataset, manifest, key[1], size_px)
    return Fed(feeds, trials, tuple(lines))


def refuse_shuffled(
    readers: Iterable[Result], streams: Container[FeedKey], lines: Iterable[str]
) -> None:
    """Refuse to stream to a training that shuffles all its images together.

    Raises:
        ValueError: says which, why it would be streamed, and the remedy.
    """
    for result in readers:
        if not isinstance(result, Training) or result.shuffle == "windows":
            continue
        if feed_key(result, "train") in streams:
            why = "; ".join(line for line in lines if "streamed feed" in line)
            raise ValueError(
                f"{result.label} shuffles all its images together, which no stream can bring, and "
                f"{why}; take --shuffle windows (other results), or start Ray with more "
                "object_store_memory"
            )


def _exists(path: str) -> bool:
    return Path(path).exists()
