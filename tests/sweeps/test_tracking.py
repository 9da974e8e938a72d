"""One run per result, found again by its id, written so that nothing is ever told twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run

from trainables.classifier_training import ClassifierTraining
from trainables.guided_training import GuidedTraining
from trainables.result import Result
from trainables.tracking import Tracking


@pytest.fixture
def guided(grid) -> GuidedTraining:
    return next(r for r in grid if isinstance(r, GuidedTraining) and r.loss is not None)


@pytest.fixture
def launch(store, tmp_path) -> Callable[..., Tracking]:
    """A launch of a sweep that has scheduled some results."""

    def begin(results: list[Result], sweep: str = "sweep") -> Tracking:
        tracking = Tracking(store, sweep, tmp_path / "artifacts")
        known = tracking.statuses({r.result_id for r in results})
        tracking.open_launch(sweep, {"seeds": (0,)})
        tracking.schedule(results, known)
        return tracking

    return begin


def runs(tracking: Tracking, where: str = "tags.result_id != ''") -> list[Run]:
    return list(tracking.client.search_runs([tracking.experiment_id], where))


def history(tracking: Tracking, result: Result, key: str) -> list[tuple[int, float]]:
    run_id = tracking.entries[result.result_id].run_id
    return [(m.step, m.value) for m in tracking.client.get_metric_history(run_id, key)]


def test_every_result_has_one_run_with_its_identity_as_parameters(launch, grid, guided):
    tracking = launch(grid)
    assert sorted(r.data.tags["result_id"] for r in runs(tracking)) == sorted(
        r.result_id for r in grid
    )
    run = tracking.client.get_run(tracking.entries[guided.result_id].run_id)
    assert run.info.status == "SCHEDULED"
    expected = {
        "name": "guided_training",
        "loss.name": "energy",
        "lambda_loc": "0.005",
        "attribution.name": "input_x_gradient",
        "attribution.layer": "final",
        "seed": "0",
        "start.name": "classifier_training",
        "start.network.name": "small_resnet",
        "start.data.name": "voc",
        "start.data.fingerprint": "0123456789abcdef",
    }
    assert expected.items() <= run.data.params.items()
    assert not [key for key in run.data.params if key.endswith("root")]  # a path is no identity


def test_the_control_has_no_loss_in_its_parameters(launch, grid):
    tracking = launch(grid)
    control = next(r for r in grid if isinstance(r, GuidedTraining) and r.loss is None)
    run = tracking.client.get_run(tracking.entries[control.result_id].run_id)
    assert (run.data.params["loss"], run.data.params["attribution"]) == ("none", "none")


def test_tags_say_what_a_run_is_where_it_belongs_and_which_way_is_better(launch, grid, guided):
    tracking = launch(grid)
    tags = tracking.client.get_run(tracking.entries[guided.result_id].run_id).data.tags
    assert tags["kind"] == "guided_training"
    assert tags["label"] == guided.label
    assert tags["start"] == guided.start.result_id
    assert tags["mlflow.parentRunId"] == tags["launch"] == tracking.launch_id
    assert {"direction.epg", "direction.f1", "direction.box_iou_tuned"} <= tags.keys()
    assert (tags["direction.epg"], tags["direction.loss"]) == ("max", "min")


def test_a_second_launch_finds_the_runs_of_the_first(launch, grid):
    first, second = launch(grid), launch(grid)
    assert len(runs(second)) == len(grid)
    for result in grid:
        one, other = first.entries[result.result_id], second.entries[result.result_id]
        assert one.run_id == other.run_id
        tags = second.client.get_run(other.run_id).data.tags
        assert tags["launch"] == second.launch_id != first.launch_id


def test_a_result_goes_from_scheduled_over_running_to_finished(launch, grid, guided, tmp_path):
    tracking = launch(grid)
    (files := tmp_path / "files").mkdir()
    (files / "rows.parquet").write_bytes(b"rows")
    assert tracking.status(guided.result_id) == "SCHEDULED"
    tracking.running(guided.result_id, pid="7", device="cpu")
    assert tracking.status(guided.result_id) == "RUNNING"
    tracking.finished(guided.result_id, 12.5, files)
    run = tracking.client.get_run(tracking.entries[guided.result_id].run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["seconds"] == 12.5
    assert run.info.start_time <= int(run.data.tags["began"]) <= run.info.end_time
    assert (run.data.tags["pid"], run.data.tags["device"]) == ("7", "cpu")
    assert [f.path for f in tracking.client.list_artifacts(run.info.run_id)] == ["rows.parquet"]


def test_attempts_are_counted(launch, grid, guided):
    for _ in range(2):
        tracking = launch(grid)
        tracking.running(guided.result_id, pid="7", device="cpu")
    tags = tracking.client.get_run(tracking.entries[guided.result_id].run_id).data.tags
    assert tags["attempt"] == "2"


def test_replaying_a_history_doubles_no_point(launch, grid, guided):
    told = [{"val/f1": 0.5, "train/loss": 0.0}, {"val/f1": 0.25, "train/loss": 0.0}]
    for epochs in (told[:1], told, told):
        tracking = launch(grid)
        for step, metrics in enumerate(epochs, 1):
            tracking.log(guided.result_id, step, metrics)
    assert history(tracking, guided, "val/f1") == [(1, 0.5), (2, 0.25)]
    assert history(tracking, guided, "train/loss") == [(1, 0.0), (2, 0.0)]


def test_steps_of_one_epoch_told_in_parts_stand_side_by_side(launch, grid, guided):
    tracking = launch(grid)
    tracking.log(guided.result_id, 2, {"val/epg": 0.5})
    tracking.log(guided.result_id, 2, {"test/epg": 0.25})
    run = tracking.client.get_run(tracking.entries[guided.result_id].run_id)
    assert (run.data.metrics["val/epg"], run.data.metrics["test/epg"]) == (0.5, 0.25)


def test_a_failure_keeps_its_reason_and_a_later_launch_clears_it(launch, grid, guided):
    tracking = launch(grid)
    tracking.failed(guided.result_id, "loss is nan at epoch 2, step 3", "Traceback ...")
    run = tracking.client.get_run(tracking.entries[guided.result_id].run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == "loss is nan at epoch 2, step 3"
    assert [f.path for f in tracking.client.list_artifacts(run.info.run_id)] == ["traceback.txt"]
    again = launch(grid)
    run = again.client.get_run(run.info.run_id)
    assert (run.info.status, run.data.tags["reason"]) == ("SCHEDULED", "")


def test_a_reason_of_any_length_is_kept_as_far_as_the_store_allows(launch, grid, guided):
    tracking = launch(grid)
    tracking.failed(guided.result_id, "x" * 20_000)
    run = tracking.client.get_run(tracking.entries[guided.result_id].run_id)
    assert run.data.tags["reason"].startswith("x" * 1000)


def test_launches_that_only_seem_to_run_are_ended_as_killed(launch, grid):
    dead = launch(grid)
    alive = launch(grid)
    assert dead.client.get_run(dead.launch_id).info.status == "KILLED"
    assert alive.client.get_run(alive.launch_id).info.status == "RUNNING"
    alive.close_launch("FINISHED", {"results": []})
    third = launch(grid)
    assert third.client.get_run(alive.launch_id).info.status == "FINISHED"


def test_interrupted_results_are_killed(launch, grid, guided):
    tracking = launch(grid)
    tracking.running(guided.result_id, pid="7", device="cpu")
    tracking.killed([guided.result_id])
    assert tracking.status(guided.result_id) == "KILLED"


def test_a_launch_says_what_was_asked_for_and_what_failed(launch, grid, tmp_path):
    tracking = launch(grid)
    asked = {"sweep": "sweep", "results": [r.result_id for r in grid], "failed": {}}
    tracking.describe_launch(asked)
    tracking.close_launch("FAILED", asked | {"failed": {"abc": "why"}})
    path = tracking.client.download_artifacts(tracking.launch_id, "sweep.json", str(tmp_path))
    assert json.loads(Path(path).read_text()) == asked | {"failed": {"abc": "why"}}


def test_results_of_other_experiments_are_found(launch, grid, tmp_path):
    baseline = next(r for r in grid if isinstance(r, ClassifierTraining))
    other = launch([baseline], "another_sweep")
    other.finished(baseline.result_id, 1.0, tmp_path / "none")
    tracking = launch([])
    known = tracking.statuses({r.result_id for r in grid})
    assert known.keys() == {baseline.result_id}
    assert known[baseline.result_id].status == "FINISHED"
    assert known[baseline.result_id].experiment_id == other.experiment_id


def test_a_finished_run_stands_before_any_other_of_the_same_result(launch, grid, guided, tmp_path):
    finished = launch([guided], "first")
    finished.finished(guided.result_id, 1.0, tmp_path / "none")
    for name in ("second", "third"):  # made before and after it in any order of listing
        Tracking(finished.client.tracking_uri, name, tmp_path)
        tracking = Tracking(finished.client.tracking_uri, name, tmp_path)
        tracking.open_launch(name, {})
        tracking.schedule([guided], {})
    assert tracking.statuses({guided.result_id})[guided.result_id].status == "FINISHED"


def test_statuses_page_through_many_runs(launch, grid, monkeypatch):
    monkeypatch.setattr("trainables.tracking.PAGE", 2)
    tracking = launch(grid)
    assert tracking.statuses({r.result_id for r in grid}).keys() == {r.result_id for r in grid}


def test_files_of_runs_lie_in_the_given_folder_and_not_where_the_sweep_was_started(
    launch, grid, tmp_path, monkeypatch
):
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    tracking = launch(grid)
    tracking.describe_launch({"results": []})
    assert list(elsewhere.iterdir()) == []
    assert list((tmp_path / "artifacts").rglob("sweep.json"))
