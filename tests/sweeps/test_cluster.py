"""The same file on a cluster that runs already: by its address, and as a submitted job."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from ray import tune

from sweeps.guidance_lambda import GuidanceLambda
from sweeps.launch import cluster
from trainables.source import source_fingerprint
from trainables.trial import tune_trial


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestOnACluster:
    def test_the_sweep_succeeds_and_prints_only_its_own_lines(self, clustered):
        assert (clustered.direct.code, clustered.direct.err) == (0, "")
        assert "Ray is up with 2 CPU" in clustered.direct.out
        assert "PARETO-DOMINANT" in clustered.direct.out
        for noise in ("ray::", "Tune", "TensorBoard", "INFO", "WARNING"):
            assert noise not in clustered.direct.out

    def test_every_run_is_finished(self, clustered):
        states = [run.info.status for run in clustered.after_direct.values()]
        assert states == ["FINISHED"] * 5

    def test_a_submitted_job_computes_only_what_is_missing(self, clustered):
        assert clustered.job.code == 0, clustered.job
        assert "5 results: 4 are there, 1 to compute in 1 trials" in clustered.job.out
        new = [run for i, run in clustered.after_job.items() if i not in clustered.after_direct]
        assert [run.data.params["loss.name"] for run in new] == ["l1"]
        assert new[0].info.status == "FINISHED"

    def test_results_outlive_the_jobs_temporary_folder(self, clustered):
        assert not clustered.folder.exists()
        home = clustered.home
        for result_id, run in clustered.after_job.items():
            assert (home.storage / result_id / "result.json").exists()
            artifacts = Path(urlsplit(run.info.artifact_uri).path)
            assert artifacts.is_relative_to(home.path)
            if "attribution.name" in run.data.params:
                assert (artifacts / "rows.parquet").exists()
        assert len(clustered.launches) == 2
        for launch in clustered.launches:
            artifacts = Path(urlsplit(launch.info.artifact_uri).path)
            assert (artifacts / "report.html").exists()
            assert json.loads((artifacts / "sweep.json").read_text())["failed"] == {}

    def test_workers_run_the_drivers_code(self, clustered):
        """A trial refuses where they differ, and the job's project has one line more."""
        job, direct = clustered.launches
        assert direct.data.tags["source"] == source_fingerprint()
        assert job.data.tags["source"] != direct.data.tags["source"]

    def test_a_local_store_is_refused_on_several_nodes_with_the_remedy(self, clustered):
        crowded = clustered.crowded
        assert crowded.code == 2, crowded
        (line,) = crowded.err.splitlines()
        for word in ("--tracking-uri", "SQLite", "2", "mlflow server"):
            assert word in line

    def test_a_refused_launch_leaves_nothing_running(self, clustered):
        home = clustered.home
        states = {run.info.status for run in [*home.runs().values(), *home.launches()]}
        assert states <= {"FINISHED", "KILLED"}


class Nodes:
    """Ray as far as the check of shared folders asks it: some nodes, one of which may be blind."""

    def __init__(self, *names: str, blind: str = "", driver: str = ""):
        self._names, self._blind, self._driver = names, blind, driver or names[0]

    def get_runtime_context(self) -> SimpleNamespace:
        return SimpleNamespace(get_node_id=lambda: self._driver)

    def nodes(self) -> list[dict[str, object]]:
        return [{"NodeID": n, "Alive": True, "Resources": {"CPU": 2.0}} for n in self._names]

    def remote(self, function: Callable[[str], bool]) -> SimpleNamespace:
        def options(num_cpus: int, scheduling_strategy: SimpleNamespace) -> SimpleNamespace:
            blind = scheduling_strategy.node_id == self._blind
            return SimpleNamespace(remote=lambda path: function(path) and not blind)

        return SimpleNamespace(options=options)

    def get(self, answers: list[bool]) -> list[bool]:
        return answers


@pytest.fixture
def check(monkeypatch, tmp_path) -> Callable[..., None]:
    """Check a folder and a store on some nodes."""

    def run(nodes: Nodes, tracking_uri: str = "http://mlflow:5000") -> None:
        monkeypatch.setattr(cluster, "ray", nodes)
        monkeypatch.setattr(
            cluster, "NodeAffinitySchedulingStrategy", lambda n, soft: SimpleNamespace(node_id=n)
        )
        cluster.check_shared(GuidanceLambda(tracking_uri=tracking_uri), [tmp_path])
        assert list(tmp_path.iterdir()) == []

    return run


def test_a_folder_that_every_node_sees_is_accepted(check):
    check(Nodes("one", "two"))


def test_a_folder_that_one_node_does_not_see_is_refused_with_the_remedy(check, tmp_path):
    with pytest.raises(ValueError, match=r"1 of 2 nodes; .*--storage-path and --data-root") as told:
        check(Nodes("one", "two", blind="two"))
    assert str(tmp_path) in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_one_node_may_keep_everything_to_itself(check):
    check(Nodes("one", blind="one"), "sqlite:///mlflow.db")


def test_a_head_without_work_counts_where_the_driver_is_on_it(check):
    check(Nodes("one", driver="head"))
    with pytest.raises(ValueError, match="SQLite serves one node and the cluster has 2"):
        check(Nodes("one", driver="head"), "sqlite:///mlflow.db")


def test_read_only_data_need_only_be_seen(check, tmp_path, monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    check(Nodes("one", "two"))
    with pytest.raises(ValueError, match="is not visible on 1 of 2 nodes"):
        check(Nodes("one", "two", blind="two"))


def test_a_worker_with_other_code_refuses_with_the_reason(grid, monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(tune, "report", lambda report: told.append(json.loads(report["event"])))
    tune_trial({"bundle": grid[:2]}, feeds={}, storage=str(tmp_path), source="0123456789ab")
    assert [event["event"] for event in told] == ["failed", "failed"]
    assert [event["result_id"] for event in told] == [result.result_id for result in grid[:2]]
    assert "0123456789ab" in told[0]["reason"]
    assert source_fingerprint() in told[0]["reason"]
    assert list(tmp_path.iterdir()) == []
