"""Killed, stopped and damaged sweeps: the same command goes on, and nothing is told twice."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.sweeps.stories import BASELINE_EPOCHS, EPOCHS

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]  # of the first that waits for a story

TIMES = ["run_id", "started", "seconds", "duration", "attempt", "pid", "host"]


def kinds(runs) -> dict[str, str]:
    return {result_id: run.data.tags["kind"] for result_id, run in runs.items()}


def test_no_process_outlives_a_killed_driver(interrupted):
    assert interrupted.left == {}


def test_the_driver_was_killed_halfway(interrupted):
    """The premise: something was finished, something was under way."""
    assert len(interrupted.finished) == 2
    states = {i: run.info.status for i, run in interrupted.after_kill.items()}
    assert {states[i] for i in interrupted.finished} == {"FINISHED"}
    assert sum(status == "RUNNING" for status in states.values()) in (1, 2)


def test_only_missing_results_run_again(interrupted):
    assert "5 results: 2 are there, 3 to compute in 2 trials" in interrupted.stop.out
    runs = interrupted.home.runs()
    for result_id in interrupted.finished:
        assert runs[result_id].data.tags["attempt"] == "1"
        assert runs[result_id].info.end_time == interrupted.after_kill[result_id].info.end_time


def test_ctrl_c_ends_with_its_code_and_says_how_to_go_on(interrupted):
    stop = interrupted.stop
    assert (stop.code, stop.err) == (130, "")
    assert "interrupted: 3 results stopped at their last finished epoch" in stop.out
    assert "the same command goes on there" in stop.out


def test_runs_that_ctrl_c_stopped_are_killed(interrupted):
    states = {i: run.info.status for i, run in interrupted.stopped.items()}
    left = {i for i in states if i not in interrupted.finished}
    assert {states[i] for i in left} == {"KILLED"}
    assert len(left) == 3
    assert {states[i] for i in interrupted.finished} == {"FINISHED"}


def test_launches_are_told_apart(interrupted):
    last, stopped, killed = (run.info.status for run in interrupted.home.launches())
    assert (last, stopped, killed) == ("FINISHED", "KILLED", "KILLED")


def test_the_same_command_completes_the_sweep_though_a_worker_is_killed(interrupted):
    assert (interrupted.last.code, interrupted.last.err) == (0, "")
    runs = interrupted.home.runs()
    assert len(runs) == 5
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_a_killed_worker_goes_on_from_its_checkpoint(interrupted):
    assert interrupted.seen[0] >= 8
    assert interrupted.seen == sorted(interrupted.seen)
    run = interrupted.home.runs()[interrupted.victim]
    attempts = {i: int(r.data.tags["attempt"]) for i, r in interrupted.home.runs().items()}
    # by two launches, once more by Tune, and by the one that was killed if it came that far
    before = int(interrupted.after_kill[interrupted.victim].data.tags.get("attempt", "0"))
    assert attempts[interrupted.victim] == before + 3
    assert run.info.status == "FINISHED"


def test_no_epoch_is_doubled_in_a_metrics_history(interrupted):
    for run in interrupted.home.runs().values():
        for key, history in interrupted.home.histories(run).items():
            steps = [step for step, _ in history]
            assert len(steps) == len(set(steps)), (run.data.tags["label"], key, steps)
        if run.data.tags["kind"] == "attribution_evaluation":
            continue
        epochs = EPOCHS if run.data.tags["kind"] == "guided_training" else BASELINE_EPOCHS
        steps = sorted(step for step, _ in interrupted.home.histories(run)["train/loss"])
        assert steps == list(range(1, epochs + 1))


def test_the_final_tables_equal_those_of_an_undisturbed_sweep(interrupted, undisturbed):
    ours, theirs = interrupted.home.report(), undisturbed.home.report()
    assert ours.keys() == theirs.keys()
    for name, table in theirs.items():
        own = ours[name]
        times = [column for column in TIMES if column in table]
        pd.testing.assert_frame_equal(
            own.drop(columns=times), table.drop(columns=times), check_exact=True, obj=name
        )


def test_the_weights_equal_those_of_an_undisturbed_sweep_bit_for_bit(interrupted, undisturbed):
    assert interrupted.home.summaries() == undisturbed.home.summaries()


def test_a_corrupt_jpeg_is_skipped_counted_and_named(faulty):
    assert "191 images decoded once" in faulty.ended.out
    (line,) = (x for x in faulty.ended.out.splitlines() if faulty.corrupt in x)
    assert line.startswith(f"skipped image {faulty.corrupt}: ")


def test_an_image_whose_xml_is_broken_is_skipped_and_named(faulty):
    (line,) = (x for x in faulty.ended.out.splitlines() if faulty.broken in x)
    assert line.startswith(f"skipped image {faulty.broken} (test): ")
    assert "47 test images" in faulty.ended.out


def test_a_box_beyond_the_image_is_clipped_counted_and_named(faulty):
    assert f"mended boxes in 1 train images; first {faulty.clipped}: " in faulty.ended.out


def test_a_loss_that_is_no_number_fails_its_result_with_epoch_and_step(faulty):
    (failed,) = (r for r in faulty.home.runs().values() if r.info.status == "FAILED")
    assert failed.data.params["loss.name"] == "broken"
    assert "localization_loss is nan at epoch 1, step 1" in failed.data.tags["reason"]
    files = faulty.home.client().list_artifacts(failed.info.run_id)
    assert [file.path for file in files] == ["traceback.txt"]


def test_what_does_not_depend_on_a_failed_result_is_finished(faulty):
    states = [run.info.status for run in faulty.home.runs().values()]
    assert sorted(states) == ["FAILED"] + ["FINISHED"] * 5


def test_failures_are_listed_with_their_reasons_and_the_table_is_printed(faulty):
    ended = faulty.ended
    assert ended.code == 1
    assert "PARETO-DOMINANT" in ended.out
    first, entry = ended.err.strip().splitlines()
    assert first == "1 results failed; the same command tries them again:"
    assert entry.startswith("  broken 0.005 input_x_gradient_final small_resnet seed 0 (")
    assert "nan at epoch 1, step 1" in entry


def test_a_launch_with_failures_says_so(faulty):
    assert [run.info.status for run in faulty.home.launches()] == ["FAILED"]
