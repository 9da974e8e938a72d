"""Example maps side by side: the same images for the baseline and for every loss."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.guidance import BASELINE, CONTROL, SETTING, in_order
from analysis.runs import Runs
from analysis.styles import label
from analysis.tables import number

ARTIFACT = "examples.npz"
"""Where a result keeps its example maps."""
COLORS = "RdBu_r"
"""Diverging map with white at zero: red speaks for the class, blue against it."""


@dataclass(frozen=True)
class Examples:
    """The example maps of one result."""

    image_ids: np.ndarray
    """(M,) str."""
    images: np.ndarray
    """(M, H, W, 3) uint8."""
    maps: np.ndarray
    """Signed importance for the target, (M, H, W) float."""
    names: tuple[str, ...]
    """Name of the class that each map explains, M of them."""
    boxes: tuple[np.ndarray, ...]
    """The boxes of each target, (n, 4) int: xmin, ymin, xmax, ymax in pixels, half-open."""

    def inside(self) -> np.ndarray:
        """Share of the positive attribution that is inside the boxes, (M,); NaN without any."""
        shares = []
        for positive, boxes in zip(
            np.maximum(self.maps.astype(np.float64), 0), self.boxes, strict=True
        ):
            mask = np.zeros(positive.shape, dtype=bool)
            for xmin, ymin, xmax, ymax in boxes:
                mask[ymin:ymax, xmin:xmax] = True
            total = positive.sum()
            shares.append(positive[mask].sum() / total if total > 0 else np.nan)
        return np.array(shares)


def read_examples(runs: Runs, result_id: str) -> Examples | None:
    """The example maps of a result, if it has any."""
    arrays = runs.arrays(result_id, ARTIFACT)
    if not arrays:
        return None
    offsets = arrays["box_offsets"]
    boxes = [arrays["boxes"][a:b, -4:] for a, b in pairwise(offsets)]
    names = tuple(str(name) for name in arrays["class_names"])
    return Examples(arrays["image_ids"], arrays["images"], arrays["maps"], names, tuple(boxes))


def panel_columns(candidates: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """Which results a panel shows beside each other: of each setting, at its first seed.

    Returns:
        One row per column of a panel: SETTING, seed, loss (BASELINE and CONTROL first, then every
        loss at its largest lambda), lambda_loc, result_id.
    """
    names = [*SETTING, "seed", "loss", "lambda_loc", "result_id"]
    rows = pd.concat([references.rename(columns={"reference": "loss"}), candidates]).reindex(
        columns=names
    )
    rows = rows[rows["seed"] == rows.groupby(list(SETTING))["seed"].transform("min")]
    largest = (
        rows.sort_values("lambda_loc", na_position="first").groupby([*SETTING, "loss"]).tail(1)
    )
    return in_order(largest)


def panel_figure(columns: list[tuple[str, Examples]], title: str, caption: str) -> Figure:
    """Rows are images, columns are the image with its boxes and the map of each result.

    Every map is divided by its own largest absolute value, so that one signed color scale serves
    all: what is compared is where the attribution lies, not how large it is. Below each map stands
    the share of its positive attribution inside the boxes.

    Args:
        columns: heading and example maps of each result, of the same images.
        title: what all the columns have in common.
        caption: the line below.
    """
    first = columns[0][1]
    count = len(first.images)
    figure = Figure(
        figsize=(1.6 * (1 + len(columns)) + 1.0, 1.75 * count + 1.3), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(count, 1 + len(columns), squeeze=False)
    axes[0, 0].set_title("image, boxes", fontsize=9)
    for row in range(count):
        axes[row, 0].imshow(first.images[row])
        axes[row, 0].set_xlabel(first.names[row], fontsize=8)
        _frame(axes[row, 0], first.boxes[row])
    for column, (heading, found) in enumerate(columns, 1):
        axes[0, column].set_title(heading, fontsize=9)
        for row, share in enumerate(found.inside()):
            values = found.maps[row] / max(float(np.abs(found.maps[row]).max()), 1e-30)
            axes[row, column].imshow(values, cmap=COLORS, vmin=-1, vmax=1)
            inside = "no positive attribution" if np.isnan(share) else f"{100 * share:.0f} % inside"
            axes[row, column].set_xlabel(inside, fontsize=8)
            _frame(axes[row, column], found.boxes[row])
    scale = ScalarMappable(Normalize(-1, 1), COLORS)
    bar = figure.colorbar(scale, ax=axes, shrink=0.5, aspect=30, pad=0.01)
    bar.set_label("attribution / its largest |value| in the map (no unit)", fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(fill(caption, int(14 * figure.get_figwidth())), fontsize=8, color="#555555")
    return figure


def panel_reading(columns: list[tuple[str, Examples]]) -> str:
    """One line that says what a panel shows: the mean share inside the boxes, by column."""
    shares = ", ".join(
        f"{heading.splitlines()[0]} {100 * np.nanmean(found.inside()):.0f} %"
        for heading, found in columns
        if np.isfinite(found.inside()).any()
    )
    return (
        "Red speaks for the class, blue against it; "
        "each map is divided by its largest absolute value. "
        "Share of the positive attribution inside the boxes, mean over these images where there is "
        f"any: {shares}."
    )


def heading(column: pd.Series) -> str:
    """What stands above a column of a panel."""
    if column["loss"] in (BASELINE, CONTROL):
        return label(column["loss"])
    return f"{label(column['loss'])}\nλ = {number(column['lambda_loc'])}"


def _frame(ax: Axes, boxes: np.ndarray) -> None:
    """Draw the boxes and take the ticks away."""
    for xmin, ymin, xmax, ymax in boxes:
        # Pixel i covers i - 0.5 to i + 0.5.
        corner, width, height = (xmin - 0.5, ymin - 0.5), xmax - xmin, ymax - ymin
        ax.add_patch(Rectangle(corner, width, height, fill=False, ec="white", lw=2.4))
        ax.add_patch(Rectangle(corner, width, height, fill=False, ec="black", lw=1.2))
    ax.set_xticks([])
    ax.set_yticks([])
