"""Figures say what their axes are, in which unit, and how to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from analysis.choice import choices
from analysis.guidance import BASELINE, CONTROL, LAYERS, LOSSES, SETTING
from analysis.guidance import front as pareto
from analysis.interactive import hover, interactive_front
from analysis.plots import front_figure, reading, shared, sheets, titles
from analysis.styles import SPARE, STYLES, styles

Curve = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def no_global_figure() -> Iterator[None]:
    """Nothing is drawn through matplotlib's global state."""
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def frames(curve: Curve) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rows = [
        curve(0.8 - 0.01 * i, 0.5 + 0.02 * i, 0.4, layer=layer, loss=loss, seed=seed, epoch=i)
        for i in (1, 2)
        for layer in ("input", "final")
        for loss in ("energy", "l1")
        for seed in (0, 1)
    ]
    rows.append(curve(0.1, 0.1, 0.1, epoch=9))
    beside = [
        curve(0.8, 0.3, 0.2, layer=layer, seed=seed, reference=name)
        for layer in ("input", "final")
        for seed in (0, 1)
        for name in (BASELINE, CONTROL)
    ]
    candidates = pd.DataFrame(rows)
    references = pd.DataFrame(beside).drop(columns=["loss", "lambda_loc"])
    return candidates, candidates.iloc[:-1], references


def test_every_panel_says_metric_split_and_unit(frames) -> None:
    candidates, front, references = frames
    settings = sheets(candidates)["fronts"]
    figure = front_figure(settings, candidates, front, references, "Up and right is better.")
    panels = [ax for ax in figure.axes if ax.get_title() or ax.get_ylabel()]
    assert len(panels) == 4
    assert [ax.get_title() for ax in panels[:2]] == ["input layer", "final layer"]
    assert all("validation" in ax.get_ylabel() and "(%)" in ax.get_ylabel() for ax in panels)
    assert [ax.get_xlabel() for ax in panels[2:]] == ["F1, validation (%)"] * 2
    assert figure.get_supxlabel() == "Up and right is better."


def test_panels_are_in_percent_and_say_what_lies_outside(frames) -> None:
    candidates, front, references = frames
    figure = front_figure(sheets(candidates)["fronts"], candidates, front, references, "")
    final = figure.axes[1]
    low, high = final.get_xlim()
    assert 70 < low < 78
    assert 79 < high < 85
    assert [t.get_text() for t in final.texts] == ["1 of 9 epochs lie outside"]
    assert [t.get_text() for t in figure.axes[0].texts] == []


def test_legend_names_every_loss_and_reference(frames) -> None:
    candidates, front, references = frames
    figure = front_figure(sheets(candidates)["fronts"], candidates, front, references, "")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:4] == ["Energy", "L1", "baseline", "λ = 0"]
    assert names[-1].startswith("line: half of the seeds")


def test_figure_without_references_or_front_is_drawn_all_the_same(frames) -> None:
    candidates, front, references = frames
    settings = sheets(candidates)["fronts"]
    front_figure(settings, candidates, front.iloc[:0], references.iloc[:0], "").canvas.draw()
    interactive_front(settings, candidates, front.iloc[:0], references.iloc[:0])


def test_reading_names_the_leading_loss_and_the_baseline(frames) -> None:
    candidates, front, references = frames
    front = front.assign(val_epg=front["val_epg"] + 0.1 * (front["loss"] == "l1"))
    line = reading(sheets(candidates)["fronts"], choices(front, references), references)
    assert line.startswith("Up and right is better. Best within 5 points of the baseline's F1")
    assert "EPG: input layer L1 64.0 (30.0), final layer L1 64.0 (30.0). IoU: " in line
    assert "\n" not in line


def test_many_settings_are_split_by_layer(curve: Curve) -> None:
    rows = [curve(layer=layer, network=net) for layer in LAYERS for net in ("small", "large")]
    found = sheets(pd.DataFrame(rows))
    assert list(found) == [f"fronts_{layer}" for layer in LAYERS]
    assert titles(found["fronts_input"]) == ["input layer · small", "input layer · large"]
    assert shared(found["fronts_input"]) == "digits · ixg"


def test_a_figure_holds_no_more_settings_than_can_be_read(curve: Curve) -> None:
    shares = [{"annotated_fraction": f} for f in (0.01, 0.1, 1.0)]
    rows = [
        curve(network=net, **way)
        for net in ("small", "large")
        for way in [*shares, *({"dilation": d} for d in (0.1, 0.25, 0.5))]
    ]
    found = sheets(pd.DataFrame(rows))
    names = ["small_1", "small_2", "large_1", "large_2"]
    assert list(found) == [f"fronts_final_{name}" for name in names]
    assert [len(part) for part in found.values()] == [4, 2, 4, 2]
    assert titles(found["fronts_final_small_2"]) == [
        "final layer · boxes dilated by 25 %",
        "final layer · boxes dilated by 50 %",
    ]


def test_line_is_the_front_in_two_dimensions_and_marks_are_that_in_three(curve: Curve) -> None:
    points = [(0.80, 0.50, 0.2), (0.70, 0.60, 0.2), (0.65, 0.55, 0.9), (0.60, 0.40, 0.1)]
    candidates = pd.DataFrame([curve(*point, epoch=i) for i, point in enumerate(points)])
    members = pareto(candidates)
    references = pd.DataFrame([curve(reference=BASELINE)]).drop(columns=["loss", "lambda_loc"])
    figure = front_figure(sheets(candidates)["fronts"], candidates, members, references, "")
    upper = figure.axes[0]
    (line,) = (line for line in upper.lines if line.get_drawstyle() == "steps-pre")
    drawn = {(round(x), round(y)) for x, y in zip(*line.get_data(), strict=True)}
    assert drawn == {(80, 50), (70, 60), (65, 60)}  # at 65 the step of the point at 70
    assert [len(marks.get_offsets()) for marks in upper.collections[:2]] == [4, 3]


def test_no_candidates_make_no_figure(curve: Curve) -> None:
    assert sheets(pd.DataFrame([curve()]).iloc[:0]) == {}


def test_styles_differ_in_color_marker_and_symbol() -> None:
    looks = [(s.color, s.marker, s.symbol) for s in map(STYLES.get, LOSSES) if s] + list(SPARE)
    for values in zip(*looks, strict=True):
        assert len(set(values)) == len(looks)


def test_unknown_losses_get_spare_styles_after_the_papers() -> None:
    found = styles(["mine", "l1", "another"])
    assert list(found) == ["l1", "another", "mine"]
    assert found["another"].color != found["mine"].color


def test_interactive_front_has_units_and_says_which_run_a_mark_is(frames) -> None:
    candidates, front, references = frames
    figure = interactive_front(sheets(candidates)["fronts"], candidates, front, references)
    layout = figure.to_plotly_json()["layout"]
    labels = [layout[name]["title"].get("text", "") for name in layout if name.startswith("yaxis")]
    assert len(labels) == 4
    assert all("(%)" in label for label in labels)
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert shown == ["Energy", "L1", "baseline", "λ = 0"]
    hovers = [text for trace in figure.data for text in trace.text or ()]
    assert any("seed 1, λ = 0.005<br>epoch 2, result r" in text for text in hovers)


def test_hover_shows_both_splits(curve: Curve) -> None:
    text = hover(pd.Series(curve(epg=0.5))).replace("&nbsp;", " ")
    assert "EPG       50.0 / 49.0" in text


def test_setting_columns_are_all_that_a_sheet_holds(frames) -> None:
    assert list(sheets(frames[0])["fronts"].columns) == list(SETTING)
