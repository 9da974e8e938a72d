"""Probes as pictures: localization against accuracy with an arrow from CE to BCE, and by depth."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.plots import GRAY

COLORS = ("#D55E00", "#0072B2", "#009E73", "#AA4499", "#E69F00", "#56B4E9", "#882255", "#999933")
"""Of methods, distinct under the common color vision deficiencies."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Of pre-trainings."""
FORMS = ("-", "--", ":", "-.")
"""Of kinds of probes, where lines are of layers."""
ACROSS = 3
"""Panels side by side."""
LEAST_WIDTH = 10.0
"""Points of accuracy that a panel shows at least: half a point is not to look like a journey."""
METRICS = {"accuracy": "accuracy", "f1": "F1", "grid_pg": "GridPG", "epg": "EPG"}


def arrows_figure(arrows: pd.DataFrame, caption: str) -> Figure:
    """GridPG against accuracy, an arrow from each probe trained by CE to its twin by BCE.

    Args:
        arrows: one row per arrow: panel, method, pretraining, chance (of the panel), accuracy and
            score of CE (``*_ce``) and of BCE (``*_bce``), and ``read`` (whether both probes exceed
            their controls), fractions.
        caption: the line below.
    """
    figure, axes = _panels(list(dict.fromkeys(arrows["panel"])))
    methods = _looks(arrows["method"], COLORS)
    pretrainings = _looks(arrows["pretraining"], MARKERS)
    for panel, ax in axes.items():
        rows = arrows[arrows["panel"] == panel]
        for row in rows.to_dict("records"):
            start = (100 * row["accuracy_ce"], 100 * row["score_ce"])
            end = (100 * row["accuracy_bce"], 100 * row["score_bce"])
            color, marker = methods[row["method"]], pretrainings[row["pretraining"]]
            alpha = 1.0 if row["read"] else 0.35
            ax.annotate(
                "",
                xy=end,
                xytext=start,
                arrowprops={"arrowstyle": "->", "color": color, "lw": 1.3, "alpha": alpha},
                zorder=3,
            )
            for (x, y), filled in ((start, False), (end, True)):
                face = color if filled else "white"
                ax.plot(x, y, marker, color=color, mfc=face, ms=6, alpha=alpha, zorder=4)
        for chance in rows["chance"].dropna().unique():
            ax.axhline(100 * chance, color=GRAY, ls=":", lw=1, zorder=1)
        low, high = ax.get_xlim()
        if high - low < LEAST_WIDTH:
            middle = (low + high) / 2
            ax.set_xlim(middle - LEAST_WIDTH / 2, middle + LEAST_WIDTH / 2)
        ax.set_xlabel("accuracy of the probe (%)")
        ax.set_ylabel("GridPG (%)")
    handles = [
        *(Line2D([], [], color=c, lw=2, label=name) for name, c in methods.items()),
        *(
            Line2D([], [], color="black", marker=m, lw=0, label=name)
            for name, m in pretrainings.items()
        ),
        Line2D([], [], color="black", marker="o", mfc="white", lw=0, label="hollow: CE"),
        Line2D([], [], color="black", marker="o", lw=0, label="filled: BCE"),
        Line2D([], [], color=GRAY, ls=":", lw=1, label="chance"),
        Line2D([], [], color="black", alpha=0.35, lw=2, label="faint: not above its control"),
    ]
    _finish(figure, handles, caption)
    return figure


def depth_figure(rows: pd.DataFrame, caption: str) -> Figure:
    """Localization (color) and accuracy (black) by the layers of the probe, a panel per backbone.

    Args:
        rows: of ``probing_tables.depth_rows``, of one loss, with ``panel``.
        caption: the line below.
    """
    figure, axes = _panels(list(dict.fromkeys(rows["panel"])))
    methods = _looks([m for m in rows["method"] if m], COLORS)
    forms = _looks(rows["form"], FORMS)
    for panel, ax in axes.items():
        here = rows[rows["panel"] == panel]
        for form, style in forms.items():
            part = here[here["form"] == form]
            reached = part.groupby("layers")["accuracy"].mean()
            if len(reached):
                ax.plot(reached.index, 100 * reached, ls=style, color="black", marker="x", lw=1.2)
            for method, color in methods.items():
                scores = part[part["method"] == method].groupby("layers")["score"].mean()
                ax.plot(scores.index, 100 * scores, ls=style, color=color, marker="o", lw=1.6)
        metric = here["metric"].iloc[0]
        ax.set_xticks(sorted({int(n) for n in here["layers"]}))
        ax.set_xlabel("layers of the probe")
        score = METRICS["epg" if metric == "f1" else "grid_pg"]
        ax.set_ylabel(f"{score} and {METRICS[metric]} (%)")
    handles = [
        *(Line2D([], [], color=c, lw=2, label=name) for name, c in methods.items()),
        Line2D([], [], color="black", marker="x", lw=1.2, label="accuracy or F1"),
        *(Line2D([], [], color=GRAY, ls=s, lw=1.6, label=f"{f} probes") for f, s in forms.items()),
    ]
    _finish(figure, handles, caption)
    return figure


def learning_figure(learning: pd.DataFrame, caption: str) -> Figure:
    """Accuracy of nearest neighbours by epoch, a panel per backbone, a line per pre-training.

    Args:
        learning: as ``neighbors.learning`` gives it.
        caption: the line below.
    """
    rows = learning.assign(panel=learning["backbone"] + " · " + learning["dataset"])
    figure, axes = _panels(list(dict.fromkeys(rows["panel"])))
    looks = _looks(rows["pretraining"], COLORS)
    for panel, ax in axes.items():
        here = rows[rows["panel"] == panel]
        for (name, _), part in here.groupby(["pretraining", "result_id"], sort=False):
            ax.plot(part["epoch"], 100 * part["knn"], color=looks[str(name)], marker=".", lw=1.5)
        ax.set_xlabel("epoch (0: untrained)")
        ax.set_ylabel("accuracy of nearest neighbours (%)")
    handles = [Line2D([], [], color=c, lw=2, label=name) for name, c in looks.items()]
    _finish(figure, handles, caption)
    return figure


def _panels(names: list[str]) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a panel for each name."""
    across = min(ACROSS, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(2.6 + 3.8 * across, 1.0 + 3.6 * down), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False)
    axes = dict(zip(names, grid.flat, strict=False))
    for ax in list(grid.flat)[len(names) :]:
        ax.set_visible(False)
    for name, ax in axes.items():
        ax.set_title(name, fontsize=10)
        ax.grid(color="#dddddd", lw=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _looks(names: Iterable[str], known: tuple[str, ...]) -> dict[str, str]:
    """A look for each name, in the order of their appearance; after the last the first again."""
    return {name: known[i % len(known)] for i, name in enumerate(dict.fromkeys(names))}


def _finish(figure: Figure, handles: list[Line2D], caption: str) -> None:
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)
    figure.supxlabel(fill(caption, int(13 * figure.get_figwidth())), fontsize=9, color=GRAY)
