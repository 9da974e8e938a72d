"""Perturbation curves: hits and probabilities while a tenth of the pixels after another goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from trainables.metrics.curve import CurveMetric
from trainables.metrics.perturbation import Fill, Held, Output, said_of
from trainables.metrics.reference_class import ReferenceClass, reference_classes
from trainables.metrics.removal import Order, Removals

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes


@dataclass(frozen=True, kw_only=True)
class PerturbationCurve(CurveMetric):
    """Area under what the model says of a class at shares 0, 0.1, ... 0.9 of the pixels removed.

    The trapezoid ends at 0.9 and is not divided by it: the best and worst possible areas are 0 and
    0.9, in the paper's numbers 90. Pixels are black before the encoding, always on the whole
    image. Undefined for a constant map, which orders nothing.

    Raises:
        ValueError: fewer than 2 points.
    """

    removed_first: ClassVar[Order]
    """Which pixels go first."""
    output: ClassVar[Output]
    """What is said of the class."""

    points: int = field(default=10, metadata={"short": "k"})
    """Points of the curve, the whole image first; a step removes 1/points. 10 in the paper."""
    baseline: Fill = "black"
    """What stands where a pixel is removed. Black in the authors' code."""
    reference_class: ReferenceClass = "ground_truth"
    """Which class is followed. The true one in the authors' code, whatever class was explained."""

    def __post_init__(self) -> None:
        """Check the number of points."""
        super().__post_init__()
        if self.points < 2:
            raise ValueError(f"{self.name}.points = {self.points}: expected 2 or more")

    @property
    def range(self) -> tuple[float, float]:  # type: ignore[override]
        """From 0 to the last share that is removed."""
        return 0.0, self.steps[-1]

    @property
    def shares(self) -> list[Fraction]:
        """Share of the pixels that is gone at each point."""
        return [Fraction(k, self.points) for k in range(self.points)]

    @property
    def steps(self) -> tuple[float, ...]:
        return tuple(float(share) for share in self.shares)

    def area(self, curves: Tensor) -> Tensor:
        """Trapezoid over the shares."""
        return (curves.sum(1) - (curves[:, 0] + curves[:, -1]) / 2) / self.points

    def curve(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """What is said of the reference class at every share."""
        classes = reference_classes(passes, self.reference_class)
        request = Removals(maps=Held(maps), order=self.removed_first, fill=self.baseline)
        logits = passes.get(request).logits(self.shares)
        said = said_of(passes, logits, classes, self.output).to(maps.dtype)
        constant = maps.amax((1, 2)) == maps.amin((1, 2))
        return torch.where(constant[:, None], torch.nan, said)


@dataclass(frozen=True, kw_only=True)
class Pos(PerturbationCurve):
    """Positive perturbation: how long the class ranks first while the most important pixels go.

    An image that is wrong from the start may score 0; a right one scores 0.05 at least. It shares
    its forwards with `Deletion`.

    Source: LTX (Barkan et al., ICDM 2023), the authors' code, in percent there; after Chefer et
        al., CVPR 2021. Undefined rows: the code leaves their zeros in the mean; dropped here.
    """

    name: ClassVar[str] = "pos"
    higher_is_better: ClassVar[bool] = False
    removed_first: ClassVar[Order] = "descending"
    output: ClassVar[Output] = "hit"


@dataclass(frozen=True, kw_only=True)
class Neg(PerturbationCurve):
    """Negative perturbation: how long the class ranks first while the least important pixels go.

    It shares its forwards with `Insertion`.

    Source: LTX (Barkan et al., ICDM 2023), the authors' code, in percent there; after Chefer et
        al., CVPR 2021. Undefined rows: the code leaves their zeros in the mean; dropped here.
    """

    name: ClassVar[str] = "neg"
    higher_is_better: ClassVar[bool] = True
    removed_first: ClassVar[Order] = "ascending"
    output: ClassVar[Output] = "hit"


@dataclass(frozen=True, kw_only=True)
class Deletion(PerturbationCurve):
    """Probability of the class while the most important pixels go.

    Source: LTX (Barkan et al., ICDM 2023), the authors' code, in percent there. Undefined rows: the
        code leaves their zeros in the mean; dropped here.

    Departs: not the curve of RISE (Petsiuk et al., 2018), which ends with an empty image.
    """

    name: ClassVar[str] = "deletion"
    higher_is_better: ClassVar[bool] = False
    removed_first: ClassVar[Order] = "descending"
    output: ClassVar[Output] = "probability"


@dataclass(frozen=True, kw_only=True)
class Insertion(PerturbationCurve):
    """Probability of the class on the most important pixels, from all of them down to a tenth.

    What is left after the least important ones went; never the empty image.

    Source: LTX (Barkan et al., ICDM 2023), the authors' code, in percent there. Undefined rows: the
        code leaves their zeros in the mean; dropped here.

    Departs: not the curve of RISE (Petsiuk et al., 2018), which starts with a blurred image.
    """

    name: ClassVar[str] = "insertion"
    higher_is_better: ClassVar[bool] = True
    removed_first: ClassVar[Order] = "ascending"
    output: ClassVar[Output] = "probability"
