"""DINO: match the teacher's distribution over learned prototypes, from small crops to large."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables.models.bcos_layers import UnitLinear
from trainables.ssl.heads import UnitLength, mlp
from trainables.ssl.method import Criterion, Embeddings, SslMethod
from trainables.ssl.view import View


class Distillation(Criterion):
    """Cross-entropy from the teacher's centered, sharpened distribution, over pairs of views.

    Attributes:
        center: (E,), the running mean of the teacher's outputs.
    """

    center: Tensor

    def __init__(self, method: Dino):
        super().__init__()
        self.method = method
        self.register_buffer("center", torch.zeros(method.prototypes))

    def forward(self, outputs: Embeddings, targets: Embeddings, epoch: int) -> Tensor:
        temperature = self.method.teacher_temperature_at(epoch)
        wanted = {n: ((x - self.center) / temperature).softmax(1) for n, x in targets.items()}
        found = {
            n: (x / self.method.student_temperature).log_softmax(1) for n, x in outputs.items()
        }
        losses = [-(wanted[a] * found[b]).sum(1).mean() for a in wanted for b in found if a != b]
        with torch.no_grad():
            mean = torch.cat(list(targets.values())).mean(0)
            self.center = mean.lerp(self.center, self.method.center_momentum)
        return torch.stack(losses).mean()


@dataclass(frozen=True, kw_only=True)
class Dino(SslMethod):
    """Self-distillation with no labels.

    Source: DINO (Caron et al., ICCV 2021), algorithm 1 and section 3, and the authors' code.
    Departs: each view goes through the network by itself, where the code joins those of one size:
        batch statistics are those of a view.
    """

    name: ClassVar[str] = "dino"
    student_views: ClassVar[slice] = slice(None)
    teacher_views: ClassVar[slice] = slice(0, 2)
    kept: ClassVar = "teacher"

    view: View = field(default_factory=lambda: View(crop_scale=(0.14, 1.0), saturation=0.2, blur=1))
    """The first large one. At least 0.14 of the image for ResNet-50 in How to Probe."""
    other_view: View = field(
        default_factory=lambda: View(crop_scale=(0.14, 1.0), saturation=0.2, blur=0.1, solarize=0.2)
    )
    """The second large one."""
    local_view: View = field(
        default_factory=lambda: View(size_px=96, crop_scale=(0.05, 0.14), saturation=0.2)
    )
    """The small ones, which the student alone sees."""
    local_views: int = 6
    """How many small ones. 6 for ResNet-50 in How to Probe, 8 for its B-cos."""
    momentum: float = 0.996
    """0.996 in the paper; rises to 1."""
    hidden: int = 2048
    """Of the head's two hidden layers. 2048 in the paper."""
    bottleneck: int = 256
    """What prototypes are compared with. 256 in the paper."""
    prototypes: int = 65536
    """65536 in the paper."""
    student_temperature: float = 0.1
    """0.1 in the paper."""
    teacher_temperature: float = 0.04
    """After the warm-up."""
    first_temperature: float = 0.04
    """At the start of the warm-up."""
    temperature_epochs: int = 10
    """Of the warm-up. 10 for ResNet-50 in How to Probe, 30 for its B-cos."""
    center_momentum: float = 0.9
    """0.9 in the paper."""
    frozen_epochs: int = 1
    """Epochs in which the prototypes do not learn. 1 in the code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hidden", "bottleneck", "prototypes"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("student_temperature", "teacher_temperature", "first_temperature"):
            self.require(name, getattr(self, name) > 0, "positive")
        for name in ("local_views", "temperature_epochs", "frozen_epochs"):
            self.require(name, getattr(self, name) >= 0, "at least 0")
        self.require("center_momentum", 0 <= self.center_momentum < 1, "in [0, 1)")

    @property
    def views(self) -> tuple[View, ...]:
        return (self.view, self.other_view, *[self.local_view] * self.local_views)

    def projector(self, channels: int, *, bcos: bool) -> nn.Module:
        """Three layers, GELU between the conventional ones; vectors of length 1; prototypes."""
        sizes = (channels, self.hidden, self.hidden, self.bottleneck)
        layers = mlp(sizes, bcos=bcos, activation=nn.GELU)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        prototypes = UnitLinear(self.bottleneck, self.prototypes, bias=False)
        return nn.Sequential(layers, UnitLength(), prototypes)

    def criterion(self) -> Criterion:
        return Distillation(self)

    def teacher_temperature_at(self, epoch: int) -> float:
        """Rises in equal steps over the warm-up (epochs from 1)."""
        share = min((epoch - 1) / max(self.temperature_epochs - 1, 1), 1)
        if epoch > self.temperature_epochs:
            share = 1
        return self.first_temperature + share * (self.teacher_temperature - self.first_temperature)

    def frozen(self, projector: nn.Module, epoch: int) -> Iterable[nn.Parameter]:
        if epoch > self.frozen_epochs:
            return ()
        prototypes: nn.Module = projector[2]  # type: ignore[index]
        return prototypes.parameters()
