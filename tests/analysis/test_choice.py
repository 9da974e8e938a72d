"""Chosen on validation, shown on test, within five points of the baseline's F1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.choice import choices, summary, volumes
from analysis.guidance import BASELINE, CONTROL

Curve = Callable[..., dict[str, Any]]


@pytest.fixture
def references(curve: Curve) -> pd.DataFrame:
    rows = [
        curve(0.80 + 0.02 * seed, 0.3, 0.2, seed=seed, reference=name)
        for seed in (0, 1)
        for name in (BASELINE, CONTROL)
    ]
    return pd.DataFrame(rows).drop(columns=["loss", "lambda_loc"])


def test_best_model_may_lose_five_points_and_no_more(
    curve: Curve, references: pd.DataFrame
) -> None:
    front = pd.DataFrame(
        [
            curve(0.80, 0.40, 0.50, epoch=1),
            curve(0.75, 0.60, 0.40, epoch=2),
            curve(0.74, 0.90, 0.90, epoch=3),
        ]
    )
    found = choices(front, references).set_index("chosen_by")
    assert found["epoch"].to_dict() == {"epg": 2, "box_iou_tuned": 1}
    assert found.loc["epg", "test_epg"] == pytest.approx(0.59)


def test_five_points_of_map_may_be_lost_where_map_is_asked_for(
    curve: Curve, references: pd.DataFrame
) -> None:
    front = pd.DataFrame(
        [
            curve(0.10, 0.60, epoch=1, val_map=references["val_map"].iloc[0] - 0.05),
            curve(0.80, 0.90, epoch=2, val_map=references["val_map"].iloc[0] - 0.06),
        ]
    )
    found = choices(front, references, "map").set_index("chosen_by")
    assert found.loc["epg", "epoch"] == 1


def test_test_values_choose_nothing(curve: Curve, references: pd.DataFrame) -> None:
    front = pd.DataFrame([curve(epg=0.6, epoch=1), curve(epg=0.5, epoch=2, test_epg=0.99)])
    found = choices(front, references).set_index("chosen_by")
    assert found.loc["epg", "epoch"] == 1


def test_each_seed_is_held_against_its_own_baseline(curve: Curve, references: pd.DataFrame) -> None:
    front = pd.DataFrame([curve(0.76, seed=0), curve(0.76, seed=1)])
    found = choices(front, references)
    found = found[found["chosen_by"] == "epg"].set_index("seed")
    assert found.loc[0, "epoch"] == 1
    assert np.isnan(found.loc[1, "epoch"])


def test_without_a_baseline_nothing_is_chosen(curve: Curve, references: pd.DataFrame) -> None:
    found = choices(pd.DataFrame([curve()]), references[references["reference"] == CONTROL])
    assert len(found) == 2
    assert found["epoch"].isna().all()


def test_volume_of_one_point_is_its_product(curve: Curve) -> None:
    found = volumes(pd.DataFrame([curve(0.5, 0.4, 0.2)]))
    assert found["hypervolume"].tolist() == pytest.approx([0.04])


def test_summary_is_mean_and_deviation_of_the_test_values(
    curve: Curve, references: pd.DataFrame
) -> None:
    front = pd.DataFrame([curve(0.80, 0.50, seed=0), curve(0.80, 0.70, seed=1)])
    found = summary(choices(front, references), volumes(front), references).set_index("loss")
    assert found.index.tolist() == [BASELINE, CONTROL, "energy"]
    assert found["seeds"].tolist() == [2, 2, 2]
    assert found.loc["energy", "epg_mean"] == pytest.approx(0.59)
    assert found.loc["energy", "epg_sd"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert found.loc[BASELINE, "epg_f1_mean"] == pytest.approx(0.80)
    assert np.isnan(found.loc[BASELINE, "hypervolume_mean"])


def test_one_seed_has_no_deviation(curve: Curve, references: pd.DataFrame) -> None:
    front = pd.DataFrame([curve()])
    at_seed = references[references["seed"] == 0]
    found = summary(choices(front, at_seed), volumes(front), at_seed).set_index("loss")
    assert found.loc["energy", "epg_mean"] == pytest.approx(0.49)
    assert np.isnan(found.loc["energy", "epg_sd"])


def test_loss_without_an_admissible_model_keeps_its_row(
    curve: Curve, references: pd.DataFrame
) -> None:
    front = pd.DataFrame([curve(0.1)])
    found = summary(choices(front, references), volumes(front), references).set_index("loss")
    assert np.isnan(found.loc["energy", "epg_mean"])
    assert found.loc["energy", "hypervolume_mean"] == pytest.approx(0.1 * 0.5 * 0.4)
