"""Packs: many probes on one network as one model, so that whatever is asked runs it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

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
        logits: Tensor = _Beside.apply(*[head(features) for head in self.heads])
        return logits


def asked_parts(gradient: Tensor, classes: int) -> list[Tensor | None]:
    """Each head's part (B, K) of a gradient (B, P K); None where it is zero throughout."""
    parts = gradient.split(classes, 1)
    asked = torch.stack([part.detach().any() for part in parts]).tolist()
    return [part if one else None for part, one in zip(parts, asked, strict=True)]


class _Beside(torch.autograd.Function):
    """Concatenates; a part of the gradient that is zero throughout is handed on as undefined."""

    @staticmethod
    def forward(ctx: Any, *logits: Tensor) -> Tensor:
        ctx.classes = logits[0].shape[1]
        return torch.cat(logits, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(asked_parts(gradients[0], ctx.classes))


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
