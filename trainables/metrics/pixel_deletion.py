"""Pixel deletion: what the model says of the explained class while pixels are set to black."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Self

from torch import Tensor

from trainables.metrics.curve import CurveMetric
from trainables.metrics.perturbation import Fill, Held, Output, said_of
from trainables.metrics.removal import Feature, Order, Removals

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes

FINEST = 10**6
"""Largest denominator of a step, so that 0.1 is a tenth and 1/50176 one pixel of 224 x 224."""


@dataclass(frozen=True, kw_only=True)
class PixelDeletion(CurveMetric):
    """Mean height of the curve of the explained class while pixels are removed step by step.

    The paper states neither step nor fill nor what is drawn, so both readings are fields. As it
    stands: a tenth of the pixels a step, up to nine of them, set to black before the encoding, as
    in the code of Chefer et al.; ``per_step`` gives the order of Quantus, which ends with an empty
    image. No reading contains the whole image. The score is the trapezoid over the steps, divided
    by its width (Quantus leaves it at a unit a step). Every row is defined.

    Source: How to Probe (Gairola et al., ICLR 2025), section on pixel deletion; Quantus 0.6
        PixelFlipping; Transformer Attribution (Chefer et al., CVPR 2021), the authors' code.

    Departs: equal features are removed by index.

    Raises:
        ValueError: the step leaves no point on the curve.
    """

    name: ClassVar[str] = "pixel_deletion"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    order: Order = "ascending"
    """Which go first. The least important (ascending) in the paper, and a high score is good; with
    the most important first a low one is."""
    step: float = 0.1
    """Share of the features that a step removes. A tenth in Chefer's code."""
    until_empty: bool = False
    """Whether the last step removes everything, as in Quantus."""
    feature: Feature = "pixel"
    """A pixel, or a single value as in Quantus, which repeats a map over the channels. The authors
    ask for pixels."""
    output: Output = "probability"
    """What is drawn. Quantus has the probability, Chefer's code the hit."""
    baseline: Fill = "black"
    """What stands where a feature is removed. Black pixels; Quantus fills in the encoded space."""

    def __post_init__(self) -> None:
        """Check the step."""
        super().__post_init__()
        if not 1 / FINEST <= self.step <= 1 or not self.shares:
            raise ValueError(
                f"pixel_deletion.step = {self.step}: expected a share of the features within "
                f"[{1 / FINEST:g}, 1], below 1 unless until_empty"
            )

    @classmethod
    def per_step(cls, features_in_step: int, features: int, *, feature: Feature = "pixel") -> Self:
        """Quantus's reading on images of so many features, H W pixels or C H W values."""
        return cls(step=features_in_step / features, until_empty=True, feature=feature)

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """Whether the least important features go first."""
        return self.order == "ascending"

    @property
    def shares(self) -> list[Fraction]:
        """Share of the features that is gone after each step."""
        step = Fraction(self.step).limit_denominator(FINEST)
        whole = -(-1 // step)  # steps until nothing is left
        last = whole if self.until_empty else whole - 1
        return [min(k * step, Fraction(1)) for k in range(1, last + 1)]

    @property
    def steps(self) -> tuple[float, ...]:
        return tuple(float(share) for share in self.shares)

    def area(self, curves: Tensor) -> Tensor:
        """Mean height under the trapezoid; the one value of a curve with one point."""
        if curves.shape[1] == 1:
            return curves[:, 0]
        return (curves[:, 1:] + curves[:, :-1]).mean(1) / 2

    def curve(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """Probability or hit of the explained class after every step."""
        request = Removals(
            maps=Held(maps), order=self.order, fill=self.baseline, feature=self.feature
        )
        logits = passes.get(request).logits(self.shares)
        targets = passes.batch.targets
        return said_of(passes, logits, targets, self.output).to(maps.dtype)
