"""Grids: mosaics of images of different classes, for the grid pointing game.

Cells are numbered row by row. Nothing here knows a model: images are chosen by their logits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_pipelines.patches import cell_of_pixel

Output = Literal["softmax", "sigmoid"]
CONFIDENCE = 0.95
"""Least probability of an image that one model chooses. From How to Probe's code."""
PER_CLASS = 100
"""Most images of a class that are drawn from. From How to Probe's code."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grids:
    """G mosaics to be: which image stands in which cell.

    Attributes:
        side: cells along a side.
        rows: positions in the image set, (G, side * side), int64.
        classes: class of each, (G, side * side), int64; no class twice in a mosaic.
    """

    side: int
    rows: NDArray[np.int64]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        """G."""
        return len(self.rows)

    def ids(self, image_ids: Sequence[str]) -> list[str]:
        """A name for each mosaic, unique, from its number and its images.

        Args:
            image_ids: of the whole image set.
        """
        names = []
        for number, rows in enumerate(self.rows.tolist()):
            text = "\0".join(str(image_ids[row]) for row in rows)
            names.append(f"grid{number:04d}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")
        return names


def draw_grids(
    rows: ArrayLike, labels: ArrayLike, *, side: int = 3, count: int = 500, seed: int = 0
) -> Grids:
    """Mosaics of the chosen images: classes without repetition, then an image of each.

    Mosaic k is the same however many are drawn, and in whatever order the rows are given.

    Source: How to Probe (ICLR 2025): 500 mosaics of 3 x 3, classes drawn uniformly without
        repetition, then an image of the class.
    Departs: seeded; its code is not. An image may appear in several mosaics, as in its code.

    Args:
        rows: the chosen images, positions in the image set.
        labels: the one class of every image of the set, (M,).
        side: cells along a side.
        count: mosaics to draw.
        seed: of the draw.

    Raises:
        ValueError: the chosen images have fewer classes than a mosaic has cells.
    """
    chosen, labels = np.unique(np.asarray(rows, np.int64)), np.asarray(labels, np.int64)
    classes = np.unique(labels[chosen])
    require_classes(len(classes), side, "the chosen images have")
    of_class = {c: chosen[labels[chosen] == c] for c in classes.tolist()}
    drawn_rows = np.empty((count, side * side), np.int64)
    drawn_classes = np.empty_like(drawn_rows)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        drawn_classes[number] = rng.choice(classes, side * side, replace=False)
        drawn_rows[number] = [rng.choice(of_class[c]) for c in drawn_classes[number].tolist()]
    return Grids(side=side, rows=drawn_rows, classes=drawn_classes)


def require_classes(found: int, side: int, what: str = "there are") -> None:
    """Refuse too few classes for a mosaic without repetition.

    Raises:
        ValueError: says how many are needed.
    """
    if found < side * side:
        raise ValueError(
            f"grid_pg: a mosaic of {side} x {side} needs {side * side} classes and {what} {found}; "
            "take fewer cells, more images or a lower confidence"
        )


def confident_images(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    output: Output = "softmax",
    confidence: float = CONFIDENCE,
    per_class: int = PER_CLASS,
) -> NDArray[np.int64]:
    """Images that one model classifies correctly and most confidently, the best first.

    Source: How to Probe (ICLR 2025): 'the most confidently and correctly classified images for each
        model independently'; threshold and number are its code's.
    Departs: the code takes the first of each class in the order of files, and softmax or sigmoid by
        the name of the model; here the most confident ones, by the probability that is said.

    Args:
        logits: (M, K).
        labels: the one class of each image, (M,); -1 where it has none or several.
        output: what makes a probability of a logit.
        confidence: least probability of the class.
        per_class: most images of a class.

    Returns:
        Positions in the image set, (n,).
    """
    logits, labels = checked(logits, labels)
    sure = probabilities(logits, labels, output)
    eligible = (target_margins(logits, labels) > 0) & (sure >= confidence)
    return best_of_each_class(np.flatnonzero(eligible), -sure, labels, per_class)


def common_images(
    logits: Sequence[ArrayLike], labels: ArrayLike, *, per_class: int = PER_CLASS
) -> NDArray[np.int64]:
    """Images that all compared models classify correctly, the most clearly in all of them first.

    Within each model the images are ranked by the margin of their class's logit over all others;
    an image counts as much as its worst rank. Ranks do not know the scale of the logits, which
    differs between models and losses.

    Source: ours. How to Probe (ICLR 2025) chooses images for each model, so that a difference
        between two models may be one between their images.

    Args:
        logits: (M, K) of each model.
        labels: the one class of each image, (M,); -1 where it has none or several.
        per_class: most images of a class.

    Returns:
        Positions in the image set, (n,).

    Raises:
        ValueError: no model is given.
    """
    if not logits:
        raise ValueError("common_images: needs the logits of at least one model")
    margins = np.stack([target_margins(*checked(one, labels)) for one in logits])
    common = np.flatnonzero((margins > 0).all(0))
    worst = np.zeros(margins.shape[1])
    for margin in margins:
        descending = np.sort(-margin[common])
        worst[common] = np.maximum(worst[common], np.searchsorted(descending, -margin[common]))
    return best_of_each_class(common, worst, np.asarray(labels), per_class)


def best_of_each_class(
    rows: NDArray[np.int64], badness: NDArray[np.float64], labels: NDArray[np.int64], per_class: int
) -> NDArray[np.int64]:
    """Rows by badness, at most ``per_class`` of each class; the first of equals first."""
    ordered = rows[np.argsort(badness[rows], kind="stable")]
    taken: dict[int, int] = {}
    kept = []
    for row, label in zip(ordered.tolist(), labels[ordered].tolist(), strict=True):
        taken[label] = taken.get(label, 0) + 1
        if taken[label] <= per_class:
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def target_margins(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logit of each image's class less the largest other, (M,); -inf without a class."""
    rows = np.arange(len(logits))
    others = logits.copy()
    others[rows, labels] = -np.inf
    margins: NDArray[np.float64] = logits[rows, labels] - others.max(1)
    return np.where(labels >= 0, margins, -np.inf)


def probabilities(
    logits: NDArray[np.float64], labels: NDArray[np.int64], output: Output
) -> NDArray[np.float64]:
    """Probability of each image's class, (M,)."""
    own = logits[np.arange(len(logits)), labels]
    if output == "sigmoid":
        return 0.5 * (1 + np.tanh(own / 2))
    # Beyond e^700 a probability is 0 in any case.
    return 1 / np.exp(np.minimum(logits - own[:, None], 700)).sum(1)


def checked(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits (M, K) as float64 and labels (M,) as int64.

    Raises:
        ValueError: the shapes disagree; both are named.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.shape[1] < 2:
        raise ValueError(
            f"logits {logits.shape} and labels {labels.shape}: expected (M, K) with at least two "
            "classes, and (M,)"
        )
    return logits, labels


def compose(tiles: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Mosaics (G, C, side * h, side * w) of tiles (G * side * side, C, h, w), row by row.

    Raises:
        ValueError: the tiles do not fill whole mosaics.
    """
    if tiles.ndim != 4 or len(tiles) % (side * side):
        raise ValueError(f"tiles {tiles.shape} do not fill mosaics of {side} x {side}")
    channels, height, width = tiles.shape[1:]
    cells = tiles.reshape(-1, side, side, channels, height, width).transpose(0, 3, 1, 4, 2, 5)
    return cells.reshape(-1, channels, side * height, side * width)


def cell_masks(side: int, height: int, width: int) -> NDArray[np.bool_]:
    """Mask of each cell of a mosaic of that many pixels, (side * side, height, width)."""
    cells = cell_of_pixel(side * side, height, width)
    return cells == np.arange(side * side)[:, None, None]
