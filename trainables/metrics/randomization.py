"""Sanity checks: a map must change with the class that it explains and with the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from trainables.metrics.metric import Metric
from trainables.metrics.rank_correlation import spearman

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes

Against = Literal["second", "last"]


@dataclass(frozen=True, kw_only=True)
class MapSimilarity(Metric):
    """Rank correlation of each map with the one that ``explain`` makes now; less is better.

    ``explain`` is what differs: hand over `explained_by` another model, one with random weights or
    one trained on permuted labels. With the same model it says whether a method repeats itself.
    Undefined where one of the two maps is constant.

    Source: Adebayo et al., 2018; Explainer-Explained Architecture, supplement, section 3. Undefined
        rows: neither says; left out here.
    Departs: the supplement does not name the grid; a ViT's tokens here.

    Raises:
        ValueError: the grid is negative; at a call, without ``explain``, or the images have fewer
            pixels than the grid has cells.
    """

    name: ClassVar[str] = "map_similarity"
    higher_is_better: ClassVar[bool] = False
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    grid: int = 14
    """Cells along a side whose means are ranked: 14 for a ViT with patches of 16 px at 224, 7 for
    a ResNet's last layer; 0: the pixels."""

    def __post_init__(self) -> None:
        """Check the grid."""
        super().__post_init__()
        if self.grid < 0:
            raise ValueError(f"{self.name}.grid = {self.grid}: expected 0 or more cells a side")

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """Spearman(map, map made now)."""
        if explain is None:
            raise ValueError(f"{self.key} explains again: hand it explain")
        return map_similarity(maps, self.other(passes, explain), grid=self.grid).to(maps.dtype)

    def other(self, passes: Passes, explain: Explain) -> Tensor:
        """What the maps are compared with, (N, H, W)."""
        return explain(passes).detach()


@dataclass(frozen=True, kw_only=True)
class OtherClass:
    """A request: passes about the same images and, for each explanation, another class.

    They announce what was announced before, so that one forward and backward serve all methods.
    """

    against: Against

    def compute(self, passes: Passes) -> Passes:
        """A child of the passes."""
        batch = passes.batch
        logits = passes.logits[batch.image_index]
        own, first = passes.model.own_logits(logits, batch.targets)
        targets = other_class(own, batch.targets - first, self.against) + first
        everyone = torch.arange(len(targets), device=targets.device)
        child = passes.on(batch.images, image_index=batch.image_index, of=everyone, targets=targets)
        child.expect(passes.expected)
        return child


@dataclass(frozen=True, kw_only=True)
class ClassSensitivity(MapSimilarity):
    """Rank correlation of each map with the one of another class of its image; less is better.

    A method that does not look at the class scores 1. Undefined where one of the maps is constant.

    Source: Adebayo et al., 2018, for the comparison of maps; Explainer-Explained Architecture,
        supplement, section 3, for rank correlation. Undefined rows: neither says; left out here.

    Raises:
        ValueError: at a call, the model has one class only.
    """

    name: ClassVar[str] = "class_sensitivity"

    against: Against = "second"
    """The other class: the one with the largest or with the smallest logit of all but the one
    explained. Largest: the confusion that a user asks about."""

    def other(self, passes: Passes, explain: Explain) -> Tensor:
        """Maps of the other class, made anew from the same images."""
        return explain(passes.get(OtherClass(against=self.against))).detach()


def map_similarity(first: Tensor, second: Tensor, *, grid: int = 0) -> Tensor:
    """Spearman's correlation of two sets of maps (N, H, W), (N,), float64; NaN where constant.

    Args:
        first: one set.
        second: the other, of the same explanations.
        grid: cells along a side whose means are ranked; 0: the pixels.

    Raises:
        ValueError: the shapes differ, or the grid is finer than the maps.
    """
    if first.shape != second.shape or first.ndim != 3:
        raise ValueError(
            f"maps {tuple(first.shape)} and {tuple(second.shape)}: expected (N, H, W) both"
        )
    if grid > min(first.shape[1:]):
        raise ValueError(
            f"a grid of {grid} x {grid} cells on maps of {tuple(first.shape[1:])} px: take fewer "
            "cells, or 0 for the pixels"
        )
    # Means of a constant map differ by a rounding, and would be ranked.
    constant = is_constant(first) | is_constant(second)
    rows = [cell_means(maps, grid).flatten(1) for maps in (first, second)]
    return torch.where(constant, torch.nan, spearman(*rows))


def cell_means(maps: Tensor, grid: int) -> Tensor:
    """Means of maps (N, H, W) over the cells of a grid, (N, grid, grid), float64; 0: the maps."""
    return functional.adaptive_avg_pool2d(maps.double()[:, None], grid)[:, 0] if grid else maps


def is_constant(maps: Tensor) -> Tensor:
    """Whether all pixels of a map are equal, (N,), bool."""
    return maps.amax((1, 2)) == maps.amin((1, 2))


def other_class(logits: Tensor, targets: Tensor, which: Against) -> Tensor:
    """The class with the largest (``second``) or smallest logit of all but the target, (N,).

    Args:
        logits: of each explanation's image, (N, K).
        targets: the class that is explained, (N,).
        which: of the others.

    Raises:
        ValueError: there is no other class.
    """
    if logits.shape[1] < 2:
        raise ValueError("class sensitivity needs a model of at least two classes")
    signed = logits if which == "second" else -logits
    return signed.scatter(1, targets[:, None], -torch.inf).argmax(1)


def explained_by(model: Any, explain: Explain) -> Explain:
    """How to explain the same images and classes by another model; its passes count as ours.

    Args:
        model: takes the same encoded images and knows the same classes.
        explain: how to explain, (passes) -> maps.
    """

    def explained(passes: Passes) -> Tensor:
        batch = passes.batch
        everyone = torch.arange(len(batch.targets), device=batch.targets.device)
        with passes.on(
            batch.images, image_index=batch.image_index, of=everyone, model=model
        ) as child:
            return explain(child)

    return explained
