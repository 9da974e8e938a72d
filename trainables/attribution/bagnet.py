"""The explanation that a network of windows carries in itself."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainables.attribution.attribution import Attribution
from trainables.footprint import Footprint
from trainables.models.network import Model
from trainables.models.window_net import WindowNet
from trainables.passes import Need, Passes

HELD = 4
"""Tensors beside a stage's input and output that it holds at a time, at most."""


@dataclass(frozen=True, kw_only=True)
class BagNet(Attribution):
    """Logit of the target for the window centered at each pixel, with the head's bias.

    Outside the image there are zeros. The windows are those of every pixel, whereas the network's
    logit is the mean over windows within the image that lie further apart (8 px in a BagNet), so
    the map does not add up to the logit.

    Departs: nothing but speed. The authors run the network on each of the 224 x 224 windows; here
        what neighboring windows share is computed once.

    Source: Brendel & Bethge, ICLR 2019, section 4; IDSDS (Hesse et al., NeurIPS D&B 2024), method
        23.
    """

    name: ClassVar[str] = "bagnet"

    @property
    def cost(self) -> float:
        return 64.0  # its windows, as dense passes

    def suit(self, model: Model) -> None:
        """Refuse a network that does not see the image through windows."""
        windows_of(model)

    def needs(self, model: Model) -> tuple[Need, ...]:
        """Nothing of the forward on whole images."""
        return ()

    def attribute(self, passes: Passes) -> Tensor:
        """Logits of the windows, (N, H, W), signed.

        Images go in slabs of the byte budget, one at least; the first goes alone and tells what an
        image takes.
        """
        batch, net = passes.batch, windows_of(passes.model)
        asked, place = batch.image_index.unique(return_inverse=True)
        maps = batch.images.new_empty(len(batch.targets), *batch.images.shape[2:])
        start, size = 0, 1
        while start < len(asked):
            images = batch.images[asked[start : start + size]]
            of = ((place >= start) & (place < start + size)).nonzero().squeeze(1)
            with torch.no_grad(), nullcontext() if start else Footprint() as footprint:
                maps[of] = logits_of(net, images, place[of] - start, batch.targets[of])
            start += size
            if footprint is not None:
                held = footprint.largest * (len(net.stages()) + HELD)
                size = max(1, passes.budget_bytes // max(1, held))
        return maps


def windows_of(model: Model) -> WindowNet:
    """The module of a model that sees the image through windows.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(model.module, WindowNet):
        raise ValueError(
            "bagnet needs a network of windows (bagnet9, bagnet17, bagnet33, small_bagnet, or your "
            f"own WindowNet); a {type(model.module).__name__} sees the image as a whole"
        )
    return model.module


def logits_of(net: WindowNet, images: Tensor, index: Tensor, targets: Tensor) -> Tensor:
    """Target logits of the window around each pixel, for explanations of images.

    Args:
        net: the network of windows.
        images: encoded images, (B, C, H, W).
        index: the image of each explanation, (N,).
        targets: its class, (N,).

    Returns:
        One map an explanation, (N, H, W).
    """
    weights = net.fc.weight[targets][:, None]
    zeros = weights.new_zeros(len(targets))
    bias = (zeros if net.fc.bias is None else net.fc.bias[targets])[:, None, None]

    def head(features: Tensor) -> Tensor:
        flat = torch.baddbmm(bias, weights, features[index].flatten(2))  # no logit but the targets'
        return flat.unflatten(2, features.shape[2:]).squeeze(1)

    return net.at_every_pixel(images, head)
