"""The streamed feed: the same pictures as the resident one, in the order that is announced."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from data_pipelines import shards, streamed_set
from data_pipelines.image_set import load_locally
from data_pipelines.manifest import indexed
from data_pipelines.order import Windows
from data_pipelines.streamed_set import StreamedSet, streamed
from data_pipelines.voc import Voc
from tests.data_pipelines.test_streaming import assert_equal

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
SIZE_PX = 48
WINDOWS = Windows(group_images=4, groups=3)


@pytest.fixture(scope="module")
def small_parts():
    """Shards of 9 images, which groups of 4 straddle; windows of 3 groups; blocks of 5 images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "IMAGES_PER_SHARD", 9)
        patch.setattr(streamed_set, "BLOCK_BYTES", 5 * 3 * SIZE_PX**2)
        patch.setattr(streamed_set, "WINDOWS", WINDOWS)
        yield


@pytest.fixture(scope="module")
def damaged(small_parts, sample, tmp_path_factory):
    """The 40 training images, one of which is none any more, with their manifest."""
    root = tmp_path_factory.mktemp("damaged")
    voc = Voc(root=str(shutil.copytree(sample.folder, root / "voc")))
    (voc.folder / "JPEGImages" / "000012.jpg").write_bytes(b"gone")
    return indexed(voc, root / "index")


@pytest.fixture(scope="module")
def images(damaged, local_ray) -> StreamedSet:
    loaded = streamed(*damaged, "train", SIZE_PX).load()
    assert isinstance(loaded, StreamedSet)
    return loaded


def test_both_feeds_are_equal_and_leave_out_what_is_damaged(images, damaged):
    assert images.skipped == {"000012": "not an image (4 bytes)"}
    assert_equal(images, load_locally(*damaged, "train", SIZE_PX))


def test_announced_batches_come_in_their_order(images, damaged):
    local = load_locally(*damaged, "train", SIZE_PX)
    order = WINDOWS.shuffled(images.rows, np.random.default_rng(0))
    batches = np.split(order, range(8, len(order), 8))
    with images.expecting(batches):
        for batch in batches:
            pictures = images.images(batch)
            np.testing.assert_array_equal(pictures, local.images(batch))
            assert pictures.flags.writeable
            np.testing.assert_array_equal(images.images(batch[1:2]), local.images(batch[1:2]))


def test_a_stream_may_end_early_and_another_begin(images, damaged):
    local = load_locally(*damaged, "train", SIZE_PX)
    batches = np.split(np.arange(len(images)), [10, 20, 30])
    for count in (1, 4):
        with images.expecting(batches):
            for batch in batches[:count]:
                np.testing.assert_array_equal(images.images(batch), local.images(batch))


def test_damage_is_looked_for_once(images, damaged):
    assert streamed(*damaged, "train", SIZE_PX).images_decoded == 0


def test_an_order_that_no_stream_can_bring_is_refused(images, monkeypatch):
    shuffled = np.random.default_rng(0).permutation(len(images))
    monkeypatch.setattr(streamed_set, "WINDOWS", Windows(group_images=20, groups=1))
    with images.expecting([shuffled]), pytest.raises(ValueError, match='shuffle = "windows"'):
        images.images(shuffled)
