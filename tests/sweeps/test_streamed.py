"""Scoring by actors: every image once, also where the driver or an actor is killed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from tests.sweeps.stories import JUDGED

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]  # of the first that waits for a story

RAYS_OWN = "ray/issues/53727"
"""Ray says of each pool of actors that may start again that its arguments must not be lost."""
METHODS = ("grad_cam", "input_x_gradient", "slow")


def own_lines(err: str) -> list[str]:
    """What is on the error stream but for the line of Ray's core that cannot be turned off."""
    return [line for line in err.splitlines() if RAYS_OWN not in line]


def evaluations(home) -> dict[str, object]:
    """Runs of evaluations, by result id."""
    runs = home.runs().items()
    return {i: run for i, run in runs if run.data.tags["kind"] == "protocol_evaluation"}


def test_the_sweep_succeeds_and_prints_only_its_own_lines(streamed):
    ended = streamed.ended
    assert ended.code == 0, ended
    assert own_lines(ended.err) == []
    assert "8 results: 0 are there, 8 to compute in 4 trials" in ended.out
    for noise in ("ray::", "MapWorker", "Dataset", "Running", "INFO", "WARNING"):
        assert noise not in ended.out


def test_two_networks_are_judged_by_all_methods(streamed):
    runs = streamed.home.runs().values()
    assert {run.info.status for run in runs} == {"FINISHED"}
    kinds = Counter(run.data.tags["kind"] for run in runs)
    assert kinds == {
        "classifier_training": 1,
        "idsds_finetuning": 1,
        "protocol_evaluation": 2 * len(METHODS),
    }


def test_every_image_is_scored_once_by_every_method_and_protocol(streamed):
    rows = streamed.home.rows()
    assert rows.keys() == evaluations(streamed.home).keys()
    chosen = {tuple(sorted(set(table["image_id"]))) for table in rows.values()}
    assert len(chosen) == 1
    (ids,) = chosen
    assert len(ids) == JUDGED
    for table in rows.values():
        for _, own in table.groupby("protocol_key"):
            assert tuple(own["image_id"]) == ids
        assert table["protocol_key"].nunique() == 3
        assert table["method_key"].nunique() == 1


def test_the_deletion_score_goes_by_what_the_network_is(streamed):
    keys = Counter(
        key for table in streamed.home.rows().values() for key in set(table.protocol_key)
    )
    assert keys == {"sds": 3, "idsds": 3, "epg": 6, "deletion": 6}


def test_means_are_logged_once_and_are_those_of_the_rows(streamed):
    rows = streamed.home.rows()
    for result_id, run in evaluations(streamed.home).items():
        histories = streamed.home.histories(run)
        own = rows[result_id]
        for key in ("epg", "deletion"):
            scores = own[own["protocol_key"] == key]["score"]
            scores = scores.fillna(0) if key == "epg" else scores
            ((step, value),) = histories[f"val/{key}"]
            assert step == 1
            assert value == pytest.approx(scores.mean())
        assert histories["images"] == [(1, JUDGED)]
        assert histories["skipped_images"] == [(1, 0)]


def test_a_method_and_its_slow_twin_agree(streamed):
    """The same maps from the same passes, under two names."""
    tables = pd.concat(streamed.home.rows().values())
    twins = [
        tables[tables["method_key"] == name].sort_values(["protocol_key", "image_id", "score"])
        for name in ("input_x_gradient", "slow")
    ]
    np.testing.assert_array_equal(twins[0]["score"], twins[1]["score"])


def test_the_report_ranks_the_methods_by_each_protocol(streamed):
    out = streamed.ended.out
    for protocol in ("sds", "idsds", "epg", "deletion"):
        assert protocol in out
    ranking = out[out.index("Ray is up") :]
    for method in METHODS:
        assert method in ranking
    client, (launch,) = streamed.home.client(), streamed.home.launches()
    names = {file.path for file in client.list_artifacts(launch.info.run_id)}
    assert {"report.html", "report.md", "runs.csv"} <= names


def test_curves_and_rows_are_artifacts_of_each_run(streamed):
    client = streamed.home.client()
    for run in evaluations(streamed.home).values():
        names = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"rows.parquet", "curves.npz"} <= names


def test_no_part_is_left(streamed, disturbed):
    for home in (streamed.home, disturbed.home):
        assert home.parts() == {}


def test_the_driver_was_killed_between_two_parts(disturbed):
    """The premise: some images were finished, some were not."""
    (images,) = disturbed.images.values()
    assert 0 < len(images) < JUDGED


def test_finished_images_are_not_scored_again(disturbed):
    """Their part stays as it is, and no other holds one of them."""
    for path, written in disturbed.left.items():
        assert disturbed.seen[path] == {written}
    (first,) = disturbed.left
    of_classifier = [path for path in disturbed.seen if path.parent == first.parent]
    assert len(of_classifier) == 2


def test_no_part_is_written_twice(disturbed):
    assert len(disturbed.seen) == 4
    assert all(len(times) == 1 for times in disturbed.seen.values())


def test_an_actor_was_killed_and_another_took_over(disturbed):
    assert disturbed.victim
    assert disturbed.scorers


def test_the_same_command_completes_the_sweep(disturbed):
    assert disturbed.last.code == 0, disturbed.last
    assert own_lines(disturbed.last.err) == []
    runs = disturbed.home.runs().values()
    assert len(runs) == 8
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_final_rows_equal_those_of_an_undisturbed_sweep(streamed, disturbed):
    ours, theirs = disturbed.home.rows(), streamed.home.rows()
    assert ours.keys() == theirs.keys()
    for result_id, table in theirs.items():
        pd.testing.assert_frame_equal(ours[result_id], table, check_exact=True, obj=result_id)
