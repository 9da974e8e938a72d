"""FLOPs and passes of a guided training step at each depth, against the least that it can cost.

    python tests/benchmarks/guided_step.py          # some four minutes on one core

For each of the paper's three kinds of network with its own attribution: vanilla with input x
gradient, X-DNN with integrated gradients (input x gradient there), B-cos with its contributions.
Counted, not timed: the numbers are exact and the same on every machine, per image, multiply and add
counting as two. The least is the step written out in plain torch for this purpose: one forward, one
backward from the explained logits to the layer, one outer backward to the weights and no further.
For the ResNets-50 the table of the project's specification of Model Guidance stands beside it: it
was counted on the reference's step, which also computes a gradient by the pixels, without guidance
too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from trainables import guided_training
from trainables.attribution.attribution import Attribution
from trainables.attribution.bcos import Bcos
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.flops import FlopCounter
from trainables.guided_training import guided_step
from trainables.losses.localization import Energy
from trainables.models.bcos_resnet import BcosResNet50, SmallBcosResNet
from trainables.models.fixup_resnet import SmallXResNet, XResNet50
from trainables.models.network import DEPTHS, Model, Network
from trainables.models.small_resnet import SmallResNet
from trainables.models.torchvision_resnet import ResNet50
from trainables.passes import Passes, upsample

BATCH_SIZE, CLASSES, WEIGHT = 2, 20, 0.1
Table = dict[str, tuple[float, float]]
SPECIFIED: Table = {
    "input": (51.5, 2.10),
    "mid1": (46.7, 1.9),
    "mid2": (39.8, 1.6),
    "mid3": (30.2, 1.23),
    "final": (24.5, 1.00),
}
"""The specification's table for ResNet-50 at 224 px: GFLOP of a step, and over a plain one. It
holds for all three kinds: norms, activations and dynamic weights are no matrix products."""
LINE = (
    "{:<7} {:>8}   {:>5} {:>5} {:>5} {:>5} {:>5}   {:>7} {:>8}   {:>7} {:>12}   {:>9} {:>8} {:>16}"
)


def main() -> None:
    """One table a network."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--small", action="store_true", help="the small networks alone: seconds")
    small = flags.parse_args().small
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("A guided step, per image: forwards, backwards that reach each depth, GFLOP.\n")
    for network in () if small else (ResNet50(), XResNet50(), BcosResNet50()):
        measure(network.with_new_head(), 224, SPECIFIED)
    for network in (SmallResNet(), SmallXResNet(), SmallBcosResNet()):
        measure(network.with_new_head(), 64, {})


def measure(network: Network, size_px: int, specified: Table) -> None:
    """One line a depth."""
    model = network.build(CLASSES)
    model.module.train()
    batch = noise(model, size_px)
    labels = functional.one_hot(batch.targets, CLASSES).float()
    plain = gflop(partial(plain_step, model, batch, labels))
    method = method_of(model, "input").name
    print(f"{network.key}, {method}, {size_px} px: {plain:.4g} GFLOP without guidance", flush=True)
    print(
        LINE.format(
            *("layer", "forwards", *DEPTHS, "GFLOP", "x plain"),
            *("least", "ours / least", "specified", "x plain", "ours / specified"),
        )
    )
    for layer in DEPTHS:
        opened: list[Passes] = []
        ours = gflop(partial(guided, model, batch, labels, layer, opened.append))
        least = gflop(partial(least_step, model, batch, labels, layer))
        counts, known = opened[0].counts, specified.get(layer)
        passes = [counts.forwards, *(counts.backwards[depth] for depth in DEPTHS)]
        print(
            LINE.format(
                *(layer, *(f"{n / BATCH_SIZE:g}" for n in passes)),
                *(f"{ours:.4g}", f"{ours / plain:.3f}"),
                *(f"{least:.4g}", f"{ours / least:.4f}"),
                *((*known, f"{ours / known[0]:.3f}") if known else "---"),
            )
        )
    print()


def method_of(model: Model, layer: str) -> Attribution:
    """The attribution that the paper guides such a network with."""
    return InputXGradient(layer=layer) if model.explaining is None else Bcos(layer=layer)


def noise(model: Model, size_px: int) -> Batch:
    """Pictures of noise with one class and one box each."""
    masks = torch.zeros(BATCH_SIZE, size_px, size_px, dtype=torch.bool)
    masks[:, size_px // 4 : size_px // 2, size_px // 4 : size_px // 2] = True
    pixels = torch.randint(0, 256, (BATCH_SIZE, 3, size_px, size_px), dtype=torch.uint8)
    return Batch.single(model.encode(pixels), torch.arange(BATCH_SIZE), masks)


def gflop(step: Callable[[], object]) -> float:
    """GFLOP of a step, of one image."""
    with FlopCounter() as flops:
        step()
    return flops.total / BATCH_SIZE / 1e9


def plain_step(model: Model, batch: Batch, labels: Tensor) -> None:
    """Classification alone."""
    functional.binary_cross_entropy_with_logits(model.module(batch.images), labels).backward()


def guided(
    model: Model, batch: Batch, labels: Tensor, layer: str, opened: Callable[[Passes], None]
) -> None:
    """The step that trainings make; hands out the passes that it opens, for their counts."""

    class Seen(Passes):
        def __enter__(self) -> Passes:
            opened(self)
            return super().__enter__()

    annotated = torch.ones(BATCH_SIZE, dtype=torch.bool)
    guided_training.Passes = Seen
    try:
        method = method_of(model, layer)
        guided_step(model, batch, labels, annotated, method, Energy(), WEIGHT)
    finally:
        guided_training.Passes = Passes


def least_step(model: Model, batch: Batch, labels: Tensor, layer: str) -> None:
    """The same update in plain torch."""
    kept = [batch.images.clone()]
    if layer == "input":
        logits = model.module(kept[0].requires_grad_())
    else:
        module = model.module.get_submodule(model.path_of(layer))
        handle = module.register_forward_hook(lambda _module, _inputs, out: kept.append(out))
        logits = model.module(kept[0])
        handle.remove()
    explained = logits.gather(1, batch.targets[:, None]).sum()
    with model.explaining() if model.explaining else nullcontext():
        (gradient,) = torch.autograd.grad(explained, kept[-1], create_graph=True)
    maps = upsample((gradient * kept[-1]).sum(1), batch.images.shape[2:], "bilinear")
    loss = functional.binary_cross_entropy_with_logits(logits, labels)
    loss = loss + WEIGHT * Energy()(maps, batch.masks).sum()
    loss.backward(inputs=list(model.module.parameters()))


if __name__ == "__main__":
    main()
