"""What a launch does around its trials; the trials themselves are played by the tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.guidance_lambda import GuidanceLambda
from sweeps.launch import computation, stages
from sweeps.launch.events import Events
from sweeps.launch.plan import Plan
from sweeps.launch.sweep import Findings
from tests.sweeps.launches import Ended
from trainables.guided_training import GuidedTraining
from trainables.lease import Lease
from trainables.result import Result
from trainables.tracking import Tracking

IMAGES = SimpleNamespace(images={"train": 40, "val": 12, "test": 12})

Play = Callable[[Plan, Events], None]


@pytest.fixture
def launch(store, tmp_path, monkeypatch, capsys) -> Callable[..., Ended]:
    """Launch some results; ``play`` stands for the trials."""
    monkeypatch.setattr(computation, "ray_running", lambda *_: nullcontext({}))
    monkeypatch.setattr(stages, "POLL_S", 0.05)
    monkeypatch.setattr(
        GuidanceLambda, "report", lambda *_: Findings(text="THE TABLES", files=[], kept={})
    )

    storage = tmp_path / "storage"

    def run(results: list[Result], play: Play, **flags: Any) -> Ended:
        def run_stages(plan: Plan, *others: Any) -> None:
            events = next(x for x in others if isinstance(x, Events))
            try:
                play(plan, events)
            finally:
                for result_id in events.finished:
                    (folder := storage / result_id).mkdir(parents=True, exist_ok=True)
                    (folder / "result.json").write_text("{}")

        monkeypatch.setattr(computation, "run_stages", run_stages)
        sweep = GuidanceLambda(tracking_uri=store, **flags)
        code = computation.run_launch(sweep, storage, None, IMAGES, results)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def client(store, tmp_path) -> Tracking:
    """A reader of the launch's experiment."""
    return Tracking(store, GuidanceLambda.question, tmp_path / "artifacts")


def finish(results: Mapping[str, Result], events: Events) -> None:
    """Trials that go well."""
    for result_id in results:
        events.take({"event": "running", "result_id": result_id, "pid": 1, "device": "cpu"})
        events.take({"event": "finished", "result_id": result_id, "seconds": 1.0})


def all_well(plan: Plan, events: Events) -> None:
    finish(plan.missing, events)


def nothing(plan: Plan, events: Events) -> None:
    raise AssertionError("nothing was missing")


def states(client: Tracking) -> dict[str, str]:
    runs = client.client.search_runs([client.experiment_id], "tags.result_id != ''")
    return {run.data.tags["result_id"]: run.info.status for run in runs}


def launches(client: Tracking) -> list[str]:
    runs = client.client.search_runs([client.experiment_id], "tags.kind = 'launch'")
    return [run.info.status for run in runs]


def left_checkpoint(storage: Path, result: Result) -> Path:
    path = storage / result.result_id / "checkpoint.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_all_well_ends_with_zero_the_tables_and_a_finished_launch(launch, grid, client):
    ended = launch(grid, all_well)
    assert (ended.code, ended.err) == (0, "")
    assert "THE TABLES" in ended.out
    assert set(states(client).values()) == {"FINISHED"}
    assert launches(client) == ["FINISHED"]
    assert client.experiment_tag("lease") == ""


def test_all_finished_starts_nothing(launch, grid):
    launch(grid, all_well)
    ended = launch(grid, nothing)
    assert ended.code == 0
    assert "5 results: 5 are there, 0 to compute in 0 trials" in ended.out


def test_a_failure_ends_with_one_a_list_and_a_failed_launch(launch, grid, client):
    guided = next(r for r in grid if isinstance(r, GuidedTraining) and r.loss is not None)

    def play(plan: Plan, events: Events) -> None:
        finish({i: r for i, r in plan.missing.items() if r != guided}, events)
        events.fail(guided.result_id, "loss is nan at epoch 2, step 3")

    ended = launch(grid, play)
    assert ended.code == 1
    assert "THE TABLES" in ended.out
    assert ended.err.strip().splitlines() == [
        "1 results failed; the same command tries them again:",
        f"  {guided.label} ({guided.result_id}): loss is nan at epoch 2, step 3",
    ]
    assert launches(client) == ["FAILED"]
    again = launch(grid, all_well)
    assert again.code == 0
    assert "5 results: 4 are there, 1 to compute in 1 trials" in again.out


def test_where_all_failed_there_is_no_table(launch, grid):
    def play(plan: Plan, events: Events) -> None:
        for result_id in plan.missing:
            events.fail(result_id, "why")

    ended = launch(grid, play)
    assert ended.code == 1
    assert "THE TABLES" not in ended.out


def test_a_stop_kills_what_is_left_and_says_how_to_go_on(launch, grid, client):
    def play(plan: Plan, events: Events) -> None:
        finish(dict([next(iter(plan.missing.items()))]), events)
        raise KeyboardInterrupt

    ended = launch(grid, play)
    assert ended.code == 130
    assert "interrupted: 4 results stopped" in ended.out
    assert sorted(states(client).values()) == ["FINISHED"] + ["KILLED"] * 4
    assert launches(client) == ["KILLED"]
    assert client.experiment_tag("lease") == ""
    assert "5 results: 1 are there, 4 to compute" in launch(grid, all_well).out


def test_an_error_of_ours_leaves_no_run_that_seems_to_run(launch, grid, client):
    def play(plan: Plan, events: Events) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        launch(grid, play)
    assert set(states(client).values()) == {"KILLED"}
    assert launches(client) == ["KILLED"]
    assert client.experiment_tag("lease") == ""


@pytest.fixture
def heard() -> Iterator[None]:
    """Interrupts are heard, also where a shell started the tests in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_a_step_while_trials_run(launch, grid, heard, number):
    done: list[str] = []

    def play(plan: Plan, events: Events) -> None:
        events.listening = True
        try:
            signal.raise_signal(number)
            done.append("what was being written")
            events.on_step_end(1, [])
            done.append("another step")
        finally:
            events.listening = False

    before = signal.getsignal(number)
    assert launch(grid, play).code == 130
    assert done == ["what was being written"]
    assert signal.getsignal(number) == before


def test_a_second_signal_does_not_wait(launch, grid, heard):
    done: list[str] = []

    def play(plan: Plan, events: Events) -> None:
        events.listening = True
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("something that hangs")

    assert launch(grid, play).code == 130
    assert done == []


def test_resuming_keeps_checkpoints_and_computing_anew_drops_them(launch, grid, tmp_path):
    kept = left_checkpoint(tmp_path / "storage", grid[0])
    seen: list[bool] = []

    def play(plan: Plan, events: Events) -> None:
        seen.append(kept.exists())
        raise KeyboardInterrupt

    launch(grid, play)
    launch(grid, play, resume=False)
    assert seen == [True, False]


def test_a_result_whose_weights_are_gone_is_computed_from_nothing(launch, grid, tmp_path, client):
    """Its complete checkpoint would tell that nothing is left to do."""
    guided = next(r for r in grid if isinstance(r, GuidedTraining) and r.loss is not None)
    launch(grid, lambda plan, events: finish(
        {i: r for i, r in plan.missing.items() if r != guided}, events))  # fmt: skip
    checkpoint = left_checkpoint(tmp_path / "storage", guided.start)
    (checkpoint.parent / "result.json").unlink()
    seen: list[Any] = []

    def play(plan: Plan, events: Events) -> None:
        seen.extend([guided.start.result_id in plan.missing, checkpoint.exists()])
        finish(plan.missing, events)

    launch(grid, play)
    assert seen == [True, False]
    runs = client.client.search_runs([client.experiment_id], "tags.result_id != ''")
    assert len(runs) == len(grid)
    attempts = {run.data.tags["result_id"]: run.data.tags["attempt"] for run in runs}
    assert attempts[guided.start.result_id] == "2"  # in the run that it had
    assert set(states(client).values()) == {"FINISHED"}


@contextmanager
def computing(tracking: Tracking, results: list[Result]) -> Iterator[None]:
    """A live launch of another sweep that has taken results on."""
    lease = Lease(tracking)
    lease.acquire()
    tracking.open_launch("another_sweep", {})
    tracking.schedule(results, {})
    try:
        yield
    finally:
        lease.release()


def test_what_another_live_launch_computes_is_left_to_it(launch, grid, store, tmp_path):
    other = Tracking(store, "another_sweep", tmp_path / "artifacts")
    with computing(other, grid[:1]):

        def play(plan: Plan, events: Events) -> None:
            finish({i: r for i, r in plan.missing.items() if r != grid[0]}, events)

        assert "5 results: 0 are there, 4 to compute" in launch(grid, play).out


def test_a_launch_that_only_waits_ends_when_the_other_has_finished(launch, grid, store, tmp_path):
    other = Tracking(store, "another_sweep", tmp_path / "artifacts")
    with computing(other, grid):
        polled = iter(grid)

        def finish_one(_seconds: float) -> None:
            other.finished(next(polled).result_id, 1.0, tmp_path / "none")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stages, "time", SimpleNamespace(sleep=finish_one))
            ended = launch(grid, nothing)
    assert ended.code == 0
    assert "waiting for" in ended.out
    assert next(polled, None) is None
