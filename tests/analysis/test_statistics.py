"""Intervals hold what they promise; tests, ties and correlations are those of the textbooks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis import statistics
from analysis.statistics import (
    holm,
    holm_pairs,
    image_sums,
    interval,
    kendall,
    means,
    paired_p_values,
    rank_interval,
    ranks,
    resampled_means,
    spearman,
    tie_groups,
)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_sums_and_counts_leave_undefined_scores_out() -> None:
    scores = np.array([[1.0, np.nan], [2.0, 5.0], [4.0, 6.0]])
    sums, counts = image_sums(np.array([0, 0, 2]), scores, 4)
    np.testing.assert_array_equal(sums, [[3, 5], [0, 0], [4, 6], [0, 0]])
    np.testing.assert_array_equal(counts, [[2, 1], [0, 0], [1, 1], [0, 0]])
    np.testing.assert_allclose(means(sums, counts), [7 / 3, 5.5])


def test_resampled_means_are_those_of_a_plain_loop(random: np.random.Generator) -> None:
    images = np.sort(random.integers(0, 20, 50))
    scores = random.normal(5, 1, (50, 3))
    scores[random.random((50, 3)) < 0.2] = np.nan
    found = resampled_means(*image_sums(images, scores, 20), resamples=30, seed=4)
    draws = np.random.default_rng(4)
    for row in found:
        drawn = draws.integers(0, 20, 20)
        together = np.concatenate([scores[images == image] for image in drawn])
        np.testing.assert_allclose(row, np.nanmean(together, axis=0), rtol=1e-6)


def test_blocks_and_equal_seeds_change_nothing(
    random: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = image_sums(np.arange(40), random.normal(size=(40, 3)), 40)
    whole = resampled_means(*table, resamples=25)
    monkeypatch.setattr(statistics, "BLOCK_BYTES", 7 * 4 * 40)
    np.testing.assert_allclose(resampled_means(*table, resamples=25), whole, atol=1e-7)
    assert np.abs(resampled_means(*table, resamples=25, seed=1) - whole).max() > 0.01


def test_small_spreads_on_large_means_keep_their_digits(random: np.random.Generator) -> None:
    scores = 1e4 + random.normal(size=(500, 1))
    found = resampled_means(*image_sums(np.arange(500), scores, 500), resamples=1000)
    assert found.std() == pytest.approx(scores.std() / np.sqrt(500), rel=0.1)


def test_interval_is_scipys(random: np.random.Generator) -> None:
    scores = random.exponential(size=(80, 1))
    low, high = interval(resampled_means(*image_sums(np.arange(80), scores, 80), resamples=9999))
    theirs = stats.bootstrap(
        (scores[:, 0],), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert low[0] == pytest.approx(theirs.low, abs=0.05 * width)
    assert high[0] == pytest.approx(theirs.high, abs=0.05 * width)


def test_intervals_hold_the_truth_in_95_of_100_studies(random: np.random.Generator) -> None:
    # 1000 studies side by side as columns: 100 images, three explanations each, truth 0
    images = np.repeat(np.arange(100), 3)
    of_image = random.normal(size=(100, 1000))
    scores = of_image[images] + 0.5 * random.normal(size=(300, 1000))
    low, high = interval(resampled_means(*image_sums(images, scores, 100), resamples=1000))
    assert ((low < 0) & (high > 0)).mean() == pytest.approx(0.945, abs=0.02)


def test_explanations_taken_for_images_would_hold_it_far_less_often(
    random: np.random.Generator,
) -> None:
    images = np.repeat(np.arange(100), 3)
    scores = random.normal(size=(100, 500))[images] + 0.5 * random.normal(size=(300, 500))
    low, high = interval(resampled_means(*image_sums(np.arange(300), scores, 300), resamples=400))
    assert ((low < 0) & (high > 0)).mean() < 0.85


def test_what_was_never_defined_has_no_interval() -> None:
    scores = np.array([[1.0, np.nan], [2.0, np.nan]])
    low, high = interval(resampled_means(*image_sums(np.arange(2), scores, 2), resamples=50))
    assert np.isfinite([low[0], high[0]]).all()
    assert np.isnan([low[1], high[1]]).all()
    empty = resampled_means(*image_sums(np.arange(0), np.empty((0, 2)), 0), resamples=5)
    assert np.isnan(interval(empty)).all()


@pytest.mark.parametrize("higher", [True, False])
def test_ranks_are_scipys(random: np.random.Generator, higher: bool) -> None:
    values = random.integers(0, 5, (20, 7)).astype(float)
    expected = stats.rankdata(-values if higher else values, axis=1)
    np.testing.assert_array_equal(ranks(values, higher), expected)


def test_means_within_rounding_share_a_rank() -> None:
    values = np.array([0.3, 0.3 + 1e-8, 0.1])
    assert ranks(values, True, 1e-6).tolist() == [1.5, 1.5, 3]
    assert ranks(values, True).tolist() == [2, 1, 3]


def test_rank_intervals_are_ranks_that_occur() -> None:
    low, high = rank_interval(np.array([[1.0, 2.0]] * 90 + [[2.0, 1.0]] * 10))
    assert low.tolist() == [1, 1]
    assert high.tolist() == [2, 2]
    low, high = rank_interval(np.array([[1.0, 2.0]] * 99 + [[2.0, 1.0]]))
    assert (low.tolist(), high.tolist()) == ([1, 2], [1, 2])


def test_paired_tests_are_scipys(random: np.random.Generator) -> None:
    sums = random.normal([0, 0, 0.3, 1], size=(30, 4))
    p = paired_p_values(sums)
    np.testing.assert_array_equal(p, p.T)
    for i in range(4):
        for j in range(i):
            assert p[i, j] == pytest.approx(stats.ttest_rel(sums[:, i], sums[:, j]).pvalue)


def test_equal_columns_and_single_images_are_never_told_apart(
    random: np.random.Generator,
) -> None:
    one = random.normal(size=(1000, 1))
    shifted = one + 1e-9  # by rounding, yet always the same way
    assert paired_p_values(np.hstack([one, one, shifted]), equal=1e-6).tolist() == [[1.0] * 3] * 3
    assert paired_p_values(np.array([[0.0, 1.0]])).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_holms_correction_is_that_of_the_paper() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(corrected, [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]
    assert holm(np.array([])).tolist() == []


def test_equal_methods_are_told_apart_in_few_studies(random: np.random.Generator) -> None:
    found = []
    for _ in range(150):
        sums = random.normal(size=(40, 1)) + random.normal(size=(40, 5))
        found.append((holm_pairs(paired_p_values(sums)) < 0.05).any())
    assert np.mean(found) <= 0.1  # 0.05 at most, with the noise of 150 studies


def test_a_tie_group_ends_where_its_best_wins() -> None:
    # a ~ b, b ~ c, a > c: c begins a group of its own
    p = np.ones((3, 3))
    p[0, 2] = p[2, 0] = 0.01
    assert tie_groups(np.array([1.0, 2.0, 3.0]), p).tolist() == [1, 1, 2]
    assert tie_groups(np.array([3.0, 2.0, 1.0]), p).tolist() == [2, 1, 1]
    assert tie_groups(np.array([]), np.ones((0, 0))).tolist() == []


@pytest.mark.parametrize(
    ("ours", "theirs"), [(kendall, stats.kendalltau), (spearman, stats.spearmanr)]
)
def test_correlations_are_scipys(random: np.random.Generator, ours, theirs) -> None:
    first, second = random.integers(0, 6, (2, 10, 8)).astype(float)
    expected = [theirs(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(ours(first, second), expected)
    assert ours(first[0], first[0]) == pytest.approx(1)
    assert np.isnan(ours(np.ones(4), np.arange(4.0)))
