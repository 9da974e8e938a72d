"""Generated pictures in memory: squares of three colors on noise, with exact boxes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_pipelines.class_map import VOID
from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.image_set import ImageSet
from trainables.attribution.gradient import InputXGradient
from trainables.classifier_training import ClassifierTraining
from trainables.group_training import GroupTraining
from trainables.guided_training import GuidedTraining
from trainables.losses.localization import Energy
from trainables.models.small_resnet import SmallResNet

COLORS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
SIZE_PX = 24

BASELINE = ClassifierTraining(
    network=SmallResNet(width=4),
    data=DigitScenes(),  # names the feeds; its files are never read
    image_size_px=SIZE_PX,
    epochs=3,
    batch_size=8,
    learning_rate=3e-3,
)
CONTROL = GuidedTraining(start=BASELINE, epochs=3, batch_size=8, learning_rate=1e-3)
GUIDED = GuidedTraining(
    start=BASELINE,
    loss=Energy(),
    attribution=InputXGradient(layer="final"),
    lambda_loc=5e-3,
    epochs=3,
    batch_size=8,
    learning_rate=1e-3,
)


BIRDS = GroupTraining(
    network=SmallResNet(width=4),
    data=BASELINE.data,
    image_size_px=SIZE_PX,
    crop_px=20,
    epochs=2,
    batch_size=8,
    learning_rate=3e-3,
)


@dataclass(frozen=True)
class Feed:
    """A split that lies in memory."""

    images: ImageSet

    def load(self) -> ImageSet:
        return self.images


def segmented(images: ImageSet) -> ImageSet:
    """The same with class maps of every second image: the upper half of each square, the rest of
    which is void."""
    packed = []
    for i in range(len(images)):
        pixels = np.zeros((SIZE_PX, SIZE_PX), dtype=np.uint8)
        for color, x, y, right, bottom in images.boxes[
            images.box_offsets[i] : images.box_offsets[i + 1]
        ]:
            pixels[y:bottom, x:right] = VOID
            pixels[y : (y + bottom) // 2, x:right] = color + 1
        packed.append(b"" if i % 2 else zlib.compress(pixels.tobytes()))
    return replace(images, class_maps=tuple(packed))


def squares(
    n: int, seed: int, *, unlabeled: Sequence[int] = (), rounded_away: Sequence[int] = ()
) -> ImageSet:
    """One or two squares an image.

    Args:
        n: images.
        seed: of everything.
        unlabeled: images without any square.
        rounded_away: images whose boxes have shrunk to nothing.
    """
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 120, (n, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    labels = np.zeros((n, len(COLORS)), dtype=np.uint8)
    boxes, offsets = [], [0]
    for image in range(n):
        drawn = rng.permutation(len(COLORS))[: rng.integers(1, 3)]
        for color in sorted(drawn) if image not in unlabeled else ():
            side = int(rng.integers(5, 9))
            x, y = rng.integers(0, SIZE_PX - side, 2)
            pixels[image, y : y + side, x : x + side] = list(COLORS.values())[color]
            labels[image, color] = 1
            corners = (x, y, x, y) if image in rounded_away else (x, y, x + side, y + side)
            boxes.append((color, *corners))
        offsets.append(len(boxes))
    return ImageSet(
        classes=tuple(COLORS),
        size_px=SIZE_PX,
        image_ids=np.array([f"{seed}-{image:03d}" for image in range(n)]),
        labels=labels,
        boxes=np.array(boxes, dtype=np.int32).reshape(-1, 5),
        box_offsets=np.array(offsets, dtype=np.int64),
        blocks=[pixels[: n // 2], pixels[n // 2 :]],
        rows=np.arange(n),
    )


def birds(n: int, seed: int, groups: Sequence[int] = (0, 3)) -> ImageSet:
    """One square an image, red or green as the bird says, on a dark or a light place."""
    rng = np.random.default_rng(seed)
    held = np.array(groups)[np.arange(n) % len(groups)]
    pixels = rng.integers(0, 60, (n, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    pixels[held % 2 == 1] += 150
    corners = np.zeros((n, 4), dtype=np.int32)
    for image, group in enumerate(held):
        side = int(rng.integers(6, 10))
        x, y = rng.integers(2, SIZE_PX - side - 2, 2)
        pixels[image, y : y + side, x : x + side] = list(COLORS.values())[group // 2]
        corners[image] = (x, y, x + side, y + side)
    return ImageSet(
        classes=("landbird", "waterbird"),
        size_px=SIZE_PX,
        image_ids=np.array([f"{seed}-{image:03d}" for image in range(n)]),
        labels=np.eye(2, dtype=np.uint8)[held // 2],
        boxes=np.concatenate([held[:, None] // 2, corners], axis=1).astype(np.int32),
        box_offsets=np.arange(n + 1),
        blocks=[pixels],
        rows=np.arange(n),
        groups=held,
    )
