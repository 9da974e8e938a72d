"""Trade-offs: dominance, pooled fronts, coverage, hypervolume, the choice of one model.

Points are rows of objectives of which bigger is better, (n, d).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import moocore
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

Dominance = Literal["weak", "strict"]
Direction = Literal["max", "min"]

BINNING = 0.005
"""Step to which the code of Model Guidance rounds objectives before comparing them."""

ROUNDING_SLACK = 1e-9
"""What a score may miss a bound by: 0.6 - 0.05 is not 0.55 in binary."""

log = logging.getLogger(__name__)


def dominates(a: ArrayLike, b: ArrayLike, *, dominance: Dominance = "weak") -> np.ndarray:
    """Whether points a dominate points b, over the last axis; the others are broadcast. Bool.

    Weakly: a is at least as good in every objective (so a point weakly dominates its equal).
        Strictly: a is
    better in every objective.
    """
    one, other = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return np.all(one >= other if dominance == "weak" else one > other, axis=-1)


def pareto_front(
    points: ArrayLike, *, binning: float | None = None, dominance: Dominance = "weak"
) -> np.ndarray:
    """Which points are dominated by no other: their indices, ascending, int64.

    Args:
        points: (n, d), bigger is better.
        binning: step to round to before comparing (half to even); None compares as given.
        dominance: weak drops a point if another is at least as good in every objective, and of
            equal points keeps the first. Strict drops a point only if another is better in every
            objective, and keeps all equals.

    Source: Model Guidance (Rao et al., ICCV 2023), its code: weak dominance at steps of 0.005 of
        F1, EPG and IoU. The paper mentions no rounding.

    Raises:
        ValueError: the points are not (n, d) with d >= 1, or not finite, or the step is not
            positive.
    """
    levels = rounded(points, binning)
    if len(levels) == 0:
        return np.empty(0, dtype=np.int64)
    if levels.shape[1] == 1:  # moocore wants two objectives
        levels = np.repeat(levels, 2, axis=1)
    members = np.flatnonzero(moocore.is_nondominated(levels, maximise=True))
    if dominance == "weak":
        return members
    # Whoever is strictly dominated is so by a member: one that weakly dominates the dominator.
    beaten = np.zeros(len(levels), dtype=bool)
    for member in np.unique(levels[members], axis=0):
        beaten |= dominates(member, levels, dominance="strict")
    return np.flatnonzero(~beaten)


def rounded(points: ArrayLike, binning: float | None) -> np.ndarray:
    """The points (n, d) in whole steps of ``binning``, or as they are, float64.

    Raises:
        ValueError: as for ``pareto_front``.
    """
    levels = np.asarray(points, dtype=np.float64)
    if levels.ndim != 2 or levels.shape[1] == 0:
        raise ValueError(
            f"points of shape {levels.shape}: expected (n, d), one column an objective"
        )
    if not np.isfinite(levels).all():
        raise ValueError(
            f"{int((~np.isfinite(levels).all(1)).sum())} of {len(levels)} points are not finite"
        )
    if binning is None:
        return levels
    if not binning > 0:
        raise ValueError(f"binning {binning}: expected a step above 0, or None")
    return np.round(levels / binning)


def pooled_front(
    frame: pd.DataFrame,
    objectives: Sequence[str] | Mapping[str, Direction],
    by: Sequence[str],
    binning: float | None = None,
    *,
    dominance: Dominance = "weak",
    ties: Sequence[str] = (),
) -> pd.DataFrame:
    """Rows of the frame that belong to the front of their configuration, in the frame's order.

    All rows of a configuration are pooled, over lambda, epoch and whatever else is not named. Rows
    with a missing objective belong to no front; how many is logged.

    Args:
        frame: one row a (run, epoch).
        objectives: columns to compare; a mapping says "max" or "min" for each, a sequence means
            "max".
        by: columns that name a configuration (dataset, model, attribution, layer, loss); none: one
            pool.
        binning: as for ``pareto_front``.
        dominance: as for ``pareto_front``.
        ties: columns whose smallest values come first among equals (lambda, then epoch); without
            them the frame's order decides.

    Source: Model Guidance (Rao et al., ICCV 2023), section 4 and figure 4: union over the
        lambdas and all epochs.

    Raises:
        ValueError: a column is missing, or a direction is neither "max" nor "min".
    """
    directions = objectives if isinstance(objectives, Mapping) else dict.fromkeys(objectives, "max")
    require_columns(frame, [*directions, *by, *ties])
    if wrong := [d for d in directions.values() if d not in ("max", "min")]:
        raise ValueError(f"direction {wrong[0]!r}: expected 'max' or 'min'")
    signs = np.array([1.0 if d == "max" else -1.0 for d in directions.values()])
    points = frame[list(directions)].to_numpy(dtype=np.float64) * signs
    complete = np.isfinite(points).all(axis=1)
    if not complete.all():
        log.warning(
            "%d of %d rows lack an objective and belong to no front", (~complete).sum(), len(frame)
        )
    order: np.ndarray = np.arange(len(frame))
    if ties:
        ranked = frame.reset_index(drop=True).sort_values(list(ties), kind="stable")
        order = ranked.index.to_numpy()
    order = order[complete[order]]
    pools: np.ndarray = np.zeros(len(frame), dtype=np.int64)
    if by:
        pools = frame.groupby(list(by), dropna=False, sort=False).ngroup().to_numpy()
    members = [
        pool[pareto_front(points[pool], binning=binning, dominance=dominance)]
        for pool in (order[pools[order] == number] for number in np.unique(pools[order]))
    ]
    return frame.iloc[np.sort(np.concatenate(members))] if members else frame.iloc[:0]


def coverage(a: ArrayLike, b: ArrayLike, *, binning: float | None = BINNING) -> float:
    """C(A, B): share of the points of B that some point of A weakly dominates, within [0, 1].

    Fronts A and B, (n, d) and (m, d); NaN if B is empty, 0 if only A is.

    Source: Zitzler and Thiele, 1999, two-set coverage; the rounding is that of Model Guidance's
        code.

    Raises:
        ValueError: as for ``pareto_front``, or the numbers of objectives differ.
    """
    one, other = rounded(a, binning), rounded(b, binning)
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"points {one.shape} and {other.shape}: the numbers of objectives differ")
    if len(other) == 0:
        return float("nan")
    covered = np.zeros(len(other), dtype=bool)
    for member in one[pareto_front(one)]:
        covered |= dominates(member, other)
    return float(covered.mean())


def hypervolume(points: ArrayLike, reference: Sequence[float] | None = None) -> float:
    """Volume that the points (n, d) weakly dominate above a reference point.

    The reference is the origin unless stated: the worst of scores within [0, 1], so that the volume
    is the share of the unit cube and can be compared between configurations. What is not above it
    adds nothing.

    Raises:
        ValueError: as for ``pareto_front``, or the reference has another number of objectives.
    """
    values = rounded(points, None)
    corner = (
        np.zeros(values.shape[1]) if reference is None else np.asarray(reference, dtype=np.float64)
    )
    if corner.shape != (values.shape[1],):
        raise ValueError(f"reference of shape {corner.shape} for {values.shape[1]} objectives")
    if len(values) == 0:
        return 0.0
    return float(moocore.hypervolume(values, ref=corner, maximise=True))


def best_within_f1_loss(
    frame: pd.DataFrame,
    baseline_f1: float,
    objective: str,
    tolerance: float = 0.05,
    *,
    f1: str = "f1",
    ties: Sequence[str] = ("lambda_loc", "epoch"),
) -> pd.Series | None:
    """The row of highest objective among those that lose at most ``tolerance`` of baseline F1.

    Args:
        frame: candidates of one configuration, such as its front, on the split the baseline's F1 is
            from.
        baseline_f1: F1 of the baseline, within [0, 1].
        objective: column to maximize, such as EPG.
        tolerance: how much F1 may be lost, as a fraction: 0.05 is 5 percentage points.
        f1: column of F1.
        ties: columns whose smallest values win among rows of equal objective and F1.

    Returns:
        The row, or None if no row keeps enough F1.

    Source: Model Guidance (Rao et al., ICCV 2023), supplement D.1.1, selecting models to visualize;
        the rule for ties (higher F1, smaller lambda, earlier epoch) is ours.

    Raises:
        ValueError: a column is missing, or the baseline's F1 is not finite.
    """
    require_columns(frame, [objective, f1, *ties])
    if not np.isfinite(baseline_f1):
        raise ValueError(f"baseline F1 {baseline_f1}: expected a number")
    good = frame[(frame[f1] >= baseline_f1 - tolerance - ROUNDING_SLACK) & frame[objective].notna()]
    if good.empty:
        return None
    ascending = [False, False, *(True for _ in ties)]
    return good.sort_values([objective, f1, *ties], ascending=ascending, kind="stable").iloc[0]


def require_columns(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse a frame that lacks a column.

    Raises:
        ValueError: names the missing and the present columns.
    """
    if missing := [c for c in columns if c not in frame.columns]:
        raise ValueError(
            f"no column {', '.join(missing)}; the frame has {', '.join(map(str, frame.columns))}"
        )
