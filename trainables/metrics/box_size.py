"""Means over boxes of some size: localization is harder where the object is small."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from trainables.metrics.metric import Metric

AREA_EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Quarters of the image. Ours: How to Probe (table C2) has four bins without saying which."""


def means_by_box_size(
    metric: Metric,
    scores: np.ndarray,
    area_fraction: np.ndarray,
    edges: Sequence[float] = AREA_EDGES,
) -> dict[str, float]:
    """Mean, defined fraction and number of the rows of each bin that holds any.

    A bin holds its lower edge, the last one its upper edge as well.

    Source: How to Probe (ICLR 2025), table C2; Model Guidance's code bins [low, high) in pixels.

    Args:
        metric: what was scored; its policy says what undefined rows count as.
        scores: (N,), NaN where undefined.
        area_fraction: share of the image that each row's mask fills, (N,), within [0, 1].
        edges: of the bins, ascending.

    Returns:
        ``<key>_area<low>-<high>`` to the mean, with ``_defined_fraction`` and ``_rows``.

    Raises:
        ValueError: the edges do not ascend, or the numbers of rows differ.
    """
    scores, area = np.asarray(scores, np.float64), np.asarray(area_fraction, np.float64)
    if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"box-size edges {tuple(edges)} must ascend")
    if scores.shape != area.shape:
        raise ValueError(f"{scores.shape} scores of rows with {area.shape} area fractions")
    means: dict[str, float] = {}
    for low, high in pairwise(edges):
        chosen = (area >= low) & ((area < high) | ((area == high) & (high == edges[-1])))
        if chosen.any():
            key = f"{metric.key}_area{low:g}-{high:g}"
            means[key] = metric.reduce(scores[chosen])
            means[f"{key}_defined_fraction"] = metric.defined_fraction(scores[chosen])
            means[f"{key}_rows"] = float(chosen.sum())
    return means
