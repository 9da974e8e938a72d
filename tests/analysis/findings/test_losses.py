"""R1, R2, R3 and R13 on curves in which one number turns the verdict."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.findings.losses import (
    EnergyLeadsEpg,
    EnergyStaysOnObjects,
    L1LeadsIou,
    PpceChangesLeast,
)
from analysis.findings.paper_grid import needs

R1, R2, R3, R13 = EnergyLeadsEpg(), L1LeadsIou(), EnergyStaysOnObjects(), PpceChangesLeast()
ENERGY = [(0.80, 0.50, 0.20), (0.75, 0.70, 0.20)]
OTHER = [(0.79, 0.45, 0.20), (0.74, 0.60, 0.20)]
LOSSES = {"energy": ENERGY, "l1": OTHER, "ppce": OTHER, "rrr_star": OTHER}


def pair(trainings: Any, other: list[Any], **changes: Any) -> Any:
    trainings.curve("vanilla", "final", "energy", ENERGY)
    return trainings.curve("vanilla", "final", "l1", other, **changes)


def test_front_that_dominates_holds(trainings: Any) -> None:
    found = pair(trainings, OTHER).only(R1)
    assert (found.verdict, found.covers, found.covered) == ("holds", 1, 0)
    assert found.effect == pytest.approx(0.10)
    assert found.results == ("vanilla-final-energy-1-0", "vanilla-final-l1-1-0")
    assert (found.key.dataset, found.key.kind, found.key.layer) == ("voc2007", "vanilla", "final")


def test_one_point_outside_the_front_fails(trainings: Any) -> None:
    found = pair(trainings, [*OTHER, (0.81, 0.40, 0.20)]).only(R1)
    assert (found.verdict, found.covered) == ("fails", 0)
    assert found.covers == pytest.approx(2 / 3)


@pytest.mark.parametrize(("epg", "verdict"), [(0.702, "fails"), (0.697, "holds")])
def test_equal_fronts_after_rounding_dominate_neither(
    trainings: Any, epg: float, verdict: str
) -> None:
    assert pair(trainings, [ENERGY[0], (0.75, epg, 0.20)]).only(R1).verdict == verdict


def test_point_that_is_dominated_in_two_dimensions_is_on_no_front(trainings: Any) -> None:
    # on the front of three objectives by its IoU
    assert pair(trainings, [*OTHER, (0.70, 0.40, 0.90)]).only(R1).verdict == "holds"


def test_front_is_chosen_on_validation_and_compared_on_test(trainings: Any) -> None:
    pair(trainings, OTHER)
    trainings.change({"loss": "l1", "epoch": 2}, test_epg=0.75)
    assert trainings.only(R1).verdict == "fails"
    # what validation does not choose is not looked at
    trainings.change({"loss": "l1", "epoch": 2}, test_epg=0.60)
    trainings.curve("vanilla", "final", "l1", [(0.5, 0.5, 0.1)], lambda_loc=2.0, test_epg=0.99)
    assert trainings.only(R1).verdict == "holds"


def test_lambdas_are_pooled(trainings: Any) -> None:
    pair(trainings, OTHER[:1])
    trainings.curve("vanilla", "final", "l1", [(0.74, 0.72, 0.20)], lambda_loc=2.0)
    assert trainings.only(R1).verdict == "fails"


def test_missing_run_of_the_rival_keeps_it_from_holding(trainings: Any) -> None:
    pair(trainings, OTHER)
    trainings.curve("vanilla", "final", "l1", OTHER, lambda_loc=2.0, status="FAILED")
    found = trainings.only(R1)
    assert (found.verdict, found.why) == ("undecided", "L1: 1 of 2 runs missing")


@pytest.mark.parametrize("other", [OTHER, [(0.81, 0.80, 0.20)]])
@pytest.mark.parametrize("loss", ["energy", "l1"])
def test_missing_run_of_either_leaves_it_open(trainings: Any, loss: str, other: Any) -> None:
    pair(trainings, other)
    trainings.curve("vanilla", "final", loss, OTHER, lambda_loc=2.0, status="RUNNING")
    found = trainings.only(R1)
    assert (found.verdict, found.why[-19:]) == ("undecided", "1 of 2 runs missing")


def test_run_that_validation_prefers_can_turn_what_test_says(trainings: Any) -> None:
    # why a missing run decides nothing: the front is chosen on validation
    pair(trainings, [(0.81, 0.80, 0.20)])
    assert trainings.only(R1).verdict == "fails"
    worse = {"test_f1": 0.5, "test_epg": 0.1}
    trainings.curve("vanilla", "final", "l1", [(0.82, 0.81, 0.21)], lambda_loc=2.0, **worse)
    assert trainings.only(R1).verdict == "holds"


def test_effect_is_of_the_models_that_promise_most_on_validation(trainings: Any) -> None:
    pair(trainings, OTHER).change({"loss": "l1", "epoch": 1}, test_epg=0.90)
    found = trainings.only(R1)
    assert (found.value, found.against, found.verdict) == (0.70, 0.60, "fails")


@pytest.mark.parametrize("column", ["val_epg", "test_epg"])
def test_nan_metrics_leave_it_undecided(trainings: Any, column: str) -> None:
    pair(trainings, OTHER).change({"loss": "l1"}, **{column: float("nan")})
    found = trainings.only(R1)
    assert (found.verdict, found.why) == ("undecided", "no finite scores on validation and test")


def test_epoch_without_a_metric_is_left_out(trainings: Any) -> None:
    pair(trainings, [*OTHER, (0.9, 0.9, 0.9)])
    trainings.change({"loss": "l1", "epoch": 3}, val_epg=float("nan"))
    assert trainings.only(R1).verdict == "holds"


def test_seeds_must_agree_and_tell_the_deviation(trainings: Any) -> None:
    pair(trainings, OTHER)
    trainings.curve("vanilla", "final", "energy", [(0.8, 0.80, 0.2)], seed=1)
    trainings.curve("vanilla", "final", "l1", OTHER, seed=1)
    found = trainings.only(R1)
    assert (found.verdict, found.seeds) == ("holds", 2)
    assert found.effect == pytest.approx(0.15)
    assert found.sd == pytest.approx(0.1 / 2**0.5)
    trainings.curve("vanilla", "final", "l1", [(0.9, 0.90, 0.2)], seed=1, lambda_loc=1.0)
    found = trainings.only(R1)
    assert (found.verdict, found.why) == ("undecided", "seeds differ: 1 of 2 hold")


def test_seed_that_repeats_some_lambdas_decides_nothing(trainings: Any) -> None:
    pair(trainings, OTHER)
    trainings.curve("vanilla", "final", "energy", ENERGY, lambda_loc=2.0)
    for loss in ("energy", "l1"):
        trainings.curve("vanilla", "final", loss, [(0.8, 0.4, 0.2)], seed=1)
    found = trainings.only(R1)
    assert (found.verdict, found.seeds) == ("holds", 1)


def test_only_the_papers_method_boxes_and_layers_count(trainings: Any) -> None:
    for changes in ({"attribution": "grad_cam"}, {"dilation": 0.1}, {"annotated_fraction": 0.1}):
        trainings.curve("vanilla", "final", "energy", ENERGY, **changes)
        trainings.curve("vanilla", "final", "l1", OTHER, **changes)
    trainings.curve("vanilla", "mid1", "energy", ENERGY).curve("vanilla", "mid1", "l1", OTHER)
    found = trainings.judged(R1)
    assert (found.comparisons, found.on_runs) == ((), "undecided")


def test_network_of_no_kind_is_judged_on_these_runs_alone(trainings: Any) -> None:
    trainings.curve("user", "final", "energy", ENERGY).curve("user", "final", "l1", OTHER)
    found = trainings.judged(R1)
    assert (found.on_runs, found.on_grid, len(found.missing)) == ("holds", "undecided", 36)


def test_whole_grid_holds_and_one_gap_leaves_it_undecided(trainings: Any) -> None:
    found = trainings.whole(LOSSES).judged(R1)
    assert (found.on_grid, found.on_runs, found.expected) == ("holds", "holds", 36)
    found = trainings.drop(dataset="coco2014", network="bcos_resnet50", layer="final").judged(R1)
    assert (found.on_grid, found.on_runs) == ("undecided", "holds")
    assert needs(found.missing, R1.expected()) == ["bcos at final on coco2014"]


def test_energy_is_weak_if_few_fronts_cross_and_it_has_the_highest_epg(trainings: Any) -> None:
    trainings.whole(LOSSES)
    for kind in ("resnet50", "xresnet50", "bcos_resnet50"):
        crossed = {"dataset": "voc2007", "network": kind, "layer": "final", "loss": "l1"}
        trainings.change(crossed | {"epoch": 1}, val_f1=0.82, test_f1=0.82)
    found = trainings.judged(R1)
    assert [c.verdict for c in found.comparisons].count("fails") == 3
    assert found.on_grid == "weak"
    trainings.change(crossed | {"epoch": 2}, val_epg=0.71, test_epg=0.71)  # above Energy's
    assert trainings.judged(R1).on_grid == "fails"
    trainings.change(crossed | {"epoch": 2}, val_epg=0.60, test_epg=0.60)
    fourth = {"dataset": "coco2014", "network": "resnet50", "layer": "input", "loss": "ppce"}
    trainings.change(fourth | {"epoch": 1}, val_f1=0.82, test_f1=0.82)
    assert trainings.judged(R1).on_grid == "fails"  # 32 of 36 are below 90 %


def test_open_comparison_keeps_it_from_being_weak_and_does_not_make_it_fail(trainings: Any) -> None:
    crossed = {"dataset": "voc2007", "network": "resnet50", "layer": "final", "loss": "l1"}
    trainings.whole(LOSSES).change(crossed | {"epoch": 1}, val_f1=0.82, test_f1=0.82)
    assert trainings.judged(R1).on_runs == "weak"
    # a rival with more EPG, of which a run is missing
    there = {"layer": "input", "loss": "ppce", "dataset": "coco2014", "network": "resnet50"}
    trainings.change(there, val_epg=0.9, test_epg=0.9)
    assert trainings.judged(R1).on_runs == "fails"
    missing = {"lambda_loc": 9.0, "status": "FAILED", "dataset": "coco2014"}
    trainings.curve("vanilla", "input", "ppce", OTHER, **missing)
    assert trainings.judged(R1).on_runs == "undecided"


def test_grid_with_gaps_can_fail_but_not_be_weak(trainings: Any) -> None:
    trainings.whole(LOSSES, datasets=["voc2007"])
    crossed = {"network": "resnet50", "layer": "final", "loss": "l1", "epoch": 1}
    trainings.change(crossed, val_f1=0.82, test_f1=0.82)
    assert trainings.judged(R1).on_grid == "undecided"
    trainings.change(crossed, val_epg=0.80, test_epg=0.80)
    assert trainings.judged(R1).on_grid == "fails"


L1 = [(0.80, 0.30, 0.50), (0.75, 0.30, 0.60)]
BELOW = [(0.79, 0.30, 0.40), (0.74, 0.30, 0.50)]


def test_l1_holds_with_few_exceptions(trainings: Any) -> None:
    points = {"energy": BELOW, "l1": L1, "ppce": BELOW, "rrr_star": BELOW}
    trainings.whole(points, ["final"])
    assert trainings.judged(R2).on_runs == "holds"
    rows = [("voc2007", "resnet50", loss) for loss in ("energy", "ppce", "rrr_star")]
    for dataset, network, loss in rows:
        where = {"dataset": dataset, "network": network, "loss": loss, "epoch": 1}
        trainings.change(where, val_f1=0.85, test_f1=0.85)
    assert trainings.judged(R2).on_runs == "holds"  # 15 of 18
    assert trainings.judged(R2).on_grid == "undecided"  # nothing at the input
    where = {"dataset": "coco2014", "network": "resnet50", "loss": "ppce", "epoch": 1}
    trainings.change(where, val_f1=0.85, test_f1=0.85)
    assert trainings.judged(R2).on_runs == "fails"  # 14 of 18


@pytest.mark.parametrize(
    ("kind", "iou", "verdict"),
    [
        ("vanilla", 0.215, "holds"),
        ("vanilla", 0.225, "fails"),
        ("bcos", 0.215, "fails"),
        ("bcos", 0.225, "holds"),
    ],
)
def test_only_bcos_may_gain_iou_at_the_input(
    trainings: Any, kind: str, iou: float, verdict: str
) -> None:
    trainings.base(kind, "input")
    for loss in ("energy", "l1", "ppce", "rrr_star"):
        trainings.curve(kind, "input", loss, [(0.80, 0.3, iou)])
    found = trainings.only(R2)
    assert found.verdict == verdict
    assert found.key in R2.expected()


def test_gain_is_that_of_a_model_within_five_points(trainings: Any) -> None:
    trainings.base("vanilla", "input")
    trainings.curve("vanilla", "input", "l1", [(0.74, 0.3, 0.9), (0.75, 0.3, 0.21)])
    found = trainings.only(R2)
    assert found.verdict == "holds"
    assert found.effect == pytest.approx(0.01)
    assert found.key.what == "IoU gains less than 2 points of L1 alone"


def test_gain_without_a_baseline_is_undecided(trainings: Any) -> None:
    trainings.curve("vanilla", "input", "l1", L1)
    found = trainings.only(R2)
    assert (found.verdict, found.why) == ("undecided", "no evaluation of the baseline")


def test_missing_run_leaves_gain_at_the_input_open(trainings: Any) -> None:
    trainings.base("vanilla", "input").curve("vanilla", "input", "l1", [(0.8, 0.3, 0.21)])
    trainings.curve("vanilla", "input", "l1", L1, lambda_loc=2.0, status="FAILED")
    assert trainings.only(R2).verdict == "undecided"
    trainings.change({"lambda_loc": 1.0}, val_box_iou_tuned=0.23, test_box_iou_tuned=0.23)
    assert trainings.only(R2).verdict == "undecided"


def on_object(trainings: Any, energy: float, l1: float) -> Any:
    trainings.base("vanilla", "final")
    trainings.curve("vanilla", "final", "energy", ENERGY, test_on_object_epg=energy)
    return trainings.curve("vanilla", "final", "l1", OTHER, test_on_object_epg=l1)


@pytest.mark.parametrize(("l1", "verdict"), [(0.59, "holds"), (0.60, "fails"), (0.61, "fails")])
def test_energy_must_be_more_on_the_object(trainings: Any, l1: float, verdict: str) -> None:
    found = on_object(trainings, 0.60, l1).only(R3)
    assert found.verdict == verdict
    assert found.value == 0.60


def test_on_object_is_of_the_model_with_the_highest_epg(trainings: Any) -> None:
    on_object(trainings, 0.60, 0.50)
    trainings.change({"loss": "l1", "epoch": 1}, test_on_object_epg=0.70)
    assert trainings.only(R3).verdict == "fails"  # epoch 2 of L1 loses too much F1
    trainings.change({"loss": "l1", "epoch": 2}, val_f1=0.75)
    assert trainings.only(R3).verdict == "holds"


def test_other_data_stand_beside(trainings: Any) -> None:
    on_object(trainings, 0.60, 0.50)
    trainings.base("vanilla", "input", dataset="coco2014")
    for loss, share in (("energy", 0.1), ("l1", 0.5)):
        where = {"dataset": "coco2014", "test_on_object_epg": share}
        trainings.curve("vanilla", "input", loss, OTHER, **where)
    found = trainings.judged(R3)
    assert [(c.verdict, c.decides) for c in found.comparisons] == [
        ("holds", True),
        ("fails", False),
    ]
    assert found.on_runs == "holds"


def test_without_segmentation_there_is_nothing_to_compare(trainings: Any) -> None:
    found = trainings.whole(LOSSES).judged(R3)
    assert (found.comparisons, found.on_grid, len(found.missing)) == ((), "undecided", 6)


def test_loss_that_never_keeps_enough_f1_loses(trainings: Any) -> None:
    on_object(trainings, 0.60, 0.50).change({"loss": "energy"}, val_f1=0.1)
    assert trainings.only(R3).verdict == "fails"
    trainings.change({"loss": "l1"}, val_f1=0.1)
    found = trainings.only(R3)
    assert (found.verdict, found.why) == ("undecided", "no model within 5 points of the baseline")


@pytest.mark.parametrize(("epg", "verdict"), [(0.44, "holds"), (0.46, "fails"), (0.45, "fails")])
def test_ppce_must_gain_least(trainings: Any, epg: float, verdict: str) -> None:
    trainings.base("xdnn", "final")
    trainings.curve("xdnn", "final", "rrr_star", [(0.8, 0.45, 0.2)])
    trainings.curve("xdnn", "final", "ppce", [(0.8, epg, 0.2)])
    found = trainings.only(R13)
    assert found.verdict == verdict
    assert found.effect == pytest.approx(0.45 - epg)


def test_ppce_without_an_admissible_model_has_not_gained_least(trainings: Any) -> None:
    trainings.base("xdnn", "final")
    trainings.curve("xdnn", "final", "rrr_star", [(0.8, 0.45, 0.2)])
    trainings.curve("xdnn", "final", "ppce", [(0.1, 0.4, 0.2)])
    assert trainings.only(R13).verdict == "undecided"
