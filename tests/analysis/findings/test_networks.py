"""R4, R5 and R6: what guidance gains over the baselines."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from analysis.findings.networks import AccuracyGains, BcosLeadsAtInput, FinalAlwaysGains

R4, R5, R6 = BcosLeadsAtInput(), FinalAlwaysGains(), AccuracyGains()
LOSSES = ("energy", "l1", "ppce", "rrr_star")


def at_input(trainings: Any, losses: tuple[str, ...] = LOSSES) -> Any:
    bases = {"bcos": (0.8, 0.40, 0.30), "vanilla": (0.7, 0.30, 0.20), "xdnn": (0.7, 0.30, 0.20)}
    best = {"bcos": (0.8, 0.70, 0.50), "vanilla": (0.7, 0.50, 0.30), "xdnn": (0.7, 0.50, 0.30)}
    for kind in bases:
        trainings.base(kind, "input", bases[kind])
        for loss, weight in product(losses, (1.0, 2.0, 3.0)):
            trainings.curve(kind, "input", loss, [best[kind]], lambda_loc=weight)
    return trainings


def test_bcos_leads_in_all_three_quantities(trainings: Any) -> None:
    found = at_input(trainings).judged(R4)
    assert (found.on_runs, found.on_grid, len(found.comparisons)) == ("holds", "undecided", 12)
    assert {key.dataset for key in found.missing} == {"coco2014"}
    best = trainings.only(R4, "best EPG above vanilla")
    assert best.effect == pytest.approx(0.2)
    assert best.published == "VOC: 71.7 at F1 79.4, vanilla 55.8 at F1 69.0"


@pytest.mark.parametrize(
    ("base", "best", "failing"),
    [
        (0.41, 0.65, ["baseline EPG above vanilla"]),
        (0.40, 0.65, ["baseline EPG above vanilla"]),  # a tie is not above
        (0.39, 0.71, ["best EPG above vanilla", "gain EPG above vanilla"]),
        (0.30, 0.62, ["gain EPG above vanilla"]),
    ],
)
def test_each_quantity_can_fail_alone(
    trainings: Any, base: float, best: float, failing: list[str]
) -> None:
    at_input(trainings)
    for row in trainings.beside:
        if row["network"] == "resnet50":
            row |= {"val_epg": base, "test_epg": base}
    trainings.change({"network": "resnet50"}, val_epg=best, test_epg=best)
    found = trainings.judged(R4)
    assert [c.key.what for c in found.comparisons if c.verdict == "fails"] == failing
    assert (found.on_runs, found.on_grid) == ("fails", "fails")


def test_networks_are_compared_by_the_losses_they_share(trainings: Any) -> None:
    at_input(trainings).drop(network="resnet50", loss="energy")
    found = trainings.only(R4, "best EPG above vanilla")
    assert found.key.what == "best EPG above vanilla of L1, PPCE, RRR* alone"
    assert found.key not in R4.expected()


def test_without_a_rival_network_nothing_is_compared(trainings: Any) -> None:
    at_input(trainings).drop(network="resnet50")
    found = trainings.drop(network="xresnet50").judged(R4)
    assert (found.comparisons, found.on_runs) == ((), "undecided")


def at_final(trainings: Any, epg: float = 0.5, iou: float = 0.4) -> Any:
    trainings.base("xdnn", "final").curve("xdnn", "final", "energy", [(0.76, epg, 0.1)])
    return trainings.curve("xdnn", "final", "l1", [(0.76, 0.1, iou)])


@pytest.mark.parametrize(
    ("epg", "iou", "verdict"),
    [(0.31, 0.21, "holds"), (0.30, 0.21, "fails"), (0.31, 0.19, "fails")],
)
def test_both_losses_must_gain_what_they_are_for(
    trainings: Any, epg: float, iou: float, verdict: str
) -> None:
    found = at_final(trainings, epg, iou).judged(R5)
    assert (found.on_runs, len(found.comparisons)) == (verdict, 2)


def test_gain_that_costs_too_much_f1_is_none(trainings: Any) -> None:
    at_final(trainings).change({"loss": "energy"}, val_f1=0.74)
    assert trainings.only(R5, "Energy").verdict == "fails"


def test_failed_run_may_have_gained(trainings: Any) -> None:
    at_final(trainings, epg=0.2)
    assert trainings.only(R5, "Energy").verdict == "fails"
    trainings.curve("xdnn", "final", "energy", [(0, 0, 0)], lambda_loc=2.0, status="FAILED")
    found = trainings.only(R5, "Energy")
    assert (found.verdict, found.why) == ("undecided", "Energy: 1 of 2 runs missing")


def test_gain_has_its_mean_and_deviation_over_seeds(trainings: Any) -> None:
    for seed, epg in enumerate((0.4, 0.5, 0.6)):
        trainings.base("bcos", "final", seed=seed)
        trainings.curve("bcos", "final", "energy", [(0.79, epg, 0.2)], seed=seed)
    found = trainings.only(R5)
    assert (found.seeds, found.verdict) == (3, "holds")
    assert found.effect == pytest.approx(0.2)
    assert found.sd == pytest.approx(0.1)
    assert found.accuracy == pytest.approx(-0.01)


@pytest.mark.parametrize(
    ("point", "verdict"),
    [
        ((0.81, 0.31, 0.10), "holds"),
        ((0.81, 0.10, 0.21), "holds"),
        ((0.80, 0.31, 0.21), "fails"),
        ((0.81, 0.30, 0.20), "fails"),
    ],
)
def test_accuracy_and_localization_must_both_gain(
    trainings: Any, point: tuple[float, float, float], verdict: str
) -> None:
    found = trainings.base("vanilla", "final").curve("vanilla", "final", "l1", [point]).only(R6)
    assert found.verdict == verdict


def test_gain_is_chosen_on_validation_and_must_stand_on_test(trainings: Any) -> None:
    trainings.base("xdnn", "input")
    trainings.curve("xdnn", "input", "l1", [(0.82, 0.33, 0.1)], test_f1=0.79)
    assert trainings.only(R6).verdict == "fails"
    trainings.change({}, test_f1=0.81)
    found = trainings.only(R6)
    assert found.verdict == "holds"
    assert (found.effect, found.accuracy) == (pytest.approx(0.03), pytest.approx(0.01))
    trainings.change({}, test_f1=float("nan"))
    assert (trainings.only(R6).verdict, trainings.only(R6).why) == ("undecided", "not tested")


@pytest.mark.parametrize(("kind", "layer"), [("bcos", "final"), ("vanilla", "input")])
def test_where_the_paper_claims_nothing_nothing_is_judged(
    trainings: Any, kind: str, layer: str
) -> None:
    trainings.base(kind, layer).curve(kind, layer, "l1", [(0.7, 0.3, 0.2)])
    assert trainings.judged(R6).comparisons == ()


def test_found_gain_is_open_while_a_run_is_missing(trainings: Any) -> None:
    trainings.base("vanilla", "final").curve("vanilla", "final", "l1", [(0.81, 0.4, 0.2)])
    assert trainings.only(R6).verdict == "holds"
    trainings.curve("vanilla", "final", "ppce", [(0, 0, 0)], status="FAILED")
    found = trainings.only(R6)
    assert (found.verdict, found.why) == ("undecided", "PPCE: 1 of 1 runs missing")
