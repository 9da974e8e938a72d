"""A scene: handwritten digits on a crop of a photograph, with exact boxes and masks."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipelines.configuration import Configuration
from data_pipelines.glyph import covered_patches, enlarged, free_place, paint, shuffled_quarters
from data_pipelines.sources import CLASSES, Sources

PATCHES = 4
"""Patches of a 4 x 4 grid that a lone digit lies on: deleting one must not delete the digit."""


@dataclass(frozen=True, kw_only=True)
class SceneStyle(Configuration):
    """What scenes look like: the knobs of their difficulty.

    The defaults were fixed by the unguided baseline alone, whose validation F1 must lie between
    0.75 and 0.90: after 8 epochs over 1,200 images small_resnet reached 0.83, 0.76 and 0.75 with
    three seeds, so it has 9. With photographs at full brightness (contrast 0.6) it needs 2,000
    images and ten epochs; with distractors and smaller digits it learns nothing in that time.
    """

    size_px: int = 64
    """Side of the square image."""
    digit_px: tuple[int, int] = (20, 30)
    """Least and greatest side of a digit's bitmap where an image may hold several."""
    lone_digit_px: tuple[int, int] = (36, 52)
    """The same where an image holds exactly one."""
    digit_counts: tuple[float, ...] = (0.34, 0.33, 0.33)
    """Chances of one, two, ... digits of different classes; an image that is full takes fewer."""
    contrast: float = 0.45
    """Least difference in luminance, in [0, 1], between a digit's color and what it lies on."""
    brightness: float = 0.4
    """Factor on the photograph, in [0, 1]: the darker it is, the more surely digits are lighter."""
    clutter: int = 0
    """Most distractors of an image: digits with shuffled quarters."""
    cue_px: int = 5
    """Width of the context cue, a stripe along a border whose hue means a class; 0: no cue."""
    cue_share: float = 0.5
    """Share of the training images whose cue means a class that is present."""
    cue_elsewhere: Literal["random", "absent"] = "random"
    """The cue of all other images, validation and test included: of a random class, or none."""
    cue_opacity: float = 0.7
    """Opacity of the cue in [0, 1]."""

    def __post_init__(self) -> None:
        """Refuse what no scene can have; names field, value and what is allowed."""
        super().__post_init__()
        for field in ("contrast", "brightness", "cue_share", "cue_opacity"):
            self.require(field, 0 <= getattr(self, field) <= 1, "a value in [0, 1]")
        counts = self.digit_counts
        chances = 1 <= len(counts) <= CLASSES and min(counts) >= 0 and abs(sum(counts) - 1) < 1e-9
        self.require("digit_counts", chances, f"1 to {CLASSES} chances that sum to 1")
        self.require("clutter", self.clutter >= 0, "at least 0")
        self.require("cue_px", 0 <= self.cue_px < self.size_px, "between 0 and size_px")

    def require(self, field: str, holds: bool, allowed: str) -> None:
        """Raise ValueError about a field that does not hold."""
        if not holds:
            value = getattr(self, field)
            raise ValueError(f"{type(self).__name__}.{field} = {value!r}: expected {allowed}")


@dataclass(frozen=True)
class Scene:
    """A finished picture."""

    image: NDArray[np.uint8]
    """(size_px, size_px, 3)."""
    labels: tuple[int, ...]
    """Class of each digit; digit k is visible where ``instances`` is k + 1."""
    instances: NDArray[np.uint8]
    """(size_px, size_px)."""
    group: int | None = None
    """2 * bird + place where scenes have birds and places, see waterbirds.GROUPS."""

    @property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Corners of each digit, tight around its visible pixels, 1-based and inclusive (VOC)."""
        boxes = []
        for number in range(1, len(self.labels) + 1):
            rows, columns = (axis + 1 for axis in np.nonzero(self.instances == number))
            xmin, xmax, ymin, ymax = columns.min(), columns.max(), rows.min(), rows.max()
            boxes.append((int(xmin), int(ymin), int(xmax), int(ymax)))
        return boxes


def compose(
    style: SceneStyle,
    sources: Sources,
    rng: np.random.Generator,
    *,
    cued: bool,
    lone: bool,
    of: Sequence[int] = (),
) -> Scene:
    """One scene.

    Args:
        style: the knobs.
        sources: bitmaps and tiles of the split.
        rng: of this image alone, so that image k is the same however many are made.
        cued: whether the context cue may tell the class (training images).
        lone: exactly one digit, of ``lone_digit_px``, on at least PATCHES.
        of: exactly one digit, of these classes and ``digit_px``, and no cue at all.
    """
    tile = sources.tiles[rng.integers(len(sources.tiles))]
    canvas = crop(tile, style.size_px, rng) * np.float32(style.brightness)
    taken = np.zeros(canvas.shape[:2], dtype=bool)
    count = 1 if lone or of else 1 + int(rng.choice(len(style.digit_counts), p=style.digit_counts))
    classes = rng.choice(of or CLASSES, size=count, replace=False)
    if not of:
        draw_cue(style, canvas, taken, classes, rng, cued=cued)
    labels: list[int] = []
    instances = np.zeros(taken.shape, dtype=np.uint8)
    sides = style.lone_digit_px if lone else style.digit_px
    for label in classes:
        while True:
            glyph = enlarged(chosen(sources.bitmaps[label], rng), drawn(*sides, rng))
            place = free_place(glyph.shape, taken, rng)
            if place is None or not lone or covered_patches(glyph, place, len(taken)) >= PATCHES:
                break  # a narrow digit may stand on three; elsewhere, or as another bitmap, on four
        if place is not None:
            paint(canvas, glyph, place, style.contrast, rng)
            taken[place] = True
            labels.append(int(label))
            instances[place][glyph > 0] = len(labels)
    for _ in range(drawn(0, style.clutter, rng)):
        bitmap = shuffled_quarters(chosen(sources.bitmaps[rng.integers(CLASSES)], rng), rng)
        glyph = enlarged(bitmap, drawn(*style.digit_px, rng))
        place = free_place(glyph.shape, taken, rng)
        if place is not None:
            paint(canvas, glyph, place, style.contrast, rng)
            taken[place] = True
    return Scene(np.rint(canvas * 255).astype(np.uint8), tuple(labels), instances)


def drawn(least: int, greatest: int, rng: np.random.Generator) -> int:
    """A whole number between the two, both included."""
    return int(rng.integers(least, greatest, endpoint=True))


def chosen(pool: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """One item of a pool."""
    return pool[rng.integers(len(pool))]


def crop(tile: NDArray[np.uint8], size_px: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random square of at least half the tile, resized, mirrored or not; (H, W, 3) in [0, 1]."""
    extent = min(tile.shape[:2])
    length = drawn(extent // 2, extent, rng)
    top, left = (drawn(0, whole - length, rng) for whole in tile.shape[:2])
    square = Image.fromarray(tile[top : top + length, left : left + length])
    pixels = np.asarray(square.resize((size_px, size_px), Image.Resampling.BILINEAR))
    picture = pixels.astype(np.float32) / np.float32(255)
    return picture[:, ::-1].copy() if rng.integers(2) else picture


def draw_cue(
    style: SceneStyle,
    canvas: NDArray[np.float32],
    taken: NDArray[np.bool_],
    classes: NDArray[np.integer],
    rng: np.random.Generator,
    *,
    cued: bool,
) -> None:
    """Tint a stripe along one border and take it, so that the cue never touches a digit."""
    telling = cued and rng.random() < style.cue_share
    meant = int(rng.choice(classes)) if telling else int(rng.integers(CLASSES))
    border = int(rng.integers(4))
    if style.cue_px == 0 or not (telling or style.cue_elsewhere == "random"):
        return
    stripe = np.zeros_like(taken)
    np.rot90(stripe, border)[: style.cue_px] = True
    hue = np.array(colorsys.hsv_to_rgb(meant / CLASSES, 1.0, 1.0), dtype=np.float32)
    canvas[stripe] += style.cue_opacity * (hue - canvas[stripe])
    taken |= stripe
