"""A team: the workers of one trial, each of which takes its share of every batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed


class LostTeammateError(RuntimeError):
    """A worker that the others wait for is gone: no fault of the result, which is tried again."""


class Dismissed(Exception):  # noqa: N818  (no error: it ends the work of all but the first)
    """The training is over; what is left to do, the first worker does alone."""


@dataclass(frozen=True)
class Team:
    """Who works on a result.

    Attributes:
        rank: of this worker, from 0.
        size: workers.
        device: of this worker; None where the trial chooses.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    @property
    def leads(self) -> bool:
        """Whether this worker evaluates, reports and writes."""
        return self.rank == 0

    def share_of(self, batch: np.ndarray) -> np.ndarray:
        """This worker's images of a batch: every ``size``-th, from its rank on."""
        return batch[self.rank :: self.size]

    def sum_up(
        self, parameters: Sequence[Tensor], losses: dict[str, float], share: float
    ) -> dict[str, float]:
        """Put gradients and losses of all workers together, weighted by their shares of the batch.

        So a mean over a worker's images becomes the mean over the batch. A sum over images must
        be divided by the share before, to become the sum over the batch. A parameter keeps no
        gradient only where no worker has one.

        Args:
            parameters: whose gradients are replaced, the same in all workers.
            losses: the same names in all workers.
            share: this worker's share of the batch's images, in (0, 1].

        Returns:
            The losses of the batch: what is no number for one worker is none for all.

        Raises:
            LostTeammateError: another worker has died.
        """
        if self.size == 1:
            return losses
        has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float64)
        numbers = torch.cat([has, share * torch.tensor(list(losses.values()), dtype=torch.float64)])
        numbers = numbers.to(parameters[0].device)
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        )
        flat *= share
        try:
            distributed.all_reduce(flat)
            distributed.all_reduce(numbers)
        except RuntimeError as error:  # what gloo and NCCL raise when a connection breaks
            raise LostTeammateError(f"another worker of the trial died: {error}") from error
        parts = flat.split([p.numel() for p in parameters])
        for p, part, holders in zip(parameters, parts, numbers.tolist(), strict=False):
            p.grad = part.view_as(p) if holders else None
        return dict(zip(losses, numbers[len(parameters) :].tolist(), strict=True))


SOLO = Team()
