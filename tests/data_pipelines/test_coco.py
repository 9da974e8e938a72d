"""The COCO layout, sound and damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.boxes import scale_boxes
from data_pipelines.coco import Coco, Coco2014
from data_pipelines.coco_layout import SPLIT_FILE
from data_pipelines.dataset import CROWD
from data_pipelines.instances import read_instances
from data_pipelines.manifest import index
from data_pipelines.regions import draw

WHOLE = {"counts": [0, 50 * 40], "size": [40, 50]}
SPLITS = ("train", "val", "test")


def annotation(category: int, bbox: list[float], **fields) -> dict:
    """One object of image 1."""
    return {"image_id": 1, "category_id": category, "bbox": bbox, "iscrowd": 0} | fields


def write(root: Path, annotations: list[dict], categories: dict[int, str], images: int = 2) -> None:
    """Both sets, with the same content; image k has the file k.jpg."""
    (root / "annotations").mkdir(parents=True)
    listed = [
        {"id": k, "file_name": f"{k}.jpg", "width": 50, "height": 40} for k in range(1, images + 1)
    ]
    named = [{"id": number, "name": name} for number, name in categories.items()]
    for home in ("train2014", "val2014"):
        content = {"images": listed, "annotations": annotations, "categories": named}
        (root / "annotations" / f"instances_{home}.json").write_text(json.dumps(content))
        (root / home).mkdir()
        for k in range(1, images + 1):
            (root / home / f"{k}.jpg").write_bytes(b"%d" % k)


@pytest.fixture
def coco(coco_sample, tmp_path) -> Coco:
    """A copy of the sample's files that a test may damage."""
    shutil.copytree(coco_sample.folder, tmp_path / "coco")
    return Coco(root=str(tmp_path / "coco"), split_file=SPLIT_FILE)


@pytest.fixture
def crowded(tmp_path) -> Coco2014:
    """Of two images the first shows a person in a crowd and a cup on a table."""
    annotations = [
        annotation(47, [10, 10, 5, 5], segmentation=[[10, 10, 15, 10, 15, 15, 10, 15]]),
        annotation(1, [0, 0, 50, 40], segmentation=WHOLE, iscrowd=1),
        annotation(67, [5, 5, 20, 20], segmentation=[[5, 5, 25, 5, 25, 25, 5, 25]]),
    ]
    write(tmp_path, annotations, {1: "person", 47: "cup", 67: "dining table"})
    return Coco2014(root=str(tmp_path), val_share=0.5)


def first(dataset: Coco):
    """The record of image 1."""
    return next(record for record in dataset.records("test") if record.image_id == "1")


def change(coco: Coco, where: str, content: dict, home: str = "val2014") -> Path:
    """Overwrite fields of an entry (``annotations.3``) in a file; None takes a field away."""
    path = coco.folder / "annotations" / f"instances_{home}.json"
    whole = json.loads(path.read_text())
    name, _, position = where.partition(".")
    entry = whole[name][int(position)] if position else whole
    entry.update(content)
    for field in [field for field, value in content.items() if value is None]:
        del entry[field]
    path.write_text(json.dumps(whole))
    return path


def test_the_reader_yields_the_boxes_and_labels_of_the_reference(golden, tmp_path):
    arrays = golden("preprocess_boxes")
    sizes = arrays["voc_sizes_wh"].tolist()
    names = Coco2014().categories()
    annotations = [
        annotation(int(category), box) | {"image_id": int(image)}
        for image, category, *box in arrays["coco_in_img_cat_x_y_w_h"].tolist()
    ]
    write(tmp_path, annotations, names)
    images = [
        {"id": k, "file_name": f"{k}.jpg", "width": w, "height": h}
        for k, (w, h) in enumerate(sizes)
    ]
    dataset = Coco2014(root=str(tmp_path))
    path = dataset.instances_path("test")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": images}))
    expected, labels = arrays["coco_out_img_cls_x0y0x1y1"], arrays["coco_label_ij"]
    for image, record in enumerate(dataset.records("test")):
        boxes = np.array(record.boxes).reshape(-1, 6)
        corners = scale_boxes(boxes[:, 1:5], record.width, record.height, 224)
        rows = np.concatenate([boxes[:, :1].astype(int), corners], axis=1)
        np.testing.assert_array_equal(rows, expected[expected[:, 0] == image, 1:])
        assert record.labels == tuple(labels[labels[:, 0] == image, 1])
    assert image == len(sizes) - 1


def test_the_eighty_have_the_published_gaps():
    numbers = list(Coco2014().categories())
    assert len(Coco2014().classes()) == len(set(Coco2014().classes())) == 80
    assert set(range(1, 91)) - set(numbers) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert numbers == sorted(numbers)


def test_categories_come_from_the_file_in_the_order_of_their_ids(coco):
    coco.check_layout()
    assert coco.classes() == tuple(f"digit_{k}" for k in range(10))
    listed = json.loads(coco.instances_path("train").read_text())["categories"]
    assert [one["id"] for one in listed] != sorted(one["id"] for one in listed)


def test_crowds_count_or_are_dropped_and_then_void(crowded):
    kept, dropped = first(crowded), first(replace(crowded, crowd="drop"))
    assert kept.labels == (0, 41, 60)
    assert [box[5] for box in kept.boxes] == [0, CROWD, 0]
    assert dropped.labels == (41, 60)
    assert [box[0] for box in dropped.boxes] == [41, 60]  # in published order
    for record, beneath in ((kept, 1), (dropped, 255)):
        shown = draw(record.regions, 50, 40)
        assert (shown[12, 12], shown[20, 20], shown[30, 30]) == (42, 61, beneath)


def test_an_image_without_objects_stays_and_has_no_class_map(crowded):
    (empty,) = (record for record in crowded.records("test") if record.image_id == "2")
    assert (empty.labels, empty.boxes, empty.regions) == ((), (), "")


def test_validation_is_a_seeded_share_of_train2014(coco):
    def ids(**fields):
        cut = replace(coco, split_file="", **fields)
        return [{record.image_id for record in cut.records(split)} for split in SPLITS]

    train, val, test = ids(val_share=0.25)
    assert (len(train), len(val), len(test)) == (39, 13, 12)
    assert len(train | val | test) == 39 + 13 + 12
    assert ids(val_share=0.25)[1] == val
    assert ids(val_share=0.25, split_seed=1)[1] != val
    assert replace(coco, val_share=0.2).result_id != coco.result_id
    with pytest.raises(ValueError, match=r"val_share = 1\.0.*expected a share between 0 and 1"):
        replace(coco, val_share=1.0)


def test_a_split_file_is_text_or_json_and_its_content_is_part_of_the_identity(coco, tmp_path):
    names = sorted(path.name for path in (coco.folder / "train2014").iterdir())
    lists = {"text": tmp_path / "cut.txt", "json": tmp_path / "cut.json"}
    lists["text"].write_text("\n".join([names[3], Path(names[5]).stem]))
    content = json.loads(coco.instances_path("train").read_text())
    images = [image for image in content["images"] if image["file_name"] in (names[3], names[5])]
    lists["json"].write_text(json.dumps(content | {"images": images, "annotations": []}))
    manifests = []
    for path in lists.values():
        dataset = replace(coco, split_file=str(path))
        found = [record.image_id for record in dataset.records("val")]
        assert found == [Path(names[3]).stem, Path(names[5]).stem]
        manifests.append(index(dataset, tmp_path / "index", SPLITS))
    assert manifests[0].fingerprint == manifests[1].fingerprint
    lists["text"].write_text("\n".join([names[3], names[6]]))
    again = index(replace(coco, split_file=str(lists["text"])), tmp_path / "index", SPLITS)
    assert again.fingerprint != manifests[0].fingerprint
    lists["text"].write_text("nowhere.jpg")
    with pytest.raises(ValueError, match=r"cut\.txt lists 'nowhere\.jpg', which train2014's"):
        list(replace(coco, split_file=str(lists["text"])).records("train"))
    with pytest.raises(FileNotFoundError, match=r"split_file .*none\.txt is missing"):
        list(replace(coco, split_file="none.txt").records("train"))
    lists["text"].write_text("")
    with pytest.raises(ValueError, match="validation takes 0 of 52 images"):
        list(replace(coco, split_file=str(lists["text"])).records("train"))


@pytest.mark.parametrize(
    ("where", "content", "why"),
    [
        ("", {"annotations": None}, "lacks the list 'annotations'"),
        ("images.2", {"width": None}, r"images\[2\] lacks 'width'"),
        ("images.2", {"height": 0}, r"images\[2\]: image size 64 x 0"),
        ("images.2", {"file_name": "../x.jpg"}, r"images\[2\]\.file_name = '\.\./x\.jpg'"),
        ("images.2", {"id": "9"}, r"images\[2\]\.id = '9': expected an integer"),
        ("annotations.1", {"bbox": None}, r"annotations\[1\] lacks 'bbox'"),
        ("annotations.1", {"bbox": [1, 2, 3]}, r"annotations\[1\]\.bbox = \[1, 2, 3\]"),
        ("annotations.1", {"image_id": 999}, r"annotations\[1\]\.image_id = 999: no such image"),
        ("annotations.1", {"category_id": 2}, r"annotations\[1\]\.category_id = 2: no such id"),
        (
            "annotations.1",
            {"segmentation": [[1] * 7]},
            r"annotations\[1\]\.segmentation: a polygon",
        ),
        ("categories.0", {"name": ""}, r"categories\[0\]\.name = ''"),
        ("categories.0", {"name": "unicorn"}, r"unknown category 28 'unicorn' in .*; known: 1 dig"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_with_entry_and_field(coco, where, content, why):
    path = change(coco, where, content)
    with pytest.raises(ValueError, match=why) as error:
        list(coco.records("test"))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_coco2014_refuses_a_category_of_its_own(coco):
    with pytest.raises(ValueError, match=r"unknown category 1 'digit_0' in .*train2014\.json; kn"):
        list(Coco2014(root=coco.root).records("train"))


def test_a_truncated_or_missing_file_is_named(coco):
    path = coco.instances_path("test")
    path.write_text(path.read_text()[:-100])
    with pytest.raises(ValueError, match=r"broken JSON \(.*char.*\): .*instances_val2014\.json"):
        list(coco.records("test"))
    path.unlink()
    with pytest.raises(FileNotFoundError, match="annotations missing: "):
        read_instances(path)
    with pytest.raises(FileNotFoundError, match=re.escape(f"{path} is missing; expected <root>")):
        coco.check_layout()
    with pytest.raises(FileNotFoundError, match="--data-root"):
        Coco().check_layout()


def test_an_image_without_its_file_is_skipped_and_named(coco, tmp_path):
    gone = next((coco.folder / "val2014").iterdir())
    gone.unlink()
    manifest = index(coco, tmp_path / "index", SPLITS)
    assert list(manifest.summary("test").skipped) == [gone.stem]
    assert str(gone) in manifest.summary("test").skipped[gone.stem]


def test_a_region_changes_the_fingerprint(coco, tmp_path):
    before = index(coco, tmp_path / "index", SPLITS)
    path = change(coco, "annotations.0", {"segmentation": [[1, 1, 4, 1, 4, 4]]})
    os.utime(path)
    assert index(coco, tmp_path / "index", SPLITS).fingerprint != before.fingerprint


def test_a_polygon_without_an_inside_is_left_out_and_noted(coco):
    content = json.loads((coco.folder / "annotations" / "instances_val2014.json").read_text())
    chosen = next(one for one in content["annotations"] if isinstance(one["segmentation"], list))
    before = list(coco.records("test"))
    chosen["segmentation"].append([1.0, 1.0, 5.0, 5.0])
    (coco.folder / "annotations" / "instances_val2014.json").write_text(json.dumps(content))
    after = list(coco.records("test"))
    noted = [record for record in after if record.notes]
    assert len(noted) == 1
    assert "1 polygons without an inside" in noted[0].notes[0]
    assert [record.regions for record in after] == [record.regions for record in before]
