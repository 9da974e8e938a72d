"""The Waterbirds layout, sound and damaged."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.image_set import load_locally
from data_pipelines.manifest import indexed
from data_pipelines.sources import partitioned_sources
from data_pipelines.waterbirds import COLUMNS, SPLITS, Waterbirds

HEADER = ",".join(COLUMNS)


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> DigitScenes:
    """12 training, 6 validation and 12 test scenes in the Waterbirds layout."""
    sizes = {"images_train": 12, "images_val": 6, "images_test": 12}
    root = str(tmp_path_factory.mktemp("birds"))
    dataset = DigitScenes(root=root, layout="waterbirds", **sizes)
    dataset.prepare()
    return dataset


@pytest.fixture
def waterbirds(birds, tmp_path) -> Waterbirds:
    """A copy of the sample's files that a test may damage."""
    shutil.copytree(birds.folder, tmp_path / "birds")
    return Waterbirds(root=str(tmp_path / "birds"))


def change(path: Path, line: int, old: str, new: str) -> None:
    """Replace a text in a line, counted from 1."""
    lines = path.read_text().splitlines(keepends=True)
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    path.write_text("".join(lines))


def test_the_reader_finds_exactly_the_boxes_labels_groups_and_splits_of_the_generator(birds):
    birds.check_layout()
    expected: dict[str, dict[str, tuple]] = {split: {} for split in SPLITS}
    for split, number, scene in birds.scenes():
        (digit,), ((xmin, ymin, xmax, ymax),) = scene.labels, scene.boxes
        bird = [digit in group for group in birds.birds].index(True)
        box = (bird, xmin - 1, ymin - 1, xmax, ymax, 0)  # CUB's corners are 0-based and half-open
        name = f"{digit + 1:03d}.digit_{digit}/digit_{digit}_{number:04d}"
        expected[split][name] = ((bird,), (box,), scene.group)
    for split in SPLITS:
        found = {r.image_id: (r.labels, r.boxes, r.group) for r in birds.records(split)}
        assert found == expected[split]
        assert all(r.notes == () for r in birds.records(split))


def test_training_and_validation_hold_the_tied_groups_and_the_test_all_alike(birds):
    counts = {split: Counter(r.group for r in birds.records(split)) for split in SPLITS}
    assert counts == {
        "train": {0: 6, 3: 6},
        "val": {0: 3, 3: 3},
        "test": {0: 3, 1: 3, 2: 3, 3: 3},
    }


def test_the_place_is_the_photograph_and_no_two_splits_share_a_tile_a_bitmap_or_an_image(birds):
    sources = partitioned_sources(birds.seed)
    tiles = {s: {t.tobytes() for t in sources[s].tiles} for s in SPLITS}
    bitmaps = {s: {b.tobytes() for of in sources[s].bitmaps for b in of} for s in SPLITS}
    files = {
        s: {hashlib.sha256(r.path.read_bytes()).digest() for r in birds.records(s)} for s in SPLITS
    }
    for kind in (tiles, bitmaps, files):
        assert sum(map(len, kind.values())) == len(set.union(*kind.values()))
    for split in SPLITS:
        places = [sources[split].at(place).tiles for place in (0, 1)]
        assert len(places[0]) + len(places[1]) == len(sources[split].tiles)
        # China's temple is lighter than the flower before its dark background
        assert np.mean(np.stack(places[0])) > np.mean(np.stack(places[1]))
    for record in birds.records("test"):
        with Image.open(record.path) as picture:
            pixels = np.asarray(picture).astype(float)
        xmin, ymin, xmax, ymax = map(int, record.boxes[0][1:5])
        pixels[ymin:ymax, xmin:xmax] = np.nan
        assert (np.nanmean(pixels[..., 0]) < 20) == (record.group % 2 == 1)  # no red in the dark


def test_labels_tell_the_bird_or_the_place_and_boxes_bear_the_class_of_the_label(waterbirds):
    by_place = Waterbirds(root=waterbirds.root, task="place")
    assert (waterbirds.classes(), by_place.classes()) == (
        ("landbird", "waterbird"),
        ("land", "water"),
    )
    pairs = zip(waterbirds.records("test"), by_place.records("test"), strict=True)
    for bird, place in pairs:
        assert (bird.labels, place.labels) == ((bird.group // 2,), (bird.group % 2,))
        assert (bird.boxes[0][0], place.boxes[0][0]) == (bird.labels[0], place.labels[0])
        assert bird.boxes[0][1:] == place.boxes[0][1:]


def test_other_groups_are_left_out_of_training_and_validation_unless_wanted(waterbirds):
    change(waterbirds.metadata, 2, ",0,0,0,/land", ",0,0,1,/water")
    assert len(list(waterbirds.records("train"))) == 11
    everything = Waterbirds(root=waterbirds.root, tied=False)
    assert Counter(r.group for r in everything.records("train")) == {0: 5, 1: 1, 3: 6}


def test_a_published_line_is_read_with_the_boxes_matched_by_file_name(tmp_path):
    name = "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg"
    (tmp_path / name).parent.mkdir()
    Image.new("RGB", (500, 335)).save(tmp_path / name)
    (tmp_path / "metadata.csv").write_text(f"{HEADER}\n1,{name},1,0,1,/o/ocean/00002067.jpg\n")
    (tmp_path / "CUB_200_2011").mkdir()
    (tmp_path / "CUB_200_2011/images.txt").write_text(f"1 another.jpg\n2 {name}\n")
    boxes = "1 1.0 2.0 3.0 4.0\n2 60.0 27.0 325.0 304.0\n"
    (tmp_path / "CUB_200_2011/bounding_boxes.txt").write_text(boxes)
    dataset = Waterbirds(root=str(tmp_path))
    dataset.check_layout()
    (record,) = dataset.records("train")
    assert record.boxes == ((1, 60.0, 27.0, 385.0, 331.0, 0),)
    assert (record.width, record.height, record.group, record.labels) == (500, 335, 3, (1,))


def test_the_decoded_split_knows_the_group_of_every_image(birds, tmp_path):
    dataset, manifest = indexed(birds, tmp_path)
    images = load_locally(dataset, manifest, "test", 32)
    expected = {record.image_id: record.group for record in birds.records("test")}
    assert dict(zip(images.image_ids.tolist(), images.groups.tolist(), strict=True)) == expected


def test_a_dataset_without_groups_has_none(indexed_sample):
    assert load_locally(*indexed_sample, "val", 16).groups is None


def test_two_generations_are_equal_byte_for_byte(birds, tmp_path):
    again = DigitScenes(root=str(tmp_path), **{
        name: getattr(birds, name)
        for name in ("layout", "images_train", "images_val", "images_test")
    })  # fmt: skip
    again.prepare()
    files = [sorted(p for p in d.folder.rglob("*") if p.is_file()) for d in (birds, again)]
    assert len(files[0]) == 33
    for one, other in zip(*files, strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("birds", [((0, 6), (6, 7)), ((), (1,)), ((0,), (10,))])
def test_impossible_groups_of_digits_are_refused(birds):
    with pytest.raises(ValueError, match=r"DigitScenes\.birds = .*: expected two groups"):
        DigitScenes(layout="waterbirds", birds=birds)


@pytest.mark.parametrize(
    "missing",
    ["metadata.csv", "CUB_200_2011/images.txt", "CUB_200_2011/bounding_boxes.txt"],
)
def test_a_missing_list_is_named_with_the_layout_and_the_flag(waterbirds, missing):
    (waterbirds.folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{missing} is missing; expected .*--data-root"):
        waterbirds.check_layout()
    with pytest.raises(FileNotFoundError, match="give --data-root"):
        Waterbirds().check_layout()


@pytest.mark.parametrize(
    ("line", "old", "new", "message"),
    [
        (3, ",0,0,0,/land.jpg", "", "line 3: 2 of 6 fields, y is missing; the file is truncated"),
        (3, "/land.jpg", "/land.jpg,7", "line 3: 7 of 6 fields, too many"),
        (2, ",0,0,0,", ",0,3,0,", r"line 2: split is '3'; allowed: 0 (train), 1 (val), 2 (test)"),
        (2, ",0,0,0,", ",2,0,0,", "line 2: y is '2': its group is unknown; allowed: 0 (landbird)"),
        (2, ",0,0,0,", ",0,0,,", "line 2: place is '': its group is unknown; allowed: 0 (land)"),
        (1, "place,", "", "line 1: columns img_id, img_filename, y, split, place_filename"),
    ],
)
def test_a_damaged_metadata_is_refused_by_line_and_field(waterbirds, line, old, new, message):
    rows = waterbirds.metadata.read_text().splitlines(keepends=True)
    rows[1:] = sorted(rows[1:], key=lambda row: ",0,0,0," not in row)  # landbirds of train first
    waterbirds.metadata.write_text("".join(rows))
    change(waterbirds.metadata, line, old, new)
    with pytest.raises(ValueError, match=re.escape(f"metadata.csv {message}")) as error:
        waterbirds.check_layout()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("bounding_boxes.txt", ".0\n", "\n", "line 1: height is '', not a number"),
        ("bounding_boxes.txt", " ", "", "line 1: 4 fields, expected image_id x y width height"),
        ("images.txt", " ", "", "line 1: 1 fields, expected image_id image_name"),
    ],
)
def test_damaged_lists_of_cub_are_refused_by_line_and_field(waterbirds, name, old, new, message):
    path = waterbirds.cub / name
    lines = path.read_text().splitlines(keepends=True)
    lines[0] = lines[0].replace(old, new, 1)
    if "not a number" in message:
        lines[0] = f"{lines[0].rsplit(' ', 1)[0]} wide\n"
        message = message.replace("''", "'wide'")
    path.write_text("".join(lines))
    with pytest.raises(ValueError, match=re.escape(f"{name} {message}")):
        waterbirds.check_layout()


def test_an_image_without_a_box_is_refused_by_line_and_name(waterbirds):
    path = waterbirds.cub / "bounding_boxes.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    name = waterbirds.metadata.read_text().splitlines()[-1].split(",")[1]
    with pytest.raises(ValueError, match=rf"line 31: img_filename '{name}' has no box in .*boxes"):
        waterbirds.check_layout()


def test_an_image_with_a_useless_box_or_header_is_skipped_alone(waterbirds):
    first, second = (r.path for r in list(waterbirds.records("val"))[:2])
    first.write_bytes(b"")
    number = str(int(second.stem.rsplit("_", 1)[1]))
    path = waterbirds.cub / "bounding_boxes.txt"
    lines = [line.split() for line in path.read_text().splitlines()]
    moved = [[n, "900.0", *rest] if n == number else [n, x, *rest] for n, x, *rest in lines]
    path.write_text("".join(f"{' '.join(row)}\n" for row in moved))
    waterbirds.check_layout()
    skipped = [r for r in waterbirds.records("val") if hasattr(r, "reason")]
    assert [r.image_id.split("/")[1] for r in skipped] == [first.stem, second.stem]
    assert "is empty or outside 64x64" in skipped[1].reason


def test_a_listed_image_that_is_missing_is_skipped_and_named(waterbirds, tmp_path):
    record = next(iter(waterbirds.records("test")))
    record.path.unlink()
    _, manifest = indexed(waterbirds, tmp_path / "index")
    assert manifest.summary("test").skipped.keys() == {record.image_id}
    assert "No such file" in manifest.summary("test").skipped[record.image_id]


def test_files_beside_the_listed_ones_are_not_read(waterbirds):
    before = set(waterbirds.files())
    assert len(before) == 33
    (waterbirds.cub / "images").mkdir()
    (waterbirds.cub / "images" / "large.jpg").write_bytes(b"of CUB itself")
    assert set(waterbirds.files()) == before
