"""Probes: small heads that are trained on the features of a frozen network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

from torch import nn

from data_pipelines.configuration import Configuration
from trainables.models.bcos_layers import BcosConv2d, BcosLinear, LogitLayer, TokenMean
from trainables.models.bcos_norms import (
    BatchNormUncentered1d,
    BatchNormUncentered2d,
    LayerNorm,
)
from trainables.models.network import Form


@dataclass(frozen=True)
class Features:
    """What a network gives to a probe."""

    channels: int
    form: Form
    bcos: bool
    """Whether they come out of a B-cos network."""


class ProbeHead(nn.Sequential):
    """Features to logits (B, K): ``fc0`` to the last layer, what lies between, mean, constant.

    Parts by name: ``norm`` (of tokens), ``fc0``, ``bn0``, ``relu0``, ``fc1`` ..., ``pool`` and
    ``flatten`` (the mean over places, after the last layer), ``logits`` (the constant).
    """

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with weights, first to last."""
        return tuple(name for name, _ in self.named_children() if name.startswith("fc"))

    @property
    def last(self) -> nn.Module:
        """The layer whose rows are the classes; a convolution where the features are maps."""
        return self.get_submodule(self.layers[-1])


@dataclass(frozen=True, kw_only=True)
class Probe(Configuration, family=True):
    """A head of one to three layers, which acts place by place; the logits are means over places.

    On maps layers are 1 x 1 convolutions and the mean is a global average pooling. On the tokens
    of a B-cos transformer each token is normalized and probed alone. A class token is one place.

    Source: How to Probe (Gairola et al., ICLR 2025), section 3, with the authors' code. What they
    do on transformers is not published.
    """

    layers: Literal[1, 2, 3] = field(default=1, metadata={"short": "l"})
    hidden: int = 0
    """Channels of the hidden layers; 0 for as many as the features have (2048 in the paper)."""
    logit_bias: float = field(default=0.0, metadata={"short": "bias"})
    """Constant in every logit."""

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            ValueError: a negative width.
        """
        super().__post_init__()
        if self.hidden < 0:
            raise ValueError(
                f"{type(self).__name__}.hidden = {self.hidden}; expected channels, or 0 for those "
                "of the features"
            )

    def head(self, features: Features, classes: int) -> ProbeHead:
        """A freshly initialized head from features to logits (B, K).

        Layers start as torch initializes them; the caller seeds the generator.
        """
        head, depth = ProbeHead(), int(self.layers)
        if features.form == "tokens":
            head.add_module("norm", LayerNorm(features.channels))
        hidden = [self.hidden or features.channels] * (depth - 1)
        for k, (a, b) in enumerate(pairwise((features.channels, *hidden, classes))):
            head.add_module(f"fc{k}", self.layer(a, b, features))
            if k + 1 < depth:
                for name, part in self.between(b, features).items():
                    head.add_module(f"{name}{k}", part)
        if features.form == "map":
            head.add_module("pool", nn.AdaptiveAvgPool2d(1))
            head.add_module("flatten", nn.Flatten())
        elif features.form == "tokens":
            head.add_module("pool", TokenMean())
        head.add_module("logits", LogitLayer(bias=self.logit_bias))
        return head

    @abstractmethod
    def layer(self, inputs: int, outputs: int, features: Features) -> nn.Module:
        """A layer with weights."""

    @abstractmethod
    def between(self, channels: int, features: Features) -> Mapping[str, nn.Module]:
        """What stands between two layers, by name."""


@dataclass(frozen=True, kw_only=True)
class ConventionalProbe(Probe):
    """Linear layers; between two of them batch norm and ReLU.

    On a B-cos network they have no biases and the norm is uncentered, so that what the pixels
    contribute still adds up to the logit; the ReLU stays, as in the authors' code.
    """

    name: ClassVar[str] = "conventional"

    def layer(self, inputs: int, outputs: int, features: Features) -> nn.Module:
        if features.form == "map":
            return nn.Conv2d(inputs, outputs, 1, bias=not features.bcos)
        return nn.Linear(inputs, outputs, bias=not features.bcos)

    def between(self, channels: int, features: Features) -> Mapping[str, nn.Module]:
        maps = features.form == "map"
        if features.bcos or features.form == "tokens":
            return {"bn": _uncentered(channels, features), "relu": nn.ReLU()}
        norm = nn.BatchNorm2d(channels) if maps else nn.BatchNorm1d(channels)
        return {"bn": norm, "relu": nn.ReLU()}


@dataclass(frozen=True, kw_only=True)
class BcosProbe(Probe):
    """B-cos layers (B = 2), an uncentered norm without bias between two of them, no ReLU.

    The same on conventional and on B-cos networks.
    """

    name: ClassVar[str] = "bcos"

    def layer(self, inputs: int, outputs: int, features: Features) -> nn.Module:
        kind = BcosConv2d if features.form == "map" else BcosLinear
        return kind(inputs, outputs)

    def between(self, channels: int, features: Features) -> Mapping[str, nn.Module]:
        return {"bn": _uncentered(channels, features)}


def _uncentered(channels: int, features: Features) -> nn.Module:
    kind = BatchNormUncentered2d if features.form == "map" else BatchNormUncentered1d
    return kind(channels)
