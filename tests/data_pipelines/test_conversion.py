"""Converting a dataset to shards, without Ray: the work items run in this process."""

from __future__ import annotations

import csv
import json
import os
import shutil
from contextlib import nullcontext
from dataclasses import replace

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipelines import command, shards
from data_pipelines.command import Conversion
from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.image_set import load_locally
from data_pipelines.location import location
from data_pipelines.manifest import Manifest, converted_manifest, index, indexed
from data_pipelines.shards import shard_paths, work_item, write_shard
from data_pipelines.voc import Voc

JPEGS = "VOCdevkit/VOC2007/JPEGImages"


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    """Shards of 15, and no Ray. Yields the paths of the shards in the order of writing."""
    paths = []

    def written(items, folder, **flags):
        for item in items:
            done = write_shard(item, folder=str(folder), **flags)
            paths.append(done["shard"])
            yield {"shard": done["shard"], **json.loads(done["report"])}

    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 15)
    monkeypatch.setattr(shards, "written", written)
    monkeypatch.setattr(command, "ray_running", lambda _: nullcontext())
    return paths


@pytest.fixture
def run(voc, tmp_path):
    """Convert the VOC copy with these flags; returns the exit code."""

    def convert(**flags):
        said = {"layout": "voc", "source": voc.root, "out": str(tmp_path / "out")} | flags
        return command.run(Conversion(**said))

    return convert


def manifest_in(out) -> Manifest:
    (path,) = location(str(out)).glob("*/manifest.json")
    manifest = Manifest.read(path.parent)
    assert manifest is not None
    return manifest


def same_rows(published, converted, split):
    assert converted.table(split).equals(published.table(split))
    ours = [pq.read_table(path) for path in shard_paths(converted, split)]
    for table, path in zip(ours, shard_paths(published, split), strict=True):
        first, end = map(int, path.stem.split("-"))
        assert table.num_rows == end - first
        assert table["image_id"].equals(
            converted.table(split)["image_id"].slice(first, end - first)
        )
    return ours


def test_a_conversion_has_the_rows_the_shards_and_the_fingerprint_of_the_published_files(
    voc, run, tmp_path
):
    assert run() == 0
    dataset, published = indexed(voc, tmp_path / "index")
    converted = manifest_in(tmp_path / "out")
    assert converted.fingerprint == published.fingerprint
    assert converted.verified
    for split in published.splits:
        assert converted.summary(split) == published.summary(split)
        tables = same_rows(published, converted, split)
        (tmp_path / "one").mkdir(exist_ok=True)
        for table, path in zip(tables, shard_paths(published, split), strict=True):
            first, end = map(int, path.stem.split("-"))
            item = work_item(
                tmp_path / "one" / path.name, published.table(split).slice(first, end - first)
            )
            write_shard(item, folder=str(dataset.folder), verify=False, lenient=False)
            assert table.equals(pq.read_table(tmp_path / "one" / path.name))


@pytest.mark.parametrize("layout", ["voc", "coco", "imagenet"])
def test_sweeps_take_a_conversion_as_it_is_with_the_same_ids(layout, tmp_path, monkeypatch):
    sample = DigitScenes(
        root=str(tmp_path / "source"), layout=layout, images_train=20, images_val=8, images_test=8
    )
    sizes = ["images_train=20", "images_val=8", "images_test=8", f"layout={layout}"]
    flags = Conversion(
        layout="digit_scenes", source=sample.root, out=str(tmp_path / "out"), fields=tuple(sizes)
    )
    assert command.run(flags) == 0
    published, manifest = indexed(sample, tmp_path / "index")
    pictures = load_locally(published, manifest, "val", 64)
    shutil.rmtree(tmp_path / "source")
    monkeypatch.setattr(DigitScenes, "prepare", None)  # nothing is generated
    moved = replace(sample, root=str(tmp_path / "out"))
    dataset, converted = indexed(moved, tmp_path / "unused")
    assert dataset.result_id == published.result_id
    assert not (tmp_path / "unused").exists()
    read = load_locally(dataset, converted, "val", 64)
    assert np.array_equal(read.images(range(8)), pictures.images(range(8)))
    assert np.array_equal(read.boxes, pictures.boxes)
    assert read.class_maps == pictures.class_maps
    shards.write_shards(dataset, converted, "val")
    shard_paths(converted, "val")[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 1 shards are gone; .*convert again"):
        shards.write_shards(dataset, converted, "val")


def test_a_second_run_has_nothing_to_do(run, in_process, capsys):
    assert run() == 0
    written = len(in_process)
    assert run() == 0
    assert len(in_process) == written
    assert "nothing to do" in capsys.readouterr().out


def test_a_stopped_conversion_goes_on_without_a_broken_or_doubled_shard(
    run, in_process, tmp_path, monkeypatch
):
    plain = shards.written

    def dies(items, folder, **flags):
        for count, report in enumerate(plain(items, folder, **flags)):
            if count == 2:
                raise KeyboardInterrupt
            yield report

    monkeypatch.setattr(shards, "written", dies)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not list((tmp_path / "out").glob("*/manifest.json"))
    # what is left of a worker, and a shard on a file system that lost its end
    first, second = in_process[0], in_process[1]
    shutil.copy(first, f"{first}.123.tmp")
    os.truncate(second, 100)
    monkeypatch.setattr(shards, "written", plain)
    del in_process[:]
    assert run() == 0
    assert first not in in_process
    assert second in in_process
    manifest = manifest_in(tmp_path / "out")
    for split in manifest.splits:
        paths = shard_paths(manifest, split)
        assert sorted(paths[0].parent.iterdir()) == paths
        ids = [i for path in paths for i in pq.read_table(path)["image_id"].to_pylist()]
        assert ids == list(manifest.image_ids(split))


def test_a_changed_source_is_refused_until_the_manifest_goes_and_then_renews_its_shards_only(
    voc, run, in_process, tmp_path
):
    assert run() == 0
    before = manifest_in(tmp_path / "out")
    shutil.copy(voc.folder / "JPEGImages" / "000020.jpg", voc.folder / "JPEGImages" / "000001.jpg")
    with pytest.raises(ValueError, match="changed since: choose another --out, or remove its"):
        run()
    (before.directory / "manifest.json").unlink()
    del in_process[:]
    assert run() == 0
    assert in_process == [str(shard_paths(before, "train")[0])]
    after = manifest_in(tmp_path / "out")
    assert after.fingerprint == index(voc, tmp_path / "index", voc.splits()).fingerprint
    assert after.fingerprint != before.fingerprint


def test_what_was_not_verified_is_looked_at_when_it_is_asked_for(run, in_process, tmp_path):
    assert run(verify=False) == 0
    assert not manifest_in(tmp_path / "out").verified
    written = len(in_process)
    assert run(verify=False) == 0
    assert len(in_process) == written
    assert run() == 0
    assert len(in_process) == 2 * written
    assert manifest_in(tmp_path / "out").verified


def damage_some(voc):
    """One of each kind; returns what the reasons say."""
    jpegs, xmls = voc.folder / "JPEGImages", voc.folder / "Annotations"
    (jpegs / "000001.jpg").unlink()
    os.truncate(jpegs / "000002.jpg", 700)
    (jpegs / "000003.jpg").write_bytes(b"no picture")
    (voc.folder / "SegmentationClass" / "000004.png").unlink()
    (voc.folder / "SegmentationClass" / "000004.png").mkdir()
    (xmls / "000005.xml").write_text("<annotation>")
    (xmls / "000006.xml").unlink()
    return {
        "000001": "No such file",
        "000002": "damaged image: ",
        "000003": "not an image",
        "000004": "Is a directory",
        "000005": "broken XML",
        "000006": "annotation missing",
    }


def test_a_damaged_class_map_counts_where_it_is_judged(voc, run, tmp_path):
    lists, maps = (voc.lists / "train.txt", voc.lists / "val.txt"), voc.folder / "SegmentationClass"
    judged, unjudged = (path.read_text().split()[0] for path in reversed(lists))
    for image_id in (judged, unjudged):
        (maps / f"{image_id}.png").write_bytes(b"no picture")
    assert run() == 0
    manifest = manifest_in(tmp_path / "out")
    assert list(manifest.summary("val").damaged) == [judged]
    assert manifest.summary("val").damaged[judged].endswith(f"{judged}.png")
    assert manifest.summary("train").damaged == {}


def test_every_damaged_file_is_listed_and_too_many_end_it_with_1(voc, run, tmp_path, capsys):
    expected = damage_some(voc)
    assert run() == 1
    said = capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*/manifest.json"))
    (path,) = (tmp_path / "out").glob("*/damaged.csv")
    rows = list(csv.DictReader(path.open()))
    assert [row["image_id"] for row in rows] == list(expected)
    for row in rows:
        assert row["split"] == "train"
        assert expected[row["image_id"]] in row["reason"]
        assert row["image_id"] in row["reason"].rpartition("/")[2]
        assert f"unusable: train/{row['image_id']}: {row['reason']}" in said
    assert "6 unusable images" in said
    assert "6 of 40 images are unusable, 1 allowed" in said


def test_few_damaged_files_are_named_in_the_manifest_and_the_ids_stay(voc, run, tmp_path):
    expected = damage_some(voc)
    assert run(max_skipped_fraction=0.2) == 0
    summary = manifest_in(tmp_path / "out").summary("train")
    assert set(summary.damaged) == {"000002", "000003"}
    assert set(summary.skipped) == set(expected) - set(summary.damaged)
    # what was accepted then is accepted now
    dataset, converted = indexed(replace(voc, root=str(tmp_path / "out")), tmp_path / "x")
    same, published = indexed(voc, tmp_path / "index", 0.2)
    assert dataset.result_id == same.result_id
    assert converted.table("train").equals(published.table("train"))
    read = load_locally(dataset, converted, "train", 64)
    assert set(read.skipped) == set(summary.damaged)
    assert len(read) == 34


def test_a_repaired_file_renews_its_shard_only(voc, run, in_process, tmp_path):
    sound = (voc.folder / "Annotations" / "000005.xml").read_bytes()
    damage_some(voc)
    assert run() == 1
    (voc.folder / "Annotations" / "000005.xml").write_bytes(sound)
    del in_process[:]
    assert run(max_skipped_fraction=0.2) == 0
    assert [path.rpartition("/")[2] for path in in_process] == ["00000000-00000015.parquet"]
    assert manifest_in(tmp_path / "out").summary("train").images == 37


def test_a_part_of_the_splits_is_a_conversion_of_its_own(voc, run, tmp_path):
    assert run(splits=("val",)) == 0
    dataset = replace(voc, root=str(tmp_path / "out"))
    only = indexed(dataset, tmp_path / "x")[1]
    assert list(only.splits) == ["val"]
    assert run() == 0
    assert list(indexed(dataset, tmp_path / "x")[1].splits) == ["train", "val", "test"]


def test_another_policy_does_not_pass_for_this_one(voc, run, tmp_path):
    assert run(fields=("difficult=drop",)) == 0
    with pytest.raises(ValueError, match=r"'difficult': 'drop'.*convert it with these fields too"):
        indexed(replace(voc, root=str(tmp_path / "out")), tmp_path / "x")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"layout": "mnist"}, "unknown dataset 'mnist'; known: "),
        ({"source": "/nowhere"}, r"/nowhere/VOCdevkit/VOC2007/Annotations is missing"),
        ({"source": "s3://a:hidden@b"}, "must not hold credentials"),
        ({"out": ""}, "'': write the folder out"),
        ({"splits": ("dev",)}, "--splits dev: voc has train, val, test"),
        ({"fields": ("size=3",)}, "--fields size=3: expected FIELD=VALUE .*: difficult"),
        ({"fields": ("difficult=maybe",)}, "Voc.difficult = 'maybe': expected one of"),
        ({"max_skipped_fraction": 2.0}, "--max-skipped-fraction 2.0: expected 0 to 1"),
        ({"address": "auto:0"}, "no Ray cluster answers"),
    ],
)
def test_bad_input_is_one_line(run, flags, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        run(**flags)
    assert "\n" not in str(caught.value)


def test_bad_places_to_write_are_told(voc, run, tmp_path):
    with pytest.raises(ValueError, match="lies within the source"):
        run(out=str(voc.folder / "shards"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--out: cannot write .*NotADirectoryError"):
        run(out=str(tmp_path / "file"))
    assert run() == 0
    home = manifest_in(tmp_path / "out").directory
    with pytest.raises(ValueError, match="holds a dataset's manifest itself"):
        run(out=str(home))
    content = json.loads((home / "manifest.json").read_text())
    content["identity"]["name"] = "other"
    (home / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"holds the manifest of .*other"):
        run()


def test_the_command_exits_with_2_and_one_line(voc, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["shards", "--layout", "mnist", "--source", voc.root, "--out", "x"]
    )
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown dataset 'mnist'")


def test_both_ends_may_be_addresses(voc, run, tmp_path):
    store = fsspec.filesystem("memory")
    store.store.clear()
    try:
        store.put(voc.root, "/bucket/voc", recursive=True)
        assert run(source="memory://bucket/voc", out="memory://bucket/out") == 0
        published = index(voc, tmp_path / "index", voc.splits())
        remote = index(Voc(root="memory://bucket/voc"), tmp_path / "remote", voc.splits())
        converted = manifest_in("memory://bucket/out")
        assert remote.fingerprint == converted.fingerprint == published.fingerprint
        dataset = Voc(root="memory://bucket/out")
        assert converted_manifest(dataset) == converted
        ours = load_locally(dataset, converted, "val", 64)
        theirs = load_locally(Voc(root="memory://bucket/voc"), remote, "val", 64)
        assert np.array_equal(ours.images(range(12)), theirs.images(range(12)))
        with pytest.raises(FileNotFoundError, match="memory://bucket/empty/VOCdevkit"):
            run(source="memory://bucket/empty")
    finally:
        store.store.clear()
