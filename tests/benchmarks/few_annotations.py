"""FLOPs of a guided epoch with one image in a hundred annotated, over those of a plain epoch.

    python tests/benchmarks/few_annotations.py          # some seconds on one core

An epoch as on VOC 2007: 2501 images in batches of 64, shuffled, 25 of them annotated. Counted, not
timed. What a step costs depends on its images and on how many of them are annotated alone, so each
kind of step is run once. Goals: 1.1 x plain for networks without batch statistics, and at the final
layer; elsewhere 1 + P x (full - 1), P being the share of batches with an annotated image, and full
what an epoch costs with every image annotated.
"""

from __future__ import annotations

import argparse
from functools import cache

import numpy as np
import torch
from torch.nn import functional

from data_pipelines.boxes import annotated_subset
from trainables.attribution.attribution import Attribution
from trainables.attribution.bcos import Bcos
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.flops import FlopCounter
from trainables.guided_training import guided_step
from trainables.losses.localization import Energy
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.fixup_resnet import SmallFixupResNet, SmallXResNet
from trainables.models.network import DEPTHS, Model, Network
from trainables.models.small_resnet import SmallResNet

IMAGES, BATCH_SIZE, CLASSES, SIZE_PX, SEED = 2501, 64, 20, 64, 0
LINE = "{:<7} {:>7} {:>9} {:>7} {:>6}"


def main() -> None:
    """One table a network."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--fraction", type=float, default=0.01, help="share of annotated images")
    fraction = flags.parse_args().fraction
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    annotated = np.isin(np.arange(IMAGES), annotated_subset(IMAGES, fraction, SEED))
    order = np.random.default_rng(SEED).permutation(IMAGES)
    epoch = [annotated[order[k : k + BATCH_SIZE]] for k in range(0, IMAGES, BATCH_SIZE)]
    held = sum(len(batch) for batch in epoch if batch.any()) / IMAGES
    print(
        f"{int(annotated.sum())} of {IMAGES} images annotated; {held:.2f} of the images lie in a "
        f"batch with an annotated one (expected {1 - (1 - fraction) ** BATCH_SIZE:.2f}).\n"
    )
    for network in (SmallResNet(), SmallBcosResNet(), SmallXResNet(), SmallFixupResNet()):
        measure(network.with_new_head(), epoch, held)


def measure(network: Network, epoch: list[np.ndarray], held: float) -> None:
    """One line a depth."""
    model = network.build(CLASSES)
    model.module.train()
    alone = not any(hasattr(part, "running_var") for part in model.module.modules())
    print(f"{network.key}: {'no batch statistics' if alone else 'batch statistics'}")
    print(LINE.format("layer", "full", "annotated", "goal", "met"))
    for layer in DEPTHS:
        method = Bcos(layer=layer) if model.explaining else InputXGradient(layer=layer)

        @cache
        def step(images: int, annotated: int, method: Attribution = method) -> int:
            return flops(model, method, images, annotated)

        step(BATCH_SIZE, 1)  # the first one also finds out what lies behind the layer
        step.cache_clear()
        plain = sum(step(len(batch), 0) for batch in epoch)
        full = sum(step(len(batch), len(batch)) for batch in epoch) / plain
        few = sum(step(len(batch), int(batch.sum())) for batch in epoch) / plain
        goal = 1.1 if alone or layer == "final" else 1 + held * (full - 1)
        met = "yes" if few <= goal + 1e-9 else "NO"
        print(LINE.format(layer, f"{full:.3f}", f"{few:.4f}", f"{goal:.4f}", met), flush=True)
    print()


def flops(model: Model, method: Attribution, images: int, annotated: int) -> int:
    """FLOPs of a step on pictures of noise with one class and one box each."""
    masks = torch.zeros(images, SIZE_PX, SIZE_PX, dtype=torch.bool)
    masks[:, 16:32, 16:32] = True
    pixels = torch.randint(0, 256, (images, 3, SIZE_PX, SIZE_PX), dtype=torch.uint8)
    batch = Batch.single(model.encode(pixels), torch.arange(images) % CLASSES, masks)
    labels = functional.one_hot(batch.targets, CLASSES).float()
    with FlopCounter() as counter:
        guided_step(model, batch, labels, torch.arange(images) < annotated, method, Energy(), 0.1)
    return counter.total


if __name__ == "__main__":
    main()
