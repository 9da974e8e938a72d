"""The ImageNet layout, sound and damaged."""

from __future__ import annotations

import re
import shutil

import pytest

from data_pipelines.dataset import Skipped
from data_pipelines.imagenet import Imagenet


@pytest.fixture
def imagenet(imagenet_sample, tmp_path):
    """A copy of the sample's files that a test may damage."""
    shutil.copytree(imagenet_sample.folder, tmp_path / "imagenet")
    return Imagenet(root=str(tmp_path / "imagenet"))


def test_every_image_has_the_label_of_its_folder_and_boxes_of_that_class(imagenet):
    imagenet.check_layout()
    for split in ("train", "val"):
        for record in imagenet.records(split):
            synset = imagenet.synsets()[record.labels[0]]
            assert record.path.parent.name == synset
            assert [box[0] for box in record.boxes] == list(record.labels)


def test_classes_bear_the_first_of_their_published_names(imagenet):
    mapping = imagenet.folder / "LOC_synset_mapping.txt"
    assert imagenet.classes() == tuple(f"digit_{k}" for k in range(10))
    mapping.write_text(mapping.read_text().replace("digit_0", "tench, Tinca tinca"))
    assert imagenet.classes()[0] == "tench"
    mapping.unlink()
    assert imagenet.classes() == imagenet.synsets()


@pytest.mark.parametrize("name", ["synset_words.txt", "synsets.txt"])
def test_other_published_lists_of_synsets_are_read(imagenet, name):
    mapping = imagenet.folder / "LOC_synset_mapping.txt"
    mapping.rename(mapping.with_name(name))
    assert imagenet.classes() == tuple(f"digit_{k}" for k in range(10))
    mapping.with_name(name).write_text("".join(f"{synset}\n" for synset in imagenet.synsets()))
    assert imagenet.classes() == imagenet.synsets()


def test_validation_images_in_one_folder_take_their_class_from_their_boxes(imagenet):
    expected = {record.image_id: record for record in imagenet.records("val")}
    val = imagenet.folder / "val"
    for path in sorted(val.glob("*/*.JPEG")):
        path.rename(val / path.name)
    for folder in [path for path in val.iterdir() if path.is_dir()]:
        folder.rmdir()
    imagenet.check_layout()
    annotations = imagenet.folder / "Annotations" / "val"
    first, second = sorted(annotations.iterdir())[:2]
    first.unlink()
    second.write_text(second.read_text().replace("<name>n0", "<name>x0"))
    records = {record.image_id: record for record in imagenet.records("val")}
    assert records.keys() == expected.keys()
    assert records.pop(first.stem).reason.startswith("annotation missing")
    reason = records.pop(second.stem).reason
    told = r"<object/name> is \['x0.*expected synsets of the class folders: .*\.xml"
    assert re.fullmatch(told, reason)
    for image_id, record in records.items():
        assert (record.labels, record.boxes) == (
            expected[image_id].labels,
            expected[image_id].boxes,
        )


def test_an_image_without_published_boxes_takes_its_size_from_its_header(imagenet):
    shutil.rmtree(imagenet.folder / "Annotations" / "train")
    record = next(iter(imagenet.records("train")))
    assert (record.width, record.height, record.boxes) == (64, 64, ())


def test_a_broken_annotation_or_header_skips_its_image_alone(imagenet):
    broken, damaged, *rest = sorted((imagenet.folder / "val").glob("*/*.JPEG"))
    annotations = imagenet.folder / "Annotations" / "val"
    (annotations / f"{broken.stem}.xml").write_text("<annotation>")
    (annotations / f"{damaged.stem}.xml").unlink()
    damaged.write_bytes(b"")
    records = list(imagenet.records("val"))
    assert {r.image_id for r in records if isinstance(r, Skipped)} == {broken.stem, damaged.stem}
    assert len(records) == len(rest) + 2


def test_missing_folders_are_named_with_the_layout_and_the_flag(imagenet):
    with pytest.raises(FileNotFoundError, match="--data-root"):
        Imagenet().check_layout()
    synset = imagenet.synsets()[3]
    shutil.rmtree(imagenet.folder / "train" / synset)
    with pytest.raises(FileNotFoundError, match=f"train/{synset} is missing"):
        imagenet.check_layout()
    shutil.rmtree(imagenet.folder / "val")
    with pytest.raises(FileNotFoundError, match=r"val holds no class folder.*--data-root"):
        imagenet.check_layout()
