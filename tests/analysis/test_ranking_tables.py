"""Tables of rankings fit a terminal; figures show what the tables say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from analysis.ranking import Ranking, agreement, rank, rankings
from analysis.ranking_plots import curves_figure, ranking_figure
from analysis.ranking_sentences import agreement_sentence, reading
from analysis.ranking_tables import agreement_tables, ranking_table, score, span
from analysis.scores import Scores
from analysis.tables import NONE, text

Make = Callable[..., Scores]
LONGEST = "smooth_grad_input_x_gradient_abs"


@pytest.fixture(autouse=True)
def no_global_figure() -> Iterator[None]:
    """Nothing is drawn through matplotlib's global state."""
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def ranking(make_scores: Make) -> Ranking:
    random = np.random.default_rng(0)
    columns = {name: random.normal(0, 0.5, 100) for name in "abcdefgh"}
    columns[LONGEST] = np.where(np.arange(100) < 90, random.normal(-0.3, 0.5, 100), np.nan)
    columns["best"] = 2 + columns["a"]
    columns["rare"] = np.where(np.arange(100) < 5, 0.5, np.nan)
    columns["random"] = random.normal(0, 0.5, 100)
    columns["uniform"] = np.full(100, np.nan)
    return rank(make_scores(columns), 100, 200)


def test_scores_have_three_digits_and_intervals_two_ends() -> None:
    assert score(0.2361) == "0.236"
    assert score(float("nan")) == NONE
    assert span(-0.01, 0.02) == "-0.010 to 0.020"
    assert span(float("nan"), float("nan")) == NONE


def test_table_fits_a_terminal_with_every_name_whole(ranking: Ranking) -> None:
    lines = text(ranking_table(ranking)).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)
    assert lines[0] == "idsds · network · higher is better · 90 images"
    assert len(lines) == 2 + 13


def test_what_is_not_ranked_has_dashes_and_stands_where_its_mean_does(ranking: Ranking) -> None:
    table = ranking_table(ranking).set_index("method")
    assert table.loc["best", ["rank", "tie"]].tolist() == ["1", "1"]
    assert table.loc[["rare", "random (reference)"], "rank"].tolist() == [NONE, NONE]
    assert table.index.tolist()[1] == "rare"
    assert table.loc["uniform (reference)", "mean"] == NONE
    assert "undef. as 0" in table


def test_readings_say_who_leads_and_what_cannot_be_ranked(
    ranking: Ranking, make_scores: Make
) -> None:
    assert reading(ranking).startswith("best leads with 2.")
    assert "; 1 of 10 methods beat the best reference line, random" in reading(ranking)
    nothing = rank(make_scores({"a": [np.nan, np.nan], "b": [1.0, 2.0]}), 2, 10)
    assert reading(nothing).startswith("b leads")
    none = rank(make_scores({"a": [np.nan, np.nan]}), 2, 10)
    assert reading(none) == "No method is defined often enough to be ranked."


def test_matrix_of_agreement_is_symmetric_and_breaks_after_ten(make_scores: Make) -> None:
    random = np.random.default_rng(2)
    names = [f"protocol{i:02d}" for i in range(12)]
    made = [
        make_scores({k: random.normal(size=30) for k in "abcde"}, protocol=name) for name in names
    ]
    found = agreement(rankings(made, 50))
    first, second = agreement_tables(found)
    assert list(first)[3:] == [str(i) for i in range(1, 11)]
    assert list(second)[3:] == ["11", "12"]
    cells = pd.concat([first.iloc[:, 3:], second.iloc[:, 3:]], axis=1).astype(float).to_numpy()
    np.testing.assert_array_equal(cells, cells.T)
    assert max(len(line) for line in text(first).splitlines()) <= 100
    assert agreement_sentence("network", found).startswith("Agreement of protocols: most ")


def test_figure_has_a_dot_for_each_method_and_a_line_for_each_reference(ranking: Ranking) -> None:
    figure = ranking_figure(ranking, "title", "caption")
    (ax,) = figure.axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "best"
    assert names[-1] == "rare"  # hollow, below those with a rank
    assert set(names) == {*"abcdefgh", LONGEST, "best", "rare"}
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() for dot in dots[-1:]] == ["white"]
    shown = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert shown[-1] == "random"
    assert ax.get_xlabel() == "idsds, mean over explanations (higher is better)"


def test_curves_of_the_best_are_named_and_the_others_gray(ranking: Ranking) -> None:
    x = np.arange(5) / 5
    parts = [
        pd.DataFrame({"x": x, "mean": 1 - x, "low": 0.9 - x, "high": 1.1 - x}).assign(
            method=row["method"], label=row["label"], reference_line=row["reference_line"]
        )
        for _, row in ranking.methods.iterrows()
    ]
    figure = curves_figure(ranking, pd.concat(parts), "title", "caption")
    shown = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert shown[0] == "best"
    assert shown[-3:] == ["random", "uniform", "other methods"]
    assert len(shown) == 6 + 3
    assert len(figure.axes[0].lines) == 13


def test_figures_without_methods_or_intervals_are_drawn_all_the_same(make_scores: Make) -> None:
    for columns in ({"a": [np.nan, np.nan]}, {"a": [0.5]}, {"random": [0.5, 0.2]}):
        found = rank(make_scores(columns), len(next(iter(columns.values()))), 10)
        ranking_figure(found, "title", reading(found)).canvas.draw()
        text(ranking_table(found))
