"""Differences of scores: their intervals are those of a plain bootstrap over images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.probing_rows import (
    Column,
    columns_of,
    gain,
    level,
    over_seeds,
    share_gain,
    wilson,
)
from analysis.statistics import RESAMPLES

IMAGES = [f"m{k:02d}" for k in range(30)]


def column(scores: np.ndarray, names: list[str] = IMAGES) -> Column:
    """Two explanations of each image."""
    images = np.repeat(np.array(names, dtype=object), 2)
    targets = np.tile([0, 1], len(names))
    return Column(images, targets, scores.ravel().astype(float), np.full(2 * len(names), 0.1))


def made(level: float, seed: int) -> np.ndarray:
    shared = np.random.default_rng(3).normal(0, 0.2, (30, 1))
    return level + shared + np.random.default_rng(seed).normal(0, 0.05, (30, 2))


def plain_interval(first: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Percentiles of the mean difference over images drawn with replacement, one by one."""
    random, found = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, 30, 30)
        found.append(np.nanmean(first[drawn] - other[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    return low, high


def test_paired_gain_is_that_of_a_plain_bootstrap() -> None:
    own, rival = made(0.5, 1), made(0.4, 2)
    own[4, 1] = np.nan  # undefined on one side: left out of both
    found = gain(column(own), column(rival))
    both = np.isfinite(own)
    assert found.paired
    assert found.units == 30
    assert found.value == pytest.approx(own[both].mean())
    assert found.against == pytest.approx(rival[both].mean())
    assert found.effect == pytest.approx((own - rival)[both].mean())
    np.testing.assert_allclose(found.interval, plain_interval(own, rival), atol=1e-6)


def test_pairs_tell_more_than_two_samples() -> None:
    own, rival = made(0.45, 1), made(0.4, 2)
    other = column(rival, [f"other{k}" for k in range(30)])
    paired, apart = gain(column(own), column(rival)), gain(column(own), other)
    assert (paired.paired, apart.paired) == (True, False)
    assert apart.effect == pytest.approx(paired.effect)
    assert paired.interval[0] > 0 > apart.interval[0]
    spread = np.sqrt(sum(x.mean(1).var() / 30 for x in (own, rival)))
    assert apart.draws.std() == pytest.approx(spread, rel=0.05)


def test_other_orders_are_aligned_by_image_and_class() -> None:
    own, rival = column(made(0.5, 1)), column(made(0.4, 2))
    order = np.random.default_rng(0).permutation(60)
    shuffled = rival.where(order)
    assert gain(own, shuffled).effect == pytest.approx(gain(own, rival).effect)
    assert gain(own, shuffled).paired


def test_a_few_images_in_common_make_no_pairs() -> None:
    own, rival = (
        column(made(0.5, 1)),
        column(made(0.4, 2), [*IMAGES[:5], *"abcdefghijklmnopqrstuvwxy"]),
    )
    assert not gain(own, rival).paired


def test_one_image_has_no_interval() -> None:
    one = column(np.array([[0.4, 0.6]]), ["a"])
    found = gain(one, one.filled(0.0))
    assert np.isnan(found.interval).all()
    assert np.isnan(found.p_value)


def test_undefined_scores_can_count_as_a_value() -> None:
    own, rival = made(0.5, 1), made(0.4, 2)
    own[0] = np.nan
    found = gain(column(own).filled(0.0), column(rival).filled(0.0))
    assert found.value == pytest.approx(np.nan_to_num(own).mean())


def test_over_seeds_the_mean_counts_and_each_is_kept() -> None:
    gains = [gain(column(made(0.5, k)), column(made(0.4, 9 + k))) for k in range(3)]
    found = over_seeds(gains)
    assert found.each == tuple(g.effect for g in gains)
    assert found.effect == pytest.approx(np.mean(found.each))
    assert found.interval[0] < found.effect < found.interval[1]
    assert np.diff(found.interval) < np.diff(gains[0].interval)


def test_a_gain_over_a_gain_is_drawn_from_the_same_images() -> None:
    raw = gain(column(made(0.7, 1)), column(made(0.4, 2)))
    centered = gain(column(made(0.5, 3)), column(made(0.4, 2)))
    found = raw.minus(centered)
    assert found.effect == pytest.approx(raw.effect - centered.effect)
    expected = plain_interval(made(0.7, 1) - made(0.5, 3), np.zeros((30, 2)))
    np.testing.assert_allclose(found.interval, expected, atol=1e-6)


def test_p_value_is_that_of_the_spread_over_images() -> None:
    own, rival = made(0.41, 1), made(0.4, 2)
    expected = stats.ttest_1samp((own - rival).mean(1), 0).pvalue
    assert gain(column(own), column(rival)).p_value == pytest.approx(expected, abs=0.03)


def test_level_is_a_mean_with_its_interval() -> None:
    scores = made(0.5, 1)
    found = level(column(scores))
    assert found.value == found.effect == pytest.approx(scores.mean())
    np.testing.assert_allclose(found.interval, plain_interval(scores, np.zeros((30, 2))), atol=1e-6)


@pytest.mark.parametrize(("hits", "images"), [(0, 50), (10, 50), (50, 50), (123, 200)])
def test_wilson_is_that_of_scipy(hits: int, images: int) -> None:
    expected = stats.binomtest(hits, images).proportion_ci(method="wilson")
    np.testing.assert_allclose(
        wilson(hits / images, images), (expected.low, expected.high), atol=1e-9
    )


def test_wilson_of_nothing_is_unknown() -> None:
    assert np.isnan(wilson(0.5, 0)).all()
    assert np.isnan(wilson(np.nan, 10)).all()


def test_shares_differ_by_the_normal_interval() -> None:
    found = share_gain(0.7, 0.6, 200)
    half = 1.96 * np.sqrt((0.7 * 0.3 + 0.6 * 0.4) / 200)
    np.testing.assert_allclose(found.interval, (0.1 - half, 0.1 + half), atol=2e-3)
    assert np.isnan(share_gain(0.7, 0.6, np.nan).interval).all()


def test_rows_come_apart_by_protocol() -> None:
    rows = {"image_id": ["a", "a", "b"], "target": [1, 1, 2], "score": [0.1, 0.2, np.nan]}
    table = pd.DataFrame({**rows, "protocol_key": ["epg", "gini", "epg"]})
    found = columns_of(table)
    assert found["epg"].images.tolist() == ["a", "b"]
    np.testing.assert_array_equal(found["epg"].scores, [0.1, np.nan])
    assert np.isnan(found["gini"].areas).all()
    assert columns_of(pd.DataFrame()) == {}
