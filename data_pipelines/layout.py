"""A layout: the folders and files that a published dataset consists of, written for scenes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipelines.annotation import AnnotatedObject, Annotation, annotation_xml
from data_pipelines.scene import Scene
from data_pipelines.waterbirds import COLUMNS, PLACES, SPLITS

QUALITY = 95
"""Of the JPEGs."""
PALETTE = [0, 0, 0, *np.random.default_rng(0).integers(64, 256, size=255 * 3).tolist()]
"""Colors of the masks for people who open them; 0 is black."""

NumberedScene = tuple[str, int, Scene]
"""Split, running number of the image, scene."""


def write_voc(folder: Path, classes: Sequence[str], scenes: Iterable[NumberedScene]) -> None:
    """Write VOCdevkit/VOC2007: annotations, lists of images, images and both kinds of masks.

    Args:
        folder: becomes the data root.
        classes: class names.
        scenes: split by split.
    """
    home = folder / "VOCdevkit" / "VOC2007"
    lists = home / "ImageSets" / "Main"
    for name in ("Annotations", "JPEGImages", "SegmentationClass", "SegmentationObject"):
        (home / name).mkdir(parents=True)
    lists.mkdir(parents=True)
    present: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for split, number, scene in scenes:
        image_id = f"{number:06d}"
        present[split][image_id] = scene.labels
        write_image(home / "JPEGImages" / f"{image_id}.jpg", scene)
        write_mask(home / "SegmentationObject" / f"{image_id}.png", scene.instances)
        class_of = np.array([0, *(label + 1 for label in scene.labels)], dtype=np.uint8)
        write_mask(home / "SegmentationClass" / f"{image_id}.png", class_of[scene.instances])
        text = annotation_xml(f"{image_id}.jpg", annotation_of(scene, classes), segmented=True)
        (home / "Annotations" / f"{image_id}.xml").write_text(text)
    for split, labels_of in present.items():
        write_lines(lists / f"{split}.txt", labels_of)
        for index, name in enumerate(classes):
            signs = (f"{i} {1 if index in labels else -1:2d}" for i, labels in labels_of.items())
            write_lines(lists / f"{name}_{split}.txt", signs)


def write_imagenet(folder: Path, classes: Sequence[str], scenes: Iterable[NumberedScene]) -> None:
    """Write {train,val}/<synset>/*.JPEG, the boxes and the synsets' names; see ``write_voc``."""
    synsets = [f"n{index:08d}" for index in range(len(classes))]
    names = (f"{synset} {name}" for synset, name in zip(synsets, classes, strict=True))
    write_lines(folder / "LOC_synset_mapping.txt", names)
    for split, number, scene in scenes:
        synset = synsets[scene.labels[0]]
        image_id, below = f"ILSVRC2012_{split}_{number:08d}", Path("Annotations", split)
        if split == "train":
            image_id, below = f"{synset}_{number}", below / synset
        image = folder / split / synset / f"{image_id}.JPEG"
        xml = folder / below / f"{image_id}.xml"
        for path in (image, xml):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_image(image, scene)
        xml.write_text(annotation_xml(image_id, annotation_of(scene, synsets)))


def write_waterbirds(folder: Path, classes: Sequence[str], scenes: Iterable[NumberedScene]) -> None:
    """Write metadata.csv, a folder for each species, and CUB's lists of images and boxes.

    A digit is a species, a group of digits a bird, a photograph a place; see ``write_voc``.
    """
    lines, names, boxes = [",".join(COLUMNS)], [], []
    for split, number, scene in scenes:
        (label,), ((xmin, ymin, xmax, ymax),) = scene.labels, scene.boxes
        bird, place = divmod(scene.group or 0, 2)
        name = f"{label + 1:03d}.{classes[label]}/{classes[label]}_{number:04d}.jpg"
        (folder / name).parent.mkdir(exist_ok=True)
        write_image(folder / name, scene)
        lines.append(f"{number},{name},{bird},{SPLITS.index(split)},{place},/{PLACES[place]}.jpg")
        names.append(f"{number} {name}")
        boxes.append(f"{number} {xmin - 1}.0 {ymin - 1}.0 {xmax - xmin + 1}.0 {ymax - ymin + 1}.0")
    write_lines(folder / "metadata.csv", lines)
    (folder / "CUB_200_2011").mkdir()
    write_lines(folder / "CUB_200_2011" / "images.txt", names)
    write_lines(folder / "CUB_200_2011" / "bounding_boxes.txt", boxes)


def annotation_of(scene: Scene, names: Sequence[str]) -> Annotation:
    """The scene's digits as published objects."""
    height, width = scene.instances.shape
    digits = zip(scene.labels, scene.boxes, strict=True)
    return Annotation(width, height, tuple(AnnotatedObject(names[k], box) for k, box in digits))


def write_image(path: Path, scene: Scene) -> None:
    """JPEG with full color resolution: the cue and the strokes are a few pixels wide."""
    Image.fromarray(scene.image).save(path, "JPEG", quality=QUALITY, subsampling=0)


def write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """PNG with a palette, as VOC publishes masks."""
    picture = Image.fromarray(mask)
    picture.putpalette(PALETTE)
    picture.save(path, "PNG")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """One item a line."""
    path.write_text("".join(f"{line}\n" for line in lines))
