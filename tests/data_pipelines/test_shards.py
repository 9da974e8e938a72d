"""Parquet shards, written by Ray Data."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines import shards
from data_pipelines.manifest import indexed
from data_pipelines.shards import SHARD_SCHEMA, shard_paths, write_shards

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 15)


@pytest.fixture
def written(small_shards, voc, tmp_path):
    """A dataset whose 40 training images lie in three shards."""
    dataset, manifest = indexed(voc, tmp_path / "index")
    write_shards(dataset, manifest, "train")
    return dataset, manifest


def test_shards_hold_the_published_bytes_and_rows_in_the_order_of_ids(written):
    dataset, manifest = written
    paths = shard_paths(manifest, "train")
    assert [path.stem[-4:] for path in paths] == ["0015", "0030", "0040"]
    assert sorted(paths[0].parent.iterdir()) == paths
    tables = [pq.read_table(path) for path in paths]
    assert [len(table) for table in tables] == [15, 15, 10]
    assert all(table.schema.equals(SHARD_SCHEMA) for table in tables)
    rows = pa.concat_tables(tables).to_pylist()
    records = sorted(dataset.records("train"), key=lambda record: record.image_id)
    for row, record in zip(rows, records, strict=True):
        assert row["image_id"] == record.image_id
        assert row["image"] == record.path.read_bytes()
        assert row["segmentation"] == record.segmentation.read_bytes()
        assert tuple(tuple(box) for box in row["boxes"]) == record.boxes
        assert tuple(row["labels"]) == record.labels


def test_an_image_without_boxes_or_mask_has_empty_columns(small_shards, voc, tmp_path):
    path = voc.folder / "Annotations" / "000001.xml"
    path.write_text("<annotation><size><width>64</width><height>64</height></size></annotation>")
    (voc.folder / "SegmentationClass" / "000001.png").unlink()
    dataset, manifest = indexed(voc, tmp_path / "index")
    write_shards(dataset, manifest, "train")
    row = pq.read_table(shard_paths(manifest, "train")[0]).slice(0, 1).to_pylist()[0]
    assert (row["boxes"], row["labels"], row["segmentation"], row["group"]) == ([], [], None, None)


def test_only_missing_shards_are_written_again(written):
    dataset, manifest = written
    paths = shard_paths(manifest, "train")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}
    paths[1].unlink()
    write_shards(dataset, manifest, "train")
    assert sorted(paths[0].parent.iterdir()) == paths
    assert [path.stat().st_mtime_ns == before[path][0] for path in paths] == [True, False, True]
    assert all(path.read_bytes() == before[path][1] for path in paths)


def test_an_image_that_is_gone_stops_the_writing_and_leaves_no_shard_of_it(
    small_shards, voc, tmp_path
):
    dataset, manifest = indexed(voc, tmp_path / "index")
    (voc.folder / "JPEGImages" / "000020.jpg").unlink()
    with pytest.raises(Exception, match=r"No such file or directory.*000020\.jpg"):
        write_shards(dataset, manifest, "train")
    assert not shard_paths(manifest, "train")[1].exists()


def test_masks_in_shards_are_pictures(written):
    from PIL import Image

    _, manifest = written
    row = pq.read_table(shard_paths(manifest, "train")[0]).slice(0, 1).to_pylist()[0]
    classes = np.asarray(Image.open(io.BytesIO(row["segmentation"])))
    assert set(np.unique(classes)) == {0, *(label + 1 for label in row["labels"])}
