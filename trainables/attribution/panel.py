"""A panel of maps: images by methods, one signed color scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 9
"""Maps beside each other; more methods go to further bands below."""
COLORS = "RdBu_r"
"""Diverging with white at zero: red speaks for the class, blue against it."""


def draw_panel(
    pictures: NDArray[np.uint8],
    names: Sequence[str],
    maps: Mapping[str, NDArray[np.floating]],
    title: str,
) -> Figure:
    """Each row an image, each column a method, in bands of at most COLUMNS methods.

    Every map is divided by its own largest absolute value: what is compared is where attribution
    lies, not how large it is.

    Args:
        pictures: (I, H, W, 3).
        names: what stands below each picture, I of them.
        maps: signed maps (I, H, W) by the name of their method, at least one.
        title: of the whole.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # only here: it takes a second
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(maps))
    bands = -(-len(maps) // columns)
    rows = bands * len(pictures)
    figure = Figure(figsize=(1.35 * (1 + columns) + 0.9, 1.5 * rows + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 1 + columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for row in range(rows):
        image = row % len(pictures)
        axes[row, 0].imshow(pictures[image])
        axes[row, 0].set_title(names[image], fontsize=7)
    for number, (key, values) in enumerate(maps.items()):
        band, column = divmod(number, columns)
        for image, values_of_image in enumerate(values):
            ax = axes[band * len(pictures) + image, 1 + column]
            largest = max(float(np.abs(values_of_image).max()), 1e-30)
            ax.imshow(values_of_image / largest, cmap=COLORS, vmin=-1, vmax=1)
            if image == 0:
                ax.set_title(fill(key.replace("_", " "), 20), fontsize=7)
    bar = figure.colorbar(
        ScalarMappable(Normalize(-1, 1), COLORS), ax=axes, shrink=0.4, aspect=40, pad=0.01
    )
    bar.set_label("attribution / its largest |value| in the map (no unit)", fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(
        "Red speaks for the class that stands above the image, blue against it.", fontsize=8
    )
    return figure
