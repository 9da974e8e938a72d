"""MoCo v3: tell the other view of an image from those of the other images of the batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.ssl.heads import mlp
from trainables.ssl.method import Criterion, Embeddings, SslMethod
from trainables.ssl.view import View


class Contrast(Criterion):
    """Cross-entropy of finding each image's key in its batch, both ways round, times 2 T."""

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def forward(self, outputs: Embeddings, targets: Embeddings, epoch: int) -> Tensor:
        queries, keys = (
            {n: functional.normalize(x, dim=1) for n, x in some.items()}
            for some in (outputs, targets)
        )
        own = torch.arange(len(queries[0]), device=queries[0].device)
        losses = [
            functional.cross_entropy(queries[a] @ keys[b].T / self.temperature, own)
            for a, b in ((0, 1), (1, 0))
        ]
        return 2 * self.temperature * (losses[0] + losses[1])


@dataclass(frozen=True, kw_only=True)
class MocoV3(SslMethod):
    """Momentum contrast without a queue, with a predictor and norms in the heads.

    It learns from few steps: its negatives are never older than the student.

    Source: MoCo v3 (Chen et al., ICCV 2021), algorithm 1, and the authors' code for ResNet-50.
    """

    name: ClassVar[str] = "moco_v3"
    student_views: ClassVar[slice] = slice(0, 2)
    teacher_views: ClassVar[slice] = slice(0, 2)

    view: View = field(default_factory=lambda: View(saturation=0.2, blur=1))
    """The first."""
    other_view: View = field(default_factory=lambda: View(saturation=0.2, blur=0.1, solarize=0.2))
    """The second."""
    temperature: float = 1.0
    """1 for ResNet-50 in the code, 0.2 for vision transformers."""
    momentum: float = 0.99
    """0.99 in the paper; rises to 1."""
    hidden: int = 4096
    """Of both heads. 4096 in the paper."""
    channels: int = 256
    """Of both heads. 256 in the paper."""
    predicts: bool = True
    """Whether the student has a predictor; the paper tries without, too (its table 4)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("temperature", self.temperature > 0, "positive")
        self.require("hidden", self.hidden >= 1, "at least 1")
        self.require("channels", self.channels >= 1, "at least 1")

    @property
    def views(self) -> tuple[View, ...]:
        return (self.view, self.other_view)

    def projector(self, channels: int, *, bcos: bool) -> nn.Module:
        sizes = (channels, self.hidden, self.channels)
        return mlp(sizes, bcos=bcos, norm=True, last_norm=True)

    def predictor(self, *, bcos: bool) -> nn.Module:
        if not self.predicts:
            return nn.Identity()
        sizes = (self.channels, self.hidden, self.channels)
        return mlp(sizes, bcos=bcos, norm=True, last_norm=True)

    def criterion(self) -> Criterion:
        return Contrast(self.temperature)
