"""Findings on runs that support them, contradict them, and starve them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.findings import CLAIMS, claim_seeds, claims, positive_control, verdict
from analysis.guidance import CONTROL, LOSSES

Curve = Callable[..., dict[str, Any]]
ENERGY, L1 = (claim.name for claim in CLAIMS)


def guided(
    curve: Curve, seeds: tuple[int, ...] = (0, 1), losses: tuple[str, ...] = LOSSES
) -> pd.DataFrame:
    """Two lambdas of each loss at each seed, all finished."""
    return pd.DataFrame(
        [
            curve(loss=loss, seed=seed, lambda_loc=weight, status="FINISHED")
            for loss in losses
            for seed in seeds
            for weight in (0.1, 0.2)
        ]
    )


def chosen(curve: Curve, epg: Mapping[str, tuple[float, ...]], iou: float = 0.4) -> pd.DataFrame:
    """The model chosen by each metric, with the test EPG of each loss at each seed."""
    return pd.DataFrame(
        [
            curve(loss=loss, seed=seed, chosen_by=metric, test_epg=value, test_box_iou_tuned=iou)
            for loss, values in epg.items()
            for seed, value in enumerate(values)
            for metric in ("epg", "box_iou_tuned")
        ]
    )


SUPPORT = {"energy": (0.7, 0.8), "l1": (0.6, 0.7), "ppce": (0.5, 0.5), "rrr_star": (0.5, 0.5)}


def judged(choices: pd.DataFrame, trainings: pd.DataFrame) -> pd.DataFrame:
    rows = claims(claim_seeds(choices, trainings))
    return rows[rows["claim"] == ENERGY]


def test_claim_agrees_if_every_seed_does(curve: Curve) -> None:
    (row,) = judged(chosen(curve, SUPPORT), guided(curve)).to_dict("records")
    assert (row["verdict"], row["agreeing"], row["seeds"]) == ("agrees", 2, 2)
    assert row["difference"] == pytest.approx(0.1)
    assert row["sd"] == pytest.approx(0.0)


def test_claim_disagrees_if_every_seed_does(curve: Curve) -> None:
    against = SUPPORT | {"ppce": (0.75, 0.85)}
    (row,) = judged(chosen(curve, against), guided(curve)).to_dict("records")
    assert (row["verdict"], row["disagreeing"]) == ("disagrees", 2)
    seeds = claim_seeds(chosen(curve, against), guided(curve))
    assert set(seeds.loc[seeds["claim"] == ENERGY, "rival"]) == {"ppce"}


def test_claim_is_undecided_if_seeds_differ(curve: Curve) -> None:
    mixed = SUPPORT | {"l1": (0.6, 0.9)}
    (row,) = judged(chosen(curve, mixed), guided(curve)).to_dict("records")
    assert (row["verdict"], row["agreeing"], row["disagreeing"]) == ("undecided", 1, 1)


def test_one_seed_decides_nothing(curve: Curve) -> None:
    one = {loss: values[:1] for loss, values in SUPPORT.items()}
    (row,) = judged(chosen(curve, one), guided(curve, seeds=(0,))).to_dict("records")
    assert (row["verdict"], row["agreeing"]) == ("undecided", 1)


def test_missing_loss_keeps_a_claim_from_agreeing(curve: Curve) -> None:
    fewer = {loss: SUPPORT[loss] for loss in ("energy", "l1")}
    seeds = claim_seeds(chosen(curve, fewer), guided(curve, losses=("energy", "l1")))
    assert set(seeds.loc[seeds["claim"] == ENERGY, "verdict"]) == {"undecided"}
    assert set(seeds.loc[seeds["claim"] == ENERGY, "why"]) == {
        "runs or test values missing: ppce, rrr_star"
    }


def test_missing_rival_cannot_save_a_claim_that_is_beaten(curve: Curve) -> None:
    beaten = {"energy": (0.5, 0.5), "l1": (0.6, 0.7)}
    (row,) = judged(chosen(curve, beaten), guided(curve, losses=("energy", "l1"))).to_dict(
        "records"
    )
    assert row["verdict"] == "disagrees"


def test_failed_lambda_of_a_rival_keeps_a_seed_from_agreeing(curve: Curve) -> None:
    trainings = guided(curve)
    failed = (
        (trainings["loss"] == "l1") & (trainings["seed"] == 1) & (trainings["lambda_loc"] == 0.2)
    )
    trainings.loc[failed, "status"] = "FAILED"
    seeds = claim_seeds(chosen(curve, SUPPORT), trainings)
    at = seeds[seeds["claim"] == ENERGY].set_index("seed")
    assert at["verdict"].to_dict() == {0: "agrees", 1: "undecided"}
    assert at.loc[1, "why"] == "runs or test values missing: l1"


def test_failed_lambda_of_its_own_loss_keeps_a_seed_from_disagreeing(curve: Curve) -> None:
    trainings = guided(curve)
    failed = (trainings["loss"] == "energy") & (trainings["lambda_loc"] == 0.2)
    trainings.loc[failed & (trainings["seed"] == 0), "status"] = "FAILED"
    against = SUPPORT | {"ppce": (0.9, 0.9)}
    seeds = claim_seeds(chosen(curve, against), trainings)
    at = seeds[seeds["claim"] == ENERGY].set_index("seed")
    assert at["verdict"].to_dict() == {0: "undecided", 1: "disagrees"}


def test_loss_that_never_keeps_enough_f1_disagrees(curve: Curve) -> None:
    choices = chosen(curve, SUPPORT)
    none = choices["loss"] == "energy"
    choices.loc[none, ["epoch", "test_epg", "val_epg"]] = np.nan
    (row,) = judged(choices, guided(curve)).to_dict("records")
    assert row["verdict"] == "disagrees"


def test_chosen_model_without_a_test_value_leaves_it_undecided(curve: Curve) -> None:
    choices = chosen(curve, SUPPORT)
    choices.loc[choices["loss"] == "ppce", "test_epg"] = np.nan
    (row,) = judged(choices, guided(curve)).to_dict("records")
    assert row["verdict"] == "undecided"


def test_without_any_choice_nothing_is_decided(curve: Curve) -> None:
    choices = chosen(curve, SUPPORT)
    choices[["epoch", "test_epg"]] = np.nan
    seeds = claim_seeds(choices, guided(curve))
    assert set(seeds.loc[seeds["claim"] == ENERGY, "why"]) == {
        "no rival within the loss of F1, or no baseline"
    }


def test_equal_values_decide_nothing(curve: Curve) -> None:
    seeds = claim_seeds(chosen(curve, SUPPORT, iou=0.4), guided(curve))
    assert set(seeds.loc[seeds["claim"] == L1, "why"]) == {"equal"}


def test_claim_about_the_final_layer_is_asked_there_only(curve: Curve) -> None:
    at_input = guided(curve).assign(layer="input")
    choices = chosen(curve, SUPPORT).assign(layer="input")
    assert set(claim_seeds(choices, at_input)["claim"]) == {ENERGY}


def test_settings_must_agree_with_each_other() -> None:
    assert verdict(pd.DataFrame({"verdict": ["agrees", "agrees"]})) == "agrees"
    assert verdict(pd.DataFrame({"verdict": ["agrees", "disagrees"]})) == "undecided"
    assert verdict(pd.DataFrame({"verdict": []})) == "undecided"


def controlled(curve: Curve, guided_epg: list[float], control_epg: list[float]) -> pd.DataFrame:
    candidates = pd.DataFrame(
        [
            curve(epg=epg - (0.3 if epoch == 1 else 0), seed=seed, epoch=epoch, lambda_loc=weight)
            for seed, epg in enumerate(guided_epg)
            for epoch in (1, 2)
            for weight in (0.001, 0.005)
        ]
        + [curve(epg=0.99, loss="l1", epoch=2, lambda_loc=1.0)]
    )
    rows = [curve(epg=epg, seed=seed, reference=CONTROL) for seed, epg in enumerate(control_epg)]
    references = pd.DataFrame(rows or [curve(reference=CONTROL)]).drop(
        columns=["loss", "lambda_loc"]
    )
    return positive_control(candidates, references if rows else references.iloc[:0])


def test_control_passes_on_a_difference_of_many_spreads(curve: Curve) -> None:
    (row,) = controlled(curve, [0.80, 0.82, 0.84], [0.50, 0.51, 0.52]).to_dict("records")
    assert (row["verdict"], row["seeds"], row["lambda_loc"]) == ("pass", 3, 0.005)
    assert row["difference"] == pytest.approx(0.31)
    assert row["spread"] == pytest.approx(0.02)
    assert row["ratio"] == pytest.approx(15.5)


def test_control_fails_on_a_difference_within_three_spreads(curve: Curve) -> None:
    (row,) = controlled(curve, [0.50, 0.60], [0.40, 0.41]).to_dict("records")
    assert row["ratio"] == pytest.approx(0.145 / (0.1 / np.sqrt(2)))
    assert row["verdict"] == "fail"


def test_control_fails_if_guidance_lowers_epg(curve: Curve) -> None:
    (row,) = controlled(curve, [0.30, 0.31], [0.50, 0.51]).to_dict("records")
    assert row["verdict"] == "fail"


def test_control_needs_two_seeds_that_have_both(curve: Curve) -> None:
    (row,) = controlled(curve, [0.80, 0.82, 0.84], [0.50]).to_dict("records")
    assert (row["verdict"], row["seeds"]) == ("needs >= 2 seeds", 1)
    (row,) = controlled(curve, [0.80, 0.82], []).to_dict("records")
    assert (row["verdict"], row["seeds"]) == ("needs >= 2 seeds", 0)


def test_control_without_the_energy_loss_has_no_seeds(curve: Curve) -> None:
    candidates = pd.DataFrame([curve(loss="l1")])
    references = pd.DataFrame([curve(reference=CONTROL)]).drop(columns=["loss", "lambda_loc"])
    (row,) = positive_control(candidates, references).to_dict("records")
    assert (row["verdict"], row["seeds"]) == ("needs >= 2 seeds", 0)
