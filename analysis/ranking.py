"""Which method is best under which protocol, how sure that is, and whether protocols agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.paper_tables import PUBLISHED, is_papers, published
from analysis.scores import Scores
from analysis.statistics import RESAMPLES, image_sums, interval, ranks

LEAST_DEFINED = 0.5
"""A method that is defined on a smaller share of the explanations is not ranked: it would take the
others' explanations away, as all are compared on those that are defined for all."""
LEAST_METHODS = 3
"""Two orders of fewer methods say nothing about each other."""
COLUMNS = (
    *("setting", "protocol", "higher_is_better", "method", "label", "paper", "reference_line"),
    *("rank", "rank_low", "rank_high", "group", "mean", "low", "high", "defined_fraction"),
    *("images", "explanations", "p_reference", "filled_with", "filled_mean", "filled_rank"),
    "result_id",
)
PAIRS = ("setting", "protocol", "method", "other", "difference", "p", "p_holm")
CORRELATIONS = tuple(f"{n}{end}" for n in ("kendall", "spearman") for end in ("", "_low", "_high"))


@dataclass(frozen=True)
class Ranking:
    """The methods of one network under one protocol."""

    setting: str
    protocol: str
    methods: pd.DataFrame
    """COLUMNS, one row per method, the best first: ``method`` is its key, ``label`` its name for
    people, ``paper`` the paper's, where it was run as there. ``mean``, ``low`` and ``high`` are
    over the ``explanations`` of ``images`` that are defined for all that are ranked (and for
    itself), ``defined_fraction`` is of all. ``rank`` counts from 1 within ``rank_low`` and
    ``rank_high``, tie ``group`` from 1; both are NaN for what is not ranked: reference lines, and
    what is hardly ever defined. ``p_reference`` is that of the difference from the best reference
    line. ``filled_mean`` and ``filled_rank`` are over all explanations, with undefined counted as
    ``filled_with``."""
    pairs: pd.DataFrame
    """PAIRS, one row per two ranked methods, the better first; ``difference`` is that of the means,
    ``p_holm`` is corrected for all pairs of the ranking."""
    resampled: pd.DataFrame
    """(R, K): the ranks that resampled images would have given, a column per ranked method by its
    key. Row r stands for the same images in all protocols of a setting."""

    @property
    def ranked(self) -> pd.DataFrame:
        """The rows of ``methods`` that have a rank."""
        return self.methods[self.methods["rank"].notna()]


def rankings(scores: Sequence[Scores], resamples: int = RESAMPLES, seed: int = 0) -> list[Ranking]:
    """The ranking of every setting and protocol; the same images are drawn for all of a setting."""
    images: dict[str, int] = {}
    for one in scores:
        last = int(one.images.max(initial=-1))
        images[one.setting] = max(images.get(one.setting, 0), last + 1)
    return [rank(one, images[one.setting], resamples, seed) for one in scores]


def rank(scores: Scores, images: int, resamples: int = RESAMPLES, seed: int = 0) -> Ranking:
    """Rank the methods of one protocol on the explanations that are defined for all of them.

    Args:
        scores: of all methods.
        images: how many the setting has; more than every number in ``scores.images``.
        resamples: of the images.
        seed: of the resamples.
    """
    higher, equal = scores.higher_is_better, statistics.equality(scores.values)
    defined = ~np.isnan(scores.values)
    share = defined.mean(0) if len(defined) else np.zeros(defined.shape[1])
    reference = scores.methods["reference_line"].to_numpy(dtype=bool)
    ranked = ~reference & (share >= LEAST_DEFINED)
    rows = defined[:, ranked].all(1)
    ranked &= rows.any()
    values = np.where(rows[:, None], scores.values, np.nan)
    sums, counts = image_sums(scores.images, values, images)
    mean, drawn = statistics.means(sums, counts), np.empty((0, len(ranked)))
    if len(rows):
        drawn = statistics.resampled_means(sums, counts, resamples, seed)
    low, high = np.where((counts > 0).sum(0) > 1, interval(drawn), np.nan)

    present = counts[:, ranked].any(1)
    p = statistics.paired_p_values(
        sums[present][:, ranked], equal * rows.sum() / max(1, present.sum())
    )
    corrected = statistics.holm_pairs(p)
    order = ranks(mean[ranked], higher, equal)
    known = ~np.isnan(drawn[:, ranked]).any(1)
    resampled = np.full((len(drawn), ranked.sum()), np.nan)
    resampled[known] = ranks(drawn[known][:, ranked], higher, equal)
    reach = statistics.rank_interval(resampled[known if present.sum() > 1 else []])

    worst = 0.0 if higher else np.max(scores.values, initial=-np.inf, where=defined)
    filled = np.where(defined, scores.values, worst)
    filled_mean = filled.mean(0) if len(filled) else np.full(len(ranked), np.nan)
    some = ~reference & defined.any(0)
    table = scores.methods.assign(
        setting=scores.setting,
        protocol=scores.protocol,
        higher_is_better=higher,
        rank=_placed(ranked, order),
        rank_low=_placed(ranked, reach[0]),
        rank_high=_placed(ranked, reach[1]),
        group=_placed(ranked, statistics.tie_groups(order, corrected)),
        mean=mean,
        low=low,
        high=high,
        defined_fraction=share,
        images=(counts > 0).sum(0),
        explanations=counts.sum(0).astype(int),
        p_reference=_placed(ranked, _p_reference(scores, values, mean, ranked, equal)),
        filled_with=worst,
        filled_mean=filled_mean,
        filled_rank=_placed(some, ranks(filled_mean[some], higher, equal)),
    )
    best_first = table.assign(best=-mean if higher else mean).sort_values(
        ["best", "method"], kind="stable", ignore_index=True
    )
    return Ranking(
        setting=scores.setting,
        protocol=scores.protocol,
        methods=best_first[list(COLUMNS)],
        pairs=_pairs(table[ranked], p, corrected),
        resampled=pd.DataFrame(resampled, columns=table.loc[ranked, "method"].tolist()),
    )


def agreement(rankings: Sequence[Ranking]) -> pd.DataFrame:
    """Whether protocols put the same methods first: rank correlation of every two of a setting.

    Over the methods that both rank; 1 is the same order, each protocol's better end first. The
    interval is over images, of which both protocols see the same draws. Drawing adds noise to what
    is close, so that intervals lean towards 0.

    Returns:
        Columns setting, protocol, other, methods (how many) and CORRELATIONS (Kendall's tau-b,
        Spearman's rho), NaN below LEAST_METHODS.
    """
    found = []
    for one, other in combinations(rankings, 2):
        if one.setting == other.setting:
            both = [key for key in one.resampled.columns if key in other.resampled.columns]
            point = [r.ranked.set_index("method").loc[both, "rank"] for r in (one, other)]
            length = min(len(one.resampled), len(other.resampled))
            drawn = [r.resampled[both].to_numpy()[:length] for r in (one, other)]
            correlated = _correlations([side.to_numpy() for side in point], drawn)
            found.append((one.setting, one.protocol, other.protocol, len(both), *correlated))
    return pd.DataFrame(found, columns=["setting", "protocol", "other", "methods", *CORRELATIONS])


def beside_paper(rankings: Sequence[Ranking], evaluated: pd.DataFrame) -> pd.DataFrame:
    """The methods that were run as the paper ran them, with the paper's numbers.

    Args:
        rankings: of any settings.
        evaluated: as ``scores.evaluated`` gives it.

    Returns:
        Columns setting, protocol, method, paper, rank, mean, low, high, published, and
        ``comparable``: whether network and data are the paper's, without which only the order is.
    """
    where = evaluated.drop_duplicates("setting").set_index("setting")[["network", "dataset"]]
    names = ["setting", "protocol", "method", "paper", "rank", "mean", "low", "high"]
    rows = pd.concat([pd.DataFrame(columns=names), *(r.methods[names] for r in rankings)])
    rows = rows[rows["paper"] != ""].merge(where, left_on="setting", right_index=True)
    cells = list(zip(rows["paper"], rows["protocol"], strict=True))
    made_with = list(zip(rows["paper"], rows["network"], rows["dataset"], strict=True))
    rows = rows.assign(
        published=[published(name, protocol) for name, protocol in cells],
        comparable=[is_papers(*one) for one in made_with],
    ).dropna(subset="published")
    return rows.drop(columns=["network", "dataset"]).reset_index(drop=True)


def paper_order(rankings: Sequence[Ranking], beside: pd.DataFrame) -> pd.DataFrame:
    """Whether our order of the methods is the paper's, of those that were run as there.

    Args:
        rankings: of any settings.
        beside: as ``beside_paper`` gives it.

    Returns:
        Columns setting, protocol, methods (how many), comparable and CORRELATIONS; one row per
        protocol that ranks LEAST_METHODS of the paper's.
    """
    found = []
    known = beside[beside["paper"].isin(PUBLISHED) & beside["rank"].notna()]
    for ranking in rankings:
        rows = known[
            (known["setting"] == ranking.setting) & (known["protocol"] == ranking.protocol)
        ]
        if len(rows) >= LEAST_METHODS:
            theirs = ranks(rows["published"].to_numpy(dtype=float), higher_is_better=True)
            drawn = ranking.resampled[rows["method"].tolist()].to_numpy()
            ours = rows["rank"].to_numpy(dtype=float)
            sides = [drawn, np.broadcast_to(theirs, drawn.shape)]
            correlated = _correlations([ours, theirs], sides)
            comparable = bool(rows["comparable"].all())
            found.append((ranking.setting, ranking.protocol, len(rows), comparable, *correlated))
    names = ["setting", "protocol", "methods", "comparable", *CORRELATIONS]
    return pd.DataFrame(found, columns=names)


def _placed(where: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values at the chosen places of (M,), NaN elsewhere."""
    placed = np.full(len(where), np.nan)
    placed[where] = values
    return placed


def _p_reference(
    scores: Scores, values: np.ndarray, mean: np.ndarray, ranked: np.ndarray, equal: float
) -> np.ndarray:
    """P-value of each ranked method against the best reference line, corrected for all of them.

    On the explanations that are defined for this line, too; NaN without any line.
    """
    lines = scores.methods["reference_line"].to_numpy(dtype=bool) & ~np.isnan(mean)
    if not lines.any() or not ranked.any():
        return np.full(ranked.sum(), np.nan)
    best = np.nanargmax(np.where(lines, mean if scores.higher_is_better else -mean, np.nan))
    rows = ~np.isnan(values[:, best])
    _, images = np.unique(scores.images[rows], return_inverse=True)
    differences = values[rows][:, ranked] - values[rows][:, [best]]
    sums, _ = image_sums(images, differences, int(images.max()) + 1)
    zero = np.zeros((len(sums), 1))
    margin = equal * rows.sum() / len(sums)
    p = [statistics.paired_p_values(np.hstack([zero, s[:, None]]), margin)[0, 1] for s in sums.T]
    return statistics.holm(np.array(p))


def _pairs(table: pd.DataFrame, p: np.ndarray, corrected: np.ndarray) -> pd.DataFrame:
    """The frame ``Ranking.pairs`` of ranked methods, from p-values in their order (K, K)."""
    methods, means = table["method"].to_numpy(), table["mean"].to_numpy()
    best_first = np.argsort(table["rank"].to_numpy(), kind="stable")
    rows = [
        (methods[i], methods[j], means[i] - means[j], p[i, j], corrected[i, j])
        for i, j in combinations(best_first, 2)
    ]
    found = pd.DataFrame(rows, columns=list(PAIRS[2:]))
    for name in ("protocol", "setting"):
        found.insert(0, name, table[name].iloc[0] if len(table) else "")
    return found


def _correlations(point: Sequence[np.ndarray], drawn: Sequence[np.ndarray]) -> list[float]:
    """CORRELATIONS of two orders (K,), with intervals from their resampled ranks (R, K)."""
    if len(point[0]) < LEAST_METHODS:
        return [np.nan] * len(CORRELATIONS)
    found: list[float] = []
    for correlation in (statistics.kendall, statistics.spearman):
        low, high = interval(correlation(drawn[0], drawn[1])[:, None])
        found += [float(correlation(point[0], point[1])), float(low[0]), float(high[0])]
    return found
