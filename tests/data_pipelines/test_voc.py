"""The VOC layout, sound and damaged."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from data_pipelines.annotation import AnnotatedObject, Annotation, annotation_xml
from data_pipelines.boxes import scale_boxes
from data_pipelines.dataset import DIFFICULT, TRUNCATED, Record, Skipped
from data_pipelines.voc import Voc, Voc2007


def rewrite(voc: Voc, image_id: str, *objects: AnnotatedObject) -> None:
    """Give an image other objects."""
    text = annotation_xml(f"{image_id}.jpg", Annotation(64, 64, objects))
    (voc.folder / "Annotations" / f"{image_id}.xml").write_text(text)


def record(voc: Voc, image_id: str = "000001") -> Record | Skipped:
    """What the reader yields for an image of the training split."""
    return next(r for r in voc.records("train") if r.image_id == image_id)


def test_the_reader_yields_the_boxes_and_labels_of_the_reference(golden, tmp_path):
    arrays = golden("preprocess_boxes")
    voc = Voc2007(root=str(tmp_path))
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (voc.folder / folder).mkdir(parents=True)
    published = arrays["voc_in_img_name_x0y0x1y1"]
    for image, (width, height) in enumerate(arrays["voc_sizes_wh"].tolist()):
        rows = published[published[:, 0] == image, 1:].tolist()
        objects = (AnnotatedObject(arrays["voc_names"][name], (*box,)) for name, *box in rows)
        annotation = Annotation(width, height, tuple(objects))
        (voc.folder / "Annotations" / f"{image}.xml").write_text(annotation_xml("", annotation))
    (voc.lists / "test.txt").write_text("0\n1\n2\n3\n4\n")
    expected = arrays["voc_out_img_cls_x0y0x1y1"]
    for image, found in enumerate(voc.records("test")):
        boxes = np.array(found.boxes)
        corners = scale_boxes(boxes[:, 1:5], found.width, found.height, 224)
        rows = np.concatenate([boxes[:, :1].astype(int), corners], axis=1)
        np.testing.assert_array_equal(rows, expected[expected[:, 0] == image, 1:])
        assert found.labels == tuple(np.flatnonzero(arrays["voc_labels"][image]))


def test_classes_are_those_of_the_training_lists_in_alphabetical_order(voc):
    assert voc.classes() == tuple(f"digit_{k}" for k in range(10))


def test_voc_2007_has_its_twenty_classes_whatever_lies_on_disk():
    classes = Voc2007().classes()
    assert len(classes) == 20
    assert classes == tuple(sorted(classes))


def test_published_coordinates_are_taken_as_they_are(voc):
    rewrite(voc, "000001", AnnotatedObject("digit_3", (1, 1, 64, 64)))
    assert record(voc).boxes == ((3, 1, 1, 64, 64, 0),)
    assert record(voc).notes == ()


def test_difficult_objects_are_kept_or_dropped_as_the_study_says(voc):
    objects = (
        AnnotatedObject("digit_3", (1, 1, 9, 9), difficult=True),
        AnnotatedObject("digit_5", (1, 1, 9, 9), truncated=True),
    )
    rewrite(voc, "000001", *objects)
    assert record(voc).labels == (3, 5)
    assert [box[5] for box in record(voc).boxes] == [DIFFICULT, TRUNCATED]
    without = record(Voc(root=voc.root, difficult="drop"))
    assert without.labels == (5,)
    assert without.segmentation == record(voc).segmentation  # by class: no number shifts


def test_a_box_outside_the_image_is_clipped_or_dropped_and_noted_and_its_label_stays(voc):
    objects = (
        AnnotatedObject("digit_3", (50, 50, 70, 70)),
        AnnotatedObject("digit_5", (80, 80, 90, 90)),
    )
    rewrite(voc, "000001", *objects)
    found = record(voc)
    assert found.boxes == ((3, 50, 50, 64, 64, 0),)
    assert found.labels == (3, 5)
    assert [note.split(":")[0] for note in found.notes] == ["box 1 clipped", "box 2 dropped"]


def test_an_image_without_objects_has_no_labels(voc):
    rewrite(voc, "000001")
    assert record(voc).labels == ()


def test_a_broken_annotation_skips_its_image_alone(voc):
    (voc.folder / "Annotations" / "000002.xml").write_text("<annotation>")
    (voc.folder / "Annotations" / "000003.xml").unlink()
    rewrite(voc, "000004", AnnotatedObject("unicorn", (1, 1, 9, 9)))
    skipped = {r.image_id: r.reason for r in voc.records("train") if isinstance(r, Skipped)}
    assert set(skipped) == {"000002", "000003", "000004"}
    assert "broken XML" in skipped["000002"]
    assert "annotation missing" in skipped["000003"]
    assert "<object/name> is 'unicorn'; known: digit_0" in skipped["000004"]
    assert skipped["000004"].endswith("000004.xml")


@pytest.mark.parametrize("field", ["xmin", "name", "width"])
def test_a_missing_field_is_named_with_its_file(voc, field):
    path = voc.folder / "Annotations" / "000001.xml"
    path.write_text(re.sub(f"<{field}>[^<]*</{field}>", "", path.read_text()))
    assert re.search(rf"<.*{field}>.*000001\.xml$", record(voc).reason)


def test_a_sound_layout_passes(voc):
    voc.check_layout()


def test_no_root_at_all_names_the_flag():
    with pytest.raises(FileNotFoundError, match="--data-root"):
        Voc().check_layout()


@pytest.mark.parametrize(
    "missing", ["Annotations", "JPEGImages", "ImageSets/Main", "ImageSets/Main/val.txt"]
)
def test_a_missing_part_is_named_with_the_layout_and_the_flag(voc, missing):
    path = voc.folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))) as error:
        voc.check_layout()
    assert "VOCdevkit/VOC2007" in str(error.value)
    assert "--data-root" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_image_in_two_splits_is_refused(voc):
    train, val = (voc.lists / f"{split}.txt" for split in ("train", "val"))
    val.write_text(val.read_text() + train.read_text().splitlines()[4] + "\n")
    with pytest.raises(ValueError, match=r"val\.txt lists image 000005, as train\.txt does"):
        voc.check_layout()


def test_a_truncated_list_is_named(voc):
    path = voc.lists / "train.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-7]))
    with pytest.raises(ValueError, match=r"train\.txt lists 33 images but digit_0_train\.txt 40"):
        voc.check_layout()
    path.write_text("")
    with pytest.raises(ValueError, match=r"train\.txt lists no image"):
        voc.check_layout()
