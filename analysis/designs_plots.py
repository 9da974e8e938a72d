"""Designs as pictures: best score against accuracy, and what excites a channel."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.statistics import spearman

CHANNELS = (
    "Each row a channel of the last layer: left the nine images that excite it most before "
    "fine-tuning, right after; {share} % of them are the same on average."
)
IN_DOMAIN, OTHER = "#0072B2", "#D55E00"
SHOWN = 4
"""Channels of a picture."""


def best_reading(best: pd.DataFrame) -> str:
    """What the figure shows, in a line."""
    inside = best[best["in_domain"]].dropna(subset=["best", "accuracy"])
    many = "1 network is" if len(inside) == 1 else f"{len(inside)} networks are"
    if len(inside) < 3 or min(inside["best"].nunique(), inside["accuracy"].nunique()) < 2:
        return f"Best score against accuracy: {many} in domain, too few for an order."
    rho = float(spearman(inside["accuracy"].to_numpy(float), inside["best"].to_numpy(float)))
    leader = inside.sort_values("best").iloc[-1]
    return (
        f"Best score against accuracy, {len(inside)} networks in domain: Spearman {rho:+.2f}; "
        f"{leader['network']} leads with {leader['method']} at {leader['best']:.3f}."
    )


def best_figure(best: pd.DataFrame, caption: str) -> Figure:
    """A numbered dot for each network, the best first: accuracy and the score of the best method.

    Args:
        best: as ``accuracy_against_best`` gives it.
        caption: the line below.
    """
    figure = Figure(figsize=(10.5, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    shown = best.dropna(subset=["best", "accuracy"])
    shown = shown.sort_values("best", ascending=False, kind="stable")
    for number, row in enumerate(shown.to_dict("records"), 1):
        color, marker, what = (
            (IN_DOMAIN, "o", "") if row["in_domain"] else (OTHER, "X", ", not in domain: an SDS")
        )
        place = (100 * row["accuracy"], row["best"])
        label = f"{number}  {row['network']}: {row['method']}{what}"
        ax.plot(*place, marker, color=color, label=label)
        ax.annotate(f"{number}", place, xytext=(4, 4), textcoords="offset points", fontsize=8)
    ax.margins(0.1)
    ax.set_xlabel("top-1 accuracy after fine-tuning in percent (higher is better)")
    ax.set_ylabel("score of the best method, -1 to 1 (higher is better)")
    if len(shown):
        figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.supxlabel(fill(caption, 130), fontsize=8)
    return figure


def channels_figure(arrays: Mapping[str, np.ndarray], title: str, caption: str) -> Figure:
    """The images that excite channels most, before and after, side by side.

    Args:
        arrays: ``rows`` (2, C, n) into ``images`` (M, H, W, 3), and ``channels`` (C,).
        title: above the figure.
        caption: the line below.
    """
    rows, images = arrays["rows"][:, :SHOWN], arrays["images"]
    figure = Figure(figsize=(11.0, 1.0 + 0.62 * rows.shape[1]), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows.shape[1], 1, squeeze=False)[:, 0]
    for ax, channel, before, after in zip(axes, arrays["channels"], *rows, strict=False):
        strips = [np.concatenate(list(images[side]), axis=1) for side in (before, after)]
        gap = np.full((strips[0].shape[0], strips[0].shape[0] // 2, 3), 255, dtype=np.uint8)
        ax.imshow(np.concatenate([strips[0], gap, strips[1]], axis=1))
        ax.set_ylabel(f"{channel}", fontsize=8, rotation=0, labelpad=14)
        ax.set_xticks([])
        ax.set_yticks([])
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(fill(caption, 120), fontsize=8)
    return figure
