"""Dominance, fronts, coverage, hypervolume and the choice of one model.

The truth table for two objectives, bigger is better. Rows are a, columns b. W: a weakly
dominates b; S: strictly, hence weakly too; -: neither.

     second                     a | b     P   Q   R   T   U
       ^                         P       W   -   -   -   S
     2 |     Q       T           Q       W   W   -   -   S
     1 |     P       R           R       W   -   W   -   S
     0 | U                       T       S   W   W   W   S
       +---------------> first   U       -   -   -   -   W
         0   1       2

The weak front of all is {T}. The strict front is {Q, R, T}: Q and R are as good as T in one.
"""

from __future__ import annotations

import itertools
import logging
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from analysis.pareto import (
    BINNING,
    best_within_f1_loss,
    coverage,
    dominates,
    hypervolume,
    pareto_front,
    pooled_front,
)
from tests import reference

GOLDEN = Path(__file__).parents[1] / "golden" / "guidance" / "pareto.npz"
POINTS = {"P": (1, 1), "Q": (1, 2), "R": (2, 1), "T": (2, 2), "U": (0, 0)}
WEAKLY = {
    "P": {"P", "U"},
    "Q": {"P", "Q", "U"},
    "R": {"P", "R", "U"},
    "T": {"P", "Q", "R", "T", "U"},
    "U": {"U"},
}
STRICTLY = {"P": {"U"}, "Q": {"U"}, "R": {"U"}, "T": {"P", "U"}, "U": set()}
clouds = pytest.mark.parametrize("cloud", ["c0", "c1", "c2", "c3", "c4", "c5"])


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return dict(arrays)


def integer_tables(d: int, count: int = 60) -> list[np.ndarray]:
    """Random tables of few values: many ties and duplicates."""
    generator = np.random.default_rng(d)
    return [
        generator.integers(0, generator.integers(1, 7), size=(generator.integers(1, 25), d))
        for _ in range(count)
    ]


@pytest.mark.parametrize("a", POINTS)
@pytest.mark.parametrize("b", POINTS)
def test_dominance_follows_the_truth_table(a: str, b: str) -> None:
    assert bool(dominates(POINTS[a], POINTS[b])) == (b in WEAKLY[a])
    assert bool(dominates(POINTS[a], POINTS[b], dominance="strict")) == (b in STRICTLY[a])


def test_dominance_is_broadcast() -> None:
    points = np.array(list(POINTS.values()))
    table = dominates(points[:, None], points[None, :])
    assert table.shape == (5, 5)
    assert table.sum() == sum(map(len, WEAKLY.values()))


def test_fronts_of_the_truth_table() -> None:
    points, names = np.array(list(POINTS.values())), list(POINTS)
    assert [names[i] for i in pareto_front(points)] == ["T"]
    assert [names[i] for i in pareto_front(points, dominance="strict")] == ["Q", "R", "T"]


@clouds
def test_fronts_are_the_authors(golden: dict[str, np.ndarray], cloud: str) -> None:
    points = golden[f"{cloud}_points"]
    raw = pareto_front(points)
    assert raw.tolist() == golden[f"{cloud}_idx_raw"].tolist()
    assert np.isin(np.arange(len(points)), raw).tolist() == golden[f"{cloud}_mask_raw"].tolist()
    assert pareto_front(points[:, :2]).tolist() == golden[f"{cloud}_idx_raw_2d"].tolist()
    binned = pareto_front(points, binning=BINNING)
    assert binned.tolist() == golden[f"{cloud}_idx_binned"].tolist()


@clouds
def test_front_of_an_epoch_after_another_is_the_authors(
    golden: dict[str, np.ndarray], cloud: str
) -> None:
    points = golden[f"{cloud}_points"]
    kept: np.ndarray = np.empty(0, dtype=np.int64)
    for epoch, size in enumerate(golden[f"{cloud}_tracker_sizes"]):
        candidates = np.append(kept, epoch)
        kept = candidates[pareto_front(points[candidates], binning=BINNING)]
        assert len(kept) == size
        assert kept.tolist() == pareto_front(points[: epoch + 1], binning=BINNING).tolist()
    assert (kept + 1).tolist() == golden[f"{cloud}_tracker_epochs"].tolist()


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5])
def test_fronts_equal_brute_force_on_tables_with_ties(d: int) -> None:
    for table in integer_tables(d):
        points = table.tolist()
        assert pareto_front(table).tolist() == reference.weak_front(points)
        strict = pareto_front(table, dominance="strict")
        assert strict.tolist() == reference.strict_front(points)
        assert set(pareto_front(table)) <= set(strict)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("dominance", ["weak", "strict"])
@pytest.mark.parametrize("binning", [None, 2.0])
def test_front_of_a_front_is_itself(
    d: int, dominance: Literal["weak", "strict"], binning: float | None
) -> None:
    for table in integer_tables(d):
        front = table[pareto_front(table, binning=binning, dominance=dominance)]
        again = pareto_front(front, binning=binning, dominance=dominance)
        assert again.tolist() == list(range(len(front)))


@pytest.mark.parametrize("d", [2, 3])
def test_every_point_is_weakly_dominated_by_the_front(d: int) -> None:
    for table in integer_tables(d):
        front = table[pareto_front(table)]
        assert dominates(front[:, None], table[None, :]).any(axis=0).all()


def test_values_of_the_front_do_not_depend_on_the_order() -> None:
    for table in integer_tables(3):
        shuffled = np.random.default_rng(0).permutation(table)
        one, other = table[pareto_front(table)], shuffled[pareto_front(shuffled)]
        assert sorted(one.tolist()) == sorted(other.tolist())


def test_rounding_is_half_to_even_and_keeps_the_first_of_a_bin() -> None:
    # In steps of 2: 1 -> 0 (0.5 to even), 3 -> 4 (1.5 to even), 5 -> 4 (2.5 to even).
    assert pareto_front([[0.0], [1.0]], binning=2.0).tolist() == [0]
    assert pareto_front([[3.0], [5.0]], binning=2.0).tolist() == [0]
    assert pareto_front([[1.0], [3.0]], binning=2.0).tolist() == [1]
    assert pareto_front([[0.801, 0.6], [0.8, 0.6]], binning=BINNING).tolist() == [0]
    assert pareto_front([[0.8, 0.6], [0.801, 0.6]], binning=BINNING).tolist() == [0]
    assert pareto_front([[0.8, 0.6], [0.801, 0.6]]).tolist() == [1]


def test_front_of_nothing_is_empty() -> None:
    assert pareto_front(np.empty((0, 3))).tolist() == []
    assert pareto_front(np.empty((0, 3)), dominance="strict").tolist() == []


@pytest.mark.parametrize(
    ("points", "binning", "message"),
    [
        ([1.0, 2.0], None, r"shape \(2,\)"),
        (np.empty((2, 0)), None, r"shape \(2, 0\)"),
        ([[1.0, math.nan], [1.0, 1.0]], None, "1 of 2 points are not finite"),
        ([[1.0, math.inf]], None, "not finite"),
        ([[1.0, 1.0]], 0.0, "binning 0.0"),
        ([[1.0, 1.0]], -1.0, "binning -1.0"),
    ],
)
def test_bad_points_and_steps_are_refused(
    points: list[list[float]], binning: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pareto_front(points, binning=binning)


@pytest.fixture
def runs() -> pd.DataFrame:
    """Two losses, two lambdas, two epochs; the index is that of a larger table."""
    rows = [
        # loss, lambda, epoch, f1, epg
        ("energy", 1e-3, 1, 0.80, 0.50),
        ("energy", 1e-3, 2, 0.79, 0.60),
        ("l1", 1e-3, 1, 0.70, 0.40),
        ("l1", 1e-3, 2, 0.71, 0.41),
        ("energy", 5e-3, 1, 0.78, 0.55),
        ("energy", 5e-3, 2, 0.70, 0.70),
        ("l1", 5e-3, 1, 0.60, 0.42),
        ("l1", 5e-3, 2, 0.71, 0.41),
    ]
    columns = ["loss", "lambda_loc", "epoch", "f1", "epg"]
    return pd.DataFrame(rows, columns=columns, index=[10, 11, 12, 13, 14, 15, 16, 16])


def chosen(front: pd.DataFrame) -> list[tuple[str, float, int]]:
    return list(front[["loss", "lambda_loc", "epoch"]].itertuples(index=False, name=None))


def test_pooled_front_takes_lambdas_and_epochs_of_a_configuration_together(
    runs: pd.DataFrame,
) -> None:
    front = pooled_front(runs, ["f1", "epg"], ["loss"])
    assert chosen(front) == [
        ("energy", 1e-3, 1),
        ("energy", 1e-3, 2),
        ("l1", 1e-3, 2),
        ("energy", 5e-3, 2),
        ("l1", 5e-3, 1),
    ]
    assert front.index.tolist() == [10, 11, 13, 15, 16]
    assert list(front.columns) == list(runs.columns)


def test_pooled_front_without_configurations_is_one_front(runs: pd.DataFrame) -> None:
    front = pooled_front(runs, ["f1", "epg"], [])
    assert set(front["loss"]) == {"energy"}
    assert len(front) == 3


def test_pooled_front_equals_the_front_of_each_group() -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.integers(0, 5, size=(300, 3)), columns=["f1", "epg", "box_iou"])
    frame["loss"] = [("energy", "l1", None)[i] for i in generator.integers(0, 3, size=300)]
    frame["layer"] = generator.choice(["input", "final"], size=300)
    front = pooled_front(frame, ["f1", "epg", "box_iou"], ["loss", "layer"])
    expected: list[int] = []
    for _, group in frame.groupby(["loss", "layer"], dropna=False):
        rows = group[["f1", "epg", "box_iou"]].to_numpy().tolist()
        expected += group.index[reference.weak_front(rows)].tolist()
    assert front.index.tolist() == sorted(expected)


def test_ties_columns_say_which_of_equals_stays(runs: pd.DataFrame) -> None:
    backwards = runs.iloc[::-1]
    by_order = pooled_front(backwards, ["f1", "epg"], ["loss"])
    assert ("l1", 5e-3, 2) in chosen(by_order)
    by_lambda = pooled_front(backwards, ["f1", "epg"], ["loss"], ties=["lambda_loc", "epoch"])
    assert ("l1", 1e-3, 2) in chosen(by_lambda)
    assert sorted(chosen(by_lambda)) == sorted(chosen(pooled_front(runs, ["f1", "epg"], ["loss"])))


def test_pooled_front_passes_on_rounding_and_dominance(runs: pd.DataFrame) -> None:
    coarse = pooled_front(runs, ["f1", "epg"], ["loss"], 0.5)
    assert chosen(coarse) == [("energy", 1e-3, 1), ("l1", 1e-3, 1)]
    strict = pooled_front(runs, ["f1", "epg"], ["loss"], dominance="strict")
    assert ("l1", 5e-3, 2) in chosen(strict)
    assert ("l1", 1e-3, 2) in chosen(strict)


def test_an_objective_can_be_minimized(runs: pd.DataFrame) -> None:
    flipped = runs.assign(error=1 - runs["f1"])
    front = pooled_front(flipped, {"error": "min", "epg": "max"}, ["loss"])
    assert chosen(front) == chosen(pooled_front(runs, ["f1", "epg"], ["loss"]))
    with pytest.raises(ValueError, match=r"'up': expected 'max' or 'min'"):
        pooled_front(runs, {"f1": "up"}, [])  # type: ignore[dict-item]


def test_rows_that_lack_an_objective_are_told_and_left_out(
    runs: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    runs["epg"] = runs["epg"].mask(runs["epg"] == 0.70)
    with caplog.at_level(logging.WARNING, logger="analysis.pareto"):
        front = pooled_front(runs, ["f1", "epg"], ["loss"])
    assert "1 of 8 rows" in caplog.text
    assert ("energy", 5e-3, 2) not in chosen(front)
    assert len(front) == 4


def test_pooled_front_of_no_rows_is_empty(runs: pd.DataFrame) -> None:
    front = pooled_front(runs.iloc[:0], ["f1", "epg"], ["loss"])
    assert front.empty
    assert list(front.columns) == list(runs.columns)


def test_a_missing_column_is_named(runs: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"no column map, layer; the frame has loss, lambda_loc"):
        pooled_front(runs, ["map"], ["layer"])
    with pytest.raises(ValueError, match="no column box_iou"):
        best_within_f1_loss(runs, 0.8, "box_iou")


@pytest.mark.parametrize("d", [1, 2, 3])
def test_coverage_equals_brute_force(d: int) -> None:
    tables = integer_tables(d)
    for a, b in itertools.pairwise(tables):
        expected = reference.covered_share(a.tolist(), b.tolist())
        assert coverage(a, b, binning=None) == pytest.approx(expected)
        assert coverage(a, a) == 1


def test_coverage_rounds_by_default() -> None:
    assert coverage([[0.800]], [[0.801]]) == 1
    assert coverage([[0.800]], [[0.801]], binning=None) == 0
    assert coverage([[0.8, 0.5]], [[0.7, 0.5], [0.7, 0.6], [0.9, 0.1], [0.8, 0.5]]) == 0.5


def test_coverage_of_and_by_nothing() -> None:
    nothing, something = np.empty((0, 2)), [[1.0, 1.0]]
    assert coverage(nothing, something) == 0
    assert math.isnan(coverage(something, nothing))
    with pytest.raises(ValueError, match="numbers of objectives differ"):
        coverage(something, [[1.0]])


@pytest.mark.parametrize("d", [1, 2, 3])
def test_hypervolume_counts_the_cells_below(d: int) -> None:
    for table in integer_tables(d):
        assert hypervolume(table) == pytest.approx(reference.cells_below(table.tolist(), 7))


def test_hypervolume_depends_on_the_stated_reference() -> None:
    points = [[0.8, 0.5], [0.6, 0.7]]
    assert hypervolume(points) == pytest.approx(0.8 * 0.5 + 0.6 * 0.2)
    assert hypervolume(points, (0.5, 0.4)) == pytest.approx(0.3 * 0.1 + 0.1 * 0.2)
    assert hypervolume(points, (0.9, 0.9)) == 0
    assert hypervolume(np.empty((0, 2))) == 0
    with pytest.raises(ValueError, match="for 2 objectives"):
        hypervolume(points, (0.0, 0.0, 0.0))


def best(
    runs: pd.DataFrame, baseline_f1: float, tolerance: float = 0.05
) -> tuple[str, float, int] | None:
    row = best_within_f1_loss(runs, baseline_f1, "epg", tolerance)
    return None if row is None else (row["loss"], row["lambda_loc"], row["epoch"])


def test_highest_epg_that_costs_at_most_five_points_of_f1(runs: pd.DataFrame) -> None:
    assert best(runs, 0.80) == ("energy", 1e-3, 2)
    assert best(runs, 0.75) == ("energy", 5e-3, 2)  # 0.70 is 0.05 below: allowed
    assert best(runs, 0.751) == ("energy", 1e-3, 2)
    assert best(runs, 0.80, tolerance=0.0) == ("energy", 1e-3, 1)
    assert best(runs, 0.90) is None
    assert best(runs.iloc[:0], 0.80) is None


def test_a_loss_of_exactly_the_tolerance_is_allowed_in_binary_too() -> None:
    for step in range(1, 90):
        f1 = step / 100
        frame = pd.DataFrame({"f1": [f1], "epg": [0.5], "lambda_loc": [1.0], "epoch": [1]})
        assert best_within_f1_loss(frame, f1 + 0.05, "epg") is not None
        assert best_within_f1_loss(frame, f1 + 0.0501, "epg") is None


def test_equals_go_to_higher_f1_then_smaller_lambda_then_earlier_epoch() -> None:
    columns = ["f1", "epg", "lambda_loc", "epoch"]
    rows = [
        (0.80, 0.6, 5e-3, 1),
        (0.81, 0.6, 5e-3, 2),
        (0.81, 0.6, 1e-3, 9),
        (0.81, 0.6, 1e-3, 4),
        (0.81, 0.5, 1e-4, 1),
    ]
    for order in itertools.permutations(rows):
        row = best_within_f1_loss(pd.DataFrame(order, columns=columns), 0.8, "epg")
        assert row is not None
        assert tuple(row) == (0.81, 0.6, 1e-3, 4)


def test_first_of_equal_maxima_is_the_authors(golden: dict[str, np.ndarray]) -> None:
    sequence = golden["best_seq"]
    epochs = range(len(sequence))
    frame = pd.DataFrame({"f1": sequence, "lambda_loc": 0.0, "epoch": epochs})
    row = best_within_f1_loss(frame, 0.0, "f1")
    assert row is not None
    assert row["epoch"] == golden["best_epoch"]


def test_rows_without_the_objective_are_never_chosen(runs: pd.DataFrame) -> None:
    runs["epg"] = runs["epg"].mask(runs["epg"] == 0.60)
    assert best(runs, 0.80) == ("energy", 5e-3, 1)
    with pytest.raises(ValueError, match="baseline F1 nan"):
        best(runs, math.nan)
