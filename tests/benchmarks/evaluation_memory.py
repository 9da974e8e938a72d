"""Memory of the driver and of each worker while methods are judged, at once and at ten times data.

    python tests/benchmarks/evaluation_memory.py                       # some minutes on two cores
    python tests/benchmarks/evaluation_memory.py --images 200 --times 10 --actors 2

Scenes are generated; an untrained small network is judged by some methods and protocols in a
process of its own, once for each size. A thread reads the USS (memory that no other process
shares) of the driver and of the processes that Ray started, from Linux's smaps_rollup; peaks are
compared: the largest of the actors, and the largest of the other workers. Goal: a ratio of at most
1.1 each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

ROOT = Path(__file__).parents[2]
PERIOD_S = 0.2


@dataclass(frozen=True, kw_only=True)
class EvaluationMemory:
    """What is measured."""

    images: int = 256
    """At once: a shard, which is what a reader holds."""
    times: int = 10
    size_px: int = 64
    actors: int = 1
    methods: tuple[str, ...] = ("input_x_gradient", "grad_cam")
    protocols: tuple[str, ...] = ("sds", "epg", "deletion")
    child: int = 0
    """Used by the benchmark itself: judge so many images, and print the peaks."""


class Peaks:
    """A context: the largest USS of this process and of the processes below it, by kind."""

    def __init__(self) -> None:
        self.mib: dict[str, float] = defaultdict(float)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(PERIOD_S):
            for pid in [os.getpid(), *below(os.getpid())]:
                kind = "driver" if pid == os.getpid() else kind_of(pid)
                if kind:
                    self.mib[kind] = max(self.mib[kind], uss_mib(pid))


def below(pid: int) -> list[int]:
    """Processes that a process started, and theirs."""
    parents: dict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        parents[int(fields[1])].append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        todo += (children := parents[todo.pop()])
        found += children
    return found


def kind_of(pid: int) -> str:
    """``actor`` or ``reader``, for Ray's processes that run our code; empty for others."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    if not command.startswith("ray::"):
        return ""
    return "actor" if "ScoringActor" in command else "reader"


def uss_mib(pid: int) -> float:
    """Unique set size: the private pages."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    kib = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return sum(kib) / 1024


def judge(flags: EvaluationMemory) -> None:
    """Judge ``flags.child`` images and print the peaks."""
    import ray
    import torch

    from data_pipelines.digit_scenes import DigitScenes
    from data_pipelines.manifest import indexed
    from trainables.attribution.attribution import Attribution
    from trainables.checkpoint import save_weights, write_bytes
    from trainables.classifier_training import ClassifierTraining
    from trainables.metrics.metric import Metric
    from trainables.models.small_resnet import SmallResNet
    from trainables.protocol_evaluation import ProtocolEvaluation
    from trainables.streamed_evaluation import stream
    from trainables.training import weights_path

    with tempfile.TemporaryDirectory(prefix="evaluation-memory-") as folder:
        home = Path(folder)
        data = DigitScenes(root=folder, layout="imagenet", images_train=64, images_val=flags.child)
        dataset, manifest = indexed(data, home / "index")
        classifier = ClassifierTraining(
            network=SmallResNet(),
            data=dataset,
            objective="ce",
            image_size_px=flags.size_px,
            epochs=1,
            batch_size=8,
            learning_rate=1e-3,
        )
        torch.manual_seed(0)
        left = home / "storage" / classifier.result_id
        module = classifier.network.build(len(manifest.classes)).module
        weights = {"1": save_weights(weights_path(left, 1), module)}
        write_bytes(left / "result.json", json.dumps({"epoch": 1, "weights": weights}).encode())
        protocols = tuple(Metric.named(name) for name in flags.protocols)
        bundle = [
            ProtocolEvaluation(
                of=classifier, attribution=Attribution.named(name), protocols=protocols
            )
            for name in flags.methods
        ]
        failed: list[dict[str, Any]] = []

        def listen(event: dict[str, Any]) -> None:
            failed.extend([event] if event["event"] == "failed" else [])

        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=2**28,
        )
        with Peaks() as peaks:
            stream(
                bundle,
                home / "storage",
                dataset,
                manifest,
                listen,
                actors=flags.actors,
                cpus=1.5 / flags.actors,
                gpus=0.0,
            )
        ray.shutdown()
    if failed:
        sys.exit(f"{failed[0]['reason']}\n{failed[0]['traceback']}")
    print(json.dumps(peaks.mib))


def main() -> None:
    """One line a kind of process."""
    flags = tyro.cli(EvaluationMemory, description=__doc__)
    if flags.child:
        judge(flags)
        return
    sizes = (flags.images, flags.images * flags.times)
    peaks = []
    for images in sizes:
        command = [*sys.argv, "--child", str(images)]
        done = subprocess.run(
            [sys.executable, *command],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        peaks.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"peak USS, {sizes[0]} and {sizes[1]} images of {flags.size_px} px")
    for kind in ("driver", "actor", "reader"):
        once, more = (peak.get(kind, 0.0) for peak in peaks)
        ratio = more / once if once else float("nan")
        print(f"  {kind:<8}{once:8.0f} MiB {more:8.0f} MiB   ratio {ratio:.2f}  (goal <= 1.1)")


if __name__ == "__main__":
    main()
