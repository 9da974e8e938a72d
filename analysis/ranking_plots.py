"""Rankings as pictures: dots with intervals against reference lines, and mean curves."""

from __future__ import annotations

from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.plots import GRAY
from analysis.ranking import Ranking
from analysis.scores import REFERENCE_LINES

DOT = "#0072B2"
LINES = ("-", "--", "-.", ":")
REFERENCE_STYLES = dict(zip(REFERENCE_LINES, (":", "--", "-.", (0, (1, 3))), strict=True))
"""Dashes of the reference lines, by name; others are drawn through."""
CURVE_COLORS = ("#D55E00", "#0072B2", "#009E73", "#AA4499", "#E69F00", "#56B4E9")
"""Of the best methods' curves, distinct under the common color vision deficiencies; the others are
gray."""


def ranking_figure(ranking: Ranking, title: str, caption: str) -> Figure:
    """A dot with its interval for each method, the best on top; reference lines as lines.

    Tie groups lie on alternating ground. What is not ranked is hollow.

    Args:
        ranking: what is drawn.
        title: above the figure.
        caption: the line below.
    """
    rows = ranking.methods[~ranking.methods["reference_line"]].dropna(subset="mean")
    rows = rows.sort_values("rank", kind="stable", na_position="last").reset_index(drop=True)
    figure = Figure(figsize=(9.0, 2.2 + 0.27 * max(3, len(rows))), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    for place, row in enumerate(rows.to_dict("records")):
        ranked = pd.notna(row["rank"])
        if ranked and row["group"] % 2:
            ax.axhspan(place - 0.5, place + 0.5, color="#eeeeee", lw=0, zorder=0)
        ax.hlines(place, row["low"], row["high"], color=DOT, lw=1.8, zorder=3)
        ax.plot(row["mean"], place, "o", color=DOT, mfc=DOT if ranked else "white", zorder=4)
    ax.set_yticks(range(len(rows)), rows["label"], fontsize=9)
    ax.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=DOT, marker="o", lw=1.8, label="mean, 95 % over images"),
        Patch(color="#eeeeee", label="ground changes where a tie group ends"),
        *_reference_lines(ax, ranking),
    ]
    better = "higher" if ranking.methods["higher_is_better"].all() else "lower"
    ax.set_xlabel(f"{ranking.protocol}, mean over explanations ({better} is better)")
    figure.suptitle(title, fontsize=11)
    _finish(figure, ax, handles, caption)
    return figure


def curves_figure(ranking: Ranking, curves: pd.DataFrame, title: str, caption: str) -> Figure:
    """The mean curves of one protocol: the best methods in color, reference lines dashed.

    Args:
        ranking: of the protocol; says which methods are the best.
        curves: its rows of ``scores.read_curves``.
        title: above the figure.
        caption: the line below.
    """
    figure = Figure(figsize=(9.0, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    drawn = set(curves["method"])
    best = [key for key in ranking.ranked["method"] if key in drawn][: len(CURVE_COLORS)]
    looks = dict(zip(best, CURVE_COLORS, strict=False))
    handles: list[Line2D | Patch] = []
    labels = curves.drop_duplicates("method").set_index("method")
    others = [key for key in labels.index if key not in best]
    for key in [*others, *best]:
        rows, line = curves[curves["method"] == key], labels.loc[key]
        if key in looks:
            style = {"color": looks[key], "ls": LINES[best.index(key) % len(LINES)], "lw": 1.8}
            ax.fill_between(
                rows["x"], rows["low"], rows["high"], color=looks[key], alpha=0.15, lw=0
            )
        elif line["reference_line"]:
            style = {"color": "black", "ls": REFERENCE_STYLES.get(str(key), "-"), "lw": 1.2}
        else:
            style = {"color": "#bbbbbb", "ls": "-", "lw": 0.8}
        ax.plot(rows["x"], rows["mean"], zorder=3 if key in looks else 1, **style)
        if key in looks or line["reference_line"]:
            handles.append(Line2D([], [], label=line["label"], **style))
    handles = [*handles[len(handles) - len(best) :], *handles[: len(handles) - len(best)]]
    if len(others) > labels["reference_line"].sum():
        handles.append(Line2D([], [], color="#bbbbbb", lw=0.8, label="other methods"))
    ax.set_xlabel("share of the image that is removed")
    ax.set_ylabel(f"{ranking.protocol}: mean output with 95 %")
    figure.suptitle(title, fontsize=11)
    _finish(figure, ax, handles, caption)
    return figure


def _reference_lines(ax: Axes, ranking: Ranking) -> list[Line2D]:
    """Draw the reference lines with their intervals; what they are called."""
    rows = ranking.methods[ranking.methods["reference_line"]].dropna(subset="mean")
    handles = []
    for _, row in rows.iterrows():
        style = REFERENCE_STYLES.get(row["method"], "-")
        ax.axvline(row["mean"], color="black", ls=style, lw=1.2, zorder=2)
        if pd.notna(row["low"]):
            ax.axvspan(row["low"], row["high"], color="black", alpha=0.06, lw=0, zorder=1)
        handles.append(Line2D([], [], color="black", ls=style, lw=1.2, label=row["label"]))
    return handles


def _finish(figure: Figure, ax: Axes, handles: list[Line2D | Patch], caption: str) -> None:
    ax.grid(color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)
    figure.supxlabel(fill(caption, int(13 * figure.get_figwidth())), fontsize=9, color=GRAY)
