"""The fronts as pictures: F1 against EPG and IoU, a panel per setting, references beside."""

from __future__ import annotations

from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.attainment import attainment
from analysis.choice import CHOSEN_BY, TOLERANCE
from analysis.guidance import BASELINE, CONTROL, SETTING, words
from analysis.styles import STYLES, Style, label, styles
from analysis.tables import percent

AXES = {
    "f1": "F1, validation (%)",
    "epg": "EPG, validation (%)",
    "box_iou_tuned": "IoU at the tuned threshold,\nvalidation (%)",
}
"""Axis labels; the numbers along the axes are percent."""
ACROSS = 4
"""Settings side by side in one figure; more go into figures of their own."""
GRAY = "#555555"


def titles(settings: pd.DataFrame) -> list[str]:
    """What sets each of the settings apart from the others, for the heads of panels."""
    differing = [name for name in SETTING if name != "layer" and settings[name].nunique() > 1]
    rows = [words(row) for row in settings.to_dict("records")]
    return [" · ".join([f"{r['layer']} layer", *(r[n] for n in differing if r[n])]) for r in rows]


def shared(settings: pd.DataFrame) -> str:
    """What all the settings have in common, as one line."""
    alike = [name for name in SETTING if name != "layer" and settings[name].nunique() == 1]
    said = words(settings.iloc[0].to_dict())
    return " · ".join(said[name] for name in alike if said[name])


def sheets(candidates: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Which settings go together into one figure, by the figure's name.

    One figure if they fit side by side, else one per layer (and dataset, if there are several); of
    more than ACROSS also one per network, and then several of ACROSS at most.
    """
    settings = candidates[list(SETTING)].drop_duplicates(ignore_index=True)
    if len(settings) <= ACROSS:
        return {"fronts": settings} if len(settings) else {}
    by = ["dataset", "layer"] if settings["dataset"].nunique() > 1 else ["layer"]
    found = {}
    for key, part in settings.groupby(by, sort=False):
        wide = len(part) > ACROSS and part["network"].nunique() > 1
        for network, of_network in part.groupby("network", sort=False) if wide else [("", part)]:
            for start in range(0, len(of_network), ACROSS):
                number = str(start // ACROSS + 1) if len(of_network) > ACROSS else ""
                name = "_".join(["fronts", *map(str, key), *filter(None, [str(network), number])])
                rows = of_network.iloc[start : start + ACROSS]
                found[name] = rows.reset_index(drop=True)
    return found


def of_setting(rows: pd.DataFrame, setting: pd.Series) -> pd.DataFrame:
    """The rows of one setting."""
    return rows[(rows[list(SETTING)] == setting[list(SETTING)]).all(axis=1)]


def reading(settings: pd.DataFrame, choices: pd.DataFrame, references: pd.DataFrame) -> str:
    """One line that says what a figure of these settings shows: the leading loss by metric."""
    parts = [f"Best within {100 * TOLERANCE:g} points of the baseline's F1, baseline in brackets."]
    for metric, name in zip(CHOSEN_BY, ("EPG", "IoU"), strict=True):
        at = choices[choices["chosen_by"] == metric]
        leaders = []
        for title, (_, setting) in zip(titles(settings), settings.iterrows(), strict=True):
            means = of_setting(at, setting).groupby("loss")[f"val_{metric}"].mean().dropna()
            here = of_setting(references, setting)
            baseline = here.loc[here["reference"] == BASELINE, f"val_{metric}"].mean()
            if len(means):
                best = f"{label(str(means.idxmax()))} {percent(means.max())}"
                leaders.append(f"{title} {best} ({percent(baseline)})")
        if leaders:
            parts.append(f"{name}: {', '.join(leaders)}.")
    return " ".join(["Up and right is better.", *(parts if len(parts) > 1 else [])])


def front_figure(
    settings: pd.DataFrame,
    candidates: pd.DataFrame,
    front: pd.DataFrame,
    references: pd.DataFrame,
    caption: str,
) -> Figure:
    """F1 against EPG (top) and IoU (bottom), one column per setting, on validation.

    Args:
        settings: one row of SETTING per column of panels.
        candidates: every epoch of every run, drawn faintly.
        front: the Pareto-dominant rows; their staircase is drawn, of several seeds what half of
            them attain, within the band from what all to what any attain.
        references: baseline and control, drawn at their mean with their range over seeds.
        caption: the line below.
    """
    figure = Figure(figsize=(1.2 + 4.2 * len(settings), 8.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(CHOSEN_BY), len(settings), squeeze=False, sharex="col")
    known = styles(candidates["loss"])
    for column, (title, (_, setting)) in enumerate(
        zip(titles(settings), settings.iterrows(), strict=True)
    ):
        here = (of_setting(candidates, setting), of_setting(front, setting))
        beside = of_setting(references, setting)
        for row, metric in enumerate(CHOSEN_BY):
            _draw(axes[row, column], *here, beside, metric, known)
            axes[row, column].set_ylabel(AXES[metric])
        axes[0, column].set_title(title)
        axes[-1, column].set_xlabel(AXES["f1"])
    seeds = front.groupby(list(SETTING))["seed"].nunique().max() if len(front) else 0
    figure.legend(
        handles=_legend(known, int(seeds)),
        # The heading of the legend is that of the figure: constrained layout stacks no two.
        title=f"{shared(settings)}\n",
        title_fontsize=12,
        loc="outside upper center",
        ncols=min(3 * len(settings), 5),
        frameon=False,
        fontsize=9,
    )
    figure.supxlabel(fill(caption, int(13 * figure.get_figwidth())), fontsize=9, color=GRAY)
    return figure


def _draw(
    ax: Axes,
    candidates: pd.DataFrame,
    front: pd.DataFrame,
    references: pd.DataFrame,
    metric: str,
    known: dict[str, Style],
) -> None:
    """One panel, in percent."""
    x, y = "val_f1", f"val_{metric}"
    for loss, style in known.items():
        points, members = (rows[rows["loss"] == loss] for rows in (candidates, front))
        for rows, size, alpha, zorder in ((points, 10, 0.18, 1), (members, 26, 0.8, 4)):
            ax.scatter(
                100 * rows[x],
                100 * rows[y],
                s=size,
                c=style.color,
                marker=style.marker,
                alpha=alpha,
                linewidths=0,
                zorder=zorder,
            )
        surface = 100 * attainment(members, x, y)
        ax.step(surface["x"], surface["half"], where="pre", color=style.color, lw=1.6, zorder=3)
        ax.fill_between(
            surface["x"],
            surface["all"],
            surface["any"],
            step="pre",
            color=style.color,
            alpha=0.13,
            lw=0,
            zorder=2,
        )
    for reference in (BASELINE, CONTROL):
        rows = 100 * references.loc[references["reference"] == reference, [x, y]].dropna()
        if len(rows):
            mean, style = rows.mean(), STYLES[reference]
            reach = [[[mean[c] - rows[c].min()], [rows[c].max() - mean[c]]] for c in (x, y)]
            ax.errorbar(
                mean[x],
                mean[y],
                xerr=reach[0],
                yerr=reach[1],
                fmt=style.marker,
                color=style.color,
                mfc="white" if reference == CONTROL else style.color,
                ms=13 if reference == BASELINE else 7,
                mec="white" if reference == BASELINE else style.color,
                lw=1,
                zorder=5,
            )
            if reference == BASELINE:
                ax.axvline(mean[x] - 100 * TOLERANCE, color=GRAY, ls=":", lw=1, zorder=0)
    _limit(ax, candidates, pd.concat([front, references]), x, y)
    ax.grid(color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _limit(ax: Axes, candidates: pd.DataFrame, shown: pd.DataFrame, x: str, y: str) -> None:
    """Frame fronts and references; say how many epochs lie outside rather than shrink the rest."""
    inside = pd.Series(True, index=candidates.index)
    for name, set_limits in ((x, ax.set_xlim), (y, ax.set_ylim)):
        low, high = shown[name].min(), shown[name].max()
        margin = max(0.07 * (high - low), 0.005)
        if pd.notna(margin):
            inside &= candidates[name].between(low - margin, high + margin)
            set_limits(100 * (low - margin), 100 * (high + margin))
    if not inside.all():
        note = f"{(~inside).sum()} of {len(inside)} epochs lie outside"
        ax.annotate(note, (0.01, 0.01), xycoords="axes fraction", fontsize=7, color=GRAY)


def _legend(known: dict[str, Style], seeds: int) -> list[Line2D | Patch]:
    """What every mark of the figure means."""
    losses = [
        Line2D([], [], color=s.color, marker=s.marker, ms=6, lw=1.6, label=s.label)
        for s in known.values()
    ]
    baseline, control = STYLES[BASELINE], STYLES[CONTROL]
    marks = [
        Line2D([], [], color="black", marker=baseline.marker, ms=12, lw=0, label="baseline"),
        Line2D(
            [],
            [],
            color="black",
            marker=control.marker,
            ms=6,
            lw=0,
            mfc="white",
            label=control.label,
        ),
        Line2D([], [], color=GRAY, marker="o", ms=6, lw=0, label="Pareto-dominant"),
        Line2D(
            [], [], color=GRAY, marker="o", ms=4, lw=0, alpha=0.4, label="every epoch of every run"
        ),
        Line2D([], [], color=GRAY, ls=":", lw=1, label="5 points below the baseline's F1"),
    ]
    band = [Patch(color=GRAY, alpha=0.2, lw=0, label="line: half of the seeds; band: all to any")]
    return [*losses, *marks, *(band if seeds > 1 else [])]
