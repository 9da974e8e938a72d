"""Methods and protocols as somebody might plug them in; they are not registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainables.attribution.attribution import Attribution
from trainables.metrics.metric import Metric
from trainables.metrics.pooled import PooledMetric
from trainables.models.network import Model
from trainables.passes import Need, Passes


@dataclass(frozen=True, kw_only=True)
class Raising(Attribution):
    """A method that never gives a map."""

    name: ClassVar[str] = "raising_in_attribute"

    def needs(self, model: Model) -> tuple[Need, ...]:
        return ()

    def attribute(self, passes: Passes) -> Tensor:
        raise RuntimeError("no map today")


@dataclass(frozen=True, kw_only=True)
class Needy(Raising):
    """A method that cannot say what it needs."""

    name: ClassVar[str] = "raising_in_needs"

    def needs(self, model: Model) -> tuple[Need, ...]:
        raise RuntimeError("no needs today")


@dataclass(frozen=True, kw_only=True)
class RaisingMetric(Metric):
    """A protocol that never gives a score."""

    name: ClassVar[str] = "raising_metric"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def score(self, passes: Passes, maps: Tensor, explain: Any) -> Tensor:
        raise RuntimeError("no score today")


@dataclass(frozen=True, kw_only=True)
class InsideShare(PooledMetric):
    """Share of the positive pixels of a data set that lie on objects."""

    name: ClassVar[str] = "inside_share"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def parts(self, passes: Passes, maps: Tensor, explain: Any) -> Tensor:
        masks = passes.batch.masks
        assert masks is not None
        inside = ((maps > 0) & masks).sum((1, 2))
        return torch.stack([inside, (maps > 0).sum((1, 2))], 1).double()

    def value(self, sums: Tensor) -> Tensor:
        return sums[..., 0] / sums[..., 1]


for _method in (Raising, Needy):
    del Attribution.registered[_method.name]
for _metric in (RaisingMetric, InsideShare):
    del Metric.registered[_metric.name]
