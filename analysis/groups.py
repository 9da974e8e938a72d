"""Group trainings as frames: accuracy by group, guided beside the baseline, cell by cell."""

from __future__ import annotations

import re

import pandas as pd

from analysis.guidance import BASELINE, LAYERS, LOSSES
from analysis.runs import Runs

TRAINING, EVALUATION = "group_training", "group_evaluation"
"""Kinds of runs: trainings with or without a loss, and the maps of those without."""
ACCURACIES = {
    "accuracy": "overall",
    "accuracy_g1": "G1",
    "accuracy_g2": "G2",
    "accuracy_g3": "G3",
    "accuracy_g4": "G4",
    "accuracy_worst": "least",
}
"""Test metrics and what tables call them; the least is each run's least of G1 to G4."""
VALUES = (*ACCURACIES, "epg", "box_iou_tuned")
"""Everything that is compared; fractions in [0, 1], higher is better."""
SETTINGS = ("conventional", "reversed")
PLACE = ("dataset", "network", "setting", "attribution", "layer", "variant")
"""What a baseline and the trainings that are compared with it share; ``variant`` names what else
differs between trainings (``epochs=8``)."""
CELL = (*PLACE, "loss", "lambda_loc", "annotated_fraction")
"""What a cell of the paper's table C1 holds fixed; its runs differ in the two seeds alone."""
SEEDS = ("seed", "annotation_seed")


def trained(runs: Runs) -> pd.DataFrame:
    """Every guided group training, whatever its status, described by CELL and SEEDS.

    Returns:
        Columns result_id, status, CELL, SEEDS, ``evaluation`` (of its baseline's maps) and
        ``baseline`` (result ids).
    """
    rows = runs.runs[runs.runs["kind"] == TRAINING]
    guided = rows[_column(rows, "loss.name").notna()]
    start_of = runs.runs.set_index("result_id")["start"]
    found = pd.DataFrame(
        {
            "result_id": guided["result_id"],
            "status": guided["status"],
            "dataset": _column(guided, "data.name"),
            "network": _column(guided, "network.name"),
            "setting": _column(guided, "setting"),
            "attribution": _column(guided, "attribution.name"),
            "layer": _column(guided, "attribution.layer"),
            "annotated_fraction": _column(guided, "annotated_fraction"),
            "loss": _column(guided, "loss.name"),
            "lambda_loc": _column(guided, "lambda_loc"),
            "seed": _column(guided, "seed"),
            "annotation_seed": _column(guided, "annotation_seed"),
            "evaluation": guided["start"],
            "baseline": guided["start"].map(start_of).fillna(""),
        }
    )
    found["variant"] = _variants(guided, found, runs.parameters)
    return in_order(found)


def outcomes(runs: Runs) -> pd.DataFrame:
    """Test values of every finished group training, the baseline's in each setting.

    Returns:
        Columns result_id, ``baseline`` (result id), CELL, SEEDS, VALUES. A baseline has the loss
        BASELINE, no lambda, fraction or drawing, and a row for every (setting, attribution, layer)
        that something is guided in.
    """
    rows, tested = trained(runs), _tested(runs)
    guided = rows[rows["status"] == "FINISHED"]
    guided = guided.merge(tested, on="result_id", how="inner")
    # a baseline's run has accuracies by birds and by places; its evaluations have the maps' values
    columns = ["baseline", "evaluation", "seed", *PLACE]
    beside = rows[columns].drop_duplicates().rename(columns={"baseline": "result_id"})
    beside = beside.merge(tested[["result_id", *ACCURACIES, *_places()]], on="result_id")
    maps = tested.rename(columns={"result_id": "evaluation"})
    beside = beside.merge(maps[["evaluation", "epg", "box_iou_tuned"]], on="evaluation", how="left")
    of_places = beside["setting"] == "reversed"
    for key in ACCURACIES:
        beside[key] = beside[key].where(~of_places, beside[f"place_{key}"])
    beside = beside.assign(loss=BASELINE, baseline=beside["result_id"])
    names = ["result_id", "baseline", *CELL, *SEEDS, *VALUES]
    frames = [frame.reindex(columns=names) for frame in (beside, guided)]
    return in_order(pd.concat([f for f in frames if len(f)] or frames, ignore_index=True))


def cells(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Mean and deviation over both seeds of every cell, and what it gains over its baselines.

    Returns:
        One row per CELL (the baseline's is the loss BASELINE): ``runs``, and of each of VALUES
        ``*_mean``, ``*_sd`` (n - 1; NaN for one run) and ``*_gain`` (over the mean of the baselines
        of its seeds; NaN for the baseline).
    """
    by_baseline = outcomes[outcomes["loss"] == BASELINE]
    rows = []
    for values, group in outcomes.groupby(list(CELL), dropna=False):
        row = dict(zip(CELL, values, strict=True)) | {"runs": len(group)}
        same = (by_baseline[list(PLACE)] == list(values[: len(PLACE)])).all(axis=1)
        own = by_baseline[same & by_baseline["result_id"].isin(group["baseline"])]
        for key in VALUES:
            mean = float(group[key].mean())
            gain = float("nan") if row["loss"] == BASELINE else mean - float(own[key].mean())
            row |= {f"{key}_mean": mean, f"{key}_sd": group[key].std(), f"{key}_gain": gain}
        rows.append(row)
    kinds = ("mean", "sd", "gain")
    names = [*CELL, "runs", *(f"{key}_{kind}" for key in VALUES for kind in kinds)]
    return in_order(pd.DataFrame(rows, columns=names))


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by network, setting, layer (input to final), loss (baseline first) and seeds."""
    ranks = {"setting": SETTINGS, "layer": LAYERS, "loss": (BASELINE, *LOSSES)}
    by = [name for name in (*CELL, *SEEDS) if name in rows]

    def rank(column: pd.Series) -> pd.Series:
        known = ranks.get(str(column.name))
        if known is None:
            return column
        return column.map(lambda v: f"{known.index(v):02d}" if v in known else f"~{v}")

    return rows.sort_values(by, key=rank, kind="stable", ignore_index=True)


def _tested(runs: Runs) -> pd.DataFrame:
    """Test values at the one epoch of each result that has any: result_id and unprefixed keys."""
    epochs = runs.epochs()
    wanted = [*VALUES, *_places()]
    named = epochs.rename(columns={f"test_{key}": key for key in wanted})
    named = named.reindex(columns=["result_id", *wanted])
    return named[named["accuracy"].notna()]


def _places() -> list[str]:
    return [f"place_{key}" for key in ACCURACIES]


def _column(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column, or NaN in every row where there is none of that name."""
    return rows[name] if name in rows else pd.Series(float("nan"), index=rows.index, dtype=object)


def _variants(rows: pd.DataFrame, described: pd.DataFrame, names: tuple[str, ...]) -> pd.Series:
    """For each training the parameters in which those of its network and method differ otherwise.

    Args:
        rows: of ``Runs.runs``.
        described: the same rows by CELL, but for ``variant``, and SEEDS.
        names: of all parameters.
    """
    known = {"seed", "annotation_seed", "setting", "annotated_fraction", "lambda_loc"}
    others = [n for n in names if n not in known and not re.match(r"loss(\.|$)", n)]
    text = pd.Series("", index=rows.index)
    for _, group in described.groupby(["dataset", "network", "attribution", "layer"]):
        part = rows.loc[group.index]
        differing = [name for name in others if part[name].nunique(dropna=False) > 1]
        for index in part.index if differing else ():
            text[index] = ", ".join(f"{name}={part[name][index]!s}" for name in differing)
    return text
