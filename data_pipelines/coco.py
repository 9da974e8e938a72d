"""COCO 2014: instances JSON, one folder of images for each published set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from data_pipelines.boxes import clip_boxes
from data_pipelines.configuration import outside_identity
from data_pipelines.dataset import CROWD, Dataset, Record
from data_pipelines.instances import Instance, InstanceImage, Instances, read_instances
from data_pipelines.location import location
from data_pipelines.regions import MOST_CLASSES, VOID
from data_pipelines.row import sha256

LAYOUT = "<root>/annotations/instances_{train2014,val2014}.json, <root>/{train2014,val2014}/*.jpg"
FOLDERS = {"train": "train2014", "val": "train2014", "test": "val2014"}
"""Published set that each split is taken from."""
EIGHTY = """1 person, 2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat,
    10 traffic light, 11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench, 16 bird, 17 cat,
    18 dog, 19 horse, 20 sheep, 21 cow, 22 elephant, 23 bear, 24 zebra, 25 giraffe, 27 backpack,
    28 umbrella, 31 handbag, 32 tie, 33 suitcase, 34 frisbee, 35 skis, 36 snowboard,
    37 sports ball, 38 kite, 39 baseball bat, 40 baseball glove, 41 skateboard, 42 surfboard,
    43 tennis racket, 44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl,
    52 banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza,
    60 donut, 61 cake, 62 chair, 63 couch, 64 potted plant, 65 bed, 67 dining table, 70 toilet,
    72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard, 77 cell phone, 78 microwave, 79 oven,
    80 toaster, 81 sink, 82 refrigerator, 84 book, 85 clock, 86 vase, 87 scissors, 88 teddy bear,
    89 hair drier, 90 toothbrush"""


@dataclass(frozen=True, kw_only=True)
class Coco(Dataset):
    """Any data in the layout of COCO 2014; its categories are those of train2014's file, by id.

    Training and validation are cut from train2014, test is val2014, as in Model Guidance: by a
    seeded share, or by a file. A crowd that is dropped is void in the class map; beyond 254
    categories there is none.

    Source: Lin et al., 2014 (COCO); splits, crowds and boxes: Rao et al., 2023 (Model Guidance) and
        the authors' code.
    Departs: the authors took their cut from other work and do not say its sizes: ``val_share`` is
        ours, ``split_file`` takes theirs.
    """

    name: ClassVar[str] = "coco"

    crowd: Literal["keep", "drop"] = "keep"
    """Whether crowds count as labels and boxes. Kept in Model Guidance."""
    val_share: float = 0.1
    """Share of train2014 that is held out for validation; unused with a split file."""
    split_seed: int = 0
    """Of the drawing of that share."""
    split_file: str = outside_identity(default="")
    """Which images of train2014 are validation, relative to the root or absolute: file names,
    with or without their ending, one a line, or an instances JSON of them. What it says enters the
    fingerprint, as each row's split does."""

    def __post_init__(self) -> None:
        """Check the share."""
        super().__post_init__()
        if not 0 < self.val_share < 1 or self.split_seed < 0:
            raise ValueError(
                f"{type(self).__name__}: val_share = {self.val_share}, split_seed = "
                f"{self.split_seed}: expected a share between 0 and 1 and a seed of at least 0"
            )

    @property
    def annotated(self) -> frozenset[str]:
        return frozenset({"boxes", "segments"})

    def instances_path(self, split: str) -> Path:
        """The file that annotates a split."""
        return self.folder / "annotations" / f"instances_{FOLDERS[split]}.json"

    def categories(self) -> dict[int, str]:
        """Name by published id, ascending."""
        path = self.instances_path("train")
        status = path.stat()
        return dict(categories_of(path, status.st_size, status.st_mtime))

    def classes(self) -> tuple[str, ...]:
        """Names of the categories."""
        return tuple(self.categories().values())

    def splits(self) -> tuple[str, ...]:
        """All three; see the class."""
        return tuple(FOLDERS)

    def records(self, split: str) -> Iterator[Record]:
        """Every image of a split, also without any object."""
        self.require_split(split)
        instances = read_instances(self.instances_path(split))
        index_of = self.index_of(instances)
        held_out = self.held_out(instances) if split != "test" else frozenset()
        for image in instances.images:
            if (image.file_name in held_out) == (split == "val"):
                yield self.record(image, self.folder / FOLDERS[split], index_of)

    def record(self, image: InstanceImage, folder: Path, index_of: dict[int, int]) -> Record:
        """One image."""
        objects = [o for o in image.objects if self.crowd == "keep" or not o.crowd]
        published = [(index_of[o.category], *o.corners, CROWD * o.crowd) for o in objects]
        boxes, notes = clip_boxes(published, image.width, image.height)
        regions = [
            [self.value_of(o, index_of), int(o.crowd), o.region]
            for o in image.objects
            if o.region is not None and len(index_of) <= MOST_CLASSES
        ]
        return Record(
            image_id=Path(image.file_name).stem,
            path=folder / image.file_name,
            width=image.width,
            height=image.height,
            labels=tuple(sorted({class_index for class_index, *_ in published})),
            boxes=boxes,
            regions=json.dumps(regions, separators=(",", ":")) if regions else "",
            notes=(*notes, *(o.note for o in image.objects if o.note)),
        )

    def value_of(self, instance: Instance, index_of: dict[int, int]) -> int:
        """What the class map shows where the object lies."""
        dropped = instance.crowd and self.crowd == "drop"
        return VOID if dropped else index_of[instance.category] + 1

    def index_of(self, instances: Instances) -> dict[int, int]:
        """Class index by category id.

        Raises:
            ValueError: the file has a category that is none of the dataset's; names both.
        """
        known = self.categories()
        for number, name in instances.categories.items():
            if known.get(number) != name:
                raise ValueError(
                    f"unknown category {number} {name!r} in {instances.path}; known: "
                    + ", ".join(f"{i} {n}" for i, n in known.items())
                )
        return {number: index for index, number in enumerate(known)}

    def held_out(self, instances: Instances) -> frozenset[str]:
        """File names of train2014 that are validation.

        Raises:
            FileNotFoundError: there is no split file at the path.
            ValueError: it names an image that train2014 does not list, or leaves a split empty.
        """
        names = sorted(image.file_name for image in instances.images)
        if not self.split_file:
            order = np.random.default_rng(self.split_seed).permutation(len(names))
            chosen = {names[k] for k in order[: round(self.val_share * len(names))]}
        else:
            chosen = self.listed(names)
        if not 0 < len(chosen) < len(names):
            raise ValueError(
                f"{instances.path}: validation takes {len(chosen)} of {len(names)} images; give "
                "another val_share or split_file"
            )
        return frozenset(chosen)

    @property
    def split_path(self) -> Path:
        """Where the split file lies."""
        away = "://" in self.split_file or Path(self.split_file).is_absolute()
        return location(self.split_file) if away else self.folder / self.split_file

    def listed(self, names: list[str]) -> set[str]:
        """What the split file lists, of these file names."""
        path = self.split_path
        if not path.exists():
            raise FileNotFoundError(f"split_file {path} is missing; it lists validation images")
        if path.suffix == ".json":
            wanted = [image.file_name for image in read_instances(path).images]
        else:
            wanted = path.read_text().split()
        name_of = {Path(name).stem: name for name in names}
        unknown = [one for one in wanted if Path(one).stem not in name_of]
        if unknown:
            raise ValueError(f"{path} lists {unknown[0]!r}, which train2014's file does not")
        return {name_of[Path(one).stem] for one in wanted}

    def files(self) -> dict[str, str]:
        """Of the published files, and of the split file where it lies elsewhere."""
        path, found = self.split_path, super().files()
        if self.split_file and not path.is_relative_to(self.folder):
            found |= {self.split_file: sha256(path.read_bytes())}
        return found

    def check_layout(self) -> None:
        """Both files and both folders are there."""
        if not self.root:
            raise FileNotFoundError(f"{self.name} has no data root: give --data-root, as {LAYOUT}")
        for split in ("train", "test"):
            for path in (self.instances_path(split), self.folder / FOLDERS[split]):
                if not path.exists():
                    raise FileNotFoundError(
                        f"{path} is missing; expected {LAYOUT}, --data-root is {self.root}"
                    )


@lru_cache(maxsize=4)
def categories_of(path: Path, size: int, time_s: float) -> tuple[tuple[int, str], ...]:
    """Categories of a file that has that size and time, which stand for its content."""
    return tuple(read_instances(path).categories.items())


@dataclass(frozen=True, kw_only=True)
class Coco2014(Coco):
    """COCO 2014 itself: 82,783 images to train and validate on, 40,504 to test, 80 classes."""

    name: ClassVar[str] = "coco2014"

    def categories(self) -> dict[int, str]:
        """The published eighty, whose ids have gaps between 1 and 90."""
        pairs = (entry.strip().split(" ", 1) for entry in EIGHTY.split(","))
        return {int(number): name for number, name in pairs}
