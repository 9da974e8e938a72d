"""A whole sweep, as one person runs it: what it prints, writes, keeps, and does not do twice."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_pipelines.image_set import ImageSet, load_locally
from data_pipelines.manifest import indexed
from sweeps.guidance_lambda import GuidanceLambda
from tests.sweeps.stories import BASELINE_EPOCHS, EPOCHS
from trainables.classifier_training import ClassifierTraining
from trainables.guided_training import GuidedTraining
from trainables.result import Result
from trainables.training import weights_path
from trainables.trial import feed_key, run_locally

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]  # of the first that waits for a story


@dataclass(frozen=True)
class Loaded:
    """A split that lies in this process."""

    images: ImageSet

    def load(self) -> ImageSet:
        return self.images


@pytest.fixture(scope="module")
def alone(undisturbed, tmp_path_factory) -> tuple[Path, list[Result]]:
    """The guided training and what it depends on, computed in this process without Ray."""
    storage = tmp_path_factory.mktemp("alone")
    sweep = GuidanceLambda(
        smoke=True,
        losses=("energy",),
        layers=("final",),
        epochs=EPOCHS,
        baseline_epochs=BASELINE_EPOCHS,
        data_root=str(undisturbed.home.data_root),
    ).small()
    dataset, manifest = indexed(sweep.data(), storage / "index")
    results = list(sweep.results(dataset))
    guided = next(r for r in results if isinstance(r, GuidedTraining) and r.loss is not None)
    feeds = {
        feed_key(guided, split): Loaded(load_locally(dataset, manifest, split, guided.size_px))
        for split in dataset.splits()
    }
    events: list[dict[str, object]] = []
    assert run_locally(guided, storage, feeds, events.append), events[-1]
    return storage, results


def test_the_sweep_succeeds_and_prints_only_its_own_lines(undisturbed):
    first = undisturbed.first
    assert first.code == 0, first
    assert first.err == ""
    lines = first.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["storage", "tracking", "data"]
    assert "5 results: 0 are there, 5 to compute in 3 trials" in lines
    for noise in ("ray::", "Tune", "tensorboard", "TensorBoard", "Trial ", "INFO", "WARNING"):
        assert noise not in first.out
    assert "[5/5 done, 0 running, 0 failed, 0 s left]" in first.out


def test_every_run_is_finished(undisturbed):
    runs = undisturbed.runs_of_first
    assert len(runs) == 5
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert {run.data.tags["attempt"] for run in runs.values()} == {"1"}
    kinds = sorted(run.data.tags["kind"] for run in runs.values())
    assert (
        kinds == ["attribution_evaluation"] * 2 + ["classifier_training"] + ["guided_training"] * 2
    )


def test_every_epoch_is_one_step_of_every_metric(undisturbed):
    for run in undisturbed.runs_of_first.values():
        if run.data.tags["kind"] == "attribution_evaluation":
            continue
        epochs = EPOCHS if run.data.tags["kind"] == "guided_training" else BASELINE_EPOCHS
        steps = {
            key: [step for step, _ in history]
            for key, history in undisturbed.home.histories(run).items()
        }
        assert steps["train/loss"] == steps["val/f1"] == list(range(1, epochs + 1))
        for key, of_metric in steps.items():
            assert len(set(of_metric)) == len(of_metric), key


def test_every_image_is_decoded_once(undisturbed):
    """96 + 48 + 48: for three trainings and two evaluations."""
    assert "192 images decoded once" in undisturbed.first.out


def test_the_table_of_the_front_and_the_command_of_the_ui_are_printed(undisturbed):
    out = undisturbed.first.out
    assert "PARETO-DOMINANT MODELS" in out
    for row in ("baseline", "lambda = 0", "energy"):
        assert any(line.startswith(row) for line in out.splitlines())
    assert f"mlflow ui --backend-store-uri {undisturbed.home.tracking_uri}" in out


def test_the_reports_files_are_artifacts_of_the_launch(undisturbed, tmp_path):
    client, (_, first) = undisturbed.home.client(), undisturbed.home.launches()
    names = {file.path for file in client.list_artifacts(first.info.run_id)}
    assert {"sweep.json", "report.html", "report.md", "fronts.png", "runs.csv"} <= names
    assert [name for name in names if name.startswith("maps_") and name.endswith(".png")]
    path = client.download_artifacts(first.info.run_id, "sweep.json", str(tmp_path))
    summary = json.loads(Path(path).read_text())
    assert summary["sweep"] == "guidance_lambda"
    assert sorted(summary["results"]) == sorted(undisturbed.runs_of_first)
    assert summary["failed"] == {}
    assert summary["trial_seconds"] > 0


def test_a_guided_run_holds_its_maps_and_its_rows(undisturbed):
    client = undisturbed.home.client()
    for run in undisturbed.runs_of_first.values():
        names = {file.path for file in client.list_artifacts(run.info.run_id)}
        explained = run.data.params.get("attribution.name") is not None
        assert ({"examples.npz", "rows.parquet"} <= names) == explained
        assert ("test/on_object_epg_defined_fraction" in run.data.metrics) == explained


def test_weights_of_the_best_the_last_and_the_front_are_kept_and_no_others(undisturbed):
    home = undisturbed.home
    front = home.report()["guidance_front"]
    for result_id, run in undisturbed.runs_of_first.items():
        folder = home.storage / result_id
        assert not (folder / "checkpoint.safetensors").exists()
        if run.data.tags["kind"] == "attribution_evaluation":
            assert not (folder / "weights").exists()
            continue
        summary = home.summaries()[result_id]
        members = front.loc[front["result_id"] == result_id, "epoch"]
        last = max(map(int, summary["weights"]))
        kept = {path.name for path in (folder / "weights").iterdir()}
        assert kept == {
            weights_path(folder, epoch).name for epoch in {summary["epoch"], last, *members}
        }


def test_nothing_but_results_index_and_reports_is_left_in_the_storage(undisturbed):
    names = {path.name for path in undisturbed.home.storage.iterdir()} - {
        *undisturbed.runs_of_first
    }
    assert names <= {"artifacts", "index", "reports", "tune"}
    assert list((undisturbed.home.storage / "tune").iterdir()) == []


def test_the_same_command_again_computes_nothing_and_prints_the_same_tables(undisturbed):
    again = undisturbed.again
    assert (again.code, again.err) == (0, "")
    assert "5 results: 5 are there, 0 to compute in 0 trials" in again.out
    assert "Ray is up" not in again.out
    assert tables_of(again.out) == tables_of(undisturbed.first.out)
    runs = undisturbed.home.runs()
    for result_id, run in undisturbed.runs_of_first.items():
        assert runs[result_id].info.end_time == run.info.end_time
    assert len(undisturbed.home.launches()) == 2


def tables_of(out: str) -> str:
    return out[out.index("PARETO-DOMINANT") : out.index("wrote ")]


def test_one_worker_trained_one_after_the_other(undisturbed):
    """The premise of the next test."""
    runs = undisturbed.runs_of_first.values()
    pids = {r.data.tags["pid"] for r in runs if r.data.tags["kind"] == "guided_training"}
    assert len(pids) == 1


def test_a_trial_alone_in_a_process_equals_that_in_a_reused_worker_bit_for_bit(undisturbed, alone):
    storage, results = alone
    theirs = undisturbed.home.summaries()
    compared = 0
    for result in results:
        path = storage / result.result_id / "result.json"
        if path.exists():
            assert json.loads(path.read_text()) == theirs[result.result_id]
            compared += isinstance(result, ClassifierTraining | GuidedTraining)
    assert compared == 2


def test_epg_of_the_guided_model_moved(undisturbed):
    """A smoke run says little about the world, but the loss must do something."""
    runs = undisturbed.runs_of_first.values()
    epg = {
        run.data.tags["label"]: run.data.metrics["val/epg"]
        for run in runs
        if "val/epg" in run.data.metrics
    }
    assert len(epg) == 3
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in epg.values())
    assert len(set(epg.values())) == 3
