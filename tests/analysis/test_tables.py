"""Tables fit a terminal, say percent, and keep every number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.guidance import BASELINE, LOSSES
from analysis.tables import NONE, fronts_table, markdown, mean_and_sd, number, percent, text

Curve = Callable[..., dict[str, Any]]


@pytest.fixture
def fronts(curve: Curve) -> pd.DataFrame:
    front = [curve(loss=loss, seed=seed, epoch=50) for loss in LOSSES for seed in (0, 1)]
    front.append(curve(layer="input", test_epg=np.nan))
    references = pd.DataFrame([curve(reference=BASELINE)]).drop(columns=["loss", "lambda_loc"])
    return fronts_table(pd.DataFrame(front), references)


def test_numbers_are_percent_and_what_is_missing_is_a_dash() -> None:
    assert percent(0.1234) == "12.3"
    assert percent(float("nan")) == NONE
    assert mean_and_sd(0.5, 0.012) == "50.0 ± 1.2"
    assert mean_and_sd(0.5, float("nan")) == "50.0"
    assert number(5e-6) == "5e-06"


def test_members_stand_below_their_references(fronts: pd.DataFrame) -> None:
    final = fronts[fronts["setting"] == "digits · net · ixg · final"]
    assert final["loss"].tolist()[:2] == [BASELINE, "energy"]
    assert final.iloc[0]["lambda"] == NONE
    assert final.iloc[1]["EPG"] == "50.0 / 49.0"


def test_missing_test_value_keeps_the_member(fronts: pd.DataFrame) -> None:
    at_input = fronts[fronts["setting"] == "digits · net · ixg · input"]
    assert at_input["EPG"].tolist() == [f"50.0 / {NONE}"]


def test_table_of_fronts_fits_a_terminal(fronts: pd.DataFrame) -> None:
    lines = text(fronts).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)


def test_long_texts_are_cut_to_fit_and_stay_on_one_line() -> None:
    table = pd.DataFrame(
        {"result": ["r" * 90], "status": ["FAILED"], "reason": ["two\nlines " * 20]}
    )
    lines = text(table).splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 100
    assert "two lines" in lines[1]
    assert "FAILED" in lines[1]


def test_numbers_stand_to_the_right() -> None:
    lines = text(pd.DataFrame({"loss": ["a", "bcd"], "value": ["1.0", "10.0"]})).splitlines()
    assert lines == ["loss  value", "a       1.0", "bcd    10.0"]


def test_markdown_escapes_what_would_break_a_table() -> None:
    table = markdown(pd.DataFrame({"setting": ["s"], "reason": ["a|b\nc"], "n": ["1"]}))
    assert table.splitlines() == [
        "**s**",
        "",
        "| reason | n |",
        "| --- | ---: |",
        "| a\\|b c | 1 |",
    ]
