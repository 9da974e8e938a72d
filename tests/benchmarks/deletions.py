"""What IDSDS costs: one set of deletions for all methods, and fine-tuning as a bare loop.

    python tests/benchmarks/deletions.py          # a minute on one core

Scores, counted: image-forwards of a network for the deletion score of all methods that need one
gradient, and for what the network itself says; the least is 1 + P an image. With one method after
another it is that for each of them.

Fine-tuning, timed side by side in one process: a trial with everything that it does (draws,
checkpoints, weights, validation) over a loop of the same steps and validation written out in plain
torch, on whole images and on random resized crops. Goal: 1.1, by CPU time. And what an epoch's
draws cost on a split of ImageNet's size, once an epoch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

import trainables.attribution
import trainables.metrics  # noqa: F401  (each registers its classes)
from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.image_set import ImageSet
from data_pipelines.patches import deleted_pixels
from data_pipelines.resized_crops import DRAWS, random_resized_crops
from trainables.attribution.after_softmax import AfterSoftmax
from trainables.attribution.attribution import Attribution
from trainables.attribution.cam import GradCam, LayerCam, XGradCam
from trainables.attribution.gradient import InputXGradient, Saliency
from trainables.batch import Batch
from trainables.classifier_training import ClassifierTraining
from trainables.evaluator import Evaluator
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.metrics.network_response import NetworkResponse
from trainables.metrics.single_deletion import Sds
from trainables.models.small_resnet import SmallResNet
from trainables.trial import feed_key, run_locally

CLASSES, SIZE_PX, PATCHES = 10, 64, 16
IMAGENET_IMAGES = 1_281_167
METHODS: tuple[Attribution, ...] = (
    *(InputXGradient(), InputXGradient(absolute=True), Saliency()),
    *(GradCam(), XGradCam(), LayerCam()),
)
LINE = "{:<44} {:>9} {:>9} {:>6}"


@dataclass(frozen=True)
class Loaded:
    """A split in this process."""

    images: ImageSet

    def load(self) -> ImageSet:
        return self.images


def main() -> None:
    """Both tables."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--images", type=int, default=512, help="training images")
    flags.add_argument("--repeats", type=int, default=5, help="pairs of runs")
    asked = flags.parse_args()
    torch.set_num_threads(1)
    count()
    for augmentation in ("none", "crop"):
        compare(asked.images, asked.repeats, augmentation)
    draw()


def noise(count: int, seed: int) -> ImageSet:
    """Images of noise, one class each."""
    random = np.random.default_rng(seed)
    labels = np.eye(CLASSES, dtype=np.uint8)[random.integers(CLASSES, size=count)]
    return ImageSet(
        classes=tuple(map(str, range(CLASSES))),
        size_px=SIZE_PX,
        image_ids=np.array([f"{k:06d}" for k in range(count)]),
        labels=labels,
        boxes=np.tile(np.array([0, 8, 8, 40, 40], np.int32), (count, 1)),
        box_offsets=np.arange(count + 1),
        blocks=[random.integers(0, 256, (count, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)],
        rows=np.arange(count),
    )


def count() -> None:
    """Image-forwards of a batch: all methods at once, one after another, the least."""
    model = SmallResNet().build(CLASSES)
    images = noise(8, 0)
    pixels = model.encode(torch.from_numpy(images.images(np.arange(8))))
    targets = torch.from_numpy(images.labels.argmax(1))
    batch = replace(Batch.single(pixels, targets), labels=targets)
    protocols = (Sds(patches=PATCHES), NetworkResponse(patches=PATCHES))
    least = len(pixels) * (1 + PATCHES)
    evaluator = Evaluator(model, dict.fromkeys(METHODS, protocols))
    evaluator(batch)  # the first also measures what an image takes
    together = evaluator(batch).forwards
    alone = sum(Evaluator(model, {m: protocols})(batch).forwards for m in METHODS)
    print(f"image-forwards of {len(pixels)} images, P = {PATCHES}, {len(METHODS)} methods")
    print(LINE.format("", "forwards", "least", "ratio"))
    arms = {m: protocols for method in METHODS for m in (method, AfterSoftmax(of=method))}
    both = Evaluator(model, arms)(batch).forwards
    for name, forwards in (
        ("all methods of a network", together),
        ("and each after the softmax, too", both),
        ("one after another", alone),
    ):
        print(LINE.format(name, forwards, least, f"{forwards / least:.2f}"))
    print()


def compare(images: int, repeats: int, augmentation: Literal["none", "crop"]) -> None:
    """CPU seconds of a fine-tuning trial over those of a bare loop, alternating."""
    start = ClassifierTraining(
        network=SmallResNet(),
        data=DigitScenes(layout="imagenet"),
        objective="ce",
        image_size_px=SIZE_PX,
        epochs=1,
        batch_size=64,
        learning_rate=1e-3,
    )
    tuned = IdsdsFinetuning(
        start=start, epochs=3, batch_size=64, learning_rate=1e-2, augmentation=augmentation
    )
    splits = {"train": noise(images, 1), "val": noise(images // 8, 2)}
    trials, loops = [], []
    for k in range(repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            feeds = {feed_key(start, name): Loaded(split) for name, split in splits.items()}
            run_locally(start, Path(folder), feeds, lambda _: None)
            began = time.process_time()
            if not run_locally(tuned, Path(folder), feeds, lambda _: None):
                raise RuntimeError("the fine-tuning failed")
            trials.append(time.process_time() - began)
        began = time.process_time()
        bare_loop(tuned, splits, seed=k)
        loops.append(time.process_time() - began)
    ratios = [trial / loop for trial, loop in zip(trials[1:], loops[1:], strict=True)]
    middle, goal = statistics.median(ratios), 1.1
    print(
        f"fine-tuning ({augmentation}), {images} + {images // 8} images, {tuned.epochs} epochs: "
        f"trial {statistics.median(trials[1:]):.2f} s, bare loop {statistics.median(loops[1:]):.2f}"
        f" s of CPU, ratio {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); goal {goal:.1f}: "
        f"{'met' if middle <= goal else 'NOT MET'}"
    )


def draw() -> None:
    """CPU seconds of an epoch's crops and cells for as many images as ImageNet trains on."""
    random, began = np.random.default_rng(0), time.process_time()
    random.integers(PATCHES, size=IMAGENET_IMAGES)
    random_resized_crops(random.random((IMAGENET_IMAGES, DRAWS)), 224, 224)
    seconds = time.process_time() - began
    print(f"draws of an epoch of {IMAGENET_IMAGES:,} images: {seconds:.1f} s of CPU")


def bare_loop(tuned: IdsdsFinetuning, splits: dict[str, ImageSet], seed: int) -> None:
    """The same steps and validations, with nothing around them."""
    model, random = tuned.start.network.build(CLASSES), np.random.default_rng(seed)
    images, labels = splits["train"], splits["train"].labels.argmax(1)
    optimizer = torch.optim.SGD(
        model.module.parameters(), lr=tuned.learning_rate, momentum=0.9, weight_decay=1e-4
    )
    for _ in range(tuned.epochs):
        order = random.permutation(len(images))
        model.module.train()
        for first in range(0, len(order), tuned.batch_size):
            chosen = order[first : first + tuned.batch_size]
            pixels = images.images(chosen)
            if tuned.augmentation == "crop":
                crops = random_resized_crops(random.random((len(chosen), DRAWS)), SIZE_PX, SIZE_PX)
                pixels = crops.of(pixels, np.arange(len(chosen)))
            x = model.encode(torch.from_numpy(pixels))
            cells = random.integers(PATCHES, size=len(chosen))
            whole = random.integers(2, size=len(chosen)).astype(bool)
            gone = torch.from_numpy(deleted_pixels(cells, whole, PATCHES, SIZE_PX, SIZE_PX))
            x = torch.where(gone.unsqueeze(1), 0.0, x)
            optimizer.zero_grad(set_to_none=True)
            target = torch.from_numpy(labels[chosen])
            functional.cross_entropy(model.module(x), target).backward()
            optimizer.step()
        validate(model.module, model.encode, splits["val"])


@torch.no_grad()
def validate(module: torch.nn.Module, encode: object, images: ImageSet) -> None:
    """Forwards of a split."""
    module.eval()
    for first in range(0, len(images), 64):
        chosen = np.arange(first, min(first + 64, len(images)))
        module(encode(torch.from_numpy(images.images(chosen))))  # type: ignore[operator]


if __name__ == "__main__":
    main()
