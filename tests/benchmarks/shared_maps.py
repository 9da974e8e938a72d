"""Maps of many methods at once against the same methods one at a time.

    python tests/benchmarks/shared_maps.py --groups gradient              # a minute
    python tests/benchmarks/shared_maps.py                      # without RISE: half an hour
    python tests/benchmarks/shared_maps.py --groups all --repeats 3       # hours on one core
    python tests/benchmarks/shared_maps.py --size-px 64 --model small_resnet

Counted: FLOPs of the shared passes over the least that the methods need together, which is written
out by hand as forwards and backwards (goal 1.0). Timed, alternating, in one process: the loop that
gives each method its own passes and wastes nothing, over the shared passes; as a share of the gain
that the counted FLOPs allow (goal at least 0.9). Peak memory: of processes that do only one way.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
import tyro

import trainables.attribution
import trainables.models  # noqa: F401  (each registers its classes)
from trainables.attribution.attribution import Attribution
from trainables.attribution.sets import idsds_as_run
from trainables.batch import Batch
from trainables.flops import FlopCounter
from trainables.models.network import Model, Network, evaluating
from trainables.passes import Passes

RISE = ("rise",)
NOT_CNN = ("rollout", "transformer_attribution", "bcos", "bagnet")
SINGLE = ("input_x_gradient", "saliency", "grad_cam", "grad_cam_pp", "xgrad_cam", "layer_cam")
VIT = ("raw_attention", "rollout", "vit_grad_cam", "gae", "transformer_attribution")
CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class SharedMaps:
    """What is measured."""

    model: str = "resnet50"
    vit: str = "vit_base_patch16"
    size_px: int = 224
    groups: tuple[str, ...] = ("gradient", "without_rise", "vit")
    """gradient, without_rise, all (with RISE), vit."""
    repeats: int = 3
    child: str = ""
    """Used by the benchmark itself: do one way once, and print the peak memory."""

    def methods(self, group: str) -> list[Attribution]:
        """The methods of a group, as the authors' code ran them."""
        if group == "vit":
            return [Attribution.named(name) for name in VIT]
        of_cnn = [m for m in idsds_as_run() if m.name not in NOT_CNN]
        if group == "gradient":
            return [m for m in of_cnn if m.name in SINGLE]
        return of_cnn if group == "all" else [m for m in of_cnn if m.name not in RISE]

    def least(self, group: str, model: Model, batch: Batch) -> int:
        """FLOPs that a group needs for one image, written out by hand.

        At the last layer of a ResNet a backward costs a linear layer: none is counted.
        IG twice (zero, uniform): 50 each; IG on 4 noisy copies 200, whose noise also serves
        I x G on 4 copies; SmoothGrad-CAM++ 4 forwards; RISE twice 1000 forwards.
        """
        forwards, backwards = {
            "gradient": (1, 1),
            "without_rise": (1 + 100 + 4 + 200 + 4, 1 + 100 + 4 + 200),
            "all": (1 + 100 + 4 + 200 + 4 + 2000, 1 + 100 + 4 + 200),
            "vit": (1, 1),
        }[group]
        forward, backward = pass_flops(model, batch)
        relevance = relevance_flops(model, batch) if group == "vit" else 0
        return forwards * forward + backwards * backward + relevance


def main() -> None:
    """One block of lines a group."""
    flags = tyro.cli(SharedMaps, description=__doc__)
    torch.set_num_threads(1)
    for group in flags.groups:
        name = flags.vit if group == "vit" else flags.model
        torch.manual_seed(0)
        model = Network.named(name).build(CLASSES)
        generator = torch.Generator().manual_seed(0)
        size = (1, 3, flags.size_px, flags.size_px)
        pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        batch = Batch.single(model.encode(pixels), torch.tensor([3]))
        ways = {"one at a time": alone, "shared": together}
        methods = flags.methods(group)
        with evaluating(model.module):
            if flags.child:
                ways[flags.child](model, batch, methods)
                print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
                return
            measure(flags, group, name, model, batch, methods, ways)


Way = Callable[[Model, Batch, Sequence[Attribution]], None]


def alone(model: Model, batch: Batch, methods: Sequence[Attribution]) -> None:
    """Each method in passes of its own."""
    for method in methods:
        with Passes(model, batch) as passes:
            method.at_image_size(method(passes), passes)


def together(model: Model, batch: Batch, methods: Sequence[Attribution]) -> None:
    """All methods in the same passes."""
    with Passes(model, batch) as passes:
        passes.expect(need for method in methods for need in method.needs(model))
        for method in methods:
            method.at_image_size(method(passes), passes)


def measure(
    flags: SharedMaps,
    group: str,
    name: str,
    model: Model,
    batch: Batch,
    methods: Sequence[Attribution],
    ways: dict[str, Way],
) -> None:
    """Count, time and print."""
    flops = {}
    for way, run in ways.items():  # also warms everything up
        with FlopCounter() as counter:
            run(model, batch, methods)
        flops[way] = counter.total
    least = flags.least(group, model, batch)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(flags.repeats):
        for way, run in ways.items():
            started = time.perf_counter()
            run(model, batch, methods)
            seconds[way].append(time.perf_counter() - started)
    took = {way: median(values) for way, values in seconds.items()}
    counted = flops["one at a time"] / flops["shared"]
    gain = took["one at a time"] / took["shared"]
    print(f"\n{group}: {len(methods)} methods, {name}, one image of {flags.size_px} px")
    print(f"  FLOPs shared / least      {flops['shared'] / least:.4f}  (goal 1.0)")
    print(f"  counted gain              {counted:.2f}")
    print(
        f"  wall-time gain            {gain:.2f}  "
        f"({took['one at a time']:.1f} s / {took['shared']:.1f} s, median of {flags.repeats})"
    )
    print(f"  share of the counted gain {gain / counted:.2f}  (goal >= 0.9)")
    for way in ways:
        print(f"  peak memory {way:<14}{peak_mib(flags, group, way):.0f} MiB")


def pass_flops(model: Model, batch: Batch) -> tuple[int, int]:
    """FLOPs of one forward, and of one backward from a logit to the input, in plain torch."""
    images = batch.images.detach().requires_grad_()
    with FlopCounter() as forward:
        logits = model.module(images)
    with FlopCounter() as backward:
        torch.autograd.grad(logits[0, 3], images)
    return forward.total, backward.total


def relevance_flops(model: Model, batch: Batch) -> int:
    """FLOPs of the rules of transformer attribution, down to the attention of block 0.

    A linear layer takes four products of its own size (contributions of positive and of negative
    parts, and the way back), a product of two matrices two.
    """
    net, tokens = model.module, model.tokens
    if tokens is None:
        raise ValueError("relevance is asked of a vision transformer only")
    width, blocks = int(net.embed_dim), len(tokens.blocks)
    side = batch.images.shape[-1] // tokens.patch_px
    count = tokens.prefix + side * side
    linears = 4 * 2 * count * 12 * width**2  # qkv 3, projection 1, the two of the MLP 4 each
    products = 2 * 2 * 2 * count**2 * width  # of attention and values, of queries and keys
    above_first = 4 * 2 * count * 3 * width**2 + products // 2  # which block 0 does not need
    return blocks * (linears + products) - above_first + 4 * 2 * width * CLASSES


def peak_mib(flags: SharedMaps, group: str, way: str) -> float:
    """Peak memory of a process that runs a group one way."""
    command = [
        *(sys.executable, __file__, "--child", way, "--groups", group),
        *("--model", flags.model, "--vit", flags.vit, "--size-px", str(flags.size_px)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return float(done.stdout.split()[-1]) / 1024


if __name__ == "__main__":
    main()
