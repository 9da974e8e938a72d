"""The instrument is checked on runs that pass, that fail, and that are too few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.guidance import CONTROL
from analysis.positive_control import positive_control
from analysis.sentences import control_sentence

Curve = Callable[..., dict[str, Any]]


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


def test_many_settings_are_counted_and_only_those_that_fail_are_named(curve: Curve) -> None:
    usual = {"lambda_loc": 0.005, "seeds": 2, "difference": 0.1, "ratio": 5.0, "verdict": "pass"}
    rows = [curve(dilation=d) | usual for d in (0.0, 0.1, 0.2, 0.3, 0.4)]
    rows[-1]["verdict"] = "fail"
    sentence = control_sentence(pd.DataFrame(rows))
    assert "passes at 4 of 5 settings; final layer: fail (10.0 points" in sentence
    assert control_sentence(pd.DataFrame(rows[:4])).count(": pass") == 4


def test_one_seed_everywhere_is_said_once(curve: Curve) -> None:
    alone = {"lambda_loc": 0.005, "seeds": 1, "difference": 0.1, "ratio": float("nan")}
    rows = [curve(dilation=d) | alone | {"verdict": "needs >= 2 seeds"} for d in (0.0, 0.1)]
    said = control_sentence(pd.DataFrame(rows))
    assert said == "Positive control: needs >= 2 seeds at all 2 settings."
