"""A decoded split in plain numpy."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_pipelines.boxes import box_mask, scale_boxes
from data_pipelines.image_set import ImageSet, assemble, load_locally
from data_pipelines.manifest import indexed
from data_pipelines.transforms import decode


@pytest.fixture(scope="module")
def train(indexed_sample) -> ImageSet:
    return load_locally(*indexed_sample, "train", 48)


def test_images_are_the_decoded_files_sorted_by_id(indexed_sample, train):
    dataset, _ = indexed_sample
    records = sorted(dataset.records("train"), key=lambda record: record.image_id)
    assert train.image_ids.tolist() == [record.image_id for record in records]
    pictures = train.images(np.arange(len(train)))
    assert pictures.shape == (40, 3, 48, 48)
    assert pictures.dtype == np.uint8
    for picture, record in zip(pictures, records, strict=True):
        pixels = decode(record.path.read_bytes(), 48)
        np.testing.assert_array_equal(picture, pixels.transpose(2, 0, 1))
    assert train.images_decoded == len(train) == 40


def test_annotations_are_those_of_the_records_scaled(indexed_sample, train):
    dataset, _ = indexed_sample
    for record in dataset.records("train"):
        i = train.image_ids.tolist().index(record.image_id)
        assert tuple(np.flatnonzero(train.labels[i])) == record.labels
        assert tuple(train.positives(i)) == record.labels
        rows = train.boxes[train.box_offsets[i] : train.box_offsets[i + 1]]
        published = np.array(record.boxes)
        np.testing.assert_array_equal(rows[:, 0], published[:, 0])
        np.testing.assert_array_equal(rows[:, 1:], scale_boxes(published[:, 1:5], 64, 64, 48))
    assert train.labels.dtype == np.uint8
    assert train.boxes.dtype == np.int32


def test_pairs_are_all_positives_in_the_order_of_images(train):
    image_index, targets = train.pairs()
    expected = [(i, k) for i in range(len(train)) for k in train.positives(i)]
    assert list(zip(image_index, targets, strict=True)) == expected


def test_a_mask_is_the_union_of_the_boxes_of_its_class_alone(train):
    boxes = np.array([[3, 1, 2, 10, 12], [5, 20, 20, 30, 30], [3, 8, 8, 15, 16]], dtype=np.int32)
    offsets = np.concatenate([[0], np.full(len(train), 3)])
    other = replace(train, boxes=boxes, box_offsets=offsets)
    np.testing.assert_array_equal(other.mask(0, 3), box_mask(boxes[[0, 2], 1:], 48))
    np.testing.assert_array_equal(other.mask(0, 5), box_mask([[20, 20, 30, 30]], 48))
    np.testing.assert_array_equal(other.mask(0, 5, 0.5), box_mask([[15, 15, 35, 35]], 48))
    assert not other.mask(0, 7).any()
    assert not other.mask(1, 3).any()


def test_masks_of_pairs_are_stacked_masks(train):
    image_index, targets = train.pairs()
    masks = train.masks(image_index, targets, dilation=0.25)
    assert masks.shape == (len(image_index), 48, 48)
    assert masks.dtype == bool
    for mask, i, k in zip(masks, image_index, targets, strict=True):
        np.testing.assert_array_equal(mask, train.mask(i, k, 0.25))
    assert train.masks([], []).shape == (0, 48, 48)


def test_segments_are_the_published_ones_at_the_size_of_the_images(indexed_sample, train):
    dataset, manifest = indexed_sample
    val = load_locally(dataset, manifest, "val", 48)
    image_index, targets = val.pairs()
    found = val.segments(image_index, targets)
    assert (found.shape, found.dtype) == ((len(targets), 48, 48), np.int8)
    path_of = {record.image_id: record.segmentation for record in dataset.records("val")}
    for segment, i, k in zip(found, image_index, targets, strict=True):
        published = Image.open(path_of[val.image_ids[i]])
        resized = np.asarray(published.resize((48, 48), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(segment, resized == k + 1)
        assert (val.mask(i, k) | (segment == 0))[2:-2, 2:-2].mean() > 0.95  # the object in its box
    assert val.segmented.all()
    assert sum(map(len, val.class_maps)) < 12 * 48 * 48 / 5


def test_training_images_carry_no_class_maps(train):
    assert train.class_maps == ()
    assert not train.segmented.any()
    assert (train.segments([0, 3], [1, 1]) == -1).all()


def test_an_image_without_segmentation_is_undecided_and_a_damaged_one_named(voc, tmp_path):
    home = voc.folder / "SegmentationClass"
    (home / "000041.png").unlink()
    (home / "000042.png").write_bytes(b"gone")
    val = load_locally(*indexed(voc, tmp_path / "index"), "val", 48)
    assert val.skipped == {"000042": "segmentation is not an image (4 bytes)"}
    assert val.segmented.tolist() == [False] + [True] * 10
    assert (val.segments([0], val.positives(0)[:1]) == -1).all()
    assert (val.segments([1], val.positives(1)[:1]) == 1).any()


def test_coco_regions_are_drawn_on_the_way(coco_sample, indexed_sample, tmp_path):
    drawn = load_locally(*indexed(coco_sample, tmp_path / "index"), "test", 48)
    published = load_locally(*indexed_sample, "test", 48)  # the same scenes
    pairs = published.pairs()
    np.testing.assert_array_equal(drawn.segments(*pairs), published.segments(*pairs))
    np.testing.assert_array_equal(drawn.labels, published.labels)


def test_blocks_of_any_cut_and_order_give_the_same_images(indexed_sample, train):
    _, manifest = indexed_sample
    order = np.random.default_rng(0).permutation(40)
    shuffled = train.blocks[0][order]
    blocks = [shuffled[:7], shuffled[7:8], shuffled[8:]]
    ids = [manifest.image_ids("train")[k] for k in order]
    other = assemble(manifest, "train", 48, ids, [""] * 40, blocks, images_decoded=0)
    assert other.image_ids.tolist() == train.image_ids.tolist()
    for chosen in ([39, 0, 7, 7, 8, 21], np.arange(40)):
        np.testing.assert_array_equal(other.images(chosen), train.images(chosen))
    np.testing.assert_array_equal(other.boxes, train.boxes)


def test_images_are_copies_so_that_shared_blocks_stay_as_they_are(train):
    locked = train.blocks[0].copy()
    locked.setflags(write=False)
    pictures = replace(train, blocks=[locked]).images([3])
    pictures[:] = 0
    assert locked[3].any()


def test_an_empty_batch_is_empty(train):
    assert train.images([]).shape == (0, 3, 48, 48)


def test_an_image_set_survives_pickling(train):
    copy = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(copy.images([5]), train.images([5]))
    assert copy.classes == train.classes


def test_a_damaged_image_is_left_out_and_named_and_the_rest_stays(voc, train, tmp_path):
    jpeg = voc.folder / "JPEGImages" / "000004.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:300])
    damaged = load_locally(*indexed(voc, tmp_path / "index"), "train", 48)
    assert list(damaged.skipped) == ["000004"]
    assert damaged.skipped["000004"].startswith("damaged image: ")
    assert damaged.images_decoded == 40
    kept = np.delete(np.arange(40), 3)
    assert damaged.image_ids.tolist() == train.image_ids[kept].tolist()
    np.testing.assert_array_equal(damaged.images(np.arange(39)), train.images(kept))
    np.testing.assert_array_equal(damaged.labels, train.labels[kept])
    np.testing.assert_array_equal(damaged.mask(38, 1), train.mask(39, 1))
    assert damaged.box_offsets[-1] == len(damaged.boxes)


def test_too_many_damaged_images_stop_with_the_first(voc, tmp_path):
    for image_id in ("000004", "000009"):
        (voc.folder / "JPEGImages" / f"{image_id}.jpg").write_bytes(b"gone")
    dataset, manifest = indexed(voc, tmp_path / "index")
    with pytest.raises(ValueError, match=r"2 of 40 images are unusable, 1 allowed; first 000004"):
        load_locally(dataset, manifest, "train", 48)
    assert len(load_locally(dataset, manifest, "train", 48, max_skipped_fraction=0.1)) == 38


def test_rows_that_are_not_those_of_the_manifest_are_refused(indexed_sample):
    _, manifest = indexed_sample
    ids = manifest.image_ids("train")[:-1]
    with pytest.raises(ValueError, match="the 39 decoded rows of train are not the 40"):
        assemble(manifest, "train", 48, ids, [""] * 39, images_decoded=0)
