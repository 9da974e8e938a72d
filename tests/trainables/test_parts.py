"""Parts: whole or not there, put together so that each image counts once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from trainables import checkpoint
from trainables.evaluator import ROWS
from trainables.parts import (
    about,
    discard,
    done_ids,
    gather,
    mean_curve,
    parts_of,
    traces_of,
    write_part,
)

RESULTS = ("one", "two")


def rows(image_ids, method="m", protocol="p", offset=0.0, traces=None):
    """A row for each image, its score the image's number."""
    columns = {
        "image_id": list(image_ids),
        "target": [0] * len(image_ids),
        "box_area_fraction": pa.nulls(len(image_ids), pa.float32()),
        "method_key": [method] * len(image_ids),
        "protocol_key": [protocol] * len(image_ids),
        "score": [float(i) + offset for i in image_ids],
        "trace": traces or pa.nulls(len(image_ids), pa.list_(pa.float32())),
    }
    return pa.table(columns, schema=ROWS)


def leave(folder, image_ids, tables=None, results=RESULTS, skipped=None, failed=None):
    write_part(folder, results, image_ids, tables or [rows(image_ids)], skipped or {}, failed or {})


def scores(folder, wanted, result="one"):
    """(image, score) of what was gathered."""
    table = gather(folder, result, "m", wanted)
    return list(zip(table["image_id"].to_pylist(), table["score"].to_pylist(), strict=True))


def test_a_folder_that_is_not_there_has_no_parts(tmp_path):
    assert parts_of(tmp_path / "nowhere") == []
    assert done_ids(tmp_path / "nowhere", RESULTS) == set()
    assert len(gather(tmp_path / "nowhere", "one", "m", {"1"})) == 0


def test_a_part_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    leave(tmp_path, ["1", "2"])
    before = [path.read_bytes() for path in parts_of(tmp_path)]

    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            leave(tmp_path, ["3", "4"])
    assert len(list(tmp_path.iterdir())) == 2  # what was begun lies there
    assert [path.read_bytes() for path in parts_of(tmp_path)] == before
    assert done_ids(tmp_path, RESULTS) == {"1", "2"}
    assert [image for image, _ in scores(tmp_path, {"1", "2", "3", "4"})] == ["1", "2"]


def test_the_same_images_make_the_same_part(tmp_path):
    leave(tmp_path, ["1", "2"])
    leave(tmp_path, ["1", "2"], [rows(["1", "2"], offset=10)])
    assert len(parts_of(tmp_path)) == 1
    assert scores(tmp_path, {"1", "2"}) == [("1", 11), ("2", 12)]


def test_an_image_in_two_parts_counts_once(tmp_path):
    """A worker that died left what another did again in other batches."""
    leave(tmp_path, ["1", "2"])
    leave(tmp_path, ["2", "3"], [rows(["2", "3"], offset=10)])
    leave(tmp_path, ["3", "4"])
    table = scores(tmp_path, {"1", "2", "3", "4"})
    assert [image for image, _ in table] == ["1", "2", "3", "4"]


def test_rows_of_one_image_stay_together_and_in_order(tmp_path):
    several = [rows(["7", "5"], protocol=p) for p in ("q", "p")]
    other = rows(["7", "5"], method="other")
    leave(tmp_path, ["7", "5"], [*several, other])
    leave(tmp_path, ["6"])
    table = gather(tmp_path, "one", "m", {"5", "6", "7"})
    assert table["protocol_key"].to_pylist() == ["p", "p", "p", "q", "q"]
    assert table["image_id"].to_pylist() == ["5", "6", "7", "5", "7"]
    assert set(table["method_key"].to_pylist()) == {"m"}


def test_images_that_are_not_wanted_are_left_out(tmp_path):
    leave(tmp_path, ["1", "2", "3"])
    assert scores(tmp_path, {"2"}) == [("2", 2)]


def test_an_image_is_done_where_all_of_the_results_have_it(tmp_path):
    leave(tmp_path, ["1"], results=("one",))
    leave(tmp_path, ["2"], results=("one", "two", "three"))
    assert done_ids(tmp_path, ["one"]) == {"1", "2"}
    assert done_ids(tmp_path, ["one", "two"]) == {"2"}
    assert done_ids(tmp_path, ["four"]) == set()


def test_a_result_takes_its_own_parts_alone(tmp_path):
    leave(tmp_path, ["1"], results=("one",))
    leave(tmp_path, ["2"], results=("two",))
    assert scores(tmp_path, {"1", "2"}, "two") == [("2", 2)]


def test_what_could_not_be_read_and_what_failed_is_kept(tmp_path):
    skipped, failed = {"2": "cut short"}, {"m": ("ValueError: no", "Traceback ...")}
    leave(tmp_path, ["1", "2"], [rows(["1"])], skipped=skipped, failed=failed)
    (path,) = parts_of(tmp_path)
    part = about(path)
    assert (part.result_ids, part.image_ids) == (RESULTS, ("1", "2"))
    assert (part.skipped, part.failed) == (skipped, failed)
    assert done_ids(tmp_path, RESULTS) == {"1", "2"}


def test_a_part_may_hold_no_row(tmp_path):
    write_part(tmp_path, RESULTS, ["1"], (), {"1": "cut short"}, {})
    assert done_ids(tmp_path, RESULTS) == {"1"}
    table = gather(tmp_path, "one", "m", {"1"})
    assert (len(table), table.schema) == (0, ROWS)


def test_traces_come_back(tmp_path):
    leave(tmp_path, ["1", "2"], [rows(["1", "2"], traces=[[1.0, 0.5], [2.0, 0.25]])])
    table = gather(tmp_path, "one", "m", {"1", "2"})
    np.testing.assert_array_equal(traces_of(table), [[1, 0.5], [2, 0.25]])
    assert traces_of(rows(["1", "2"])) is None


def test_the_mean_curve_is_that_of_a_plain_formula():
    curves = np.random.default_rng(0).normal(size=(50, 3))
    curves[7, 1] = np.nan
    defined = np.delete(curves, 7, axis=0)
    error = 1.96 * stats.sem(defined, axis=0)
    mean = defined.mean(0)
    np.testing.assert_allclose(mean_curve(curves).T, [mean, mean - error, mean + error])


def test_a_single_curve_is_its_own_mean_and_none_has_no_mean():
    np.testing.assert_array_equal(mean_curve(np.array([[1.0, 2.0]])), [[1] * 3, [2] * 3])
    assert mean_curve(np.full((2, 4), np.nan)).shape == (0, 3)


def test_discarded_parts_are_gone(tmp_path):
    leave(tmp_path / "parts", ["1"])
    discard(tmp_path / "parts")
    discard(tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
