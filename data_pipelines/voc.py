"""PASCAL VOC 2007: XML annotations, ImageSets, JPEGImages, SegmentationClass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from data_pipelines.annotation import read_annotation
from data_pipelines.boxes import clip_boxes
from data_pipelines.dataset import DIFFICULT, TRUNCATED, Dataset, Record, Skipped
from data_pipelines.location import in_threads, names_in

LAYOUT = "<root>/VOCdevkit/VOC2007/{Annotations,ImageSets/Main,JPEGImages}"
TWENTY = """aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike
    person pottedplant sheep sofa train tvmonitor"""


@dataclass(frozen=True, kw_only=True)
class Voc(Dataset):
    """Any data in the layout of VOC 2007; its classes are those of ImageSets/Main.

    Coordinates are 1-based and taken as they are, as Model Guidance does.

    Source: Everingham et al., 2010, and the development kit of 2007.
    """

    name: ClassVar[str] = "voc"

    difficult: Literal["keep", "drop"] = "keep"
    """Whether difficult objects count as labels and boxes. Kept in Model Guidance."""

    @property
    def folder(self) -> Path:
        """The VOC2007 folder."""
        return super().folder / "VOCdevkit" / "VOC2007"

    @property
    def annotated(self) -> frozenset[str]:
        return frozenset({"boxes", "segments"})

    @property
    def lists(self) -> Path:
        """The folder of the lists of images."""
        return self.folder / "ImageSets" / "Main"

    def classes(self) -> tuple[str, ...]:
        """Names of the ``<class>_train.txt``, sorted."""
        paths = self.lists.glob("*_train.txt")
        return tuple(sorted(path.name.removesuffix("_train.txt") for path in paths))

    def splits(self) -> tuple[str, ...]:
        """All three; the published test annotations are unpacked into the same folder."""
        return ("train", "val", "test")

    def records(self, split: str) -> Iterator[Record | Skipped]:
        """Every image of ImageSets/Main/<split>.txt."""
        self.require_split(split)
        index_of = {name: index for index, name in enumerate(self.classes())}
        masks = names_in(self.folder / "SegmentationClass")
        read = partial(self.record, index_of=index_of, masks=masks)
        yield from in_threads(read, listed(self.lists / f"{split}.txt"))

    def record(
        self, image_id: str, index_of: dict[str, int], masks: frozenset[str]
    ) -> Record | Skipped:
        """One image; Skipped when its XML cannot be used."""
        try:
            return self.read(image_id, index_of, masks)
        except ValueError as error:
            return Skipped(image_id, str(error))

    def read(self, image_id: str, index_of: dict[str, int], masks: frozenset[str]) -> Record:
        """One image; ValueError when its XML cannot be used."""
        path = self.folder / "Annotations" / f"{image_id}.xml"
        annotation = read_annotation(path)
        objects = [o for o in annotation.objects if self.difficult == "keep" or not o.difficult]
        unknown = sorted({o.class_name for o in objects} - set(index_of))
        if unknown:
            known = ", ".join(index_of)
            raise ValueError(f"<object/name> is {unknown[0]!r}; known: {known}: {path}")
        published = [
            (
                index_of[o.class_name],
                *o.corners,
                DIFFICULT * o.difficult | TRUNCATED * o.truncated,
            )
            for o in objects
        ]
        boxes, notes = clip_boxes(published, annotation.width, annotation.height)
        segmentation = self.folder / "SegmentationClass" / f"{image_id}.png"
        return Record(
            image_id=image_id,
            path=self.folder / "JPEGImages" / f"{image_id}.jpg",
            width=annotation.width,
            height=annotation.height,
            labels=tuple(sorted({class_index for class_index, *_ in published})),
            boxes=boxes,
            segmentation=segmentation if segmentation.name in masks else None,
            notes=notes,
        )

    def check_layout(self) -> None:
        """Folders and lists are there, the lists whole, and no image in two of them."""
        if not self.root:
            raise FileNotFoundError(f"{self.name} has no data root: give --data-root, as {LAYOUT}")
        splits = {split: self.lists / f"{split}.txt" for split in self.splits()}
        folders = (self.folder / "Annotations", self.lists, self.folder / "JPEGImages")
        for path in (*folders, *splits.values(), *self.class_lists()):
            if not path.exists():
                raise FileNotFoundError(
                    f"{path} is missing; expected {LAYOUT}, --data-root is {self.root}"
                )
        split_of: dict[str, str] = {}
        for split, path in splits.items():
            images = listed(path)
            twice = [image_id for image_id in images if split_of.get(image_id, split) != split]
            if twice:
                raise ValueError(
                    f"{path} lists image {twice[0]}, as {split_of[twice[0]]}.txt does: an image "
                    "belongs to one split, unpack the published files again"
                )
            split_of |= dict.fromkeys(images, split)
            count, companion = len(images), self.lists / f"{self.classes()[0]}_{split}.txt"
            if not count:
                raise ValueError(f"{path} lists no image: unpack the published file again")
            if companion.exists() and len(listed(companion)) != count:
                raise ValueError(
                    f"{path} lists {count} images but {companion.name} {len(listed(companion))}: "
                    "one is truncated, unpack the published files again"
                )

    def class_lists(self) -> list[Path]:
        """The lists of training images that the class names stand for."""
        return [self.lists / f"{name}_train.txt" for name in self.classes() or ("<class>",)]


def listed(path: Path) -> list[str]:
    """The first word of every line."""
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]


@dataclass(frozen=True, kw_only=True)
class Voc2007(Voc):
    """VOC 2007 itself: 2501 train, 2510 val and 4952 test images of 20 classes."""

    name: ClassVar[str] = "voc2007"

    def classes(self) -> tuple[str, ...]:
        """The published twenty."""
        return tuple(TWENTY.split())
