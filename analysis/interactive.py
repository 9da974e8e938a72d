"""The fronts to explore in a browser: hover for the run, click the legend to hide a loss."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.attainment import attainment
from analysis.choice import CHOSEN_BY
from analysis.guidance import METRICS
from analysis.plots import AXES, of_setting, shared, titles
from analysis.styles import STYLES, styles
from analysis.tables import number, percent


def interactive_front(
    settings: pd.DataFrame,
    candidates: pd.DataFrame,
    front: pd.DataFrame,
    references: pd.DataFrame,
) -> go.Figure:
    """The panels of ``plots.front_figure``, each mark with the run, lambda and epoch behind it.

    Args:
        settings: one row of SETTING per column of panels.
        candidates: every epoch of every run.
        front: the Pareto-dominant rows.
        references: baseline and control, seed by seed.
    """
    heads = titles(settings)
    figure = make_subplots(
        len(CHOSEN_BY),
        len(settings),
        subplot_titles=heads,
        horizontal_spacing=0.08,
        vertical_spacing=0.09,
    )
    for column, (_, setting) in enumerate(settings.iterrows(), 1):
        everything, members, beside = (
            of_setting(r, setting) for r in (candidates, front, references)
        )
        for row, metric in enumerate(CHOSEN_BY, 1):
            y, at = f"val_{metric}", {"row": row, "col": column}
            first = row == column == 1
            for loss, style in styles(candidates["loss"]).items():
                look = {"color": style.color, "symbol": style.symbol}
                group = {"legendgroup": loss, "name": style.label}
                for rows, size, opacity in ((everything, 5, 0.2), (members, 9, 0.95)):
                    points = rows[rows["loss"] == loss]
                    marks = go.Scatter(
                        x=100 * points["val_f1"],
                        y=100 * points[y],
                        mode="markers",
                        marker={**look, "size": size, "opacity": opacity},
                        text=[hover(point) for _, point in points.iterrows()],
                        hoverinfo="text",
                        showlegend=first and rows is members,
                        **group,
                    )
                    figure.add_trace(marks, **at)
                surface = 100 * attainment(members[members["loss"] == loss], "val_f1", y)
                line = go.Scatter(
                    x=surface["x"],
                    y=surface["half"],
                    mode="lines",
                    line={"color": style.color, "width": 2, "shape": "vh"},
                    hoverinfo="skip",
                    showlegend=False,
                    **group,
                )
                figure.add_trace(line, **at)
            for reference, rows in beside.groupby("reference"):
                style = STYLES[str(reference)]
                marks = go.Scatter(
                    x=100 * rows["val_f1"],
                    y=100 * rows[y],
                    mode="markers",
                    marker={"color": style.color, "symbol": style.symbol, "size": 13},
                    text=[hover(r.rename({"reference": "loss"})) for _, r in rows.iterrows()],
                    hoverinfo="text",
                    legendgroup=reference,
                    name=style.label,
                    showlegend=first,
                )
                figure.add_trace(marks, **at)
            figure.update_xaxes(title_text=AXES["f1"] if row == len(CHOSEN_BY) else "", **at)
            figure.update_yaxes(title_text=AXES[metric].replace("\n", "<br>"), **at)
    figure.update_layout(
        template="plotly_white",
        title=shared(settings),
        height=420 * len(CHOSEN_BY),
        legend={"orientation": "h", "y": -0.1},
        hoverlabel={"align": "left", "font": {"family": "monospace"}},
        margin={"l": 70, "r": 20, "t": 80, "b": 60},
    )
    return figure


def hover(row: pd.Series) -> str:
    """What is said about one mark: which run and epoch it is, and its scores on both splits."""
    style = STYLES.get(row["loss"])
    lines = [f"<b>{style.label if style else row['loss']}</b>, seed {number(row['seed'])}"]
    if pd.notna(row.get("lambda_loc")):
        lines[0] += f", λ = {number(row['lambda_loc'])}"
    lines.append(f"epoch {number(row['epoch'])}, result {row['result_id']}")
    lines.append("validation / test, %")
    for metric, title in METRICS.items():
        values = f"{percent(row[f'val_{metric}'])} / {percent(row[f'test_{metric}'])}"
        lines.append(f"{title:<10}{values}".replace(" ", "&nbsp;"))
    return "<br>".join(lines)
