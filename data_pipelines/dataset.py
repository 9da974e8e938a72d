"""A dataset: published files on disk, read as plain rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.configuration import Configuration, outside_identity
from data_pipelines.location import listing, location, refuse_credentials

DIFFICULT, TRUNCATED, CROWD = 1, 2, 4
"""Bits of a box's flags."""

Box = tuple[int, float, float, float, float, int]
"""Class index; xmin, ymin, xmax, ymax in pixels of the published image; flags."""


@dataclass(frozen=True)
class Record:
    """What is published about one image: annotations and where the pixels lie, no pixels."""

    image_id: str
    """Unique within its split."""
    path: Path
    """The image file, absolute."""
    width: int
    height: int
    labels: tuple[int, ...]
    """Indices of the present classes, ascending; a label outlives a box that is dropped."""
    boxes: tuple[Box, ...] = ()
    segmentation: Path | None = None
    """Class map, absolute: a PNG where 0 is background, k + 1 is class k and 255 is undecided."""
    regions: str = ""
    """What a class map is drawn from where no file holds one; see ``regions.draw``."""
    group: int | None = None
    notes: tuple[str, ...] = ()
    """What was mended while reading, such as ``box 2 clipped``."""


@dataclass(frozen=True)
class Skipped:
    """An image that cannot be used, and why."""

    image_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Dataset(Configuration, ABC, family=True):
    """A dataset as published; subclasses name the policy of the study in their fields."""

    root: str = outside_identity(default="")
    """Folder, or address of one, that holds the published layout or what was converted from it
    (``--data-root``)."""
    fingerprint: str = ""
    """Hash of annotations and image bytes; filled in by ``manifest.indexed``."""

    def __post_init__(self) -> None:
        """Refuse a root with credentials before anything can print it."""
        refuse_credentials(self.root)
        super().__post_init__()

    @property
    def folder(self) -> Path:
        """The folder whose files make up the dataset, absolute; see ``location``."""
        return location(self.root)

    @property
    def annotated(self) -> frozenset[str]:
        """What images come with: ``boxes``, ``segments``, one true class each (``labels``)."""
        return frozenset({"boxes"})

    def require_split(self, split: str) -> None:
        """Refuse a split that the dataset does not have; ValueError lists those it has."""
        if split not in self.splits():
            raise ValueError(
                f"{self.name} has no split {split!r}; known: {', '.join(self.splits())}"
            )

    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the class indices."""

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The published splits, from ``train``, ``val`` and ``test``."""

    @abstractmethod
    def records(self, split: str) -> Iterator[Record | Skipped]:
        """Every image of a split in any order; one that cannot be used comes as ``Skipped``."""

    @abstractmethod
    def check_layout(self) -> None:
        """Check that the published layout is there.

        Raises:
            FileNotFoundError: names the path, the expected layout and the remedy.
            ValueError: a list of images is truncated; names the file.
        """

    def prepare(self) -> None:
        """Make the files if the dataset is generated; published data need nothing."""

    def files(self) -> dict[str, str]:
        """Size and version of every published file by its name: what a change is noticed by."""
        return listing(self.folder)
