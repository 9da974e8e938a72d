"""ImageNet-1k (ILSVRC 2012): one folder per class, boxes as XML, a list of synsets."""

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
SYNSET_LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "synsets.txt")
"""Published lists, one synset a line: with its names in the first two."""


@dataclass(frozen=True, kw_only=True)
class Imagenet(Dataset):
    """Any data in the class-folder layout of ImageNet: one label per image, boxes where published.

    Every box of an image bears the image's class. The validation images may also lie in one folder,
    as they are published: then their boxes' XML, which all of them have, names the class.

    Source: Russakovsky et al., 2015, and the folders that torchvision's ImageFolder reads.
    """

    name: ClassVar[str] = "imagenet"

    @property
    def annotated(self) -> frozenset[str]:
        return frozenset({"boxes", "labels"})

    def synsets(self) -> tuple[str, ...]:
        """Folder names of the classes, sorted: their order is that of the class indices."""
        return class_folders(self.folder / "train")

    def classes(self) -> tuple[str, ...]:
        """First name of each synset by the published list; the synset where there is none."""
        paths = [self.folder / name for name in SYNSET_LISTS]
        lines = next((path.read_text().splitlines() for path in paths if path.exists()), [])
        names = {line.split(" ", 1)[0]: line.split(" ", 1)[-1].split(",")[0] for line in lines}
        return tuple(names.get(synset, synset) for synset in self.synsets())

    def splits(self) -> tuple[str, ...]:
        """Train and val; the labels of the test images are not public."""
        return ("train", "val")

    def records(self, split: str) -> Iterator[Record | Skipped]:
        """Every image of every class folder, or of the one folder of validation images."""
        self.require_split(split)
        label_of = {synset: label for label, synset in enumerate(self.synsets())}
        flat = split == "val" and not class_folders(self.folder / split)
        annotations, published = self.folder / "Annotations" / split, frozenset[str]()
        for number, synset in enumerate([""] if flat else label_of):
            # boxes are published for part of the training images only
            folder = annotations / synset if split == "train" else annotations
            if split == "train" or number == 0:
                published = names_in(folder)
            read = partial(
                self.record, synset=synset, label_of=label_of, folder=folder, published=published
            )
            yield from in_threads(read, sorted((self.folder / split / synset).glob("*.JPEG")))

    def record(
        self,
        path: Path,
        synset: str,
        label_of: dict[str, int],
        folder: Path,
        published: frozenset[str],
    ) -> Record | Skipped:
        """One image; Skipped when its XML, or else its image header, is broken.

        Args:
            path: of the image.
            synset: its class; empty where its XML must say it.
            label_of: class index by synset.
            folder: of its XML.
            published: names of the XML files there.
        """
        try:
            return self.read(path, synset, label_of, folder, published)
        except (OSError, ValueError) as error:
            return Skipped(path.stem, str(error))

    def read(
        self,
        path: Path,
        synset: str,
        label_of: dict[str, int],
        folder: Path,
        published: frozenset[str],
    ) -> Record:
        """One image; OSError or ValueError when its XML, or else its image header, is broken."""
        xml = folder / f"{path.stem}.xml"
        boxes: list[Box] = []
        if xml.name in published or not synset:
            annotation = read_annotation(xml)
            width, height = annotation.width, annotation.height
            names = [o.class_name for o in annotation.objects]
            unknown = [name for name in names if name not in label_of]
            if unknown or not (synset or names):
                raise ValueError(
                    f"<object/name> is {names}: expected synsets of the class folders: {xml}"
                )
            synset = synset or names[0]
            boxes = [(label_of[synset], *o.corners, 0) for o in annotation.objects]
        else:
            with path.open("rb") as file, Image.open(file) as picture:
                width, height = picture.size
        kept, notes = clip_boxes(boxes, width, height)
        return Record(path.stem, path, width, height, (label_of[synset],), kept, notes=notes)

    def check_layout(self) -> None:
        """Both splits hold the same class folders, or validation none."""
        if not self.root:
            raise FileNotFoundError(f"{self.name} has no data root: give --data-root, as {LAYOUT}")
        for split in self.splits():
            path = self.folder / split
            flat = split == "val" and path.is_dir() and any(path.glob("*.JPEG"))
            if not path.is_dir() or not (flat or class_folders(path)):
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
