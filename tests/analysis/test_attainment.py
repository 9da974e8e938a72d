"""Surfaces that all, half or any of the seeds attain, against values drawn by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.attainment import attainment

#  y
#  3   a
#  2   b   b(x=2)
#  1       a
#      1   2   3 x      seed a: (1, 3), (2, 1); seed b: (1, 2), (2, 2); seed c: (3, 0)
POINTS = pd.DataFrame(
    [("a", 1, 3), ("a", 2, 1), ("b", 1, 2), ("b", 2, 2), ("c", 3, 0)], columns=["seed", "x", "y"]
)


def test_surfaces_of_three_seeds() -> None:
    found = attainment(POINTS, "x", "y")
    np.testing.assert_array_equal(found["x"], [1, 2, 3])
    np.testing.assert_array_equal(found["any"], [3, 2, 0])
    np.testing.assert_array_equal(found["half"], [2, 1, np.nan])
    np.testing.assert_array_equal(found["all"], [0, 0, np.nan])


def test_half_of_two_seeds_is_one_that_was_really_attained() -> None:
    found = attainment(POINTS[POINTS["seed"] != "c"], "x", "y")
    np.testing.assert_array_equal(found["half"], found["any"])


def test_one_seed_is_its_own_staircase() -> None:
    found = attainment(pd.DataFrame({"seed": 0, "x": [3, 1, 2, 2], "y": [1, 2, 5, 0]}), "x", "y")
    np.testing.assert_array_equal(found["half"], [5, 5, 1])
    np.testing.assert_array_equal(found["half"], found["all"])


def test_surfaces_fall_with_x_and_lie_in_order() -> None:
    random = np.random.default_rng(0)
    points = pd.DataFrame(random.random((60, 2)), columns=["x", "y"]).assign(seed=np.arange(60) % 5)
    found = attainment(points, "x", "y").dropna()
    assert (found.diff().dropna()[["all", "half", "any"]] <= 0).all(axis=None)
    assert (found["all"] <= found["half"]).all()
    assert (found["half"] <= found["any"]).all()


def test_no_points_give_no_surface_and_missing_values_none_either() -> None:
    assert attainment(POINTS.iloc[:0], "x", "y").empty
    assert attainment(POINTS.assign(y=np.nan), "x", "y").empty
