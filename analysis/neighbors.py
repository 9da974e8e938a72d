"""What pre-trained backbones know: accuracy of nearest neighbours of their features, as frames."""

from __future__ import annotations

import pandas as pd

from analysis.findings.finding import NAN
from analysis.probing import column, datasets
from analysis.probing_rows import wilson
from analysis.runs import Runs

TRAINING, EVALUATION = "ssl_training", "knn_evaluation"
"""Kinds of runs: pre-trainings that watch their neighbours as they learn, and a look at the end."""
KINDS = (TRAINING, EVALUATION)
METRIC, BEFORE = "knn_accuracy", "knn_accuracy_untrained"
"""What they log, the latter before the first step."""
BACKBONE = ("dataset", "backbone", "pretraining")
"""What makes a backbone; others differ in the seed alone."""


def judged(runs: Runs) -> pd.DataFrame:
    """The accuracy of neighbours of every backbone at its end, beside that without training.

    A backbone has the number of its own evaluation, else that of its training's last epoch.

    Returns:
        One row per BACKBONE and seed: result_id, status, ``knn`` with ``low`` and ``high``
        (Wilson), ``untrained`` (of the same network, dataset and seed, else any seed) and
        ``untrained_high``, ``epochs`` and ``exceeds`` (whether it is above the untrained network's
        interval; None where that is not known).
    """
    rows = runs.runs[runs.runs["kind"].isin(KINDS)]
    found = pd.DataFrame(
        {
            "result_id": rows["result_id"],
            "kind": rows["kind"],
            "status": rows["status"],
            "dataset": datasets(rows),
            "backbone": _either(rows, "tag.backbone", "network.name"),
            "pretraining": _either(rows, "tag.pretraining", "method.name"),
            "seed": column(rows, "seed").astype(str),
            "units": pd.to_numeric(column(rows, "data.images_val"), errors="coerce"),
        }
    )
    history = runs.history.sort_values("step", kind="stable")
    for name, metric in (("knn", METRIC), ("before", BEFORE)):
        logged = history[history["metric"] == metric].drop_duplicates("result_id", keep="last")
        found[name] = found["result_id"].map(logged.set_index("result_id")["value"])
    steps = history[history["metric"] == METRIC].groupby("result_id")["step"].max()
    found["epochs"] = found["result_id"].map(steps)
    evaluated = found["kind"] == EVALUATION
    # an evaluation that has finished stands before the training's own word
    found = found.assign(order=~(evaluated & found["knn"].notna()))
    by = [*BACKBONE, "seed"]
    # of several of one name the newest counts
    epochs = found[~evaluated].drop_duplicates(by, keep="last").set_index(by)["epochs"]
    found = found.iloc[::-1].sort_values("order", kind="stable").drop_duplicates(by)
    known = found[found["pretraining"] == "none"]
    rows_found = []
    for row in found.sort_values(by, kind="stable").to_dict("records"):
        same = known[
            (known["dataset"] == row["dataset"]) & (known["backbone"] == row["backbone"])
        ].dropna(subset="knn")
        own = same[same["seed"] == row["seed"]]
        value = (own if len(own) else same)["knn"].mean()
        untrained = row["before"] if pd.isna(value) else value
        low, high = wilson(row["knn"], row["units"])
        _, limit = wilson(untrained, row["units"])
        open_ = pd.isna(row["knn"]) or limit != limit or row["pretraining"] == "none"
        place = tuple(row[name] for name in by)
        rows_found.append(
            {
                **{name: row[name] for name in (*by, "result_id", "status", "knn")},
                "low": low,
                "high": high,
                "untrained": untrained,
                "untrained_high": limit,
                "epochs": epochs.get(place, NAN),
                "exceeds": None if open_ else bool(row["knn"] > limit),
            }
        )
    names = [*by, "result_id", "status", "knn", "low", "high", "untrained", "untrained_high"]
    return pd.DataFrame(rows_found, columns=[*names, "epochs", "exceeds"])


def learning(runs: Runs) -> pd.DataFrame:
    """The accuracy of neighbours of every pre-training, epoch by epoch; 0 is before the first step.

    Returns:
        Columns BACKBONE, seed, result_id, epoch, knn.
    """
    rows = runs.runs[runs.runs["kind"] == TRAINING]
    found = pd.DataFrame(
        {
            "dataset": datasets(rows),
            "backbone": _either(rows, "tag.backbone", "network.name"),
            "pretraining": _either(rows, "tag.pretraining", "method.name"),
            "seed": column(rows, "seed").astype(str),
            "result_id": rows["result_id"],
        }
    )
    history = runs.history[runs.history["metric"].isin([METRIC, BEFORE])]
    epoch = history["step"].where(history["metric"] == METRIC, 0)
    history = history.assign(epoch=epoch).rename(columns={"value": "knn"})
    found = found.merge(history[["result_id", "epoch", "knn"]], on="result_id", how="inner")
    by = [*BACKBONE, "seed", "result_id", "epoch"]
    return found.sort_values(by, kind="stable", ignore_index=True)


def _either(rows: pd.DataFrame, tag: str, parameter: str) -> pd.Series:
    named = column(rows, tag)
    return named.where(named != "", column(rows, parameter))
