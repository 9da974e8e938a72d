"""Waterbirds-100: birds of CUB pasted on photographs of land and water, four groups."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from PIL import Image

from data_pipelines.boxes import clip_boxes
from data_pipelines.dataset import Dataset, Record, Skipped

LAYOUT = (
    "<root>/metadata.csv, <root>/<img_filename>, <root>/CUB_200_2011/{images,bounding_boxes}.txt"
)
COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")
"""Of metadata.csv."""
SPLITS = ("train", "val", "test")
"""What 0, 1 and 2 mean in the column ``split``."""
BIRDS, PLACES = ("landbird", "waterbird"), ("land", "water")
"""What 0 and 1 mean in the columns ``y`` and ``place``."""
GROUPS = tuple(f"{bird} on {place}" for bird in BIRDS for place in PLACES)
"""G1 to G4; a group's index is 2 * bird + place."""
TIED = (0, 3)
"""G1 and G4: the bird is where it belongs, so that the place tells it."""


@dataclass(frozen=True)
class Row:
    """A line of metadata.csv."""

    filename: str
    """Below the root; the same as in CUB's images.txt."""
    split: str
    bird: int
    place: int

    @property
    def group(self) -> int:
        """0 to 3 for G1 to G4."""
        return 2 * self.bird + self.place


@dataclass(frozen=True, kw_only=True)
class Waterbirds(Dataset):
    """Waterbirds in the published layout, with the boxes of CUB-200-2011, matched by file name.

    The birds' pictures kept their size, so CUB's boxes hold; they are x, y, width and height, taken
    as they are.

    Source: Sagawa et al., 2020 (metadata.csv); Petryk et al., 2022 (Waterbirds-100); Wah et al.,
        2011 (boxes); Model Guidance (Rao et al., ICCV 2023), section 5.5 and D.1.2 (the groups).
    """

    name: ClassVar[str] = "waterbirds"

    task: Literal["bird", "place"] = "bird"
    """What the labels tell: the bird (the conventional setting) or the place (the reversed one).
    Boxes bear the class of the label."""
    tied: bool = True
    """Whether training and validation keep G1 and G4 alone, as in Model Guidance. The published
    validation split of Waterbirds-100, and both splits of the 95 % file, hold all four groups."""

    def classes(self) -> tuple[str, ...]:
        """Both birds, or both places."""
        return BIRDS if self.task == "bird" else PLACES

    def splits(self) -> tuple[str, ...]:
        """All three; the test split holds all groups."""
        return SPLITS

    def records(self, split: str) -> Iterator[Record | Skipped]:
        """Every image of the split, but for G2 and G3 where they are left out."""
        boxes = cub_boxes(self.cub)
        for row in self.rows():
            if row.split == split and (row.group in TIED or not self.tied or split == "test"):
                yield self.record(row, boxes[row.filename])

    def record(self, row: Row, corners: tuple[float, ...]) -> Record | Skipped:
        """One image with its bird's corners; skipped if its header or its box is useless."""
        path, image_id = self.folder / row.filename, Path(row.filename).with_suffix("").as_posix()
        label = row.bird if self.task == "bird" else row.place
        try:
            with Image.open(path) as picture:
                width, height = picture.size
        except OSError as error:
            return Skipped(image_id, f"{error}: {path}")
        xmin, ymin, xmax, ymax = corners
        boxes, notes = clip_boxes([(label, xmin, ymin, xmax, ymax, 0)], width, height)
        if not boxes:
            return Skipped(image_id, f"{notes[0]}; {self.cub / 'bounding_boxes.txt'}")
        return Record(image_id, path, width, height, (label,), boxes, group=row.group, notes=notes)

    def check_layout(self) -> None:
        """The three lists are there and sound, and every listed image has a box."""
        if not self.root:
            raise FileNotFoundError(f"{self.name} has no data root: give --data-root, as {LAYOUT}")
        for path in self.lists():
            if not path.exists():
                raise FileNotFoundError(
                    f"{path} is missing; expected {LAYOUT}, --data-root is {self.root}"
                )
        boxes = cub_boxes(self.cub)
        for number, row in enumerate(self.rows(), start=2):
            if row.filename not in boxes:
                raise ValueError(
                    f"{self.metadata} line {number}: img_filename {row.filename!r} has no box in "
                    f"{self.cub / 'bounding_boxes.txt'} (by the names of images.txt): take both "
                    "files of the published CUB_200_2011"
                )

    @property
    def metadata(self) -> Path:
        """The list of images."""
        return self.folder / "metadata.csv"

    @property
    def cub(self) -> Path:
        """The folder of CUB's lists; its images are not needed."""
        return self.folder / "CUB_200_2011"

    def lists(self) -> tuple[Path, Path, Path]:
        """The files that annotations are read from."""
        return (self.metadata, self.cub / "images.txt", self.cub / "bounding_boxes.txt")

    def rows(self) -> Iterator[Row]:
        """The lines of metadata.csv.

        Raises:
            ValueError: a column or field is missing, or no known value; names file, line and field.
        """
        with self.metadata.open(newline="") as file:
            lines = csv.reader(file)
            header = tuple(next(lines, []))
            if header != COLUMNS:
                raise ValueError(
                    f"{self.metadata} line 1: columns {', '.join(header) or 'none'}; expected "
                    f"{', '.join(COLUMNS)}"
                )
            for number, values in enumerate(lines, start=2):
                yield row_of(values, f"{self.metadata} line {number}")

    def files(self) -> Iterator[str]:
        """The lists and the listed images; what else lies beside them (CUB's own) is not read."""
        yield from map(str, self.lists())
        listed = sorted(str(self.folder / row.filename) for row in self.rows())
        yield from (path for path in listed if os.path.exists(path))  # others will be skipped


def row_of(values: list[str], where: str) -> Row:
    """A line of metadata.csv, already split; errors begin with ``where``."""
    if len(values) != len(COLUMNS):
        missing = f"{COLUMNS[len(values)]} is missing" if len(values) < len(COLUMNS) else "too many"
        raise ValueError(
            f"{where}: {len(values)} of {len(COLUMNS)} fields, {missing}; the file is truncated or "
            "damaged, unpack it again"
        )
    field = dict(zip(COLUMNS, values, strict=True))
    if not field["img_filename"]:
        raise ValueError(f"{where}: img_filename is empty")
    codes = {"split": SPLITS, "y": BIRDS, "place": PLACES}
    for name, meanings in codes.items():
        if field[name] not in map(str, range(len(meanings))):
            allowed = ", ".join(f"{k} ({meaning})" for k, meaning in enumerate(meanings))
            what = "" if name == "split" else ": its group is unknown"
            raise ValueError(f"{where}: {name} is {field[name]!r}{what}; allowed: {allowed}")
    split = SPLITS[int(field["split"])]
    return Row(field["img_filename"], split, int(field["y"]), int(field["place"]))


def cub_boxes(folder: Path) -> dict[str, tuple[float, float, float, float]]:
    """Corners xmin, ymin, xmax, ymax in pixels by the name of the image.

    Raises:
        ValueError: a line is damaged; names file, line and field.
    """
    names = {row[0]: row[1] for row in words(folder / "images.txt", ("image_id", "image_name"))}
    found = {}
    columns = ("image_id", "x", "y", "width", "height")
    for number, row in enumerate(words(folder / "bounding_boxes.txt", columns), start=1):
        sides = []
        for name, text in zip(columns[1:], row[1:], strict=True):
            try:
                sides.append(float(text))
            except ValueError:
                raise ValueError(
                    f"{folder / 'bounding_boxes.txt'} line {number}: {name} is {text!r}, not a "
                    "number"
                ) from None
        x, y, width, height = sides
        if row[0] in names:
            found[names[row[0]]] = (x, y, x + width, y + height)
    return found


def words(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """The fields of every line; ValueError where one is missing."""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        row = line.split()
        if len(row) != len(columns):
            missing = columns[len(row)] if len(row) < len(columns) else columns[-1]
            raise ValueError(
                f"{path} line {number}: {len(row)} fields, expected {' '.join(columns)} (see "
                f"{missing}); unpack CUB_200_2011 again"
            )
        yield row
