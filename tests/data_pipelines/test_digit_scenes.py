"""The generated sample on disk."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from platformdirs import user_data_path

from data_pipelines import digit_scenes
from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.scene import compose

SMALL = {"images_train": 6, "images_val": 3, "images_test": 3}


def hashes(folder: Path) -> dict[str, str]:
    """Hash of every file by its path below the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("layout", ["voc", "coco", "imagenet"])
def test_two_generations_are_equal_byte_for_byte(tmp_path, layout):
    first = DigitScenes(root=str(tmp_path / "a"), layout=layout, **SMALL)
    second = DigitScenes(root=str(tmp_path / "b"), layout=layout, **SMALL)
    first.prepare()
    second.prepare()
    assert hashes(first.folder) == hashes(second.folder)
    assert len(hashes(first.folder)) > 9


def test_an_image_does_not_depend_on_how_many_are_made(sample, tmp_path):
    fewer = DigitScenes(root=str(tmp_path), **SMALL)
    fewer.prepare()
    few, many = (hashes(d.folder / "VOCdevkit/VOC2007/JPEGImages") for d in (fewer, sample))
    assert [few[f"{k:06d}.jpg"] for k in range(1, 7)] == [many[f"{k:06d}.jpg"] for k in range(1, 7)]
    assert few["000007.jpg"] == many["000041.jpg"]  # the first of validation


def test_only_training_images_may_carry_a_telling_cue(tmp_path, monkeypatch):
    told = []

    def record(style, sources, rng, *, cued, lone):
        told.append(cued)
        return compose(style, sources, rng, cued=cued, lone=lone)

    monkeypatch.setattr(digit_scenes, "compose", record)
    DigitScenes(root=str(tmp_path), **SMALL).prepare()
    assert told == [True] * 6 + [False] * 6


def test_another_seed_makes_other_images(tmp_path):
    made = [DigitScenes(root=str(tmp_path), seed=seed, **SMALL) for seed in (0, 1)]
    for dataset in made:
        dataset.prepare()
    first, second = (set(hashes(d.folder / "VOCdevkit/VOC2007/JPEGImages").values()) for d in made)
    assert not first & second


def test_masks_and_boxes_on_disk_agree(sample):
    for record in sample.records("train"):
        classes = np.asarray(Image.open(record.segmentation))
        instances = np.asarray(
            Image.open(str(record.segmentation).replace("SegmentationClass", "SegmentationObject"))
        )
        assert instances.max() == len(record.boxes)
        for number, (label, xmin, ymin, xmax, ymax, flags) in enumerate(record.boxes, start=1):
            rows, columns = np.nonzero(instances == number)
            tight = (columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1)
            assert tight == (xmin, ymin, xmax, ymax)
            assert set(classes[instances == number]) == {label + 1}
            assert flags == 0


def test_the_image_lists_of_each_class_agree_with_the_annotations(sample):
    lists = sample.folder / "VOCdevkit/VOC2007/ImageSets/Main"
    for label, name in enumerate(sample.classes()):
        signs = dict(line.split() for line in (lists / f"{name}_val.txt").read_text().splitlines())
        present = {r.image_id for r in sample.records("val") if label in r.labels}
        assert {image_id for image_id, sign in signs.items() if sign == "1"} == present
        assert len(signs) == 12


def test_the_imagenet_layout_has_one_digit_per_image_and_no_test_split(imagenet_sample):
    assert imagenet_sample.splits() == ("train", "val")
    assert not (imagenet_sample.folder / "test").exists()
    for split, n in (("train", 60), ("val", 20)):
        records = list(imagenet_sample.records(split))
        assert len(records) == n
        assert all(len(r.labels) == len(r.boxes) == 1 for r in records)


def test_every_setting_has_its_own_folder_below_the_root(tmp_path):
    folders = {
        DigitScenes(root=str(tmp_path)).folder,
        DigitScenes(root=str(tmp_path), contrast=0.2).folder,
        DigitScenes(root=str(tmp_path), layout="imagenet").folder,
    }
    assert len(folders) == 3
    assert {folder.parent for folder in folders} == {tmp_path}
    assert DigitScenes().folder.parent == user_data_path("attribution-sweeps")
    known = replace(DigitScenes(), fingerprint="0123456789abcdef")
    assert known.folder == DigitScenes().folder


def test_preparing_again_touches_nothing(sample):
    before = [path.stat().st_mtime_ns for path in sorted(sample.folder.rglob("*"))]
    sample.prepare()
    assert [path.stat().st_mtime_ns for path in sorted(sample.folder.rglob("*"))] == before


def test_an_interrupted_generation_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(folder, classes, scenes):
        (folder / "half").write_text("")
        raise OSError("disk full")

    monkeypatch.setattr(digit_scenes, "write_voc", fail)
    dataset = DigitScenes(root=str(tmp_path), **SMALL)
    with pytest.raises(OSError, match="disk full"):
        dataset.prepare()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"is missing: DigitScenes\.prepare"):
        dataset.check_layout()


def test_the_second_of_two_generations_at_once_gives_way(tmp_path, monkeypatch):
    dataset = DigitScenes(root=str(tmp_path), **SMALL)

    def overtaken(folder, classes, scenes):
        (dataset.folder / "first").mkdir(parents=True)
        (folder / "second").mkdir()

    monkeypatch.setattr(digit_scenes, "write_voc", overtaken)
    dataset.prepare()
    assert [path.name for path in tmp_path.iterdir()] == [dataset.folder.name]
    assert (dataset.folder / "first").exists()


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("images_val", {"images_val": 0}),
        ("digit_px", {"digit_px": (16, 60)}),
        ("digit_px", {"digit_px": (28, 16)}),
        ("lone_digit_px", {"layout": "imagenet", "lone_digit_px": (16, 28)}),
        ("size_px", {"layout": "imagenet", "size_px": 66}),
        ("seed", {"seed": -1}),
        ("layout", {"layout": "yolo"}),
    ],
)
def test_an_impossible_field_is_refused_by_name(field, fields):
    with pytest.raises(ValueError, match=rf"DigitScenes\.{field} = .*: expected"):
        DigitScenes(**fields)
