"""Rankings on simulated scores whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis.ranking import (
    Ranking,
    agreement,
    beside_paper,
    paper_order,
    rank,
    rankings,
)
from analysis.scores import Scores

Make = Callable[..., Scores]


def ranked(scores: Scores, resamples: int = 500) -> pd.DataFrame:
    """The methods by their keys."""
    images = int(scores.images.max(initial=-1)) + 1
    return rank(scores, images, resamples).methods.set_index("method")


def noisy(*levels: float, count: int = 200, seed: int = 0) -> list[np.ndarray]:
    """Columns of scores with these true means; images are shared, so that pairs are close."""
    random = np.random.default_rng(seed)
    shared = random.normal(0, 0.3, count)
    return [level + shared + random.normal(0, 0.1, count) for level in levels]


def test_methods_stand_in_their_true_order_with_their_means(make_scores: Make) -> None:
    low, high, middle = noisy(0.1, 0.5, 0.3)
    rows = ranked(make_scores({"low": low, "high": high, "middle": middle}))
    assert rows.index.tolist() == ["high", "middle", "low"]
    assert rows["rank"].tolist() == rows["rank_low"].tolist() == [1, 2, 3]
    assert rows["group"].tolist() == [1, 2, 3]
    assert rows.loc["high", "mean"] == pytest.approx(high.mean())
    assert ((rows["low"] < rows["mean"]) & (rows["mean"] < rows["high"])).all()
    assert rows[["images", "explanations"]].to_numpy().tolist() == [[200, 200]] * 3


def test_equal_methods_are_one_group_and_share_a_rank(make_scores: Make) -> None:
    cam, other = noisy(0.5, 0.2)
    rounding = np.random.default_rng(1).uniform(0, 2e-7, 200)
    columns = {"grad_cam": cam, "saliency": other, "xgrad_cam": cam + rounding}
    rows = ranked(make_scores(columns))
    assert rows.loc[["grad_cam", "xgrad_cam"], "rank"].tolist() == [1.5, 1.5]
    assert rows.loc[["grad_cam", "xgrad_cam"], "rank_high"].tolist() == [1.5, 1.5]
    assert rows["group"].tolist() == [1, 1, 2]


def test_methods_without_a_difference_are_not_told_apart(make_scores: Make) -> None:
    found = rank(make_scores(dict(zip("abcd", noisy(0.3, 0.3, 0.3, 0.0), strict=True))), 200, 500)
    rows = found.methods.set_index("method")
    assert rows.loc[["a", "b", "c"], "group"].tolist() == [1, 1, 1]
    assert rows.loc["d", "group"] == 2
    assert (rows.loc[["a", "b", "c"], "rank_high"] > 1).all()
    assert len(found.pairs) == 6
    assert (found.pairs["p_holm"] >= found.pairs["p"]).all()
    assert (found.pairs["difference"] >= 0).all()  # the better stands first


def test_lower_is_better_turns_everything_around(make_scores: Make) -> None:
    columns = dict(zip("abc", noisy(0.1, 0.2, 0.3), strict=True))
    up = ranked(make_scores({key: -column for key, column in columns.items()}))
    down = ranked(make_scores(columns, higher_is_better=False))
    for name in ("rank", "rank_low", "rank_high", "group"):
        pd.testing.assert_series_equal(up[name], down[name])
    np.testing.assert_allclose(up["mean"], -down["mean"])
    np.testing.assert_allclose(up["low"], -down["high"], rtol=1e-6)


def test_methods_are_compared_on_what_is_defined_for_all(make_scores: Make) -> None:
    # easy images score 0.8, hard ones 0.2; b is worse on each, yet undefined on the hard ones
    level = np.where(np.arange(100) % 2 == 0, 0.8, 0.2)
    b = np.where(level > 0.5, level - 0.1, np.nan)
    rows = ranked(make_scores({"a": level, "b": b}))
    assert np.nanmean(b) > level.mean()
    assert rows.index.tolist() == ["a", "b"]
    assert rows["mean"].tolist() == pytest.approx([0.8, 0.7])
    assert rows["defined_fraction"].tolist() == [1, 0.5]
    assert rows["explanations"].tolist() == [50, 50]


def test_undefined_as_nothing_stands_beside_it(make_scores: Make) -> None:
    columns = {"a": [0.2, 0.2, 0.2, 0.2], "b": [0.3, 0.3, np.nan, np.nan]}
    rows = ranked(make_scores(columns))
    assert rows["rank"].to_dict() == {"b": 1, "a": 2}
    assert rows["filled_mean"].to_dict() == pytest.approx({"b": 0.15, "a": 0.2})
    assert rows["filled_rank"].to_dict() == {"b": 2, "a": 1}


def test_undefined_is_the_worst_of_all_where_lower_is_better(make_scores: Make) -> None:
    # a dead map has entropy 0, which would be the best: undefined must not be
    columns = {"a": [7.0, 8.0, 7.0, 9.0], "dead": [1.0, 1.0, 1.0, np.nan]}
    rows = ranked(make_scores(columns, higher_is_better=False))
    assert rows.loc["dead", "filled_with"] == 9
    assert rows.loc["dead", "filled_mean"] == pytest.approx(3)


def test_a_method_that_is_hardly_defined_takes_nothing_from_others(make_scores: Make) -> None:
    rare = np.where(np.arange(200) < 20, 0.9, np.nan)
    never = np.full(200, np.nan)
    a, b = noisy(0.3, 0.2)
    rows = ranked(make_scores({"a": a, "b": b, "rare": rare, "never": never}))
    assert rows.loc[["a", "b"], "explanations"].tolist() == [200, 200]
    assert rows.loc[["rare", "never"], ["rank", "group"]].isna().all(axis=None)
    assert rows.loc["rare", "mean"] == pytest.approx(0.9)
    assert rows.loc["rare", "filled_rank"] == 3
    assert np.isnan(rows.loc["never", "mean"])


def test_reference_lines_are_shown_but_neither_ranked_nor_in_the_way(make_scores: Make) -> None:
    a, b, c = noisy(0.3, 0.1, 0.1)
    columns = {"a": a, "b": b, "uniform": np.full(200, np.nan), "random": c}
    rows = ranked(make_scores(columns))
    assert rows["rank"].dropna().to_dict() == {"a": 1, "b": 2}
    assert rows.loc["a", "explanations"] == 200
    assert rows.loc["random", "mean"] == pytest.approx(c.mean())
    assert rows.loc["a", "p_reference"] < 0.001
    assert rows.loc["b", "p_reference"] > 0.05
    assert rows.loc[["uniform", "random"], "p_reference"].isna().all()


def test_explanations_of_one_image_are_one_observation(make_scores: Make) -> None:
    a, b = noisy(0.3, 0.28, count=60)
    once = ranked(make_scores({"a": a, "b": b}))
    images = np.repeat(np.arange(60), 10)
    repeated = {"a": np.repeat(a, 10), "b": np.repeat(b, 10)}
    together = ranked(make_scores(repeated, images))
    names = ["mean", "low", "high", "rank_low", "rank_high", "group"]
    np.testing.assert_allclose(together[names], once[names], rtol=1e-5)
    apart = ranked(make_scores(repeated))
    width = (once["high"] - once["low"]) / (apart["high"] - apart["low"])
    np.testing.assert_allclose(width, np.sqrt(10), rtol=0.15)


def test_order_of_rows_and_columns_changes_nothing(make_scores: Make) -> None:
    columns = dict(zip("abc", noisy(0.3, 0.28, 0.1), strict=True))
    images = np.arange(200) // 2
    turn = np.random.default_rng(5).permutation(200)
    turned = {key: columns[key][turn] for key in "cab"}
    one, other = ranked(make_scores(columns, images)), ranked(make_scores(turned, images[turn]))
    pd.testing.assert_frame_equal(one, other, rtol=1e-5)


def test_nothing_and_one_image_have_no_intervals(make_scores: Make) -> None:
    nothing = ranked(make_scores({"a": [], "b": []}))
    assert nothing[["rank", "mean", "low"]].isna().all(axis=None)
    one = ranked(make_scores({"a": [0.1, 0.2], "b": [0.3, 0.5]}, [0, 0]))
    assert one["rank"].to_dict() == {"b": 1, "a": 2}
    assert one[["low", "high", "rank_low", "rank_high"]].isna().all(axis=None)
    assert one["group"].tolist() == [1, 1]
    disjoint = ranked(make_scores({"a": [0.1, np.nan], "b": [np.nan, 0.5]}))
    assert disjoint["rank"].isna().all()
    assert disjoint["filled_rank"].to_dict() == {"a": 2, "b": 1}


def test_protocols_agree_by_the_better_end_of_each(make_scores: Make) -> None:
    columns = dict(zip("abcd", noisy(0.1, 0.2, 0.3, 0.4), strict=True))
    against = {key: 1 - column for key, column in columns.items()}
    found = agreement(
        rankings(
            [
                make_scores(columns),
                make_scores(against, protocol="entropy", higher_is_better=False),
                make_scores(against, protocol="gini"),
            ],
            resamples=300,
        )
    ).set_index(["protocol", "other"])
    for name in ("kendall", "spearman"):
        assert found.loc[("idsds", "entropy"), name] == pytest.approx(1)
        assert found.loc[("idsds", "gini"), name] == pytest.approx(-1)
        assert found.loc[("entropy", "gini"), f"{name}_high"] == pytest.approx(-1)
    assert found["methods"].tolist() == [4, 4, 4]


def test_agreement_is_over_common_methods_and_says_how_sure_it_is(make_scores: Make) -> None:
    keys = "abcdef"
    near = dict(zip(keys, noisy(*(0.3 + 0.002 * i for i in range(6))), strict=True))
    other = dict(zip(keys[1:], noisy(*(0.3 + 0.002 * i for i in range(5)), seed=1), strict=True))
    found = agreement(rankings([make_scores(near), make_scores(other, protocol="sds")], 400))
    row = found.iloc[0]
    assert row["methods"] == 5
    assert row["kendall_high"] - row["kendall_low"] > 0.3
    few = agreement(rankings([make_scores(near), make_scores({"a": near["a"]}, protocol="x")]))
    assert few[["kendall", "spearman"]].isna().all(axis=None)


def paper(make_scores: Make, network: str, dataset: str) -> tuple[list[Ranking], pd.DataFrame]:
    columns = dict(zip(("g", "r", "i", "mine"), noisy(0.25, 0.13, 0.07, 0.4), strict=True))
    names = {"g": "Grad-CAM", "r": "RISE", "i": "IxG"}
    found = rankings([make_scores(columns, paper=names), make_scores(columns, protocol="epg")])
    evaluated = pd.DataFrame({"setting": ["network"], "network": network, "dataset": dataset})
    return found, beside_paper(found, evaluated)


def test_papers_numbers_stand_beside_its_network_and_methods_only(make_scores: Make) -> None:
    found, beside = paper(make_scores, "resnet50", "imagenet")
    assert beside["comparable"].all()
    assert beside.set_index("paper")["published"].to_dict() == {
        "Grad-CAM": 0.236,
        "RISE": 0.131,
        "IxG": 0.070,
    }
    assert not paper(make_scores, "resnet50", "digit_scenes")[1]["comparable"].any()
    assert not paper(make_scores, "resnet18", "imagenet")[1]["comparable"].any()
    order = paper_order(found, beside)
    assert order["protocol"].tolist() == ["idsds"]
    assert order.loc[0, ["methods", "spearman", "kendall"]].tolist() == [3, 1, 1]


def test_nothing_of_the_papers_makes_empty_frames(make_scores: Make) -> None:
    found = rankings([make_scores({"a": [0.1, 0.2]})], 10)
    evaluated = pd.DataFrame({"setting": ["network"], "network": "n", "dataset": "d"})
    beside = beside_paper(found, evaluated)
    assert beside.empty
    assert not beside["comparable"].any()
    assert paper_order(found, beside).empty
