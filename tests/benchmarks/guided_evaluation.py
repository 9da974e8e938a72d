"""Maps of all classes of every image: ours against one backward per class, FLOPs and seconds.

    python tests/benchmarks/guided_evaluation.py              # a minute on one core
    python tests/benchmarks/guided_evaluation.py --large      # ResNets-50 at 224 px: minutes

Images with as many classes as in VOC 2007, 1.46 on average. The reference's evaluation is written
out in plain torch: batches of 4, and for every (image, class) one autograd.grad back through the
whole batch, with create_graph. Both give the same maps, which is checked. Goal: 2.5 x at the input.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from data_pipelines.image_set import ImageSet
from trainables.attribution.attribution import Attribution
from trainables.attribution.bcos import Bcos
from trainables.attribution.gradient import InputXGradient
from trainables.flops import FlopCounter
from trainables.models.bcos_resnet import BcosResNet50, SmallBcosResNet
from trainables.models.fixup_resnet import SmallXResNet, XResNet50
from trainables.models.network import Model, Network, evaluating
from trainables.models.small_resnet import SmallResNet
from trainables.models.torchvision_resnet import ResNet50
from trainables.passes import Passes
from trainables.scoring import batch_of, chunks

CLASSES, REFERENCE_BATCH = 20, 4
SHARES = (0.65, 0.26, 0.07, 0.015, 0.005)
"""Of the images with 1, 2, ... classes: 1.465 on average."""
LINE = "{:<30} {:<6} {:>9} {:>9} {:>6}   {:>8} {:>8} {:>6}"
Maps = Callable[[Model, Attribution, ImageSet], Tensor]


def main() -> None:
    """One line a network and layer."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--large", action="store_true", help="ResNets-50 at 224 px")
    large = flags.parse_args().large
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = (SmallResNet(), SmallXResNet(), SmallBcosResNet())
    networks: tuple[Network, ...] = (ResNet50(), XResNet50(), BcosResNet50()) if large else small
    images = scenes(20, 224) if large else scenes(200, 64)
    pairs = int(images.labels.sum())
    print(f"{len(images)} images of {images.size_px} px, {pairs / len(images):.2f} classes each")
    print(
        LINE.format(
            *("network", "layer", "GFLOP", "reference", "x", "seconds", "reference", "x"),
        )
    )
    for network in networks:
        model = network.with_new_head().build(CLASSES)
        for layer in ("input", "final"):
            method = Bcos(layer=layer) if model.explaining else InputXGradient(layer=layer)
            compare(f"{network.name} {method.name}", model, method, images)


def compare(name: str, model: Model, method: Attribution, images: ImageSet) -> None:
    """Both ways on the same images."""
    flops, seconds, maps = [], [], []
    for way in (ours, reference):
        way(model, method, scenes(4, images.size_px))  # warm
        started = time.perf_counter()
        maps.append(way(model, method, images))
        seconds.append(time.perf_counter() - started)
        with FlopCounter() as counter:
            way(model, method, images)
        flops.append(counter.total / 1e9)
    torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-4 * float(maps[1].abs().max()))
    (a, b), (s, t) = flops, seconds
    row = (f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}", f"{s:.2f}", f"{t:.2f}", f"{t / s:.2f}")
    print(LINE.format(name, getattr(method, "layer", ""), *row), flush=True)


def ours(model: Model, method: Attribution, images: ImageSet) -> Tensor:
    """Maps of all pairs, as `score` makes them, (pairs, h, w)."""
    indices, targets = images.pairs()
    rows, found = [], []
    with evaluating(model.module):
        for chosen, pairs in chunks(images):
            device = torch.get_default_device()
            batch = batch_of(model, images, device, chosen, indices[pairs], targets[pairs])
            with Passes(model, batch) as passes:
                found.append(method(passes))
            rows.append(pairs)
    return torch.cat(found)[np.argsort(np.concatenate(rows))]


def reference(model: Model, method: Attribution, images: ImageSet) -> Tensor:
    """The same, one backward per class."""
    found = []
    model.module.eval()
    path = model.path_of(getattr(method, "layer", "input"))
    for start in range(0, len(images), REFERENCE_BATCH):
        chosen = range(start, min(start + REFERENCE_BATCH, len(images)))
        kept = [model.encode(torch.from_numpy(images.images(chosen))).requires_grad_()]
        handle = model.module.get_submodule(path).register_forward_hook(
            lambda _module, _inputs, out, kept=kept: kept.append(out) if path else None
        )
        logits = model.module(kept[0])
        handle.remove()
        feature = kept[-1]
        for row, image in enumerate(chosen):
            for target in images.positives(image):
                with model.explaining() if model.explaining else nullcontext():
                    (gradient,) = torch.autograd.grad(
                        logits[row, int(target)], feature, retain_graph=True, create_graph=True
                    )
                found.append((gradient * feature)[row].sum(0).detach())
    return torch.stack(found)


def scenes(count: int, size_px: int) -> ImageSet:
    """Pictures of noise, each with one to five classes and a box of each."""
    rng = np.random.default_rng(0)
    labels = np.zeros((count, CLASSES), dtype=np.uint8)
    numbers = np.repeat(np.arange(1, 6), np.ceil(np.array(SHARES) * count).astype(int))[:count]
    for image, number in enumerate(rng.permutation(numbers)):
        labels[image, rng.permutation(CLASSES)[:number]] = 1
    _, classes = np.nonzero(labels)
    corners = np.tile([size_px // 4, size_px // 4, size_px // 2, size_px // 2], (len(classes), 1))
    return ImageSet(
        classes=tuple(f"class {k}" for k in range(CLASSES)),
        size_px=size_px,
        image_ids=np.array([f"{k:05d}" for k in range(count)]),
        labels=labels,
        boxes=np.column_stack([classes, corners]).astype(np.int32),
        box_offsets=np.concatenate([[0], labels.sum(1).cumsum()]).astype(np.int64),
        blocks=[rng.integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)],
        rows=np.arange(count),
    )


if __name__ == "__main__":
    main()
