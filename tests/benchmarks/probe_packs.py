"""Packs of probes: K trained or judged at once against K one by one; seconds, FLOPs and forwards.

    python tests/benchmarks/probe_packs.py            # ResNet-50: a quarter of an hour on one core
    python tests/benchmarks/probe_packs.py --small    # the sample's network: some minutes

Training: linear probes that differ in loss and rate, on crops, with everything that a trial does:
features, steps, evaluation, checkpoints. With b the seconds of a batch's pictures, crops and
forward, and h those of a head's step, both measured in the pack's own run, no pack of K can gain
more than K (b + h) / (b + K h). Goal: 0.9 of that, from images x epochs forwards of the backbone,
whatever K is. The images lie decoded in memory, as in a sweep: decoding again in
each run, as the reference does, would only add to b.

Grid pointing game: mosaics of 3 x 3, nine maps each of every probe, from one pack and probe by
probe. Counted, not timed. The least is written out in plain torch: the backbone forward once,
each head forward once, and for each probe and class a backward to the layer and no further.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import trainables.attribution
import trainables.metrics  # noqa: F401  (each registers its classes)
from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.image_set import ImageSet
from trainables import probe_pack_training
from trainables.attribution.attribution import Attribution
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.backbone import UntrainedBackbone
from trainables.flops import FlopCounter
from trainables.frozen_features import BatchFeatures, FrozenBackbone, SplitFeatures
from trainables.models.network import Network
from trainables.models.probe import ConventionalProbe
from trainables.models.probed import features_kind, features_of, probed
from trainables.models.small_resnet import SmallResNet
from trainables.models.torchvision_resnet import ResNet50
from trainables.pack_scorer import PackScored, PackScorer
from trainables.probe_grids import ProbeGridEvaluation
from trainables.probe_learner import Learner
from trainables.probe_pack_training import Heads
from trainables.probe_training import ProbeTraining
from trainables.result import Result
from trainables.trial import feed_key, run_bundle

CLASSES, SIDE = 10, 3
PACKS = (1, 8, 32, 128)
SEPARATE = 4
"""Separate runs that are measured; the time of K of them is K times the mean."""
TRAINING = "{:>4} {:<11} {:>8} {:>10} {:>6} {:>8} {:>6} {:>6} {:>5} {:>7} {:>6} {:>5} {:>9} {:>15}"
JUDGING = "{:<18} {:<6} {:>4} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>10}"


@dataclass(frozen=True)
class Setting:
    """What is measured on.

    Attributes:
        network: of the backbone, with its first random weights: they cost what others do.
        size_px: side of the images.
        images: by split.
        epochs, batch_size: of every probe.
        judged: packs that are judged by each method.
        grids: mosaics.
        cell_px: side of their cells.
    """

    network: Network
    size_px: int
    images: dict[str, int]
    epochs: int
    batch_size: int
    judged: tuple[int, ...]
    grids: int
    cell_px: int


SMALL = Setting(SmallResNet(), 64, {"train": 2048, "val": 128}, 2, 64, (1, 8, 32), 2, 64)
LARGE = Setting(ResNet50(), 224, {"train": 128, "val": 32}, 2, 32, (1, 8), 1, 32)


@dataclass(frozen=True)
class Loaded:
    """A split in this process."""

    images: ImageSet

    def load(self) -> ImageSet:
        return self.images


@dataclass
class Spent:
    """Where the time of a training goes, in seconds.

    Attributes:
        wall, cpu: of all of it, from nothing to the last file.
        features: of CPU for each batch: pictures, crops, forward, mean over places.
        heads: of CPU for each batch and head: forward, backward, update.
        forwards: images that went through the backbone.
    """

    wall: float = 0.0
    cpu: float = 0.0
    features: list[float] = field(default_factory=list)
    heads: list[float] = field(default_factory=list)
    forwards: int = 0


def main() -> None:
    """Both tables."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--small", action="store_true", help="the sample's network: some minutes")
    flags.add_argument("--packs", type=int, nargs="+", default=PACKS, help="numbers of probes")
    asked = flags.parse_args()
    setting = SMALL if asked.small else LARGE
    torch.set_num_threads(1)
    train(setting, asked.packs)
    judge(setting)


def train(setting: Setting, packs: Sequence[int]) -> None:
    """One line a pack, with heads one by one and as one product."""
    splits = {split: noise(count, setting.size_px) for split, count in setting.images.items()}
    images = ", ".join(f"{count} {split}" for split, count in setting.images.items())
    print(f"{setting.network.name}, {images} images of {setting.size_px} px, batches of", end=" ")
    print(f"{setting.batch_size}, {setting.epochs} epochs, linear probes of {CLASSES} classes")
    timed([probe(setting, 0)], splits)  # warm
    runs = [timed([probe(setting, number)], splits) for number in range(SEPARATE)]
    wall, cpu = (float(np.median([getattr(r, name) for r in runs])) for name in ("wall", "cpu"))
    least, most = min(run.cpu for run in runs), max(run.cpu for run in runs)
    print(f"one by one: {wall:.2f} s of wall, {cpu:.2f} s of CPU each (medians of {SEPARATE} runs,")
    print(f"{least:.2f} to {most:.2f} of CPU); b and h in ms of CPU a batch (medians)")
    print(
        TRAINING.format(
            *("K", "heads", "pack, s", "K x one, s", "gain", "CPU gain", "limit", "share"),
            *("goal", "b", "h", "rest", "forwards", "images x epochs"),
        )
    )
    seen = setting.images["train"] * setting.epochs + setting.images["val"]
    for count in packs:
        for fused in (False, True) if count > 1 else (False,):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(probe_pack_training, "FUSED", fused)
                run = timed([probe(setting, number) for number in range(count)], splits)
            b, h = (float(np.median(seconds)) for seconds in (run.features, run.heads))
            gain, limit = count * cpu / run.cpu, count * (b + h) / (b + count * h)
            rest = (run.cpu - sum(run.features) - sum(run.heads)) / (count * setting.epochs)
            print(
                TRAINING.format(
                    *(count, "one product" if fused else "one by one", f"{run.wall:.2f}"),
                    *(f"{count * wall:.1f}", f"{count * wall / run.wall:.2f}", f"{gain:.2f}"),
                    *(f"{limit:.2f}", f"{gain / limit:.2f}", 0.9),
                    *(f"{1e3 * b:.2f}", f"{1e3 * h:.3f}", f"{1e3 * rest:.1f}"),
                    *(run.forwards, seen),
                ),
                flush=True,
            )
    print("rest: ms of CPU a probe and epoch for evaluation, checkpoint and what happens once")
    print("gain: by wall; share: CPU gain over its limit, as other processes take wall alone")
    print(f"forwards: the {setting.images['val']} of val once, kept for all epochs, among them\n")


def probe(setting: Setting, number: int, **changed: Any) -> ProbeTraining:
    """One of many that differ in loss and rate."""
    fields: dict[str, Any] = {
        "backbone": UntrainedBackbone(network=setting.network),
        "probe": ConventionalProbe(),
        "data": DigitScenes(layout="imagenet"),  # names the feeds; its files are never read
        "image_size_px": setting.size_px,
        "epochs": setting.epochs,
        "batch_size": setting.batch_size,
        "objective": ("ce", "bce")[number % 2],
        "learning_rate": 1e-3 * (1 + number),
        "warmup_epochs": 1,
    }
    return ProbeTraining(**fields | changed)


def noise(count: int, size_px: int) -> ImageSet:
    """Pictures of noise with one class each."""
    rng = np.random.default_rng(0)
    labels = np.eye(CLASSES, dtype=np.uint8)[np.arange(count) % CLASSES]
    corners = np.tile([0, 0, size_px // 2, size_px // 2], (count, 1))
    return ImageSet(
        classes=tuple(f"class {k}" for k in range(CLASSES)),
        size_px=size_px,
        image_ids=np.array([f"{k:05d}" for k in range(count)]),
        labels=labels,
        boxes=np.column_stack([labels.argmax(1), corners]).astype(np.int32),
        box_offsets=np.arange(count + 1),
        blocks=[rng.integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)],
        rows=np.arange(count),
    )


def computed(results: Sequence[Result], splits: dict[str, ImageSet], storage: Path) -> None:
    """Compute a bundle as a trial does.

    Raises:
        ValueError: something failed; says why.
    """
    feeds = {
        feed_key(result, split): Loaded(images)
        for result in results
        for split, images in splits.items()
    }
    events: list[dict[str, Any]] = []
    run_bundle(results, storage, feeds, events.append)
    for event in events:
        if event["event"] == "failed":
            raise ValueError(f"{event['result_id']}: {event['reason']}")


def timed(probes: Sequence[ProbeTraining], splits: dict[str, ImageSet]) -> Spent:
    """Train a pack, watched."""
    with tempfile.TemporaryDirectory() as storage, watched() as spent:
        wall, cpu = time.perf_counter(), time.process_time()
        computed(probes, splits, Path(storage))
        spent.wall, spent.cpu = time.perf_counter() - wall, time.process_time() - cpu
    return spent


@contextmanager
def watched() -> Iterator[Spent]:
    """Times batches and steps of the trainings inside."""
    spent, updates = Spent(), list[float]()
    of, backward, step = SplitFeatures.of, Heads.backward, Learner.step
    forward = FrozenBackbone.__call__

    def features(self: SplitFeatures, indices: Any, augment: Any = None) -> BatchFeatures:
        started = time.process_time()
        found = of(self, indices, augment)
        if augment is not None:  # a batch of training
            found.pooled  # noqa: B018  (makes it)
            spent.features.append(time.process_time() - started)
        return found

    def losses(self: Heads, *inputs: Any) -> list[float]:
        started, count = time.process_time(), len(self.learners)
        found = backward(self, *inputs)
        spent.heads += [(time.process_time() - started) / count] * count
        return found

    def update(self: Learner, *inputs: Any) -> None:
        started = time.process_time()
        step(self, *inputs)
        updates.append(time.process_time() - started)

    def count(self: FrozenBackbone, pictures: Any) -> Tensor:
        spent.forwards += len(pictures)
        return forward(self, pictures)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SplitFeatures, "of", features)
        patch.setattr(Heads, "backward", losses)
        patch.setattr(Learner, "step", update)
        patch.setattr(FrozenBackbone, "__call__", count)
        yield spent
    spent.heads = [a + b for a, b in zip(spent.heads, updates, strict=True)]


def judge(setting: Setting) -> None:
    """One line a method and pack."""
    images = {"val": noise(40, setting.cell_px)}
    at_side = SIDE * setting.cell_px
    print(f"GridPG, {setting.grids} mosaic(s) of {at_side} px; image-forwards and GFLOP a mosaic")
    print(
        JUDGING.format(
            *("method", "layer", "K", "forwards", "K alone", "GFLOP", "K alone", "least"),
            *("/ least", "alone / us"),
        )
    )
    changed = {"image_size_px": setting.cell_px, "epochs": 1, "batch_size": 40}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        probes = [probe(setting, k, **changed) for k in range(max(setting.judged))]
        computed(probes, {"train": images["val"], "val": images["val"]}, Path(folder))
        counted: list[int] = []
        score = PackScorer.__call__

        def counting(self: PackScorer, batch: Any) -> PackScored:
            scored = score(self, batch)
            counted.append(scored.forwards)
            return scored

        patch.setattr(PackScorer, "__call__", counting)
        for method in (InputXGradient(), GradCam()):

            def run(count: int, method: Attribution = method) -> tuple[float, float]:
                """GFLOP and image-forwards a mosaic of so many probes at once."""
                counted.clear()
                with FlopCounter() as flops:  # parts are gone once they are put together
                    evaluations = [evaluation(one, method, setting) for one in probes[:count]]
                    computed(evaluations, images, Path(folder))
                return flops.total / setting.grids / 1e9, sum(counted) / setting.grids

            run(1)  # what all share beside the mosaics is known from here on
            alone, forwards_alone = run(1)
            least = partial(least_gflop, probes[0], method, at_side)
            for count in setting.judged:
                gflop, forwards = run(count)
                minimum = least(count)
                print(
                    JUDGING.format(
                        *(method.name, method.layer, count, f"{forwards:g}"),
                        *(f"{count * forwards_alone:g}", f"{gflop:.4g}", f"{count * alone:.4g}"),
                        *(f"{minimum:.4g}", f"{gflop / minimum:.3f}"),
                        f"{count * alone / gflop:.2f}",
                    ),
                    flush=True,
                )


def evaluation(of: ProbeTraining, method: Attribution, setting: Setting) -> ProbeGridEvaluation:
    """The mosaics of any images: the weights are noise."""
    return ProbeGridEvaluation(
        of=of, attribution=method, images="all", side=SIDE, grids=setting.grids
    )


def least_gflop(of: ProbeTraining, method: Any, side_px: int, count: int) -> float:
    """The same maps in plain torch; exact for any number of probes that are alike."""
    backbone = of.backbone.architecture.build(CLASSES)
    head = of.probe.head(features_kind(backbone), CLASSES).eval().requires_grad_(False)
    images = backbone.encode(torch.zeros(1, 3, side_px, side_px, dtype=torch.uint8))
    features = features_of(backbone, images)
    of_head = counted_gflop(lambda: head(features))
    model = probed(backbone, head)
    model.module.eval().requires_grad_(False)
    kept = [images.requires_grad_(method.layer == "input")]
    if method.layer != "input":
        layer = model.module.get_submodule(model.path_of(method.layer))
        layer.register_forward_hook(lambda _layer, _in, out: kept.append(out.requires_grad_()))
    logits: list[Tensor] = []
    forward = counted_gflop(lambda: logits.append(model.module(images)))
    explained, start = logits[0][0, 0], kept[-1]
    backward = counted_gflop(lambda: torch.autograd.grad(explained, start))
    return forward + (count - 1) * of_head + count * SIDE**2 * backward


def counted_gflop(run: Callable[[], object]) -> float:
    with FlopCounter() as flops:
        run()
    return flops.total / 1e9


if __name__ == "__main__":
    main()
