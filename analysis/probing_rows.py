"""Scores of explanations, one probe's beside another's: differences with intervals over images.

The unit that is drawn anew is the image or the mosaic, with all of its explanations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy import stats

from analysis import statistics
from analysis.runs import Runs
from analysis.statistics import CONFIDENCE, RESAMPLES, image_sums

ROWS = "rows.parquet"
"""Where an evaluation keeps its scores."""
LEAST_COMMON = 0.5
"""Share of the explanations that both sides must have for them to be compared as pairs."""
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Column:
    """The scores of one evaluation under one protocol, N explanations."""

    images: np.ndarray
    """(N,) texts: the image or the mosaic."""
    targets: np.ndarray
    """(N,) int."""
    scores: np.ndarray
    """(N,) float64, NaN where undefined."""
    areas: np.ndarray
    """(N,) share of the image that the boxes fill; NaN where there are none."""

    def where(self, chosen: np.ndarray) -> Column:
        """Some of the explanations."""
        return Column(*(a[chosen] for a in (self.images, self.targets, self.scores, self.areas)))

    def filled(self, value: float) -> Column:
        """With undefined scores counted as a value."""
        return replace(self, scores=np.where(np.isnan(self.scores), value, self.scores))


@dataclass
class RowScores:
    """Reads the rows of evaluations, each once."""

    runs: Runs
    kept: dict[str, dict[str, Column]] = field(default_factory=dict)

    def column(self, result_id: str, protocol: str) -> Column | None:
        """The scores under a protocol; None where the run kept none."""
        if result_id not in self.kept:
            self.kept[result_id] = columns_of(self.runs.table(result_id, ROWS))
        return self.kept[result_id].get(protocol)


def columns_of(table: pd.DataFrame) -> dict[str, Column]:
    """The columns of an evaluation's rows, by protocol."""
    if table.empty:
        return {}
    if "box_area_fraction" not in table:
        table = table.assign(box_area_fraction=NAN)
    return {
        str(protocol): Column(
            part["image_id"].astype(str).to_numpy(dtype=object),
            part["target"].to_numpy(),
            part["score"].to_numpy(np.float64),
            part["box_area_fraction"].to_numpy(np.float64),
        )
        for protocol, part in table.groupby("protocol_key", observed=True, sort=False)
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Gain:
    """What one side scores more than another, over seeds; draws are of images or mosaics."""

    value: float
    """Mean of this side over the explanations that are compared."""
    against: float
    effect: float
    draws: np.ndarray
    """(R,) the effects that resampled images would have given."""
    units: int = 0
    """Images or mosaics that a seed's effect rests on; the least over seeds."""
    paired: bool = True
    """Whether both sides were scored on the same explanations."""
    each: tuple[float, ...] = ()
    """The effect of each seed."""

    @property
    def interval(self) -> tuple[float, float]:
        """Of CONFIDENCE; NaN where one image is all there is."""
        if self.units < 2:
            return NAN, NAN
        low, high = statistics.interval(self.draws[:, None])
        return float(low[0]), float(high[0])

    @property
    def p_value(self) -> float:
        """Two-sided, of no effect, from the spread of the draws; NaN where there is none."""
        spread = float(np.nanstd(self.draws)) if self.units > 1 else NAN
        if not np.isfinite(spread) or spread == 0:
            return NAN
        return float(2 * stats.norm.sf(abs(self.effect) / spread))

    @property
    def reversed(self) -> Gain:
        """The gain of the other side over this one."""
        return Gain(
            value=self.against,
            against=self.value,
            effect=-self.effect,
            draws=-self.draws,
            units=self.units,
            paired=self.paired,
            each=tuple(-one for one in self.each),
        )

    def minus(self, other: Gain) -> Gain:
        """How much larger this gain is than another's, drawn alike: of the same images."""
        return Gain(
            value=self.effect,
            against=other.effect,
            effect=self.effect - other.effect,
            draws=self.draws - other.draws,
            units=min(self.units, other.units),
            paired=self.paired and other.paired,
            each=tuple(a - b for a, b in zip(self.each, other.each, strict=False)),
        )


def gain(own: Column, rival: Column) -> Gain:
    """The gain of one evaluation over another; paired if they scored the same images.

    Explanations that are undefined on either side are left out of both; those of different images
    are compared as two samples, each drawn by itself.
    """
    pair = _aligned(own, rival)
    if pair is None:
        sides = [_drawn(c.images, c.scores[:, None], seed) for seed, c in enumerate((own, rival))]
        (one, drawn, units), (other, against, others) = sides
        effect = float(one[0] - other[0])
        return Gain(
            value=float(one[0]),
            against=float(other[0]),
            effect=effect,
            draws=drawn[:, 0] - against[:, 0],
            units=min(units, others),
            paired=False,
            each=(effect,),
        )
    images, values = pair
    values = np.where(np.isnan(values).any(1)[:, None], np.nan, values)
    table = np.column_stack([values, values[:, 0] - values[:, 1]])
    means, drawn, units = _drawn(images, table)
    return Gain(
        value=float(means[0]),
        against=float(means[1]),
        effect=float(means[2]),
        draws=drawn[:, 2],
        units=units,
        each=(float(means[2]),),
    )


def level(column: Column, seed: int = 0) -> Gain:
    """The mean of one evaluation, as its gain over 0."""
    means, drawn, units = _drawn(column.images, column.scores[:, None], seed)
    value = float(means[0])
    return Gain(value=value, against=0.0, effect=value, draws=drawn[:, 0], units=units)


def over_seeds(gains: Sequence[Gain]) -> Gain:
    """The mean of the gains of several seeds."""
    return Gain(
        value=float(np.mean([g.value for g in gains])),
        against=float(np.mean([g.against for g in gains])),
        effect=float(np.mean([g.effect for g in gains])),
        draws=np.mean([g.draws for g in gains], axis=0),
        units=min(g.units for g in gains),
        paired=all(g.paired for g in gains),
        each=tuple(g.effect for g in gains),
    )


def share_gain(value: float, against: float, units: float, seeds: tuple[float, ...] = ()) -> Gain:
    """The gain of a share of images over another's, each as a sample of its own.

    The images are the same, so that the interval is wider than it need be; their answers are not
    kept. Its draws are those of a normal distribution.
    """
    variance = sum(p * (1 - p) for p in (value, against)) / units if units else NAN
    quantiles = stats.norm.ppf((np.arange(RESAMPLES) + 0.5) / RESAMPLES)
    effect = value - against
    return Gain(
        value=value,
        against=against,
        effect=effect,
        draws=effect + np.sqrt(max(variance, 0.0)) * quantiles if units else np.full(1, np.nan),
        units=int(units) if units == units else 0,
        paired=False,
        each=seeds or (effect,),
    )


def wilson(share: float, units: float) -> tuple[float, float]:
    """Interval of CONFIDENCE of a share of so many images, within [0, 1]; NaN if unknown.

    Source: Wilson, 1927.
    """
    if not units > 0 or share != share:
        return NAN, NAN
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    spread = z * float(np.sqrt(share * (1 - share) / units + z * z / (4 * units * units)))
    middle = share + z * z / (2 * units)
    width = 1 + z * z / units
    return max(0.0, (middle - spread) / width), min(1.0, (middle + spread) / width)


def _aligned(own: Column, rival: Column) -> tuple[np.ndarray, np.ndarray] | None:
    """Images (N,) and both sides' scores (N, 2) of what both explained; None if that is little."""
    if np.array_equal(own.targets, rival.targets) and np.array_equal(own.images, rival.images):
        return own.images, np.column_stack([own.scores, rival.scores])
    sides = [
        pd.DataFrame({"image": c.images, "target": c.targets, "score": c.scores}).drop_duplicates(
            ["image", "target"]
        )
        for c in (own, rival)
    ]
    both = sides[0].merge(sides[1], on=["image", "target"], suffixes=("", "_rival"))
    if len(both) < LEAST_COMMON * max(len(side) for side in sides):
        return None
    return both["image"].to_numpy(), both[["score", "score_rival"]].to_numpy()


def _drawn(
    images: np.ndarray, table: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, int]:
    """Means (M,), their draws (R, M) and how many images have any defined score.

    Images are drawn in the order of their names, so that equal images are drawn alike.
    """
    names, numbers = np.unique(images.astype(str), return_inverse=True)
    sums, counts = image_sums(numbers, table, len(names))
    drawn = statistics.resampled_means(sums, counts, seed=seed)
    return statistics.means(sums, counts), drawn, int(counts.any(1).sum())
