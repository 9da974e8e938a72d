"""Where a result is computed: device, threads, seeds, storage, and the Tune function."""

from __future__ import annotations

import json
import math
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from data_pipelines.image_set import ImageSet
from trainables.checkpoint import write_bytes
from trainables.result import Result
from trainables.source import source_fingerprint
from trainables.team import SOLO, Dismissed, LostTeammateError, Team

Event = dict[str, Any]
"""What a trial tells: ``result_id``, ``event`` (running, epoch, finished, failed), and what
belongs to it."""


class Feed(Protocol):
    """One decoded split, wherever it lies."""

    def load(self) -> ImageSet:
        """The images, without a copy where the feed allows; a streamed set is the caller's own."""
        ...


FeedKey = tuple[str, str, int]
"""(id of the dataset, split, side in pixels)."""


class DivergedError(ValueError):
    """A loss that is no number."""


class Trial:
    """One result being computed: what its ``compute`` may ask for and tell.

    Attributes:
        folder: ``<storage>/<result_id>``; everything that outlives the process lies there.
        device: where tensors live; the only place that chooses it.
        team: the workers that compute it together.
        share: of the batch's images that this worker has; sums over images are divided by it.
    """

    def __init__(
        self,
        result: Result,
        storage: Path,
        feeds: Mapping[FeedKey, Feed],
        emit: Callable[[Event], None],
        team: Team = SOLO,
    ):
        self.team, self.share = team, 1.0
        self.result, self.storage, self._feeds, self._emit = result, storage, feeds, emit
        self._id = result.result_id
        self.folder = storage / self._id
        self.folder.mkdir(parents=True, exist_ok=True)
        self._loaded: dict[FeedKey, ImageSet] = {}
        own = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.device = team.device or own

    def images(self, split: str) -> ImageSet:
        """A split of the result's dataset at its size; the same object each time."""
        key = feed_key(self.result, split)
        if key not in self._loaded:
            self._loaded[key] = self._feeds[key].load()
        return self._loaded[key]

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics of one step, but for undefined ones: their defined fraction says so."""
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        self._emit({"event": "epoch", "result_id": self._id, "step": step, "metrics": finite})

    def progress(self, share: float, text: str) -> None:
        """Tell how far this result is, for people."""
        self._emit({"event": "progress", "result_id": self._id, "share": share, "text": text})

    def fail(self, reason: str, trace: str = "") -> None:
        """Tell that this result cannot be had, while others that share its work go on."""
        what = {"result_id": self._id, "reason": reason, "traceback": trace}
        self._emit({"event": "failed", **what})

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Leave what dependents read; written last and whole."""
        write_bytes(self.folder / "result.json", json.dumps(summary, indent=1).encode())

    def summary_of(self, dependency: Result) -> dict[str, Any]:
        """What a dependency left.

        Raises:
            FileNotFoundError: the dependency left nothing.
        """
        path = self.storage / dependency.result_id / "result.json"
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: {dependency.label} has left no result; launch the sweep again"
            )
        summary: dict[str, Any] = json.loads(path.read_text())
        return summary

    @property
    def artifacts(self) -> Path:
        """Folder whose files the launch logs to MLflow when the result is finished."""
        folder = self.folder / "artifacts"
        folder.mkdir(exist_ok=True)
        return folder

    def generator(self, *stream: int) -> np.random.Generator:
        """Random numbers as a function of the result's seed and these numbers, nothing else."""
        return np.random.default_rng([self.result.seed, *stream])


def feed_key(result: Result, split: str) -> FeedKey:
    """Which feed a result reads a split from."""
    return (result.dataset.result_id, split, result.size_px)


@contextmanager
def environment(result: Result) -> Iterator[None]:
    """Threads, seeds, dtype, determinism and grad mode as stated; restored at the end.

    A reused worker keeps what its last trial left behind, so every trial sets all of it.
    """
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic  # Torch's types leave its one attribute out
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(result.threads)
    torch.set_default_dtype(torch.float32)
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # cuBLAS is deterministic only with it
    # the backward of bilinear upsampling has no deterministic form on GPUs: warn there, never fail
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # nothing here reads memory before it is written; to fill it takes a twentieth of a training
    memory.fill_uninitialized_memory = False
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(result.seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        memory.fill_uninitialized_memory = filled


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Layers that are made inside are drawn from this seed; what is drawn outside is not moved."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def run(
    result: Result,
    storage: Path,
    feeds: Mapping[FeedKey, Feed],
    emit: Callable[[Event], None],
    team: Team = SOLO,
) -> bool:
    """Compute one result; whether it succeeded.

    A failure is told, not raised: the bundle goes on.

    Raises:
        LostTeammateError: another worker of the trial died.
    """
    started = time.monotonic()
    about = {"pid": os.getpid(), "device": device_name()}
    emit({"event": "running", "result_id": result.result_id, **about})
    failed = False

    def tell(event: Event) -> None:
        nonlocal failed
        failed = failed or event["event"] == "failed"
        emit(event)

    try:
        with environment(result):
            result.compute(Trial(result, storage, feeds, tell, team))
    except Dismissed:
        return True
    except LostTeammateError:
        raise
    except Exception as error:  # whatever a plug-in raises fails its own result, never the sweep
        reason = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
        emit(
            {"event": "failed", "result_id": result.result_id, "reason": reason, "traceback": trace}
        )
        return False
    if not failed:
        seconds = time.monotonic() - started
        emit({"event": "finished", "result_id": result.result_id, "seconds": seconds})
    return not failed


def device_name() -> str:
    """What this process computes on, for the record."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return platform.processor() or "cpu"


def tune_trial(
    config: dict[str, Any],
    *,
    feeds: Mapping[FeedKey, Feed],
    storage: str,
    source: str,
    workers: int = 1,
    gpus: int = 0,
) -> None:
    """The Tune function trainable: the results of one bundle, one after the other.

    Args:
        config: holds the ``bundle``.
        feeds: what the results read.
        storage: folder of checkpoints and weights.
        source: fingerprint of the driver's code.
        workers: of a trial; several share its batches.
        gpus: of each worker where there are several.
    """
    from ray import tune  # here, so that everything else of the package runs without Ray

    def tell(event: Event) -> None:
        tune.report({"event": json.dumps(event)})

    if source_fingerprint() == source:
        if workers == 1:
            run_bundle(config["bundle"], Path(storage), feeds, tell)
            return
        from trainables.worker_group import WorkerGroup

        WorkerGroup(workers, gpus, Path(storage), feeds, source).run_bundle(config["bundle"], tell)
        return
    reason = (
        f"this worker runs other code ({source_fingerprint()}) than the driver ({source}): a file "
        "was edited while the sweep ran, or the cluster has another image; run the command again"
    )
    for result in config["bundle"]:
        tell({"event": "failed", "result_id": result.result_id, "reason": reason})


def run_bundle(
    bundle: Sequence[Result],
    storage: Path,
    feeds: Mapping[FeedKey, Feed],
    emit: Callable[[Event], None],
) -> None:
    """Compute results in order; one that fails takes along only what depends on it.

    Those of a class that computes ``together`` come at the turn of the first.
    """
    failed: set[str] = set()
    left = list(bundle)
    while left:
        turn = [r for r in left if type(r) is type(left[0])] if left[0].together else left[:1]
        left = [r for r in left if r not in turn]
        ready = []
        for result in turn:
            lost = [d.result_id for d in result.dependencies if d.result_id in failed]
            if lost:
                reason = f"not run: {lost[0]} failed"
                emit({"event": "failed", "result_id": result.result_id, "reason": reason})
                failed.add(result.result_id)
            else:
                ready.append(result)
        if len(ready) > 1:
            failed |= run_together(ready, storage, feeds, emit)
        elif ready and not run(ready[0], storage, feeds, emit):
            failed.add(ready[0].result_id)


def run_together(
    results: Sequence[Result],
    storage: Path,
    feeds: Mapping[FeedKey, Feed],
    emit: Callable[[Event], None],
) -> set[str]:
    """Compute results of one class side by side; returns the ids of those that failed."""
    started, failed = time.monotonic(), set[str]()
    device = device_name()

    def tell(event: Event) -> None:
        if event["event"] == "failed":
            failed.add(event["result_id"])
        emit(event)

    for result in results:
        about = {"pid": os.getpid(), "device": device}
        tell({"event": "running", "result_id": result.result_id, **about})
    trials = [Trial(result, storage, feeds, tell) for result in results]
    reason = trace = ""
    try:
        with environment(results[0]):
            type(results[0]).compute_together(trials)
    except Exception as error:  # as in run: it fails these results, never the sweep
        reason, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
    seconds = (time.monotonic() - started) / len(results)  # each bears its share
    for result in results:
        what = {"result_id": result.result_id}
        if result.result_id in failed:
            continue
        if reason:
            tell({"event": "failed", **what, "reason": reason, "traceback": trace})
        else:
            tell({"event": "finished", **what, "seconds": seconds})
    return failed


def run_locally(
    result: Result, storage: Path, feeds: Mapping[FeedKey, Feed], emit: Callable[[Event], None]
) -> bool:
    """Compute a result and what it depends on in this process: for tests, for the debugger."""
    for dependency in result.dependencies:
        if not (storage / dependency.result_id / "result.json").exists() and not run_locally(
            dependency, storage, feeds, emit
        ):
            return False
    return run(result, storage, feeds, emit)
