"""ImageNet-1k (ILSVRC 2012): one folder per class, boxes as XML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from PIL import Image

from data_pipelines.annotation import read_annotation
from data_pipelines.boxes import clip_boxes
from data_pipelines.dataset import Box, Dataset, Record, Skipped
from data_pipelines.location import in_threads, names_in

LAYOUT = "<root>/{train,val}/<synset>/*.JPEG, <root>/Annotations/{train/<synset>,val}/*.xml"


@dataclass(frozen=True, kw_only=True)
class Imagenet(Dataset):
    """Any data in the class-folder layout of ImageNet: one label per image, boxes where published.

    Every box of an image bears the image's class.

    Source: Russakovsky et al., 2015, and the folders that torchvision's ImageFolder reads.
    """

    name: ClassVar[str] = "imagenet"

    def synsets(self) -> tuple[str, ...]:
        """Folder names of the classes, sorted: their order is that of the class indices."""
        return class_folders(self.folder / "train")

    def classes(self) -> tuple[str, ...]:
        """First name of each synset by LOC_synset_mapping.txt; the synset where there is none."""
        mapping = self.folder / "LOC_synset_mapping.txt"
        lines = mapping.read_text().splitlines() if mapping.exists() else []
        names = {line.split(" ", 1)[0]: line.split(" ", 1)[-1].split(",")[0] for line in lines}
        return tuple(names.get(synset, synset) for synset in self.synsets())

    def splits(self) -> tuple[str, ...]:
        """Train and val; the labels of the test images are not public."""
        return ("train", "val")

    def records(self, split: str) -> Iterator[Record | Skipped]:
        """Every image of every class folder."""
        annotations, published = self.folder / "Annotations" / split, frozenset[str]()
        for label, synset in enumerate(self.synsets()):
            # boxes are published for part of the training images only
            folder = annotations / synset if split == "train" else annotations
            if split == "train" or label == 0:
                published = names_in(folder)
            read = partial(self.record, label=label, folder=folder, published=published)
            yield from in_threads(read, sorted((self.folder / split / synset).glob("*.JPEG")))

    def record(
        self, path: Path, label: int, folder: Path, published: frozenset[str]
    ) -> Record | Skipped:
        """One image; Skipped when its XML, or else its image header, is broken."""
        try:
            return self.annotated(path, label, folder, published)
        except (OSError, ValueError) as error:
            return Skipped(path.stem, str(error))

    def annotated(self, path: Path, label: int, folder: Path, published: frozenset[str]) -> Record:
        """One image; OSError or ValueError when its XML, or else its image header, is broken."""
        boxes: list[Box] = []
        if f"{path.stem}.xml" in published:
            annotation = read_annotation(folder / f"{path.stem}.xml")
            width, height = annotation.width, annotation.height
            boxes = [(label, *o.corners, 0) for o in annotation.objects]
        else:
            with path.open("rb") as file, Image.open(file) as picture:
                width, height = picture.size
        kept, notes = clip_boxes(boxes, width, height)
        return Record(path.stem, path, width, height, (label,), kept, notes=notes)

    def check_layout(self) -> None:
        """Both splits hold the same class folders."""
        if not self.root:
            raise FileNotFoundError(f"{self.name} has no data root: give --data-root, as {LAYOUT}")
        for split in self.splits():
            path = self.folder / split
            if not path.is_dir() or not class_folders(path):
                raise FileNotFoundError(
                    f"{path} holds no class folder; expected {LAYOUT}, --data-root is {self.root}"
                )
        unknown = sorted(set(class_folders(self.folder / "val")) - set(self.synsets()))
        if unknown:
            raise FileNotFoundError(
                f"{self.folder / 'train' / unknown[0]} is missing, but val has that class folder"
            )


def class_folders(path: Path) -> tuple[str, ...]:
    """Names of the folders in a folder, sorted."""
    return tuple(sorted(child.name for child in path.iterdir() if child.is_dir()))
