"""Probed networks: a probe in the place of a network's classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from trainables.models.network import Network
from trainables.models.probe import Probe


@dataclass(frozen=True, kw_only=True)
class ProbedNetwork(Network):
    """A network whose classifier is a probe."""

    name: ClassVar[str] = "probed"

    network: Network
    probe: Probe

    def module(self, classes: int) -> nn.Module:
        raise NotImplementedError
