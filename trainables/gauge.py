"""Gauges: what a probe's classes have in common, which the softmax never sees and every map does.

The same vector v added to every class's weights shifts all logits of an image by one number: its
softmax, its cross-entropy and the order of its classes stay, while a map of a logit gains the map
of that number. So a difference between two losses may be one of v alone: a gauge changes v, trains
nothing, and tells the two apart.

Source: How to Probe (ICLR 2025), the demonstration with a shifted probe; the controls are ours.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from data_pipelines.configuration import Configuration
from trainables.models.bcos_layers import UnitConv2d, UnitLinear
from trainables.models.probe import Features
from trainables.probe_training import ProbeTraining


@dataclass(frozen=True)
class Common:
    """What all classes of a last layer share.

    Attributes:
        weight: mean over the classes of their weights, (D,).
        bias: mean of their biases, (); 0 where there are none.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, head: nn.Module) -> Common:
        """Of a head whose last layer is conventional."""
        last = last_layer(head)
        weight = last.weight.detach()
        bias = weight.new_zeros(()) if last.bias is None else last.bias.detach().mean()
        return cls(weight.flatten(1).mean(0), bias)

    def __sub__(self, other: Common) -> Common:
        return Common(self.weight - other.weight, self.bias - other.bias)


@dataclass(frozen=True, kw_only=True)
class Gauge(Configuration, family=True):
    """Chooses what the classes of a probe's last conventional layer have in common.

    It is set when a trained probe is built for its evaluation; no logit changes against another
    one of its image.
    """

    by_feature: ClassVar[bool] = False
    """Whether it goes by the mean feature that the last layer takes."""

    @property
    def dependencies(self) -> tuple[ProbeTraining, ...]:
        """Trainings whose probe it reads, beside the one that it changes."""
        return ()

    def check(self, of: ProbeTraining) -> None:
        """Refuse a probe that has no such freedom.

        Raises:
            ValueError: the last layer is a B-cos layer.
        """
        refuse_bcos(self, of)

    @abstractmethod
    def added(self, own: Common, others: tuple[Common, ...], feature: Tensor | None) -> Common:
        """What is added to the weights and the bias of every class.

        Args:
            own: what they share as they were trained.
            others: the same of each of ``dependencies``.
            feature: mean over images and places of what the last layer takes, (D,); given to a
                gauge that goes ``by_feature``.
        """

    @torch.no_grad()
    def apply(
        self, head: nn.Module, others: tuple[nn.Module, ...] = (), feature: Tensor | None = None
    ) -> None:
        """Change the last layer of a head in place.

        A layer without bias stays so: what would be added to it is left out, and each logit is off
        by the same number.

        Raises:
            ValueError: the last layer is a B-cos layer, or takes other features than the others'.
        """
        last, own = last_layer(head), Common.of(head)
        beside = tuple(Common.of(other) for other in others)
        for mean in (*(other.weight for other in beside), *([] if feature is None else [feature])):
            if len(mean) != len(own.weight):
                raise ValueError(
                    f"gauge {self.name}: {len(mean)} weights a class cannot be added to "
                    f"{len(own.weight)}; both probes must end in layers of one width"
                )
        added = self.added(own, beside, feature)
        last.weight += added.weight.view(1, -1, *[1] * (last.weight.ndim - 2))
        if last.bias is not None:
            last.bias += added.bias


@dataclass(frozen=True, kw_only=True)
class AsTrained(Gauge):
    """The probe as its training left it."""

    name: ClassVar[str] = "as_trained"

    def check(self, of: ProbeTraining) -> None:
        """Every probe will do."""

    def added(self, own: Common, others: tuple[Common, ...], feature: Tensor | None) -> Common:
        """Nothing."""
        return own - own

    def apply(
        self, head: nn.Module, others: tuple[nn.Module, ...] = (), feature: Tensor | None = None
    ) -> None:
        """Nothing is touched: B-cos layers have this gauge, too."""


@dataclass(frozen=True, kw_only=True)
class Centered(Gauge):
    """Without the mean over the classes: their logits sum to zero for every feature.

    Two probes whose maps are alike after centering differed in the gauge alone.
    """

    name: ClassVar[str] = "centered"

    def added(self, own: Common, others: tuple[Common, ...], feature: Tensor | None) -> Common:
        """Minus the mean."""
        return Common(-own.weight, -own.bias)


@dataclass(frozen=True, kw_only=True)
class Exchanged(Gauge):
    """With the class mean of another probe in place of the own one.

    A probe trained by cross-entropy that localizes like one trained by binary cross-entropy as
    soon as it carries the latter's mean owes the difference to the gauge.
    """

    name: ClassVar[str] = "exchanged"

    other: ProbeTraining
    """Whose class mean it carries: a probe of one layer on the same backbone and data."""

    @property
    def key(self) -> str:
        """With the loss of the other, and which of such probes it is."""
        return f"{self.name}_{self.other.loss_name}_{self.other.result_id[:8]}"

    @property
    def dependencies(self) -> tuple[ProbeTraining, ...]:
        return (self.other,)

    def check(self, of: ProbeTraining) -> None:
        """Both probes read the same features.

        Raises:
            ValueError: one has several layers or ends in a B-cos layer, or backbone or data differ.
        """
        for probe in (of, self.other):
            refuse_bcos(self, probe)
            if probe.probe.layers != 1:
                raise ValueError(
                    f"gauge {self.name}: {probe.label} has {probe.probe.layers} layers, and hidden "
                    "features of two probes have nothing in common; take probes of one layer"
                )
        if (of.backbone, of.data) != (self.other.backbone, self.other.data):
            raise ValueError(
                f"gauge {self.name}: {of.label} and {self.other.label} have other backbones or "
                "data; take probes that read the same features"
            )

    def added(self, own: Common, others: tuple[Common, ...], feature: Tensor | None) -> Common:
        """The other's mean less the own one."""
        (other,) = others
        return other - own


@dataclass(frozen=True, kw_only=True)
class Shifted(Gauge):
    """With a multiple of the mean feature added to all classes, to show what the gauge can do.

    As ``alpha`` grows the maps of all classes become one map and the grid pointing game falls to
    chance, while the softmax stays. A negative one may raise it: the demonstration can be made to
    say either.

    Source: How to Probe (ICLR 2025), one mosaic by LRP, 65.7 -> 11.9; how the vector was chosen is
        not said. Here the mean over the images and places of the evaluated split, scaled to length
        1.
    """

    name: ClassVar[str] = "shifted"
    by_feature: ClassVar[bool] = True

    alpha: float
    """Length of what is added; negative for the opposite direction."""

    def added(self, own: Common, others: tuple[Common, ...], feature: Tensor | None) -> Common:
        """Alpha times the mean feature over its length.

        Raises:
            ValueError: there is no feature, or its mean is zero.
        """
        if feature is None or not bool(feature.norm() > 0):
            raise ValueError(f"gauge {self.key}: the mean feature is zero and gives no direction")
        return Common(self.alpha * feature / feature.norm(), torch.zeros_like(own.bias))


def last_layer(head: nn.Module) -> nn.Conv2d | nn.Linear:
    """The layer of a head whose rows are the classes.

    Raises:
        ValueError: it is a B-cos layer, whose rows have length 1 and nothing free in common; or
            there is none.
    """
    layers = [part for part in head.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    if not layers:
        raise ValueError(f"{type(head).__name__} has no convolution or linear layer to end in")
    if isinstance(layers[-1], UnitConv2d | UnitLinear):
        raise ValueError(
            "a B-cos layer has rows of length 1 and no common vector that could be changed; take "
            "the gauge as_trained, or a conventional probe"
        )
    return layers[-1]


def refuse_bcos(gauge: Gauge, of: ProbeTraining) -> None:
    """Refuse a probe whose last layer is a B-cos layer; nothing is computed for it.

    Raises:
        ValueError: names gauge and probe.
    """
    with torch.device("meta"):  # shapes alone
        head = of.probe.head(Features(channels=2, form="map", bcos=False), 2)
    try:
        last_layer(head)
    except ValueError as error:
        raise ValueError(f"gauge {gauge.key} of {of.label}: {error}") from None
