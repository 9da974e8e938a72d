"""Canonical forwards of probes: B-cos layers, the constant in the logits, many heads side by side.

A B-cos layer is a linear layer of unit rows times |cos|, which is not negative: elementwise, so
that relevance passes it. What a rule shares out is the linear layer.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trainables.attribution.canonization.form import Add, canonical_of, passed
from trainables.models.bcos_layers import BcosConv2d, BcosLinear, LogitLayer, UnitConv2d, UnitLinear
from trainables.models.bcos_norms import BatchNormUncentered1d, BatchNormUncentered2d
from trainables.models.probe_pack import Pack


@canonical_of(BcosConv2d, BcosLinear)
def bcos(layer: Any, x: Tensor, _: Add) -> Tensor:
    """The projection; its scale passes."""
    projection = layer.projection(x)
    return passed(projection, layer.scaled(projection, x))


@canonical_of(UnitConv2d)
def unit_convolution(layer: Any, x: Tensor, _: Add) -> Tensor:
    """As torch has it: `canonized` gives it rows that have length 1 already."""
    return nn.Conv2d.forward(layer, x)


@canonical_of(UnitLinear)
def unit_linear(layer: Any, x: Tensor, _: Add) -> Tensor:
    """The same for vectors."""
    return nn.Linear.forward(layer, x)


@canonical_of(BatchNormUncentered1d, BatchNormUncentered2d)
def uncentered(norm: Any, x: Tensor, _: Add) -> Tensor:
    """Passes."""
    return passed(x, type(norm).forward(norm, x))


@canonical_of(LogitLayer)
def constant(layer: Any, logits: Tensor, _: Add) -> Tensor:
    """As it is: a layer with a rule of its own (`trainables/attribution/lrp.py`)."""
    return type(layer).forward(layer, logits)


@canonical_of(Pack)
def pack(pack: Any, features: Tensor, _: Add) -> Tensor:
    """As it is: only the asked head hands relevance down."""
    return type(pack).forward(pack, features)
