"""Probes on a frozen network that know four colors, without any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.image_set import ImageSet
from tests.trainables.conftest import Bench
from tests.trainables.scenes import SIZE_PX, Feed
from trainables.backbone import Backbone, UntrainedBackbone
from trainables.checkpoint import save_weights
from trainables.models.bcos_layers import BcosConv2d
from trainables.models.probe import ConventionalProbe, ProbeHead
from trainables.models.probed import features_kind, features_of
from trainables.models.small_resnet import SmallResNet
from trainables.probe_training import ProbeTraining
from trainables.training import weights_path
from trainables.trial import Trial, feed_key, seeded

COLORS = np.array([(230, 20, 20), (20, 230, 20), (20, 20, 230), (230, 230, 20)])
BACKBONE = UntrainedBackbone(network=SmallResNet(width=4))
DATA = DigitScenes(layout="imagenet")  # names the feeds; its files are never read


def colored(n: int, seed: int, *, two: int = 0) -> ImageSet:
    """A large square of one of four colors an image; the first ``two`` images have another one."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 120, (n, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    labels = np.zeros((n, len(COLORS)), np.uint8)
    boxes, offsets = [], [0]
    for image in range(n):
        drawn = [(image + k) % len(COLORS) for k in range(2 if image < two else 1)]
        for color in drawn:
            side = int(rng.integers(9, 16))
            x, y = rng.integers(0, SIZE_PX - side, 2)
            pixels[image, y : y + side, x : x + side] = COLORS[color]
            labels[image, color] = 1
            boxes.append((color, x, y, x + side, y + side))
        offsets.append(len(boxes))
    return ImageSet(
        classes=("red", "green", "blue", "yellow"),
        size_px=SIZE_PX,
        image_ids=np.array([f"{seed}-{image:03d}" for image in range(n)]),
        labels=labels,
        boxes=np.array(boxes, np.int32).reshape(-1, 5),
        box_offsets=np.array(offsets, np.int64),
        blocks=[pixels],
        rows=np.arange(n),
    )


def probe_training(**changed: Any) -> ProbeTraining:
    """A linear probe by cross-entropy, unless said otherwise."""
    fields: dict[str, Any] = {"backbone": BACKBONE, "probe": ConventionalProbe(), "data": DATA}
    return ProbeTraining(**fields | {"image_size_px": SIZE_PX, "epochs": 1} | changed)


class ProbeBench(Bench):
    """Feeds of colored squares; trainings are planted, not run."""

    @property
    def feeds(self) -> dict[Any, Feed]:
        like = probe_training()
        return {feed_key(like, split): Feed(images) for split, images in self.splits.items()}

    def trial(self, result: Any) -> Trial:
        return Trial(result, self.storage, self.feeds, self.events.append)

    def plant(self, *trainings: ProbeTraining, blind: bool = False) -> None:
        """Leave what the trainings would: a head fitted by least squares, or a random one."""
        images = self.splits["val"]
        for of in trainings:
            model = of.backbone.build(self.trial(of))
            with seeded(of.seed):
                head = of.probe.head(features_kind(model), len(images.classes))
            pictures = model.encode(torch.from_numpy(images.images(np.arange(len(images)))))
            if not blind:
                labels = torch.from_numpy(images.labels).double()
                low = -20 if of.objective == "ce" else -12  # which no softmax sees
                fit(head, features_of(model, pictures), 40 * labels + low)
            leave(self.folder(of), head)


def fit(head: ProbeHead, features: Tensor, logits: Tensor) -> None:
    """Give a conventional last layer the least-squares solution for these logits."""
    taken: list[Tensor] = []
    last: Any = head.last
    if isinstance(last, BcosConv2d):
        return
    handle = last.register_forward_pre_hook(lambda _layer, inputs: taken.append(inputs[0]))
    with torch.no_grad():
        head.eval()(features)
        handle.remove()
        x = taken[0].flatten(2).mean(2) if taken[0].ndim == 4 else taken[0]
        biases = 0 if last.bias is None else 1
        x = torch.cat([x, torch.ones(len(x), biases)], 1).double()
        solved = torch.linalg.solve(x.T @ x + 1e-6 * torch.eye(x.shape[1]), x.T @ logits)
        width = last.weight.shape[1]
        last.weight.copy_(solved[:width].T.reshape(last.weight.shape))
        if biases:
            last.bias.copy_(solved[-1])


def leave(folder: Path, head: nn.Module) -> None:
    """The files of a finished training of one epoch."""
    digest = save_weights(weights_path(folder, 1), head)
    (folder / "result.json").write_text(json.dumps({"epoch": 1, "weights": {"1": digest}}))


def other_backbone() -> Backbone:
    """The same network with other weights."""
    return UntrainedBackbone(network=SmallResNet(width=4), seed=7)
