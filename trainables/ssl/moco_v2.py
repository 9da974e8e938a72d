"""MoCo v2: tell the other view of an image from a queue of other images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.ssl.heads import mlp
from trainables.ssl.method import Criterion, Embeddings, SslMethod
from trainables.ssl.view import View


class Queue(Criterion):
    """Cross-entropy of finding a query's key among the keys of earlier batches.

    Attributes:
        keys: (Q, E), of length 1; random at first.
        position: where the next key goes; the oldest are overwritten.
    """

    keys: Tensor
    position: Tensor

    def __init__(self, size: int, channels: int, temperature: float):
        super().__init__()
        self.temperature = temperature
        self.register_buffer("keys", functional.normalize(torch.randn(size, channels), dim=1))
        self.register_buffer("position", torch.tensor(0))

    def forward(self, outputs: Embeddings, targets: Embeddings, epoch: int) -> Tensor:
        queries, keys = (functional.normalize(x, dim=1) for x in (outputs[0], targets[1]))
        positive = (queries * keys).sum(1, keepdim=True)
        similarities = torch.cat([positive, queries @ self.keys.T], 1) / self.temperature
        first = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
        loss = functional.cross_entropy(similarities, first)
        self.enqueue(keys)
        return loss

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put keys (B, E), B at most Q, in the places of the oldest."""
        places = (self.position + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        # a new tensor: the backward that is still to come reads the old one
        self.keys = self.keys.index_copy(0, places, keys)
        self.position = (self.position + len(keys)) % len(self.keys)


@dataclass(frozen=True, kw_only=True)
class MocoV2(SslMethod):
    """Momentum contrast with a two-layer head.

    Source: MoCo v2 (Chen et al., 2020), after MoCo (He et al., CVPR 2020), equation 1.
    Departs: batches are not shuffled over devices for their norms: there is one device.
    """

    name: ClassVar[str] = "moco_v2"
    student_views: ClassVar[slice] = slice(0, 1)
    teacher_views: ClassVar[slice] = slice(1, 2)

    view: View = field(default_factory=View)
    """Of which each image has two."""
    queue: int = 65536
    """Keys that are remembered. 65536 in the paper."""
    temperature: float = 0.2
    """0.2 in the paper."""
    momentum: float = 0.999
    """0.999 in the paper, throughout."""
    channels: int = 128
    """Of the embedding. 128 in the paper."""
    hidden: int = 0
    """Of the head; 0 for as many as there are features, 2048 in the paper's ResNet-50."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("temperature", self.temperature > 0, "positive")
        self.require("channels", self.channels >= 1, "at least 1")
        self.require("hidden", self.hidden >= 0, "at least 0")
        self.require("queue", self.queue >= 1, "at least 1")

    @property
    def views(self) -> tuple[View, ...]:
        return (self.view, self.view)

    def projector(self, channels: int, *, bcos: bool) -> nn.Module:
        return mlp((channels, self.hidden or channels, self.channels), bcos=bcos)

    def criterion(self) -> Criterion:
        return Queue(self.queue, self.channels, self.temperature)

    def momentum_at(self, progress: float) -> float:
        return self.momentum

    def check(self, batch_size: int) -> None:
        if batch_size > self.queue:
            raise ValueError(
                f"queue = {self.queue}: must hold the keys of a batch, batch_size = {batch_size}"
            )
