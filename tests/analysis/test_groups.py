"""Group trainings as frames."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from analysis.groups import ACCURACIES, BASELINE, cells, outcomes, trained
from analysis.groups_report import GroupFrames
from analysis.report import frames_of
from analysis.runs import OF_A_RUN, Runs

KEYS = tuple(ACCURACIES)


def of_groups(rng: np.random.Generator) -> dict[str, float]:
    """Accuracies of four equal groups."""
    each = {f"accuracy_g{k}": float(rng.random()) for k in (1, 2, 3, 4)}
    values = list(each.values())
    return {"accuracy": float(np.mean(values)), **each, "accuracy_worst": min(values)}


@pytest.fixture
def runs() -> Runs:
    """A baseline a seed with its maps in both settings; one loss, two drawings; one has failed."""
    rng = np.random.default_rng(0)
    rows, history = [], []

    def add(result_id, kind, start, metrics, status="FINISHED", **parameters):
        rows.append(
            dict.fromkeys(OF_A_RUN, "")
            | {"result_id": result_id, "kind": kind, "start": start, "status": status}
            | {"label": result_id, "run_id": result_id, "started": pd.Timestamp(0, tz="UTC")}
            | parameters
        )
        history.extend((result_id, "test", key, 5, value) for key, value in metrics.items())
        history.append((result_id, "val", "accuracy", 6, 0.5))

    for seed in (0, 1):
        plain = {"network.name": "small", "data.name": "birds", "seed": seed, "epochs": 8}
        places = {f"place_{key}": value for key, value in of_groups(rng).items()}
        of_birds = of_groups(rng)
        add(f"b{seed}", "group_training", "", of_birds | places, loss="none", **plain)
        for setting in ("conventional", "reversed"):
            means = {"accuracy": 0.3, "epg": rng.random(), "box_iou_tuned": rng.random()}
            method = {"attribution.name": "ixg", "attribution.layer": "input"}
            evaluation = f"e{seed}{setting}"
            add(evaluation, "group_evaluation", f"b{seed}", means, setting=setting, **method)
            for drawing in (0, 1):
                failed = (seed, setting, drawing) == (1, "reversed", 1)
                add(
                    f"g{seed}{setting}{drawing}",
                    "group_training",
                    evaluation,
                    {} if failed else of_groups(rng) | {"epg": rng.random()},
                    "FAILED" if failed else "FINISHED",
                    **plain,
                    **method,
                    **{"loss.name": "energy", "lambda_loc": 0.1, "annotated_fraction": 0.01},
                    setting=setting,
                    annotation_seed=drawing,
                )
    frame = pd.DataFrame(rows)
    columns = ["result_id", "split", "metric", "step", "value"]
    return Runs(
        experiment="waterbirds",
        tracking_uri="",
        runs=frame,
        parameters=tuple(c for c in frame if c not in OF_A_RUN),
        history=pd.DataFrame(history, columns=columns),
    )


def value(runs: Runs, result_id: str, key: str) -> float:
    rows = runs.history
    chosen = (rows["result_id"] == result_id) & (rows["metric"] == key) & (rows["split"] == "test")
    return float(rows.loc[chosen, "value"].item())


def test_every_guided_training_knows_its_baseline(runs):
    found = trained(runs).set_index("result_id")
    assert len(found) == 8
    assert found["baseline"].to_dict() == {i: f"b{i[1]}" for i in found.index}
    assert (found["variant"] == "").all()


def test_outcomes_are_test_values_and_the_baselines_stand_in_both_settings(runs):
    found = outcomes(runs)
    assert "g1reversed1" not in set(found["result_id"])  # it failed
    beside = found[found["loss"] == BASELINE]
    assert len(beside) == 4
    for row in beside.to_dict("records"):
        prefix = "place_" if row["setting"] == "reversed" else ""
        for key in KEYS:
            assert row[key] == value(runs, row["result_id"], prefix + key)
        assert row["epg"] == value(runs, f"e{row['seed']:.0f}{row['setting']}", "epg")
    for row in found[found["loss"] == "energy"].to_dict("records"):
        assert all(row[key] == value(runs, row["result_id"], key) for key in KEYS)


@pytest.mark.parametrize("setting", ["conventional", "reversed"])
def test_cells_are_means_over_seeds_and_drawings_against_the_mean_of_the_baselines(runs, setting):
    found = cells(outcomes(runs))
    rows = found[found["setting"] == setting].set_index("loss")
    assert list(rows.index) == [BASELINE, "energy"]
    ids = [f"g{s}{setting}{d}" for s, d in product((0, 1), (0, 1))]
    ids = [i for i in ids if i != "g1reversed1"]
    prefix = "place_" if setting == "reversed" else ""
    assert rows["runs"].to_dict() == {BASELINE: 2, "energy": len(ids)}
    for key in KEYS:
        guided = [value(runs, i, key) for i in ids]
        baseline = [value(runs, i, prefix + key) for i in ("b0", "b1")]
        assert rows.loc["energy", f"{key}_mean"] == pytest.approx(np.mean(guided))
        assert rows.loc["energy", f"{key}_sd"] == pytest.approx(np.std(guided, ddof=1))
        assert rows.loc[BASELINE, f"{key}_mean"] == pytest.approx(np.mean(baseline))
        gain = np.mean(guided) - np.mean(baseline)
        assert rows.loc["energy", f"{key}_gain"] == pytest.approx(gain)
        assert np.isnan(rows.loc[BASELINE, f"{key}_gain"])


def test_trainings_that_differ_otherwise_are_other_cells(runs):
    runs.runs["epochs"] = runs.runs["epochs"].where(~runs.runs["result_id"].str.contains("0"), 9)
    found = cells(outcomes(runs))
    assert set(found["variant"]) == {"epochs=8.0", "epochs=9.0"}


def test_the_report_tells_gains_and_shows_the_baseline_first(runs):
    frames = frames_of(runs)
    assert isinstance(frames, GroupFrames)
    text = frames.terminal()
    assert text.index("baseline") < text.index("energy")
    lines = frames.short_lines()
    gains = frames.guided["accuracy_gain"]
    assert f"in {int((gains > 0).sum())} of 2 cells" in lines[0]
    assert f"conventional input energy {100 * gains.iloc[0]:+.1f}" in lines[0]
    assert lines[-1].startswith("The paper's sentences on these runs: ")
    assert set(frames.findings["id"]) == {"R9"}
    names = ("outcomes", "cells", "findings", "comparisons")
    assert frames.csvs().keys() == {f"group_{name}" for name in names}


def test_nothing_guided_is_said_so(runs):
    runs.runs["status"] = "FAILED"
    frames = GroupFrames.of(runs)
    assert frames.terminal() == ""
    assert "nothing to compare" in frames.short_lines()[0]
