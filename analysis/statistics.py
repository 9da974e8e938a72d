"""Means over images with their uncertainty: bootstrap, ranks, paired tests, ties, agreement.

The unit is the image: several explanations of one image stay together, and all methods see the same
images in every resample. Letters: N explanations, I images, M methods (columns), R resamples.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
"""How often the images are drawn anew."""
CONFIDENCE = 0.95
"""Of every interval."""
ALPHA = 0.05
"""Methods differ where a corrected p-value is below this."""
EQUAL = 1e-6
"""Means that differ by less than this, in units of the scores' root mean square, are one number:
single precision tells them apart no better."""
BLOCK_BYTES = 64 * 2**20
"""Memory for the counts of a block of resamples."""
KEPT_BYTES = 16 * 2**20
"""Counts that take no more than this are kept for the next columns of as many images."""


def image_sums(images: np.ndarray, scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the defined scores of each image, both (I, M) float64.

    Args:
        images: which image each explanation belongs to, (N,) int within [0, count).
        scores: (N, M), NaN where undefined.
        count: I.
    """
    defined = ~np.isnan(scores)
    values = np.where(defined, scores, 0.0)

    def by_image(table: np.ndarray) -> np.ndarray:
        columns = [np.bincount(images, weights=column, minlength=count) for column in table.T]
        return np.stack(columns, axis=1) if columns else np.empty((count, 0))

    if np.all(defined == defined[:, :1]):  # one count serves all columns
        counts = np.repeat(by_image(defined[:, :1]), scores.shape[1], axis=1)
    else:
        counts = by_image(defined)
    return by_image(values), counts


def means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over all explanations, (M,), from ``image_sums``; NaN where there are none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums.sum(0) / counts.sum(0))


def resampled_means(
    sums: np.ndarray, counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Means over images drawn with replacement, (R, M); every column sees the same draws.

    One product of multinomial counts (R, I) with the sums, in blocks of BLOCK_BYTES and in single
    precision: what is summed are distances from the mean, so that nothing cancels.

    Args:
        sums: as ``image_sums`` gives them, (I, M).
        counts: likewise.
        resamples: R.
        seed: of the draws; equal seeds draw equal images.
    """
    images, center = len(sums), means(sums, counts)
    kept: dict[bytes, int] = {}
    of_column = np.array(
        [kept.setdefault(c.tobytes(), len(kept)) for c in np.ascontiguousarray(counts.T)], dtype=int
    )
    distinct = counts[:, [int(np.argmax(of_column == k)) for k in range(len(kept))]]
    table = np.hstack([sums - counts * np.nan_to_num(center), distinct]).astype(np.float32)
    block = max(1, BLOCK_BYTES // (4 * max(1, images)))
    if not images or not resamples:
        return np.full((resamples, sums.shape[1]), np.nan)
    if 4 * images * resamples <= KEPT_BYTES:
        drawn = (_kept_counts(images, resamples, seed) @ table).astype(np.float64)
    else:
        random = np.random.default_rng(seed)
        sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
        parts = [_drawn_counts(random, images, size) @ table for size in sizes]
        drawn = np.concatenate(parts).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            center + drawn[:, : len(of_column)] / drawn[:, len(of_column) :][:, of_column]
        )


@lru_cache(maxsize=8)
def _kept_counts(images: int, resamples: int, seed: int) -> np.ndarray:
    """All draws at once, kept: reports compare many columns of equally many images."""
    return _drawn_counts(np.random.default_rng(seed), images, resamples)


def _drawn_counts(random: np.random.Generator, images: int, resamples: int) -> np.ndarray:
    """How often each image is drawn in each resample, (R, I) float32."""
    counts = np.empty((resamples, images), dtype=np.float32)
    for row in counts:
        row[:] = np.bincount(random.integers(0, images, images), minlength=images)
    return counts


def interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of each column of (R, M); resamples that are NaN are left out."""
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.full((2, *resampled.shape[1:]), np.nan)
    gaps = np.isnan(resampled)
    known = ~gaps.all(0)
    if known.any():
        quantile = np.nanquantile if gaps.any() else np.quantile
        low[known], high[known] = quantile(resampled[:, known], ends, axis=0)
    return low, high


def rank_interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of ranks (R, M), by ranks that occur, (M,) each; NaN if R is 0."""
    if not len(resampled):
        return np.full(resampled.shape[1], np.nan), np.full(resampled.shape[1], np.nan)
    tail = (1 - CONFIDENCE) / 2
    low = np.quantile(resampled, tail, axis=0, method="lower")
    return low, np.quantile(resampled, 1 - tail, axis=0, method="higher")


def equality(scores: np.ndarray) -> float:
    """The difference below which means of these scores are one number."""
    defined = scores[~np.isnan(scores)]
    return EQUAL * float(np.sqrt(np.square(defined).mean())) if defined.size else 0.0


def ranks(means: np.ndarray, higher_is_better: bool, equal: float = 0.0) -> np.ndarray:
    """Rank of each mean along the last axis of (..., M), from 1, the best; ties share the mean.

    Args:
        means: without NaN.
        higher_is_better: which end is the best.
        equal: as ``equality`` gives it.
    """
    ahead = means[..., None, :] - means[..., :, None]
    if not higher_is_better:
        ahead = -ahead
    return np.asarray(
        0.5 + (ahead > equal).sum(-1) + 0.5 * (np.abs(ahead) <= equal).sum(-1), dtype=np.float64
    )


def paired_p_values(sums: np.ndarray, equal: float = 0.0) -> np.ndarray:
    """Two-sided p-value of every pair of columns of (I, M), (M, M), by Student's paired test.

    The differences of an image's sums are tested, one number an image. Columns that differ by no
    more than ``equal`` on average have 1, as all have where there is but one image.
    """
    images, columns = sums.shape
    p = np.ones((columns, columns))
    if images < 2:
        return p
    from scipy.stats import ttest_1samp  # only here: it takes most of a second

    for i in range(columns - 1):
        differences = sums[:, i + 1 :] - sums[:, [i]]
        apart = np.abs(differences.mean(0)) > equal
        if apart.any():
            with warnings.catch_warnings():  # differences that are all the same have p = 0
                warnings.simplefilter("ignore", RuntimeWarning)
                found = ttest_1samp(differences[:, apart], 0.0, axis=0).pvalue
            p[i, i + 1 :][apart] = p[i + 1 :, i][apart] = found
    return p


def holm(p: np.ndarray) -> np.ndarray:
    """P-values (K,) corrected for K tests, so that the chance of any false finding is kept.

    Source: Holm, 1979.
    """
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def holm_pairs(p: np.ndarray) -> np.ndarray:
    """The pairs of a symmetric (M, M) corrected as one family."""
    upper = np.triu_indices(len(p), 1)
    corrected = np.ones(p.shape)
    corrected[upper] = corrected.T[upper] = holm(p[upper])
    return corrected


def tie_groups(ranks: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Group of each method, (M,) int from 1: from the best on, a group ends before its leader wins.

    Args:
        ranks: (M,).
        p: corrected p-values of all pairs, (M, M).
    """
    groups = np.zeros(len(ranks), dtype=int)
    leader, group = -1, 0
    for method in np.argsort(ranks, kind="stable"):
        if leader < 0 or p[leader, method] < ALPHA:
            leader, group = int(method), group + 1
        groups[method] = group
    return groups


def kendall(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of the last axes of two (..., M), within [-1, 1]; NaN where one is constant.

    Source: Kendall, 1945, as scipy.stats.kendalltau.
    """
    i, j = np.triu_indices(first.shape[-1], 1)
    one, other = np.sign(first[..., i] - first[..., j]), np.sign(second[..., i] - second[..., j])
    untied = np.square(one).sum(-1) * np.square(other).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((one * other).sum(-1) / np.sqrt(untied))


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rho of the last axes of two (..., M), within [-1, 1]; NaN where one is constant.

    Source: Spearman, 1904, with mean ranks as scipy.stats.spearmanr.
    """
    from scipy.stats import rankdata  # only here: it takes most of a second

    middle = (first.shape[-1] + 1) / 2
    one, other = (rankdata(side, axis=-1) - middle for side in (first, second))
    spread = np.square(one).sum(-1) * np.square(other).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((one * other).sum(-1) / np.sqrt(spread))
