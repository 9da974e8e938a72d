"""The small residual network of the golden LRP arrays, and batches of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.attribution.canonization.form import Add, canonical_of
from trainables.attribution.lrp import Relevance
from trainables.batch import Batch
from trainables.models.network import IMAGENET_MEAN, IMAGENET_STD, Model, evaluating
from trainables.passes import Passes

GOLDEN = Path(__file__).parents[2] / "golden" / "probing"
COMPOSITES = {"egb": "epsilon_gamma_box", "epf": "epsilon_plus_flat"}


class PlainNet(nn.Module):
    """The golden README's network; the residual addition is plain and has no canonical form."""

    def __init__(self, *, linear_head: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.bn3 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu, self.halve, self.mean = nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 4) if linear_head else nn.Conv2d(8, 4, 1)
        self.linear_head = linear_head

    def add(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        return shortcut + branch

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, self.add)

    def run(self, x: Tensor, add: Add) -> Tensor:
        x = self.halve(self.relu(self.bn1(self.conv1(x))))
        branch = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(add(x, self.bn3(self.conv3(branch))))
        if self.linear_head:
            return self.fc(self.mean(x).flatten(1))
        return self.mean(self.fc(x)).flatten(1)


class SumNet(PlainNet):
    """Its addition is zennit's layer from the start."""

    def __init__(self, **kwargs: Any) -> None:
        from zennit.layer import Sum

        super().__init__(**kwargs)
        self.total = Sum(dim=-1)

    def add(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        return self.total(torch.stack([shortcut, branch], dim=-1))


class KnownNet(PlainNet):
    """Its addition is plain, and its canonical form is known."""

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, self.add)


@canonical_of(KnownNet)
def known_net(net: KnownNet, x: Tensor, add: Add) -> Tensor:
    return net.run(x, add)


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def golden_net(cls: type[PlainNet], arrays: dict[str, np.ndarray], **kwargs: Any) -> PlainNet:
    """The network with the state of the arrays, in eval mode."""
    net = cls(**kwargs)
    state = {k[3:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("sd/")}
    for name, like in net.state_dict().items():
        if name in state:  # the linear head has the convolution's weights
            state[name] = state[name].reshape(like.shape)
    net.load_state_dict(state, strict=False)
    return net.eval()


def encode(images: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images.float() / 255 - mean) / deviation


def model_of(net: nn.Module) -> Model:
    return Model(net, {"input": ""}, encode)


def every_target(images: Tensor, classes: int) -> Batch:
    """All classes of every image, class by class within an image."""
    return Batch(
        images=images,
        image_ids=[str(i) for i in range(len(images))],
        image_index=torch.arange(len(images)).repeat_interleave(classes),
        targets=torch.arange(classes).repeat(len(images)),
    )


def relevance(
    net: nn.Module,
    batch: Batch,
    composite: str = "epsilon_gamma_box",
    *,
    residual: str = "sum",
    zero_bias: bool = False,
) -> Tensor:
    """(N, C, H, W), as an evaluation would ask for it."""
    request = Relevance(composite=composite, gamma=0.25, residual=residual, zero_bias=zero_bias)
    with evaluating(net), Passes(model_of(net), batch) as passes:
        return passes.get(request)


def settled(net: nn.Module, images: Tensor, seed: int = 0) -> nn.Module:
    """Running statistics of the images, and scales and shifts of norms drawn anew; eval mode.

    Fresh norms would hide what a branch does: some libraries start its last scale at zero.
    """
    generator = torch.Generator().manual_seed(seed)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.copy_(0.5 + torch.rand(part.weight.shape, generator=generator))
            part.bias.data.copy_(0.2 * torch.randn(part.bias.shape, generator=generator))
            part.momentum = None  # the plain mean over batches
    with torch.no_grad():
        net.train()(images)
    return net.eval()
