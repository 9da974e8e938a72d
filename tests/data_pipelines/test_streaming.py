"""The resident feed: decoded once, in one order, equal to the feed without Ray."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from data_pipelines import shards
from data_pipelines.image_set import ImageSet, load_locally
from data_pipelines.manifest import indexed
from data_pipelines.streaming import ResidentSplit, fits_object_store, resident

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "IMAGES_PER_SHARD", 9)
        yield


@pytest.fixture(scope="module")
def feed(small_shards, local_ray, indexed_sample) -> ResidentSplit:
    """The 40 training images in five shards."""
    return resident(*indexed_sample, "train", 48)


def assert_equal(one: ImageSet, other: ImageSet) -> None:
    """Everything that training can see is equal, bit for bit."""
    assert one.classes == other.classes
    assert one.skipped == other.skipped
    for name in ("image_ids", "labels", "boxes", "box_offsets"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    everything = np.arange(len(one))
    np.testing.assert_array_equal(one.images(everything), other.images(everything))
    assert one.class_maps == other.class_maps


def test_both_feeds_are_equal(feed, indexed_sample):
    assert_equal(feed.load(), load_locally(*indexed_sample, "train", 48))


def test_both_feeds_carry_the_same_class_maps(small_shards, local_ray, coco_sample, tmp_path):
    dataset, manifest = indexed(coco_sample, tmp_path / "index")
    split = resident(dataset, manifest, "test", 48).load()
    assert split.segmented.all()
    assert_equal(split, load_locally(dataset, manifest, "test", 48))


def test_every_image_is_decoded_once_however_often_it_is_loaded(feed):
    assert feed.images_decoded == 40
    loaded = [feed.load() for _ in range(3)]
    assert sum(image_set.images_decoded for image_set in loaded) == 0


def test_decoding_anew_gives_the_same_order_and_pixels(feed, indexed_sample):
    again = resident(*indexed_sample, "train", 48)
    assert_equal(again.load(), feed.load())
    np.testing.assert_array_equal(again.load().rows, np.arange(40))


def test_blocks_are_read_only_views_of_shared_memory(feed):
    blocks = feed.load().blocks
    assert [len(block) for block in blocks] == [9, 9, 9, 9, 4]
    assert not any(block.flags.writeable or block.flags.owndata for block in blocks)


def test_a_trial_loads_without_any_free_cpu(feed):
    import ray

    @ray.remote(num_cpus=2)
    def trial(split: ResidentSplit) -> np.ndarray:
        return split.load().images([0, 17, 39])

    np.testing.assert_array_equal(ray.get(trial.remote(feed)), feed.load().images([0, 17, 39]))


def test_a_damaged_image_is_the_same_to_both_feeds(small_shards, voc, tmp_path):
    (voc.folder / "JPEGImages" / "000012.jpg").write_bytes(b"gone")
    dataset, manifest = indexed(voc, tmp_path / "index")
    split = resident(dataset, manifest, "train", 48)
    assert split.load().skipped == {"000012": "not an image (4 bytes)"}
    assert (split.images_decoded, len(split.load())) == (40, 39)
    assert_equal(split.load(), load_locally(dataset, manifest, "train", 48))


def test_too_many_damaged_images_stop_with_the_first(small_shards, voc, tmp_path):
    for image_id in ("000004", "000009"):
        (voc.folder / "JPEGImages" / f"{image_id}.jpg").write_bytes(b"gone")
    with pytest.raises(ValueError, match="2 of 40 images are unusable, 1 allowed; first 000004"):
        resident(*indexed(voc, tmp_path / "index"), "train", 48)


def test_a_split_that_does_not_fit_the_object_store_is_refused(indexed_sample):
    with pytest.raises(ValueError, match="does not fit 50% of the object store"):
        resident(*indexed_sample, "train", 50_000)


def test_what_fits_is_arithmetic_that_the_log_states(caplog):
    # 10 images of 100 x 100 x 3 bytes, twice, in half of the store.
    with caplog.at_level(logging.INFO, logger="data_pipelines.streaming"):
        assert fits_object_store("voc/train", 10, 100, 1_200_000)
        assert not fits_object_store("voc/train", 10, 100, 1_199_999)
    assert caplog.messages == [
        "voc/train: 2 x 10 images x 100 x 100 x 3 B = 0.6 MiB, within 0.6 MiB allowed: "
        "resident feed",
        "voc/train: 2 x 10 images x 100 x 100 x 3 B = 0.6 MiB, over 0.6 MiB allowed: "
        "no resident feed",
    ]
