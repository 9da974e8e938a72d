"""Example maps: which results stand beside each other, and one scale for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.guidance import BASELINE, CONTROL
from analysis.panel import (
    Examples,
    heading,
    panel_columns,
    panel_figure,
    panel_reading,
    read_examples,
)
from analysis.runs import load

Curve = Callable[..., dict[str, Any]]


def example(maps: np.ndarray) -> Examples:
    """One 4x4 image per map, with a box over its left half and one over its first pixel."""
    count = len(maps)
    boxes = np.array([[0, 0, 2, 4], [0, 0, 1, 1]])
    images = np.zeros((count, 4, 4, 3), np.uint8)
    names = tuple(f"class {k}" for k in range(count))
    return Examples(np.arange(count).astype(str), images, maps, names, (boxes,) * count)


def test_share_inside_is_of_positive_attribution_in_the_union_of_boxes() -> None:
    maps = np.array([np.ones((4, 4)), -np.ones((4, 4)), np.eye(4) - 5 * np.eye(4)[::-1]])
    np.testing.assert_allclose(example(maps).inside(), [0.5, np.nan, 0.5])


def test_box_ends_before_its_last_row_and_column() -> None:
    found = Examples(
        np.array(["a"]),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.ones((1, 4, 4)),
        ("class 0",),
        (np.array([[1, 0, 3, 1]]),),
    )
    assert found.inside() == pytest.approx([2 / 16])


def test_columns_are_references_and_each_loss_at_its_largest_lambda(curve: Curve) -> None:
    candidates = pd.DataFrame(
        [
            curve(
                loss=loss,
                seed=seed,
                lambda_loc=weight,
                epoch=epoch,
                result_id=f"{loss}-{weight}-{seed}",
            )
            for loss in ("l1", "energy")
            for seed in (1, 2)
            for weight in (0.1, 0.2)
            for epoch in (1, 2)
        ]
    )
    beside = [
        curve(seed=s, reference=n, result_id=f"{n}-{s}")
        for s in (1, 2)
        for n in (CONTROL, BASELINE)
    ]
    references = pd.DataFrame(beside).drop(columns=["loss", "lambda_loc"])
    found = panel_columns(candidates, references)
    assert found["result_id"].tolist() == ["baseline-1", "lambda = 0-1", "energy-0.2-1", "l1-0.2-1"]
    assert [heading(row) for _, row in found.iterrows()] == [
        "baseline",
        "λ = 0",
        "Energy\nλ = 0.2",
        "L1\nλ = 0.2",
    ]


def test_all_maps_share_one_symmetric_scale_that_is_named() -> None:
    maps = np.array([np.linspace(-1, 3, 16).reshape(4, 4), np.zeros((4, 4))])
    columns = [("baseline", example(maps)), ("Energy\nλ = 1", example(100 * maps))]
    figure = panel_figure(columns, "setting", panel_reading(columns))
    limits = {
        image.get_clim() for ax in figure.axes for image in ax.images if image.get_array().ndim == 2
    }
    assert limits == {(-1, 1)}
    peaks = [abs(ax.images[0].get_array()).max() for ax in figure.axes[1:3]]
    assert peaks == pytest.approx([1, 1])
    assert any("no unit" in ax.get_ylabel() for ax in figure.axes)
    caption = " ".join(figure.get_supxlabel().split())
    assert "divided by its largest absolute value" in caption
    assert figure.axes[0].get_xlabel() == "class 0"
    assert figure.axes[4].get_xlabel() == "no positive attribution"
    figure.canvas.draw()


def test_every_cell_shows_the_boxes() -> None:
    figure = panel_figure([("baseline", example(np.ones((2, 4, 4))))], "", "")
    cells = [ax for ax in figure.axes if ax.images]
    assert [len(ax.patches) for ax in cells if ax.get_xlabel()] == [4] * 4


def test_reading_gives_the_mean_share_by_column() -> None:
    maps = np.array([np.ones((4, 4)), np.eye(4)])
    assert panel_reading([("Energy\nλ = 1", example(maps))]).endswith(": Energy 50 %.")


def test_examples_are_read_with_the_boxes_of_each_image(store) -> None:
    found = read_examples(
        load("guidance_lambda", store.uri, ["l1-0.01-final-0"]), "l1-0.01-final-0"
    )
    assert found is not None
    assert [boxes.shape for boxes in found.boxes] == [(1, 4), (2, 4), (1, 4)]
    assert found.maps.dtype == np.float32
