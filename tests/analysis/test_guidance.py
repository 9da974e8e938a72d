"""What is pooled, what is kept apart, and what is compared with what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from analysis.guidance import (
    BASELINE,
    CONTROL,
    CURVE,
    candidates,
    front,
    guided,
    in_order,
    references,
    words,
)
from analysis.runs import Runs, load


@pytest.fixture(scope="module")
def sweep(store) -> Runs:
    return load("guidance_lambda", store.uri)


def training(result_id: str, **changes: Any) -> dict[str, Any]:
    """A guided training; a key with two underscores is a nested parameter."""
    usual = {
        "result_id": result_id,
        "kind": "guided_training",
        "start": "base",
        "start.network.name": "net",
        "start.data.name": "digits",
        "start.seed": 0,
        "loss.name": "energy",
        "attribution.name": "ixg",
        "attribution.layer": "final",
        "lambda_loc": 0.005,
        "epochs": 8,
        "dilation": 0.0,
        "seed": 0,
    }
    return usual | {name.replace("__", "."): value for name, value in changes.items()}


def control(result_id: str, **changes: Any) -> dict[str, Any]:
    row = training(result_id, loss="none", lambda_loc=0.0, **changes)
    return {k: v for k, v in row.items() if not k.startswith(("loss.", "attribution."))}


def evaluation(result_id: str, start: str, **changes: Any) -> dict[str, Any]:
    usual = {"result_id": result_id, "kind": "attribution_evaluation", "start": start}
    usual |= {"attribution.name": "ixg", "attribution.layer": "final"}
    return usual | {name.replace("__", "."): value for name, value in changes.items()}


def test_trainings_are_described_and_controls_are_none_of_them(sweep: Runs) -> None:
    rows = guided(sweep)
    assert len(rows) == 33
    assert set(rows["loss"]) == {"energy", "l1", "ppce", "rrr_star"}
    described = rows[["dataset", "network", "attribution", "variant"]].drop_duplicates()
    assert described.to_numpy().tolist() == [
        ["digit_scenes", "small_resnet", "input_x_gradient", ""]
    ]


def test_only_finished_trainings_have_candidates(sweep: Runs) -> None:
    rows = candidates(sweep)
    assert len(rows) == 32 * 3
    assert "mid1" not in set(rows["layer"])
    assert rows["layer"].drop_duplicates().tolist() == ["input", "final"]


def test_every_setting_and_seed_has_its_own_references(sweep: Runs) -> None:
    rows = references(sweep)
    found = rows.groupby(["layer", "seed"])["reference"].agg(list)
    assert found.map(sorted).tolist() == [[BASELINE, CONTROL]] * 4
    at = rows.set_index(["reference", "layer", "seed"])
    assert at.loc[(BASELINE, "input", 1), "result_id"] == "evaluation-baseline-input-1"
    assert at.loc[(CONTROL, "final", 0), "result_id"] == "evaluation-control-final-0"
    assert at.loc[(CONTROL, "final", 0), "epoch"] == 3


def test_references_belong_to_no_front(sweep: Runs) -> None:
    members = front(candidates(sweep))
    assert not set(members["result_id"]) & set(references(sweep)["result_id"])


def test_front_pools_lambdas_and_epochs_of_a_seed(curve: Callable[..., dict[str, Any]]) -> None:
    rows = [
        curve(0.80, 0.60, 0.40, lambda_loc=0.001, epoch=1),
        curve(0.75, 0.70, 0.40, lambda_loc=0.005, epoch=2),
        curve(0.74, 0.65, 0.40, lambda_loc=0.005, epoch=3),
        curve(0.70, 0.50, 0.30, seed=1, epoch=4),
    ]
    assert front(pd.DataFrame(rows))["epoch"].tolist() == [1, 2, 4]


def test_equals_within_a_bin_leave_the_smallest_lambda(
    curve: Callable[..., dict[str, Any]],
) -> None:
    rows = pd.DataFrame([curve(lambda_loc=0.005, epoch=1), curve(lambda_loc=0.001, epoch=2)])
    assert front(rows)["lambda_loc"].tolist() == [0.001]


def test_epoch_without_an_objective_is_in_no_front(curve: Callable[..., dict[str, Any]]) -> None:
    rows = pd.DataFrame([curve(epoch=1), curve(0.9, 0.9, 0.9, epoch=2, val_epg=float("nan"))])
    assert front(rows)["epoch"].tolist() == [1]


def test_trainings_that_differ_in_any_other_parameter_are_not_pooled(
    make_runs: Callable[..., Runs],
) -> None:
    rows = [
        training("a"),
        training("b", lambda_loc=0.001),
        training("c", epochs=2),
        training("d", start__seed=1, seed=1),
    ]
    found = guided(make_runs(rows, [])).set_index("result_id")
    assert found["variant"].to_dict() == {
        "a": "epochs=8",
        "b": "epochs=8",
        "c": "epochs=2",
        "d": "epochs=8",
    }


def test_loss_with_another_field_is_another_loss_at_the_same_setting(
    make_runs: Callable[..., Runs],
) -> None:
    rows = [
        training("a", loss__smooth=1),
        training("b", loss__smooth=5),
        training("c", loss__name="l1"),
    ]
    found = guided(make_runs(rows, [])).set_index("result_id")
    assert found["loss"].to_dict() == {
        "a": "energy loss.smooth=1.0",
        "b": "energy loss.smooth=5.0",
        "c": "l1",
    }
    assert set(found["variant"]) == {""}


def test_shares_and_dilations_are_columns_that_keep_curves_apart(
    make_runs: Callable[..., Runs],
) -> None:
    rows = [
        training("all", annotated_fraction=1.0),
        training("few", annotated_fraction=0.01, lambda_loc=0.5),
        training("wide", annotated_fraction=1.0, dilation=0.25),
        training("silent"),
        training("other", loss__name="l1", annotated_fraction=0.01, epochs=2),
    ]
    epochs = [(row["result_id"], 1, {"val/f1": 0.5}) for row in rows]
    found = guided(make_runs(rows, epochs)).set_index("result_id")
    columns = found[["annotated_fraction", "dilation", "variant"]].T.to_dict("list")
    assert columns == {
        "all": [1.0, 0.0, "epochs=8"],
        "few": [0.01, 0.0, "epochs=8"],
        "wide": [1.0, 0.25, "epochs=8"],
        "silent": [1.0, 0.0, "epochs=8"],
        "other": [0.01, 0.0, "epochs=2"],
    }
    curves = candidates(make_runs(rows, epochs)).groupby(list(CURVE))["result_id"].agg(set)
    assert sorted(map(sorted, curves)) == [["all", "silent"], ["few"], ["other"], ["wide"]]


def test_shares_and_dilations_are_said_where_they_are_not_usual(
    curve: Callable[..., dict[str, Any]],
) -> None:
    assert words(curve())["annotated_fraction"] == words(curve())["dilation"] == ""
    said = words(curve(annotated_fraction=0.01, dilation=0.25))
    assert (said["annotated_fraction"], said["dilation"]) == (
        "1 % annotated",
        "boxes dilated by 25 %",
    )


def test_front_by_map_has_map_in_the_place_of_f1(curve: Callable[..., dict[str, Any]]) -> None:
    rows = pd.DataFrame([curve(0.8, epoch=1, val_map=0.1), curve(0.7, epoch=2, val_map=0.9)])
    assert front(rows)["epoch"].tolist() == [1]
    assert front(rows, accuracy="map")["epoch"].tolist() == [2]


def test_control_must_agree_in_all_but_what_guidance_alone_uses(
    make_runs: Callable[..., Runs],
) -> None:
    rows = [
        training("guided", dilation=0.5),
        control("same"),
        control("short", epochs=2),
        evaluation("of-same", "same"),
        evaluation("of-base", "base"),
        evaluation("of-short", "short"),
        evaluation("elsewhere", "same", attribution__layer="input"),
    ]
    epochs = [(r["result_id"], e, {"val/epg": 0.1 * e}) for r in rows[3:] for e in (1, 8)]
    found = references(make_runs(rows, epochs)).set_index("reference")
    assert found["result_id"].to_dict() == {BASELINE: "of-base", CONTROL: "of-same"}
    assert found["epoch"].to_dict() == {BASELINE: 8, CONTROL: 8}


def test_failed_training_has_no_candidates_though_it_logged_epochs(
    make_runs: Callable[..., Runs],
) -> None:
    rows = [training("done"), training("failed", lambda_loc=0.1, status="FAILED")]
    runs = make_runs(rows, [(r["result_id"], 1, {"val/f1": 0.5}) for r in rows])
    assert candidates(runs)["result_id"].tolist() == ["done"]
    assert set(guided(runs)["result_id"]) == {"done", "failed"}


def test_without_evaluations_there_are_no_references(make_runs: Callable[..., Runs]) -> None:
    runs = make_runs([training("a")], [("a", 1, {"val/f1": 0.5})])
    assert references(runs).empty
    assert len(candidates(runs)) == 1
    assert front(candidates(runs)).empty


def test_runs_without_any_training_give_empty_frames(make_runs: Callable[..., Runs]) -> None:
    runs = make_runs([{"result_id": "a", "kind": "something_else", "seed": 0}], [])
    assert guided(runs).empty
    assert candidates(runs).empty
    assert references(runs).empty
    assert front(candidates(runs)).empty


def test_layers_and_losses_come_in_their_order_and_others_after() -> None:
    rows = pd.DataFrame(
        {
            "layer": ["final", "layer9", "input", "input", "input"],
            "loss": ["l1", "l1", "mine", "energy", BASELINE],
        }
    )
    found = in_order(rows)
    assert found["layer"].tolist() == ["input", "input", "input", "final", "layer9"]
    assert found["loss"].tolist() == [BASELINE, "energy", "mine", "l1", "l1"]
