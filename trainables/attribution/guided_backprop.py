"""Guided backpropagation: a gradient that no ReLU lets through where it is negative."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from trainables.attribution.attribution import Attribution
from trainables.models.network import Model
from trainables.passes import Gradient, Need, Passes

RELUS = frozenset({functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})


class Guided(TorchFunctionMode):
    """Inside the ``with`` block every ReLU's output gets a hook that zeroes negative gradients.

    Modules, functions and methods are met alike, and a ReLU that is used twice is met twice.
    Nothing is left on the network: the hooks sit on the graph and go with it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the function; hook what a ReLU made."""
        out = func(*args, **(kwargs or {}))
        if func in RELUS and out.requires_grad:
            out.register_hook(lambda gradient: gradient.clamp(min=0))
        return out


@dataclass(frozen=True, kw_only=True)
class GuidedGradient:
    """The guided gradient of each target's logit at the input; one forward and backward."""

    def compute(self, passes: Passes) -> Tensor:
        """By channel, (N, C, H, W)."""
        images, targets = passes.batch.images, passes.batch.targets
        gradients = images.new_zeros(len(targets), *images.shape[1:])
        for slab in passes.slabs(1):
            child = passes.on(images[slab.image], image_index=slab.index, of=slab.of)
            with Guided():
                gradients[slab.of] = child.get(Gradient(layer="input"))
        return gradients


@dataclass(frozen=True, kw_only=True)
class GuidedBackprop(Attribution):
    """Gradient with negative parts zeroed at the output of every ReLU, summed over channels.

    On B-cos networks, which have no ReLU but perhaps in a probe, it is (nearly) the plain gradient,
    as in How to Probe. Other networks without ReLU modules are refused.

    Source: Springenberg et al., 2015, section 3.4; How to Probe, where it is not multiplied with
    the input.
    """

    name: ClassVar[str] = "guided_backprop"
    single_pass: ClassVar[bool] = True

    def suit(self, model: Model) -> None:
        """Refuse a network without ReLU modules, unless it is of B-cos layers."""
        found = any(isinstance(part, nn.ReLU) for part in model.module.modules())
        if not found and model.explaining is None:
            raise ValueError(
                "guided_backprop suits networks with nn.ReLU modules; without one it is the "
                "plain gradient: ask for gradient"
            )

    def needs(self, model: Model) -> tuple[Need, ...]:
        """Nothing of the ordinary passes."""
        return ()

    def attribute(self, passes: Passes) -> Tensor:
        """Sum over channels, (N, H, W), signed."""
        return passes.get(GuidedGradient()).sum(1)
