"""Probes: small heads that are trained on the features of a frozen network."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import nn

from data_pipelines.configuration import Configuration

Form = Literal["map", "class_token", "tokens"]
"""How features lie: (B, D, h, w), (B, D) or (B, T, D)."""


@dataclass(frozen=True)
class Features:
    """What a network gives to a probe."""

    channels: int
    form: Form
    bcos: bool
    """Whether they come out of a B-cos network."""


@dataclass(frozen=True, kw_only=True)
class Probe(Configuration, family=True):
    """A head of one to three layers."""

    layers: Literal[1, 2, 3] = field(default=1, metadata={"short": "l"})
    hidden: int = 0
    """Channels of the hidden layers; 0 for as many as the features have (2048 in the paper)."""
    logit_bias: float = field(default=0.0, metadata={"short": "bias"})
    """Constant in every logit."""

    @abstractmethod
    def head(self, features: Features, classes: int) -> nn.Module:
        """A freshly initialized head from features to logits (B, K)."""


@dataclass(frozen=True, kw_only=True)
class ConventionalProbe(Probe):
    """Linear layers."""

    name: ClassVar[str] = "conventional"


@dataclass(frozen=True, kw_only=True)
class BcosProbe(Probe):
    """B-cos layers."""

    name: ClassVar[str] = "bcos"
