"""Packs: many probes on one network as one model, so that whatever is asked runs it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from data_pipelines.grids import Output
from trainables.models.network import Model
from trainables.models.probed import probed


class Pack(nn.Module):
    """Heads side by side: features to logits (B, P K), class c of head p in column p K + c.

    A backward goes through those heads only that the gradient belongs to.

    Attributes:
        heads: each gives logits (B, K).
        classes: K.
    """

    def __init__(self, heads: Sequence[nn.Module], classes: int):
        super().__init__()
        self.heads, self.classes = nn.ModuleList(heads), classes

    def forward(self, features: Tensor) -> Tensor:
        trained = any(parameter.requires_grad for parameter in self.heads.parameters())
        if trained or not (torch.is_grad_enabled() and features.requires_grad):
            return torch.cat([head(features) for head in self.heads], 1)
        logits: Tensor = _Beside.apply(features, self)
        return logits


def asked_parts(gradient: Tensor, classes: int) -> list[Tensor | None]:
    """Each head's part (B, K) of a gradient (B, P K); None where it is zero throughout."""
    asked = gradient.detach().unflatten(1, (-1, classes)).any(2).any(0).tolist()
    parts = gradient.split(classes, 1)
    return [part if one else None for part, one in zip(parts, asked, strict=True)]


class _Beside(torch.autograd.Function):
    """Frozen heads side by side, each with a graph of its own.

    A backward enters those graphs only whose part of the gradient is not zero throughout. In one
    graph it would pass every node of every head each time, and with P probes P times as many.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, pack: Pack) -> Tensor:
        with torch.enable_grad():
            ctx.taken = [features.detach().requires_grad_() for _ in pack.heads]
            ctx.given = [head(x) for head, x in zip(pack.heads, ctx.taken, strict=True)]
        ctx.classes = pack.classes
        return torch.cat([logits.detach() for logits in ctx.given], 1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total: Tensor | None = None
        parts = asked_parts(gradients[0], ctx.classes)
        for taken, given, part in zip(ctx.taken, ctx.given, parts, strict=True):
            if part is not None:
                (own,) = torch.autograd.grad(given, taken, part, retain_graph=True)
                total = own if total is None else total + own
        return torch.zeros_like(ctx.taken[0]) if total is None else total, None


@dataclass(frozen=True)
class PackProbabilities:
    """What the probes of a pack mean by their logits, each on its own.

    Attributes:
        outputs: ``softmax`` or ``sigmoid`` for each probe.
    """

    outputs: tuple[Output, ...]

    def __call__(self, logits: Tensor) -> Tensor:
        """Probabilities (..., P K)."""
        apart = logits.unflatten(-1, (len(self.outputs), -1))
        alone = [output == "sigmoid" for output in self.outputs]
        one_by_one = torch.tensor(alone, device=logits.device)[:, None]
        return torch.where(one_by_one, apart.sigmoid(), apart.softmax(-1)).flatten(-2)


def pack_model(
    backbone: Model, heads: Sequence[nn.Module], classes: int, outputs: Sequence[Output]
) -> Model:
    """One model that answers for all probes; its targets are columns p K + c.

    Everything that is asked of it runs the network once for all probes, and a gradient runs one
    head. The backbone's module takes the pack in its classifier's place.

    Args:
        backbone: built by a network that can be probed.
        heads: from the features to logits (B, K).
        classes: K.
        outputs: how each probe's logits become probabilities.

    Raises:
        ValueError: the network cannot be probed; there is no probe; or not one output for each.
    """
    if not heads or len(heads) != len(outputs):
        raise ValueError(
            f"a pack of {len(heads)} probes with {len(outputs)} outputs: expected one output "
            "(softmax or sigmoid) for each of at least one probe"
        )
    model = probed(backbone, Pack(heads, classes))
    return replace(model, probabilities=PackProbabilities(tuple(outputs)), answers=len(heads))
