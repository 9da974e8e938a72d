"""The localization losses of Model Guidance: energy, L1, PPCE and RRR*.

The paper's equations are read together with the authors' code at commit 3a6e034. The weights
(``lambdas``) are those of its table D1 as remembered, not verified; the code's README uses 1e-3 for
the energy loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from trainables.losses.loss import Loss

FAINT_SUM = 1e-7
"""Positive importance below which the energy loss does not divide. From the authors' code."""
DEAD_MAXIMUM = 1e-18
"""Largest absolute value of a map that counts as all zero; above, float32 gradients are finite."""


def normalize(maps: Tensor) -> Tensor:
    """Maps (N, h, w) over their largest absolute value, within [-1, 1]; dead maps as they are.

    The gradient flows through the maximum too; pixels that tie for it share it equally.
    """
    largest = maps.abs().amax(dim=(-2, -1), keepdim=True)
    # The divisor, not the quotient, is chosen: the branch not taken must not divide by zero, or its
    # gradient is NaN. Written so that a NaN spreads over its map instead of counting as dead.
    return maps / torch.where(largest <= DEAD_MAXIMUM, 1.0, largest)


@dataclass(frozen=True, kw_only=True)
class Energy(Loss):
    """One minus the share of positive importance that falls inside the mask, within [0, 1].

    Where a map has (almost) no positive importance, the value is one minus what falls inside.
    Without any positive importance, or with an empty mask, it is 1 without a gradient: no signal.

    Source: Model Guidance (Rao et al., ICCV 2023), equations 2 and 6; the bound 1e-7 is that of the
        authors' code.
    """

    name: ClassVar[str] = "energy"
    lambdas: ClassVar[tuple[float, ...]] = (5e-4, 1e-3, 5e-3)

    def per_map(self, prepared: Tensor, masks: Tensor) -> Tensor:
        """1 - S_in / S; negative importance is cut here, after the upsampling."""
        # relu and not clamp: its derivative at exactly 0 is 0 in every version of torch.
        positive = prepared.relu()
        total, inside = positive.sum((1, 2)), (positive * masks).sum((1, 2))
        return 1 - inside / torch.where(total < FAINT_SUM, 1.0, total)


@dataclass(frozen=True, kw_only=True)
class L1(Loss):
    """Mean distance between the mask and the positive map scaled to maximum 1, within [0, 1].

    Pushes the map to fill the mask evenly. A map without positive importance has no gradient.

    Source: Model Guidance (Rao et al., ICCV 2023), equation 3, after Gao et al., 2022 (GRADIA).
    Departs: a map that never exceeds 1e-18 counts as all zero (reference: exactly zero only).
    """

    name: ClassVar[str] = "l1"
    lambdas: ClassVar[tuple[float, ...]] = (1e-3, 5e-3, 1e-2)

    def prepare(self, maps: Tensor) -> Tensor:
        """Positive part over its maximum, (N, h, w), within [0, 1]."""
        return normalize(maps.relu())

    def per_map(self, prepared: Tensor, masks: Tensor) -> Tensor:
        """Mean over all pixels of |Z - M|."""
        return (prepared - masks.to(prepared.dtype)).abs().mean((1, 2))


@dataclass(frozen=True, kw_only=True)
class Ppce(Loss):
    """Mean surprise inside the mask, -log of the positive map scaled to maximum 1, within [0, 100].

    Asks for importance inside the mask and ignores what is outside. The logarithm is bounded at
    -100 and its derivative at 1e12, as in torch's binary cross entropy, which the authors' code
    uses.

    Source: Model Guidance (Rao et al., ICCV 2023), equation 4, after Shen et al., 2021 (HAICS).
    Departs: an empty mask gives 0 (reference: NaN, with a zero gradient); a map that never exceeds
        1e-18 counts as all zero (reference: exactly zero only); interpolated values that rounding
        put above 1 count as 1 (reference: an exception).
    """

    name: ClassVar[str] = "ppce"
    lambdas: ClassVar[tuple[float, ...]] = (1e-4, 5e-4, 1e-3)

    def prepare(self, maps: Tensor) -> Tensor:
        """Positive part over its maximum, (N, h, w), within [0, 1]."""
        return normalize(maps.relu())

    def per_map(self, prepared: Tensor, masks: Tensor) -> Tensor:
        """Sum over the mask of -max(log Z, -100), over the number of its pixels."""
        # The cross entropy refuses NaN (a GPU process dies of it): taken out, and put back after.
        unknown = prepared.isnan()
        unit = prepared.masked_fill(unknown, 1.0).clamp(max=1)
        surprise = functional.binary_cross_entropy(unit, torch.ones_like(unit), reduction="none")
        surprise = surprise.masked_fill(unknown, torch.nan)
        return (surprise * masks).sum((1, 2)) / masks.sum((1, 2)).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class RrrStar(Loss):
    """Sum of squares, outside the mask, of the signed map over its largest absolute value.

    A sum over pixels: its size, and with it the meaning of its weights, grows with the image. It
    can be brought to zero only outside: what happens inside the mask is left free.

    Source: Model Guidance (Rao et al., ICCV 2023), equation 5: Ross et al., 2017, with the
        normalized map in place of the input gradient.
    Departs: an all-zero map has gradient zero (reference: NaN, 0/0 in the branch not taken); a map
        that never exceeds 1e-18 counts as all zero.
    """

    name: ClassVar[str] = "rrr_star"
    lambdas: ClassVar[tuple[float, ...]] = (5e-6, 1e-5, 5e-5)
    summed_over_pixels: ClassVar[bool] = True

    def prepare(self, maps: Tensor) -> Tensor:
        """Signed maps over their largest absolute value, (N, h, w), within [-1, 1]."""
        return normalize(maps)

    def per_map(self, prepared: Tensor, masks: Tensor) -> Tensor:
        """Sum over the pixels outside the mask of Z squared."""
        return (prepared.square() * ~masks).sum((1, 2))
