"""Writing and reading shards against a plain PIL loop on one core, side by side.

    python tests/benchmarks/shards.py                     # two minutes on two cores
    python tests/benchmarks/shards.py --images 4096 --repeats 5

VOC files of photographs with noise, 500 x 375 px. *Write* is the conversion: every image is decoded
once to see if it is sound, hashed and put into a shard, and the manifest is made. A plain loop does
the same with PIL and pyarrow, without names, checks or resumption; another one opens and decodes
the files and does nothing else. *Read* makes the resident feed at 224 px from the shards; the plain
loop decodes and resizes the published files. They come in turns, as often as there are repeats,
after a round that starts Ray's workers; the medians are printed.

Images/s and core are by the clock, over the cores that Ray was given: other work on the machine
slows them. Images per CPU second count the time of all processes, Ray's own included. Goal: 0.9 of
the plain loop's.
"""

from __future__ import annotations

import gc
import hashlib
import io
import os
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import tyro
from PIL import Image
from sklearn.datasets import load_sample_images

from data_pipelines.annotation import AnnotatedObject, Annotation, annotation_xml
from data_pipelines.conversion import convert, home_of
from data_pipelines.manifest import Manifest, index
from data_pipelines.streaming import resident
from data_pipelines.voc import Voc

GOAL = 0.9
WIDTH, HEIGHT, SIDE = 500, 375, 224
DISTINCT = 128
"""Different pictures; each is written to several files."""
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class ShardsBenchmark:
    """What is measured."""

    images: int = 2048
    cpus: int = len(os.sched_getaffinity(0))
    """That Ray may use."""
    repeats: int = 3


@dataclass(frozen=True)
class Measured:
    """One run of one way."""

    images: int
    seconds: float
    cpu_seconds: float


def main(flags: ShardsBenchmark) -> None:
    """Two tables of two ways and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        dataset, paths = published(home / "voc", flags.images)
        size = sum(path.stat().st_size for path in paths) / len(paths)
        manifest = index(dataset, home / "index", dataset.splits())
        store = 2 * 2 * flags.images * SIDE * SIDE * 3 + 2**28
        ray.init(
            address="local",
            num_cpus=flags.cpus,
            object_store_memory=store,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
        )
        try:
            print(
                f"{flags.images} JPEGs of {WIDTH} x {HEIGHT} px, {size / 1000:.0f} kB each; Ray "
                f"has {flags.cpus} cores; medians of {flags.repeats} turns (goal {GOAL})\n"
            )
            outs = iter(home / f"out{number}" for number in range(flags.repeats + 1))
            plain = {
                "the same": lambda: plainly_written(paths, home / "plain"),
                "decode": lambda: plainly(paths, None),
            }
            table("write", flags, plain, lambda: write(dataset, next(outs)))
            plain = {"decode": lambda: plainly(paths, SIDE)}
            table("read", flags, plain, lambda: read(dataset, manifest, flags.images))
        finally:
            ray.shutdown()


def table(
    what: str,
    flags: ShardsBenchmark,
    plain: dict[str, Callable[[], int]],
    ours: Callable[[], int],
) -> None:
    """Measure the ways in turns and print them, and the ratio of ours to each plain one."""
    ours()  # workers start and import
    ways = {f"plain: {name}": work for name, work in plain.items()} | {"shards": ours}
    turns = [{name: measured(work) for name, work in ways.items()} for _ in range(flags.repeats)]
    print(f"{what:<16} {'images':>7} {'images/s and core':>18} {'images per CPU s':>17}")
    rates = {}
    for name in ways:
        runs, cores = [turn[name] for turn in turns], flags.cpus if name == "shards" else 1
        by_clock = median(run.images / run.seconds / cores for run in runs)
        by_cpu = median(run.images / run.cpu_seconds for run in runs)
        rates[name] = np.array([by_clock, by_cpu])
        print(f"{name:<16} {runs[0].images:>7} {by_clock:>18.1f} {by_cpu:>17.1f}")
    for name in plain:
        clock, cpu = rates["shards"] / rates[f"plain: {name}"]
        print(f"{'ratio to ' + name:<24} {clock:>18.2f} {cpu:>17.2f}")
    print()


def measured(work: Callable[[], int]) -> Measured:
    """Images, seconds by the clock and CPU seconds of all processes."""
    gc.collect()
    started, used = time.perf_counter(), cpu_seconds()
    images = work()
    return Measured(images, time.perf_counter() - started, cpu_seconds() - used)


def cpu_seconds() -> float:
    """CPU time of this process and of those below it, in seconds."""
    children: dict[int, list[int]] = defaultdict(list)
    used: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        pid = int(stat.parent.name)
        children[int(fields[1])].append(pid)
        used[pid] = int(fields[11]) + int(fields[12])
    total, todo = 0, [os.getpid()]
    while todo:
        pid = todo.pop()
        total += used.get(pid, 0)
        todo += children[pid]
    return total / TICK


def plainly(paths: list[Path], side: int | None) -> int:
    """Open and decode every file, and resize it where a side is given."""
    for path in paths:
        with Image.open(path) as picture:
            if side is None:
                picture.load()
            else:
                rgb = picture.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
                np.asarray(rgb)
    return len(paths)


def plainly_written(paths: list[Path], out: Path) -> int:
    """Parse, open, decode, hash and store every image in Parquet files of 256."""
    out.mkdir(exist_ok=True)
    for first in range(0, len(paths), 256):
        rows = []
        for path in paths[first : first + 256]:
            xml = ElementTree.parse(path.parents[1] / "Annotations" / f"{path.stem}.xml")
            image = path.read_bytes()
            with Image.open(io.BytesIO(image)) as picture:
                picture.load()
            boxes = [[int(side.text or "") for side in box] for box in xml.iter("bndbox")]
            digest = hashlib.sha256(image).hexdigest()
            rows.append({"id": path.stem, "image": image, "boxes": boxes, "sha256": digest})
        pq.write_table(pa.Table.from_pylist(rows), out / f"{first}.parquet")
    return len(paths)


def write(dataset: Voc, out: Path) -> int:
    """Convert the dataset to shards at a new place."""
    home = home_of(dataset, out, dataset.splits())
    done = convert(
        dataset, home, dataset.splits(), dataset.files(), verify=True, say=lambda _: None
    )
    done.manifest.write(home)
    return done.images


def read(dataset: Voc, manifest: Manifest, images: int) -> int:
    """Make the resident feed of the training split; its shards are there after the first time."""
    split = resident(dataset, manifest, "train", SIDE)
    if split.images_decoded != images:
        raise ValueError(f"{split.images_decoded} images decoded, not {images}")
    return split.images_decoded


def published(root: Path, images: int) -> tuple[Voc, list[Path]]:
    """VOC files with so many training images, and one each for validation and test."""
    random, photographs = np.random.default_rng(0), load_sample_images().images
    files = []
    for number in range(DISTINCT):
        photograph = Image.fromarray(photographs[number % len(photographs)])
        left, top = random.integers(0, 200), random.integers(0, 150)
        crop = photograph.crop((left, top, left + 400, top + 260)).resize((WIDTH, HEIGHT))
        noisy = np.asarray(crop) + random.normal(scale=6, size=(HEIGHT, WIDTH, 3))
        path = root / f"{number}.jpg"
        root.mkdir(exist_ok=True, parents=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        files.append(path.read_bytes())
    home = root / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (home / name).mkdir(parents=True)
    text = annotation_xml("", Annotation(WIDTH, HEIGHT, (AnnotatedObject("it", (9, 9, 99, 99)),)))
    paths = []
    for number in range(images + 2):
        paths.append(home / "JPEGImages" / f"{number:06d}.jpg")
        paths[-1].write_bytes(files[number % DISTINCT])
        (home / "Annotations" / f"{number:06d}.xml").write_text(text)
    ends = {"train": range(images), "val": [images], "test": [images + 1]}
    for split, numbers in ends.items():
        for name in (f"{split}.txt", f"it_{split}.txt"):
            lines = "".join(f"{number:06d}\n" for number in numbers)
            (home / "ImageSets" / "Main" / name).write_text(lines)
    return Voc(root=str(root)), paths[:images]


if __name__ == "__main__":
    main(tyro.cli(ShardsBenchmark))
