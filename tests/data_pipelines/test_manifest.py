"""Indexing: sorted rows, fingerprints, reuse, and what is skipped."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipelines import manifest as manifest_file
from data_pipelines.manifest import Manifest, index, indexed
from data_pipelines.row import ANNOTATION_SCHEMA
from data_pipelines.voc import Voc

SPLITS = ("train", "val", "test")


def test_rows_are_sorted_complete_and_fit_the_schema(indexed_sample):
    dataset, manifest = indexed_sample
    for split, n in zip(SPLITS, (40, 12, 12), strict=True):
        table = manifest.table(split)
        assert table.schema.equals(ANNOTATION_SCHEMA)
        assert list(manifest.image_ids(split)) == sorted(r.image_id for r in dataset.records(split))
        assert len(table) == manifest.summary(split).images == n
        records = {r.image_id: r for r in dataset.records(split)}
        for row in table.to_pylist():
            record = records[row["image_id"]]
            assert dataset.folder / row["path"] == record.path
            assert tuple(row["labels"]) == record.labels
            assert tuple(tuple(box) for box in row["boxes"]) == record.boxes
        assert manifest.summary(split).pairs == sum(len(r.labels) for r in records.values())
        assert manifest.summary(split).boxes == sum(len(r.boxes) for r in records.values())


def test_the_fingerprint_goes_into_the_identity_and_the_root_does_not(indexed_sample, sample):
    dataset, manifest = indexed_sample
    assert dataset.fingerprint == manifest.fingerprint
    assert len(manifest.fingerprint) == 16
    assert dataset.result_id != sample.result_id
    assert dataset.result_id == replace(dataset, root="/elsewhere").result_id


def test_a_written_manifest_reads_back(indexed_sample):
    _, manifest = indexed_sample
    assert Manifest.read(manifest.directory) == manifest


def test_an_unchanged_dataset_is_not_read_again(voc, tmp_path, monkeypatch):
    first = index(voc, tmp_path / "index", SPLITS)
    monkeypatch.setattr(manifest_file, "write_rows", None)
    assert index(voc, tmp_path / "index", SPLITS) == first


def test_a_moved_dataset_keeps_its_manifest(voc, tmp_path, monkeypatch):
    first = index(voc, tmp_path / "index", SPLITS)
    shutil.move(voc.root, tmp_path / "moved")
    monkeypatch.setattr(manifest_file, "write_rows", None)
    assert index(Voc(root=str(tmp_path / "moved")), tmp_path / "index", SPLITS) == first


def test_touched_files_are_read_again_and_keep_the_fingerprint(voc, tmp_path):
    first = index(voc, tmp_path / "index", SPLITS)
    os.utime(voc.folder / "JPEGImages" / "000001.jpg", ns=(1, 1))
    again = index(voc, tmp_path / "index", SPLITS)
    assert again.fingerprint == first.fingerprint
    assert again.sources != first.sources
    assert index(voc, tmp_path / "index", SPLITS) == again


@pytest.mark.parametrize(
    "name", ["JPEGImages/000001.jpg", "SegmentationClass/000001.png", "Annotations/000001.xml"]
)
def test_other_bytes_give_another_fingerprint(voc, tmp_path, name):
    first = index(voc, tmp_path / "index", SPLITS)
    shutil.copy((voc.folder / name).with_stem("000002"), voc.folder / name)
    second = index(voc, tmp_path / "index", SPLITS)
    assert second.fingerprint != first.fingerprint
    assert len(list((tmp_path / "index").iterdir())) == 2


def test_another_policy_over_the_same_files_is_indexed_anew(voc, tmp_path):
    keep = index(voc, tmp_path / "index", SPLITS)
    drop = index(replace(voc, difficult="drop"), tmp_path / "index", SPLITS)
    assert keep.identity != drop.identity


def test_a_dataset_whose_files_changed_since_is_refused(voc, tmp_path):
    known, _ = indexed(voc, tmp_path / "index")
    assert indexed(known, tmp_path / "index")[0] == known
    (voc.folder / "JPEGImages" / "000001.jpg").write_bytes(b"other")
    with pytest.raises(ValueError, match=f"has fingerprint .*, not {known.fingerprint}"):
        indexed(known, tmp_path / "index")


def test_unusable_images_are_skipped_counted_and_named(voc, tmp_path):
    (voc.folder / "Annotations" / "000002.xml").write_text("<annotation>")
    (voc.folder / "JPEGImages" / "000003.jpg").unlink()
    manifest = index(voc, tmp_path / "index", SPLITS, max_skipped_fraction=0.05)
    summary = manifest.summary("train")
    assert summary.images == 38
    assert set(summary.skipped) == {"000002", "000003"}
    assert "broken XML" in summary.skipped["000002"]
    assert summary.skipped["000003"].startswith("No such file or directory: ")
    assert not {"000002", "000003"} & set(manifest.image_ids("train"))


def test_one_unusable_image_never_stops_a_run_and_more_than_the_share_do(voc, tmp_path):
    (voc.folder / "JPEGImages" / "000003.jpg").unlink()
    index(voc, tmp_path / "index", SPLITS)
    (voc.folder / "JPEGImages" / "000002.jpg").unlink()
    for _ in range(2):  # the second time from the stored manifest
        with pytest.raises(ValueError, match=r"voc/train: 2 of 40 .*, 1 allowed; first 000002"):
            index(voc, tmp_path / "index", SPLITS)
    assert index(voc, tmp_path / "index", SPLITS, 0.5).summary("train").images == 38


def test_a_split_without_a_usable_image_is_refused(voc, tmp_path):
    shutil.rmtree(voc.folder / "JPEGImages")
    (voc.folder / "JPEGImages").mkdir()
    with pytest.raises(ValueError, match="voc/train: no usable image of 40"):
        index(voc, tmp_path / "index", SPLITS, max_skipped_fraction=1.0)


def test_mended_boxes_are_named(voc, tmp_path):
    path = voc.folder / "Annotations" / "000001.xml"
    path.write_text(path.read_text().replace("<xmax>", "<xmax>9"))
    notes = index(voc, tmp_path / "index", SPLITS).summary("train").notes
    assert list(notes) == ["000001"]
    assert notes["000001"][0].startswith("box 1 clipped")


def test_an_image_that_is_listed_twice_is_refused(voc, tmp_path):
    for path in voc.lists.glob("*train.txt"):
        path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="train lists image 000001 twice"):
        index(voc, tmp_path / "index", SPLITS)


def test_a_failed_indexing_leaves_nothing_behind(voc, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(manifest_file, "move_files", fail)
    with pytest.raises(OSError, match="disk full"):
        index(voc, tmp_path / "index", SPLITS)
    assert list((tmp_path / "index").iterdir()) == []


def test_a_manifest_of_an_older_format_is_made_anew(voc, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_file, "FORMAT", 0)
    older = index(voc, tmp_path / "index", SPLITS)
    monkeypatch.undo()
    assert Manifest.read(older.directory) is None
    assert index(voc, tmp_path / "index", SPLITS) == older
    assert Manifest.read(older.directory) == older


def test_an_unknown_split_lists_the_known(indexed_sample):
    with pytest.raises(ValueError, match="split 'dev' is not indexed; known: train, val, test"):
        indexed_sample[1].table("dev")


def test_a_missing_root_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="--data-root"):
        indexed(Voc(root=str(tmp_path / "absent")), tmp_path / "index")
    assert not Path(tmp_path / "index").exists()
