"""Fronts of several seeds as one: what all, half or any of them attain."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd


def attainment(points: pd.DataFrame, x: str, y: str, by: str = "seed") -> pd.DataFrame:
    """The highest y that the seeds attain at each x or more.

    A seed attains y at x if one of its points has at least x and at least y. Of one seed this is
    the staircase of its points in the plane of x and y.

    Args:
        points: one row per point; bigger is better in both columns.
        x: column of the first objective.
        y: column of the second.
        by: column that tells seeds apart.

    Returns:
        One row per distinct x, ascending: ``x`` and the y that ``all`` seeds, at least ``half``
        of them, and ``any`` attain; NaN where fewer reach that x. Between two rows
        the later one holds.

    Source: Grunert da Fonseca, Fonseca and Hall, 2001, empirical attainment surfaces.
    """
    points = points.dropna(subset=[x, y])
    levels = np.unique(points[x].to_numpy(dtype=np.float64))
    curves = []
    for _, seed in points.groupby(by):
        reached = seed[x].to_numpy(dtype=np.float64) >= levels[:, None]
        values = np.where(reached, seed[y].to_numpy(dtype=np.float64), -np.inf)
        curves.append(values.max(axis=1))
    if not curves:
        return pd.DataFrame({"x": [], "all": [], "half": [], "any": []}, dtype=float)
    best_first = -np.sort(-np.stack(curves), axis=0)
    half = math.ceil(len(curves) / 2) - 1
    surfaces = {"all": best_first[-1], "half": best_first[half], "any": best_first[0]}
    frame = pd.DataFrame({"x": levels, **surfaces})
    return frame.replace(-np.inf, np.nan)
