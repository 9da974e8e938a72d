"""Schooling: a student, the teacher that follows it, and the loss between them, as one module."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from trainables.models.network import Model
from trainables.models.probed import features_kind
from trainables.ssl.encoder import Encoder
from trainables.ssl.method import SslMethod


class Schooling(nn.Module):
    """All that a self-supervised training changes, so that its state dict is a checkpoint.

    Attributes:
        student: learns by gradients.
        predictor: follows the student alone.
        teacher: a running mean of the student's parameters; no gradient reaches it. Its norms keep
            running statistics of their own.
        criterion: the loss and its memory.
        steps: done so far.
    """

    steps: Tensor

    def __init__(self, method: SslMethod, model: Model, total_steps: int):
        super().__init__()
        kind = features_kind(model)
        projector = method.projector(kind.channels, bcos=kind.bcos)
        self.student = Encoder(model, projector)
        self.predictor = method.predictor(bcos=kind.bcos)
        self.teacher = deepcopy(self.student).requires_grad_(False)
        self.criterion = method.criterion()
        self.register_buffer("steps", torch.tensor(0))
        self._method, self._total_steps = method, total_steps

    def forward(self, views: list[Tensor], epoch: int) -> Tensor:
        """The loss of views (B, C, H, W) in the order of the method's; epochs count from 1."""
        numbers = range(len(views))
        outputs = {
            n: self.predictor(self.student(views[n])) for n in numbers[self._method.student_views]
        }
        with torch.no_grad():
            targets = {n: self.teacher(views[n]) for n in numbers[self._method.teacher_views]}
        loss: Tensor = self.criterion(outputs, targets, epoch)
        return loss

    @torch.no_grad()
    def follow(self) -> None:
        """The teacher comes nearer to the student, which has made a step."""
        momentum = self._method.momentum_at(int(self.steps) / self._total_steps)
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            slow.lerp_(fast, 1 - momentum)
        self.steps += 1

    @property
    def kept(self) -> Encoder:
        """Whose network is the result."""
        return self.teacher if self._method.kept == "teacher" else self.student
