"""The grid pointing game: a mosaic of several classes asks each map for its own cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from trainables.metrics.localization import LocalizationMetric, positive_share
from trainables.metrics.metric import Annotation, Undefined


@dataclass(frozen=True, kw_only=True)
class GridPg(LocalizationMetric):
    """Share of the positive importance that falls inside the explained class's cell of a mosaic.

    The mosaics are those of data_pipelines/grids.py; each explanation's mask is its cell. A uniform
    map scores 1 / side^2 (with the default filter slightly less at the border, more in the middle).
    Undefined where no importance is positive.

    Source: Böhle et al., 2021 (CoDA-Nets); smoothing and 3 x 3 cells: How to Probe (ICLR 2025),
        and its code. Undefined rows: the paper drops them, its code counts them as 0; dropped here.
    Departs: the code adds 1e-12 to the sum, which moves scores of maps below about 1e-12 a pixel;
        a field here, 0 by default, so that the score does not depend on a map's scale.

    Raises:
        ValueError: at a call, a mask is not one cell of a mosaic.
    """

    name: ClassVar[str] = "grid_pg"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    requires: ClassVar[tuple[Annotation, ...]] = ("cells",)

    undefined: Undefined = "drop"
    """What a map without positive importance counts as. Dropped in the paper, 0 in its code."""
    smooth_px: int = field(default=5, metadata={"short": "smooth"})
    """Side of the filter, an odd number, or 0. 5 in the authors' code; for input times gradient
    and integrated gradients a Gaussian of 129."""
    side: Literal[2, 3] = field(default=3, metadata={"short": "n"})
    """Cells along a side of the mosaic. 3 in the paper."""
    epsilon: float = field(default=0.0, metadata={"short": "eps"})
    """Added to the sum that is divided by. 1e-12 in the authors' code."""

    @property
    def chance(self) -> float:  # type: ignore[override]
        """Share of one cell: what a map without information scores."""
        return 1 / self.side**2

    def per_map(self, maps: Tensor, masks: Tensor) -> Tensor:
        """Share of the positive part in the cell."""
        self.require_cells(masks)
        return positive_share(maps, masks, epsilon=self.epsilon)

    def require_cells(self, masks: Tensor) -> None:
        """Refuse masks that are not each one cell of the mosaic."""
        side = self.side
        if not any(length % side for length in masks.shape[1:]):
            cells = masks.unflatten(2, (side, -1)).unflatten(1, (side, -1))
            full = cells.all(4).all(2)
            one_each = full.sum((1, 2)) == 1
            if bool((one_each & (cells.any(4).any(2) == full).all(2).all(1)).all()):
                return
        raise ValueError(
            f"{self.key} scores mosaics: each mask must be one cell of {side} x {side}; compose "
            "them with data_pipelines/grids.py"
        )
