"""Runs come back as they were written, one per result, and reading writes nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag

from analysis import runs as module
from analysis.address import Unavailable
from analysis.runs import Runs, launched, load


@pytest.fixture(scope="module")
def sweep(store) -> Runs:
    return load("guidance_lambda", store.uri)


def test_one_row_per_result_with_status_tags_and_parameters(sweep: Runs) -> None:
    assert len(sweep.runs) == 45
    assert sweep.runs["result_id"].is_unique
    row = sweep.runs.set_index("result_id").loc["energy-0.005-final-1"]
    assert (row["status"], row["kind"], row["start"]) == (
        "FINISHED",
        "guided_training",
        "baseline-1",
    )
    assert (row["lambda_loc"], row["seed"], row["loss.name"]) == (0.005, 1, "energy")
    assert (row["start.network.name"], row["seconds"]) == ("small_resnet", 12.5)


def test_failed_result_keeps_its_reason(sweep: Runs) -> None:
    row = sweep.runs.set_index("result_id").loc["failed"]
    assert row["status"] == "FAILED"
    assert "nan at epoch 1" in row["reason"]
    assert "failed" not in set(sweep.finished["result_id"])


def test_parameters_are_told_from_tags_and_numbers(sweep: Runs) -> None:
    assert {"seed", "lambda_loc", "start.data.layout"} <= set(sweep.parameters)
    assert not {"seconds", "status", "iou_threshold", "label"} & set(sweep.parameters)


def test_tags_of_probes_are_columns_where_any_run_has_them(store, sweep: Runs) -> None:
    rows = load("elsewhere", store.uri).runs.set_index("result_id")
    assert rows.loc["shared", ["tag.backbone", "tag.loss"]].tolist() == ["small_resnet", "ce"]
    assert pd.isna(rows.loc["first", "tag.backbone"])
    assert "tag.probe" not in rows
    assert not [name for name in sweep.runs if str(name).startswith("tag.")]


def test_history_holds_every_epoch_of_every_split(sweep: Runs) -> None:
    rows = sweep.history[sweep.history["result_id"] == "energy-0.005-final-1"]
    assert set(rows["split"]) == {"train", "val", "test"}
    assert sorted(rows.loc[(rows["split"] == "val") & (rows["metric"] == "epg"), "step"]) == [
        1,
        2,
        3,
    ]


def test_epochs_are_tidy(sweep: Runs) -> None:
    epochs = sweep.epochs()
    assert not epochs.duplicated(["result_id", "epoch"]).any()
    at = epochs.set_index(["result_id", "epoch"]).loc[("l1-0.01-input-0", 3)]
    assert at["val_epg"] - at["test_epg"] == pytest.approx(0.01)
    baseline = epochs[epochs["result_id"] == "baseline-0"]
    assert baseline["val_f1"].notna().all()
    assert baseline["val_epg"].isna().all()


def test_arrays_come_back_and_absent_ones_are_none_at_all(sweep: Runs) -> None:
    arrays = sweep.arrays("evaluation-baseline-final-0", "examples.npz")
    assert arrays["maps"].shape == (3, 16, 16)
    assert arrays["box_offsets"].tolist() == [0, 1, 3, 4]
    assert sweep.arrays("baseline-0", "examples.npz") == {}


def test_tables_come_back_with_texts_as_categories(ranked_store) -> None:
    found = load("idsds_methods", ranked_store.uri)
    rows = found.table("evaluation-saliency", "rows.parquet")
    assert len(rows) == 360
    assert rows["image_id"].dtype == "category"
    assert rows["score"].dtype == np.float64
    assert found.table("baseline-0", "rows.parquet").empty


def test_directions_of_all_runs_are_told(ranked_store, sweep: Runs) -> None:
    found = load("idsds_methods", ranked_store.uri)
    assert found.directions == {"idsds": "max", "ids": "max", "entropy": "min"}
    assert sweep.directions == {}


def test_reading_leaves_the_store_as_it_was(
    store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(store.uri.removeprefix("sqlite:///"))
    before = hashlib.sha256(path.read_bytes()).digest()
    load("guidance_lambda", store.uri)
    launched("guidance_lambda", store.uri)
    assert hashlib.sha256(path.read_bytes()).digest() == before
    assert list(tmp_path.iterdir()) == []


def test_wanted_results_bring_what_they_start_from(store) -> None:
    found = load("guidance_lambda", store.uri, ["evaluation-control-input-1"])
    ids = {"evaluation-control-input-1", "control-1", "baseline-1"}
    assert set(found.runs["result_id"]) == ids


def test_results_of_another_experiment_are_found_there(store) -> None:
    found = load("guidance_lambda", store.uri, ["baseline-0", "shared"])
    assert set(found.runs["result_id"]) == {"baseline-0", "shared", "first"}


def test_pages_are_read_to_the_end(store, sweep: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 7)
    pd.testing.assert_frame_equal(load("guidance_lambda", store.uri).runs, sweep.runs)


def test_unknown_experiment_lists_the_known(store) -> None:
    with pytest.raises(Unavailable, match=r"'nothing'.*elsewhere, empty, guidance_lambda, running"):
        load("nothing", store.uri)


def test_empty_experiment_gives_empty_frames(store) -> None:
    found = load("empty", store.uri)
    assert found.runs.empty
    assert found.history.empty
    assert found.epochs().empty


def test_launch_is_found_by_the_beginning_of_its_id(store) -> None:
    ids = launched("guidance_lambda", store.uri)
    assert len(ids) == 45
    assert launched("guidance_lambda", store.uri, store.launch[:8]) == ids
    with pytest.raises(Unavailable, match=store.launch):
        launched("guidance_lambda", store.uri, "no-such-launch")
    with pytest.raises(Unavailable, match="--all"):
        launched("empty", store.uri)


def run_of(result_id: str, status: str, run_id: str, params: dict[str, str] | None = None) -> Run:
    info = RunInfo(run_id, "0", "user", status, 0, 1, "active")
    tags = [RunTag("result_id", result_id)]
    return Run(info, RunData([], [Param(k, v) for k, v in (params or {}).items()], tags))


def test_of_several_runs_of_a_result_a_finished_and_then_the_newest_counts() -> None:
    newest_first = [
        run_of("a", "FAILED", "a3"),
        run_of("a", "FINISHED", "a2"),
        run_of("a", "FINISHED", "a1"),
        run_of("b", "FAILED", "b2"),
        run_of("b", "RUNNING", "b1"),
    ]
    chosen = module._by_result(newest_first)
    assert [run.info.run_id for run in chosen.values()] == ["a2", "b2"]


def test_texts_become_numbers_only_where_all_are() -> None:
    runs = [
        run_of(
            "a", "FINISHED", "1", {"lambda_loc": "1e-05", "id": "12345678e1234567", "loss": "none"}
        ),
        run_of("b", "FINISHED", "2", {"lambda_loc": "0.5", "id": "0012", "loss": "3"}),
        run_of("c", "FINISHED", "3", {"id": "12"}),
    ]
    rows, _ = module._rows(runs)
    rows = rows.set_index("result_id")
    np.testing.assert_array_equal(rows["lambda_loc"], [1e-5, 0.5, np.nan])
    assert rows["id"].tolist() == ["12345678e1234567", "0012", "12"]
    assert rows.loc["a", "loss"] == "none"


def test_parameter_with_the_name_of_a_column_is_refused() -> None:
    with pytest.raises(ValueError, match="status"):
        module._rows([run_of("a", "FINISHED", "1", {"status": "x"})])


def test_step_that_was_logged_twice_counts_once() -> None:
    class Client:
        def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
            return [Metric(key, 0.1, 1, 1), Metric(key, 0.2, 2, 2), Metric(key, 0.3, 9, 1)]

    run = run_of("a", "FINISHED", "1")
    run.data._metrics = {"val/f1": 0.2, "seconds": 1.0}
    history = module._history(Client(), {"a": run}, 1)
    assert history[["split", "metric", "step", "value"]].to_numpy().tolist() == [
        ["val", "f1", 1, 0.3],
        ["val", "f1", 2, 0.2],
    ]
