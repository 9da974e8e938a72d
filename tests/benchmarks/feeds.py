"""Images decoded for a sweep of 12 trials on each feed, and memory while streaming 1x and 10x data.

    python tests/benchmarks/feeds.py                    # some minutes on two cores
    python tests/benchmarks/feeds.py --parts memory

Decoding: a guidance_lambda sweep on the generated sample; every call of ``decode``, in whichever
process, adds a line to a file. Goals: the resident feed decodes each image once for all trials; of
the training images the streamed feed decodes each once per epoch of the one trial that owns the
stream (and all once before, to see whether they are sound: counted apart, remembered).

Memory: a stream of generated JPEGs in shuffled windows, in a process of its own for each size; the
sum of the USS (memory that no other process shares) of the driver and the processes of Ray that run
our code, and of the pages of the object store, at its peak. Goals: a ratio of at most 1.1, nothing
spilled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from evaluation_memory import below, kind_of, uss_mib

ROOT = Path(__file__).parents[2]
PERIOD_S = 0.2
GRID: dict[str, Any] = {
    "losses": ("energy", "l1"),
    "layers": ("final",),
    "lambda_loc": (1e-3, 2e-3, 3e-3, 4e-3, 5e-3),
    "epochs": 3,
    "baseline_epochs": 3,
    "seeds": (0,),
}
"""A baseline, the control and ten guided trainings: 12 trials."""
TRIALS = 12


@dataclass(frozen=True, kw_only=True)
class Feeds:
    """What is measured."""

    parts: tuple[Literal["decoding", "memory"], ...] = ("decoding", "memory")
    images: int = 4096
    """Streamed at once: two windows."""
    times: int = 10
    size_px: int = 64
    child: str = ""
    """Used by the benchmark itself: sweep with that feed, or stream so many images."""
    counts: str = ""
    """Used by the benchmark itself: where decoded images are counted."""


def count_decodes(path: str) -> None:
    """Have every ``decode`` of this process add a line: the image's checksum and its size."""
    from data_pipelines import transforms

    decode = transforms.decode
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def counted(image: bytes, size_px: int) -> Any:
        os.write(file, f"{zlib.crc32(image)} {size_px}\n".encode())
        return decode(image, size_px)

    transforms.decode = counted


def sweep(flags: Feeds, home: Path) -> None:
    """The sweep on one feed; its workers count."""
    import ray

    from sweeps.guidance_lambda import GuidanceLambda
    from sweeps.launch.command import run

    def count() -> None:
        count_decodes(flags.counts)

    ray.init = partial(ray.init, runtime_env={"worker_process_setup_hook": count})
    asked = GuidanceLambda(
        **GRID,
        smoke=True,
        feed="resident" if flags.child == "resident" else "streamed",
        data_root=str(home.parent / "data"),
        storage_path=str(home / "storage"),
        tracking_uri=f"sqlite:///{home / 'mlflow.db'}",
    )
    sys.exit(run(asked))


def count_images(folder: Path) -> None:
    """Sweep on each feed and print what was decoded."""
    from data_pipelines.manifest import indexed
    from sweeps.guidance_lambda import GuidanceLambda

    data = GuidanceLambda(smoke=True, data_root=str(folder / "data")).data()
    dataset, manifest = indexed(data, folder / "index")
    splits = {
        zlib.crc32(Path(dataset.folder, path).read_bytes()): split
        for split in manifest.splits
        for path in manifest.table(split, ["path"])["path"].to_pylist()
    }
    images, all_images = manifest.images["train"], sum(manifest.images.values())
    print(f"{TRIALS} trials of {GRID['epochs']} epochs, {images} training images of {all_images}")
    for feed in ("resident", "streamed"):
        counts = folder / f"{feed}.txt"
        (home := folder / feed).mkdir()
        command = ["--child", feed, "--counts", str(counts)]
        child(command, home)
        decoded, looked = Counter[str](), 0
        for line in counts.read_text().splitlines():
            checksum, size_px = map(int, line.split())
            if size_px == 1:
                looked += 1
            else:
                decoded[splits[checksum]] += 1
        if feed == "resident":
            ratio = decoded.total() / all_images
            print(f"  resident: {dict(decoded)}; / images = {ratio:.2f}  (goal 1.00)")
        else:
            ratio = decoded["train"] / (images * GRID["epochs"] * TRIALS)
            print(f"  streamed: {dict(decoded)}; looked at once: {looked}")
            print(f"  of train / (images x epochs x trials) = {ratio:.2f}  (goal 1.00)")


def child(words: list[str], home: Path) -> str:
    """This benchmark in a process of its own; what it printed last."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{words} ended with {done.returncode}")
    return done.stdout.splitlines()[-1]


class Peak:
    """A context: the largest sum of USS and pages of the object store, in MiB."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.sum = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(PERIOD_S):
            pids = below(os.getpid())
            now = {"driver": uss_mib(os.getpid()), "workers": 0.0, "store": 0.0}
            for pid in pids:
                now["workers"] += uss_mib(pid) if kind_of(pid) else 0.0
                now["store"] = max(now["store"], store_mib(pid))
            if sum(now.values()) > self.sum:
                self.sum, self.parts = sum(now.values()), now


def store_mib(pid: int) -> float:
    """Pages of the object store that a process holds open."""
    pages: dict[int, float] = {}
    for fd in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            if "/plasma" in os.readlink(fd):
                status = fd.stat()
                pages[status.st_ino] = status.st_blocks * 512 / 2**20
        except OSError:  # it ended while we looked
            continue
    return sum(pages.values())


def stream(flags: Feeds, folder: Path) -> None:
    """Stream ``flags.child`` images, once in windows, and print the peak."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray
    from PIL import Image
    from ray._private.internal_api import memory_summary

    from data_pipelines.image_set import ImageSet
    from data_pipelines.order import WINDOWS
    from data_pipelines.shard_rows import Shards
    from data_pipelines.shards import IMAGES_PER_SHARD
    from data_pipelines.streamed_set import StreamedSplit

    images, random = int(flags.child), np.random.default_rng(0)
    pictures = []
    for _ in range(16):
        buffer = io.BytesIO()
        noise = random.integers(0, 256, (160, 160, 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, "JPEG", quality=75)
        pictures.append(buffer.getvalue())
    ids = [f"{row:08d}" for row in range(images)]
    firsts = range(0, images, IMAGES_PER_SHARD)
    for first in firsts:
        rows = range(first, min(first + IMAGES_PER_SHARD, images))
        table = pa.table(
            {"image_id": [ids[r] for r in rows], "image": [pictures[r % 16] for r in rows]}
        )
        pq.write_table(table, folder / f"{first}.parquet", row_group_size=WINDOWS.group_images)
    annotations = ImageSet(
        classes=("one",),
        size_px=flags.size_px,
        image_ids=np.array(ids),
        labels=np.ones((images, 1), dtype=np.uint8),
        boxes=np.empty((0, 5), dtype=np.int32),
        box_offsets=np.zeros(images + 1, dtype=np.int64),
        blocks=(),
        rows=np.arange(images),
    )
    shards = Shards(tuple(str(folder / f"{first}.parquet") for first in firsts), tuple(firsts))
    split = StreamedSplit(annotations, shards, cpus=1)
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=2**28,
    )
    streamed = split.load()
    order = WINDOWS.shuffled(streamed.rows, random)
    batches = np.split(order, range(64, images, 64))
    started = time.monotonic()
    with Peak() as peak, streamed.expecting(batches):
        for batch in batches:
            streamed.images(batch)
    seconds = time.monotonic() - started
    spilled = "Spilled" in memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
    ray.shutdown()
    print(json.dumps({"sum": peak.sum, **peak.parts, "rate": images / seconds, "spilled": spilled}))


def measure_memory(flags: Feeds, folder: Path) -> None:
    """Stream both sizes and print the ratio."""
    sizes = (flags.images, flags.images * flags.times)
    peaks = []
    for size in sizes:
        (home := folder / str(size)).mkdir()
        peaks.append(
            json.loads(child(["--child", str(size), "--size-px", str(flags.size_px)], home))
        )
    print(f"peak memory of a stream of {sizes[0]} and {sizes[1]} JPEGs to {flags.size_px} px, MiB")
    for name in ("driver", "workers", "store", "sum"):
        once, more = (peak[name] for peak in peaks)
        goal = f"   ratio {more / once:.2f}  (goal <= 1.1)" if name == "sum" else ""
        print(f"  {name:<8}{once:8.0f} {more:8.0f}{goal}")
    print(f"  images/s {peaks[0]['rate']:7.0f} {peaks[1]['rate']:8.0f}")
    print(f"  spilled: {peaks[0]['spilled'] or peaks[1]['spilled']}  (goal False)")


def main() -> None:
    """Both parts, each in processes of their own."""
    flags = tyro.cli(Feeds, description=__doc__)
    if flags.child.isdigit():
        with tempfile.TemporaryDirectory(prefix="stream-") as folder:
            stream(flags, Path(folder))
        return
    if flags.child:
        sweep(flags, Path(os.environ["XDG_DATA_HOME"]))
    with tempfile.TemporaryDirectory(prefix="feeds-") as folder:
        if "decoding" in flags.parts:
            count_images(Path(folder))
        if "memory" in flags.parts:
            measure_memory(flags, Path(folder))


if __name__ == "__main__":
    main()
