"""Every layout of the sample: its reader finds what the generator made, and no split leaks."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines import scene
from data_pipelines.class_map import published_png
from data_pipelines.dataset import CROWD
from data_pipelines.row import row_of
from data_pipelines.transforms import decode

FIXTURES = {"voc": "sample", "coco": "coco_sample", "imagenet": "imagenet_sample"}


@pytest.fixture(params=FIXTURES)
def dataset(request):
    """The small sample in each layout."""
    return request.getfixturevalue(FIXTURES[request.param])


def found(dataset):
    """Records by split and running number."""
    return {
        (split, int(record.image_id.split("_")[-1])): record
        for split in dataset.splits()
        for record in dataset.records(split)
    }


def test_the_reader_finds_exactly_what_the_generator_made(dataset):
    records = found(dataset)
    made = {(split, number): one for split, number, one in dataset.scenes()}
    assert records.keys() == made.keys()
    shift = np.array([1, 1, 0, 0]) * (dataset.layout == "coco")  # from 0, without the last pixel
    for key, one in made.items():
        record = records[key]
        assert record.labels == tuple(sorted(one.labels))
        assert [box[0] for box in record.boxes] == list(one.labels)
        np.testing.assert_array_equal([box[1:5] for box in record.boxes], one.boxes - shift)
        assert (record.width, record.height, record.notes) == (64, 64, ())
        pixels = decode(record.path.read_bytes(), 64).astype(int)
        assert np.abs(pixels - one.image).mean() < 3  # JPEG
        png = published_png(dataset.folder, row_of(record, dataset.folder))
        if "segments" in dataset.annotated:
            values = np.array([0, *(label + 1 for label in one.labels)])
            shown = np.asarray(Image.open(io.BytesIO(png)))
            np.testing.assert_array_equal(shown, values[one.instances])
        else:
            assert png is None


def test_the_coco_layout_has_every_form_of_region_and_crowds(coco_sample):
    text = (coco_sample.folder / "annotations" / "instances_train2014.json").read_text()
    assert '"segmentation": [[' in text
    assert '"counts": "' in text
    assert '"counts": [' in text
    flags = {box[5] for record in found(coco_sample).values() for box in record.boxes}
    assert flags == {0, CROWD}


def test_no_image_is_in_two_splits(dataset):
    hashes = {}
    for (split, _), record in found(dataset).items():
        hashes.setdefault(hashlib.sha256(record.path.read_bytes()).hexdigest(), set()).add(split)
    assert {len(splits) for splits in hashes.values()} == {1}


def test_no_digit_bitmap_is_in_two_splits(dataset, monkeypatch):
    drawn = []
    enlarged = scene.enlarged
    monkeypatch.setattr(
        scene,
        "enlarged",
        lambda bitmap, side: drawn.append(bitmap.tobytes()) or enlarged(bitmap, side),
    )
    splits_of: dict[bytes, set[str]] = {}
    for split, _, _ in dataset.scenes():
        for bitmap in drawn:
            splits_of.setdefault(bitmap, set()).add(split)
        drawn.clear()
    assert len(splits_of) > 50
    assert {len(splits) for splits in splits_of.values()} == {1}


def test_an_unknown_split_is_refused_by_name(dataset):
    with pytest.raises(ValueError, match="has no split 'dev'; known: train, val"):
        list(dataset.records("dev"))
