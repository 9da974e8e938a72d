"""R7 and R8: few boxes, and coarse ones."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from analysis.findings.annotations import EnergyBearsCoarseBoxes, FewAnnotationsDo

R7, R8 = FewAnnotationsDo(), EnergyBearsCoarseBoxes()
LAMBDAS = (0.001, 0.005, 0.01)


def shares(trainings: Any, few: float = 0.40, some: float = 0.58, everything: float = 0.6) -> Any:
    for fraction, epg in ((0.01, few), (0.1, some), (1.0, everything)):
        trainings.base("bcos", "input", annotated_fraction=fraction)
        for (loss, lead), weight in product((("energy", 0.0), ("l1", -0.1)), LAMBDAS):
            point = (0.79, epg + lead, 0.2)
            where = {"annotated_fraction": fraction, "lambda_loc": weight / fraction}
            trainings.curve("bcos", "input", loss, [point], **where)
    return trainings


def test_few_boxes_do(trainings: Any) -> None:
    found = shares(trainings).judged(R7)
    assert (found.on_runs, found.on_grid, found.missing) == ("holds", "holds", ())


@pytest.mark.parametrize(
    ("few", "some", "verdicts"),
    [
        (0.32, 0.58, ["holds", "holds"]),
        (0.31, 0.58, ["fails", "holds"]),
        (0.40, 0.57, ["holds", "holds"]),
        (0.40, 0.56, ["holds", "fails"]),
        (0.40, 0.64, ["holds", "fails"]),
    ],
)
def test_thresholds_are_two_and_three_points(
    trainings: Any, few: float, some: float, verdicts: list[str]
) -> None:
    found = shares(trainings, few, some).judged(R7)
    assert [c.verdict for c in found.comparisons] == verdicts


def test_other_networks_and_layers_stand_beside(trainings: Any) -> None:
    trainings.base("vanilla", "final", annotated_fraction=0.01)
    trainings.curve("vanilla", "final", "energy", [(0.8, 0.5, 0.2)], annotated_fraction=0.01)
    found = trainings.judged(R7)
    assert [(c.verdict, c.decides) for c in found.comparisons] == [("holds", False)]
    assert found.on_runs == "undecided"


def test_share_without_full_annotation_cannot_be_compared(trainings: Any) -> None:
    shares(trainings).drop(annotated_fraction=1.0)
    found = trainings.judged(R7)
    assert [key.what for key in found.missing] == [R7.similar]
    assert (found.on_runs, found.on_grid) == ("holds", "undecided")


def test_failed_run_leaves_the_similarity_open(trainings: Any) -> None:
    shares(trainings).change({"annotated_fraction": 0.1, "loss": "energy"}, status="FAILED")
    found = trainings.only(R7, R7.similar)
    assert (found.verdict, found.why) == ("undecided", "Energy: 3 of 3 runs missing")


STEPS = (0.0, 0.1, 0.25, 0.5)


def dilated(trainings: Any, **ways: tuple[float, float, float, float]) -> Any:
    usual = {"energy": (0.60, 0.60, 0.59, 0.59), "l1": (0.50, 0.48, 0.46, 0.44)} | ways
    for i, dilation in enumerate(STEPS):
        trainings.base("bcos", "input", dilation=dilation)
        for (loss, way), weight in product(usual.items(), LAMBDAS):
            point, where = (0.79, way[i], way[i] - 0.1), {"dilation": dilation}
            trainings.curve("bcos", "input", loss, [point], lambda_loc=weight, **where)
    return trainings


def test_energy_bears_and_l1_does_not(trainings: Any) -> None:
    found = dilated(trainings).judged(R8)
    assert (found.on_runs, len(found.comparisons)) == ("holds", 6)
    assert {key.kind for key in found.missing} == {"vanilla", "xdnn"}
    assert trainings.only(R8, "L1's EPG falls more").value == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("loss", "way", "failing"),
    [
        ("energy", (0.60, 0.60, 0.581, 0.59), []),
        ("energy", (0.60, 0.60, 0.58 - 1e-6, 0.59), ["Energy's EPG unaffected"]),
        ("energy", (0.60, 0.60, 0.60, 0.625), ["Energy's EPG unaffected"]),
        ("l1", (0.50, 0.50, 0.46, 0.44), []),
        ("l1", (0.50, 0.51, 0.46, 0.44), ["L1's EPG falls"]),
        ("l1", (0.50, 0.50, 0.50, 0.49), ["L1's EPG falls more"]),
        ("l1", (0.50, 0.50, 0.50, 0.488), []),
    ],
)
def test_each_part_can_fail_alone(
    trainings: Any, loss: str, way: tuple[float, float, float, float], failing: list[str]
) -> None:
    found = dilated(trainings, **{loss: way}).judged(R8)
    assert [
        c.key.what for c in found.comparisons if c.verdict == "fails" and "EPG" in c.key.what
    ] == failing


def test_fewer_dilations_are_not_the_papers(trainings: Any) -> None:
    dilated(trainings).drop(dilation=0.25)
    found = trainings.only(R8, "L1's EPG falls more")
    assert found.key.what == "L1's EPG falls more (0.1, 0.5 alone)"
    assert len(trainings.judged(R8).missing) == 18


def test_dilations_without_exact_boxes_cannot_be_compared(trainings: Any) -> None:
    assert dilated(trainings).drop(dilation=0.0).judged(R8).comparisons == ()


def test_missing_step_leaves_its_loss_undecided(trainings: Any) -> None:
    dilated(trainings).change({"loss": "l1", "dilation": 0.25}, status="FAILED")
    verdicts = {c.key.what: c.verdict for c in trainings.judged(R8).comparisons}
    assert verdicts["Energy's EPG unaffected"] == "holds"
    assert verdicts["L1's EPG falls"] == verdicts["L1's EPG falls more"] == "undecided"
