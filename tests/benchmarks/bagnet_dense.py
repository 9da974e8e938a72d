"""A BagNet's map of every pixel's window: our dense map against windows one by one.

    python tests/benchmarks/bagnet_dense.py              # BagNet-33 at 224 px: minutes on one core
    python tests/benchmarks/bagnet_dense.py --size 64    # seconds

FLOPs are counted on all windows, on torch's device of shapes: exact and the same on every machine,
multiply and add counting as two. Besides sliding windows stands shift and stitch with the network
in one piece (64 passes). Times are taken in turn, dense and sliding; of the sliding windows only a
sample is run, spread over the image in one batch, and its time is multiplied by all / sample, since
every window costs the same. The sample's logits must agree with the map. Goal: at least 5 times.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor
from torch.nn import functional

import trainables.models  # noqa: F401  registers
from trainables.attribution.bagnet import logits_of
from trainables.flops import FlopCounter
from trainables.models.network import Network
from trainables.models.window_net import Stage, WindowNet

CLASSES, TARGET = 1000, 7


@dataclass(frozen=True, kw_only=True)
class BagnetDense:
    """One image of noise, random weights, one core."""

    network: str = "bagnet33"
    size: int = 224
    """Side of the image."""
    windows: int = 256
    """Sliding windows that are timed; their time is scaled to all."""
    repeats: int = 3


class InOnePiece(WindowNet):
    """The same network as a single stage."""

    def __init__(self, net: WindowNet) -> None:
        super().__init__()
        self.net, self.window_px, self.fc = net, net.window_px, net.fc
        self.apart = 1
        for _, stride in net.stages():
            self.apart *= stride

    def stages(self) -> Sequence[Stage]:
        """All of it, with the stride of all of it."""
        return [(self.features, self.apart)]

    def features(self, x: Tensor) -> Tensor:
        """One after the other."""
        for stage, _ in self.net.stages():
            x = stage(x)
        return x


def main(told: BagnetDense) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pixels = told.size**2
    print(f"{told.network}, one image of {told.size} px, {pixels} windows")
    print(f"{'':<18} {'GFLOP':>10} {'/ dense':>8} {'seconds':>9} {'/ dense':>8}")
    with torch.device("meta"):
        net = built(told)
        image = torch.zeros(1, 3, told.size, told.size)
        flops = {
            "dense": counted(lambda: dense(net, image)),
            "in one piece": counted(lambda: dense(InOnePiece(net).eval(), image)),
            "sliding windows": counted(lambda: net(image.new_zeros(pixels, 3, *side_of(net)))),
        }
    net, image = built(told), torch.randn(1, 3, told.size, told.size)
    at = torch.linspace(0, pixels - 1, min(told.windows, pixels)).long()
    windows = cut(image, at, net.window_px)
    seconds: dict[str, list[float]] = {"dense": [], "sliding windows": []}
    for _ in range(told.repeats):  # in turn, so that both see the same machine
        maps, taken = timed(lambda: dense(net, image))
        seconds["dense"].append(taken)
        logits, taken = timed(lambda: net(windows)[:, TARGET])
        seconds["sliding windows"].append(taken * pixels / len(at))
    for way, count in flops.items():
        line = f"{way:<18} {count / 1e9:>10.5g} {count / flops['dense']:>8.2f}"
        if way in seconds:
            each = [s / d for s, d in zip(seconds[way], seconds["dense"], strict=True)]
            line += f" {statistics.median(seconds[way]):>9.4g} {statistics.median(each):>8.2f}"
        print(line)
    print(f"seconds: median of {told.repeats}, sliding windows scaled from {len(at)} of {pixels}")
    spread = [s / d for s, d in zip(seconds["sliding windows"], seconds["dense"], strict=True)]
    print("sliding / dense in each repeat: " + ", ".join(f"{ratio:.2f}" for ratio in spread))
    off = (maps.flatten()[at] - logits).abs().max() / logits.abs().max()
    print(f"largest difference over largest logit in the sample: {off:.1e}")


def built(told: BagnetDense) -> WindowNet:
    """The network in eval mode."""
    net = Network.named(told.network).build(CLASSES).module.eval()
    if not isinstance(net, WindowNet):
        raise SystemExit(f"{told.network} is no network of windows")
    return net


def side_of(net: WindowNet) -> tuple[int, int]:
    """Height and width of a window."""
    return net.window_px, net.window_px


def dense(net: WindowNet, image: Tensor) -> Tensor:
    """The map of the target's logit, (1, H, W)."""
    index = torch.zeros(1, dtype=torch.long, device=image.device)
    return logits_of(net, image, index, index + TARGET)


def cut(image: Tensor, at: Tensor, side: int) -> Tensor:
    """The windows around some pixels, zeros outside the image, (len(at), 3, side, side)."""
    width, before = image.shape[3], side // 2
    padded = functional.pad(image, [before, side - 1 - before] * 2)[0]
    places = [divmod(int(p), width) for p in at]
    return torch.stack([padded[:, row : row + side, col : col + side] for row, col in places])


def counted(run: Callable[[], Tensor]) -> int:
    """FLOPs that ran."""
    with FlopCounter() as flops, torch.no_grad():
        run()
    return flops.total


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What came out, and the seconds that it took."""
    start = time.perf_counter()
    with torch.no_grad():
        made = run()
    return made, time.perf_counter() - start


if __name__ == "__main__":
    main(tyro.cli(BagnetDense, description=__doc__))
