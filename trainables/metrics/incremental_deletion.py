"""Incremental deletion: the target's probability while the least important pixels go first."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from trainables.baselines import Zero
from trainables.metrics.curve import CurveMetric
from trainables.metrics.perturbation import EachAlone, Fill, Held, fill_images, said_of
from trainables.metrics.removal import Order, Removals, places

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes


@dataclass(frozen=True, kw_only=True)
class Ids(CurveMetric):
    """Incremental deletion score: mean probability of the explained class over the deletions.

    Step k of K has the first floor(HW k / K) pixels replaced, so it runs from the whole image to
    one that has a K-th left, never to the empty one. The score is the left Riemann sum; it is not
    divided by the clean probability. Every row is defined: a constant map deletes by index.

    With ``updated`` the image of each step is explained again, and what is deleted stays deleted.
    A step that is explained also answers its own probability: K forwards and K - 1 explanations,
    of which the first is the map itself.

    Source: IDSDS (Hesse et al., 2024), table 5 (IDS); defined as in the authors' code.

    Departs: equal pixels are deleted by index, where the code's sort leaves their order open. The
    blurred baseline is that of the whole image with updated maps too.

    Raises:
        ValueError: fewer than 1 point; at a call, ``updated`` without a way to explain.
    """

    name: ClassVar[str] = "ids"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    points: int = field(default=32, metadata={"short": "k"})
    """Steps K. 32 in the paper."""
    order: Order = "ascending"
    """Which pixels go first. The least important (ascending) in the paper, and a high score is
    good; the code has the other order too, where a low score is good."""
    baseline: Fill = field(default_factory=Zero)
    """What stands where a pixel is deleted. Zero in the paper."""
    updated: bool = False
    """Whether each step is explained again. Both are in the paper."""

    def __post_init__(self) -> None:
        """Check the number of points."""
        super().__post_init__()
        if self.points < 1:
            raise ValueError(f"ids.points = {self.points}: expected 1 or more")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """Whether the least important pixels go first."""
        return self.order == "ascending"

    @property
    def shares(self) -> list[Fraction]:
        """Share of the pixels that is deleted at each step."""
        return [Fraction(k, self.points) for k in range(self.points)]

    @property
    def steps(self) -> tuple[float, ...]:
        return tuple(float(share) for share in self.shares)

    def area(self, curves: Tensor) -> Tensor:
        """Left Riemann sum over [0, 1)."""
        return curves.mean(1)

    def curve(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """Probability of the explained class at every step."""
        targets = passes.batch.targets
        if self.updated:
            return self.updated_curve(passes, maps, explain).to(maps.dtype)
        request = Removals(maps=Held(maps), order=self.order, fill=self.baseline)
        logits = passes.get(request).logits(self.shares)
        return said_of(passes, logits, targets).to(maps.dtype)

    def updated_curve(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """The same with the order of each step from the image of the step before."""
        if explain is None:
            raise ValueError(f"{self.key} explains perturbed images; it needs a way to explain")
        batch, alone = passes.batch, passes.get(EachAlone())
        whole, fill = alone.batch.images, fill_images(alone, self.baseline)
        clean = said_of(passes, passes.logits[batch.image_index], batch.targets)
        curve = clean.new_empty(len(clean), self.points)
        curve[:, 0] = clean
        gone = torch.zeros_like(maps, dtype=torch.bool)
        front = -math.inf if self.order == "ascending" else math.inf
        for k, share in enumerate(self.shares[1:], 1):
            gone = places(maps.masked_fill(gone, front), self.order) < int(
                share * maps.shape[1:].numel()
            )
            images = torch.where(gone[:, None], fill, whole)
            maps = torch.empty_like(maps)
            for slab in alone.slabs(1):
                child = alone.on(images[slab.image], image_index=slab.index, of=slab.of)
                if k + 1 < self.points:  # before the logits: its needs shape the one forward
                    maps[slab.of] = explain(child).detach()
                logits = child.logits[child.batch.image_index]
                curve[slab.of, k] = said_of(child, logits, child.batch.targets)
        return curve
