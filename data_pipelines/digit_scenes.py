"""Digit scenes: the generated sample, written in published layouts, read by published readers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from platformdirs import user_data_path

from data_pipelines.coco import Coco
from data_pipelines.coco_layout import SPLIT_FILE, write_coco
from data_pipelines.dataset import Dataset, Record, Skipped
from data_pipelines.imagenet import Imagenet
from data_pipelines.layout import NumberedScene, write_imagenet, write_voc, write_waterbirds
from data_pipelines.location import is_local, location
from data_pipelines.scene import Scene, SceneStyle, compose
from data_pipelines.sources import CLASSES, Sources, partitioned_sources
from data_pipelines.voc import Voc
from data_pipelines.waterbirds import GROUPS, TIED, Waterbirds

DIGITS = tuple(f"digit_{k}" for k in range(CLASSES))
READERS: dict[str, type[Dataset]] = {
    "voc": Voc, "coco": Coco, "imagenet": Imagenet, "waterbirds": Waterbirds,
}  # fmt: skip
"""The published reader of each layout."""


@dataclass(frozen=True, kw_only=True)
class DigitScenes(Dataset, SceneStyle):
    """Handwritten digits of random size, place and color on crops of photographs.

    ``voc``: one to three digits of different classes, with boxes and masks; a context cue tells a
    class in a share of the training images, so that there is something to guide away from.
    ``coco``: the same scenes; two sets are published, and a file names the validation images of the
    first. ``imagenet``: exactly one digit, on at least 4 of 16 patches, with its box.
    ``waterbirds``: exactly one digit, a landbird or a waterbird by its class, on the first
    photograph (land) or the second (water): always its own in training and validation, either in
    the test.

    Source: digits and photographs that ship with scikit-learn, divided among the splits first.
    """

    name: ClassVar[str] = "digit_scenes"

    layout: Literal["voc", "coco", "imagenet", "waterbirds"] = "voc"
    """Published layout that the files are written in."""
    images_train: int = 1200
    images_val: int = 200
    images_test: int = 200
    """Unused by the ImageNet layout, whose test labels are not public."""
    seed: int = 0
    """Of the division and of every image."""
    birds: tuple[tuple[int, ...], tuple[int, ...]] = ((0, 6), (1, 7))
    """Digits that are landbirds, and waterbirds; used by the Waterbirds layout alone."""

    def __post_init__(self) -> None:
        """Refuse counts and sides that no sample can have."""
        super().__post_init__()
        for split in self.splits():
            self.require(f"images_{split}", self.images(split) >= 1, "at least 1")
        # A side that fits beside the cue always finds a place; a lone one of half the image
        # always finds four patches.
        lone = self.layout == "imagenet"
        field, least = ("lone_digit_px", self.size_px // 2) if lone else ("digit_px", 8)
        sides, most = getattr(self, field), self.size_px - self.cue_px
        fit = least <= sides[0] <= sides[1] <= most
        self.require(field, fit, f"ascending sides between {least} and {most}")
        self.require("size_px", not lone or self.size_px % 4 == 0, "a multiple of 4 (patches)")
        self.require("seed", self.seed >= 0, "at least 0")
        digits = [*self.birds[0], *self.birds[1]]
        known = len(set(digits)) == len(digits) and set(digits) <= set(range(CLASSES))
        self.require("birds", known and all(self.birds), "two groups of different digits, 0 to 9")

    @property
    def folder(self) -> Path:
        """``digit_scenes-<identity>`` under the data root, or under the user's data folder."""
        home = location(self.root) if self.root else user_data_path("attribution-sweeps")
        return home / f"{self.name}-{replace(self, fingerprint='').result_id}"

    @property
    def reader(self) -> Dataset:
        """The published reader of the layout."""
        fields = {"split_file": SPLIT_FILE} if self.layout == "coco" else {}
        return READERS[self.layout](root=str(self.folder), **fields)

    @property
    def annotated(self) -> frozenset[str]:
        return self.reader.annotated

    def images(self, split: str) -> int:
        """How many images the split has."""
        return int(getattr(self, f"images_{split}"))

    def classes(self) -> tuple[str, ...]:
        """digit_0 to digit_9; landbird and waterbird in the Waterbirds layout."""
        return self.reader.classes() if self.layout == "waterbirds" else DIGITS

    def splits(self) -> tuple[str, ...]:
        """Those of the layout."""
        return ("train", "val") if self.layout == "imagenet" else ("train", "val", "test")

    def records(self, split: str) -> Iterator[Record | Skipped]:
        """What the reader of the layout finds."""
        return self.reader.records(split)

    def check_layout(self) -> None:
        """The files were generated and are all there."""
        if not self.folder.exists():
            raise FileNotFoundError(f"{self.folder} is missing: DigitScenes.prepare() generates it")
        self.reader.check_layout()

    def prepare(self) -> None:
        """Generate the files unless they are there; equal fields give equal bytes.

        They are written to a temporary folder that is renamed when complete: a half-written sample
        is never read, and two processes may do this at once.
        """
        if self.folder.exists():
            return
        if not is_local(self.folder):
            raise ValueError(
                f"{self.folder} is missing, and {self.name} is generated on local folders only: "
                "convert it to shards there, or give a local --data-root"
            )
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent)
        write = {
            "voc": write_voc,
            "coco": write_coco,
            "imagenet": write_imagenet,
            "waterbirds": write_waterbirds,
        }[self.layout]
        try:
            write(Path(unfinished), DIGITS, self.scenes())
            os.chmod(unfinished, 0o755)  # mkdtemp makes it private
            os.rename(unfinished, self.folder)
        except OSError:
            if not self.folder.exists():  # else another process was first, with the same bytes
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def scenes(self) -> Iterator[NumberedScene]:
        """Every image; its number counts from 1 through all splits."""
        sources, lone, number = partitioned_sources(self.seed), self.layout == "imagenet", 0
        for order, split in enumerate(self.splits()):
            for position in range(self.images(split)):
                rng = np.random.default_rng((self.seed, order, position))
                number += 1
                if self.layout == "waterbirds":
                    yield split, number, self.bird(sources[split], rng, split, position)
                    continue
                cued = split == "train"
                yield split, number, compose(self, sources[split], rng, cued=cued, lone=lone)

    def bird(self, sources: Sources, rng: np.random.Generator, split: str, position: int) -> Scene:
        """A scene of the Waterbirds layout; the groups of a split take turns."""
        held = range(len(GROUPS)) if split == "test" else TIED
        group = held[position % len(held)]
        bird, place = divmod(group, 2)
        kinds = self.birds[bird]
        scene = compose(self, sources.at(place), rng, cued=False, lone=False, of=kinds)
        return replace(scene, group=group)
