"""A self-supervised method: the views that it compares, its heads, its teacher and its loss."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from data_pipelines.configuration import Configuration
from trainables.ssl.view import View

Embeddings = Mapping[int, Tensor]
"""Of views by their number: (B, E) each."""


class Criterion(nn.Module):
    """A loss with the memory that it keeps between steps, as buffers."""

    @abstractmethod
    def forward(self, outputs: Embeddings, targets: Embeddings, epoch: int) -> Tensor:
        """The loss, a number.

        Args:
            outputs: of the student, by view.
            targets: of the teacher, by view, without gradient.
            epoch: from 1.
        """


@dataclass(frozen=True, kw_only=True)
class SslMethod(Configuration, family=True):
    """A student matches its teacher on other views of the same images; the teacher follows it.

    The losses are ours: lightly, the library that has them, asks a server for its version when it
    is imported, comes with eight packages more (pytorch_lightning, hydra-core, ...) and has no
    B-cos heads.
    """

    student_views: ClassVar[slice]
    """Which views the student sees."""
    teacher_views: ClassVar[slice]
    """Which views the teacher sees. The student is told of its own views but by no view itself."""
    kept: ClassVar[Literal["student", "teacher"]] = "student"
    """Whose weights are the result."""
    momentum: float
    """Share of the teacher that stays in a step, at the start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("momentum", 0 <= self.momentum <= 1, "in [0, 1]")

    def require(self, field: str, holds: bool, allowed: str) -> None:
        """Raise ValueError about a field that does not hold."""
        if not holds:
            value = getattr(self, field)
            raise ValueError(f"{type(self).__name__}.{field} = {value!r}: must be {allowed}")

    @property
    @abstractmethod
    def views(self) -> tuple[View, ...]:
        """Of each image at each step."""

    @abstractmethod
    def projector(self, channels: int, *, bcos: bool) -> nn.Module:
        """What follows the features (B, channels) of student and teacher."""

    def predictor(self, *, bcos: bool) -> nn.Module:
        """What follows the student's projector alone."""
        return nn.Identity()

    @abstractmethod
    def criterion(self) -> Criterion:
        """A fresh loss with empty memory."""

    def momentum_at(self, progress: float) -> float:
        """Share of the teacher that stays, after this share of all steps: a half cosine up to 1."""
        return 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2

    def frozen(self, projector: nn.Module, epoch: int) -> Iterable[nn.Parameter]:
        """Parameters of the student's projector that do not learn in an epoch (from 1)."""
        return ()

    def check(self, batch_size: int) -> None:
        """Refuse a batch that the loss cannot take.

        Raises:
            ValueError: names both.
        """
