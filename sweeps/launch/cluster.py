"""Ray: reached or started, checked for room, and fed."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data_pipelines.dataset import Dataset
from data_pipelines.engine import runtime_env
from data_pipelines.location import is_local
from data_pipelines.manifest import Manifest
from data_pipelines.streaming import ResidentSplit, resident
from sweeps.launch.sweep import Sweep
from trainables.result import Result
from trainables.trial import FeedKey, feed_key


def check_room(sweep: Sweep, threads: int, cpus: float, gpus: float) -> None:
    """Refuse what can never be scheduled, with the arithmetic.

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
    trials = max(1, sweep.max_concurrent)
    for what, each, have in (("CPU", threads, cpus), ("GPU", share, gpus)):
        if trials * each > have + 1e-6:
            raise ValueError(
                f"the grid cannot be scheduled: {trials} trial(s) x {each:g} {what} = "
                f"{trials * each:g} {what}, "
                f"and there are {have:g}; lower --max-concurrent, --gpus-per-trial or the threads"
            )


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
        token.touch()
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
            token.unlink()
        if blind:
            raise ValueError(
                f"{folder} is not visible on {len(blind)} of {len(nodes)} nodes; "
                "give a shared folder with --storage-path and --data-root"
            )


def feeds_for(
    results: Iterable[Result], dataset: Dataset, manifest: Manifest
) -> dict[FeedKey, ResidentSplit]:
    """Decode each split that a trial reads, once for the whole sweep."""
    feeds: dict[FeedKey, ResidentSplit] = {}
    for result in (r for r in results if not r.streamed):
        for split in result.splits:
            key = feed_key(result, split)
            if key not in feeds:
                feeds[key] = resident(dataset, manifest, split, result.size_px)
    return feeds


def _exists(path: str) -> bool:
    return Path(path).exists()
