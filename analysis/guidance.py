"""Model guidance as frames: what was trained, what it is compared with, what is Pareto-dominant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.pareto import BINNING, pooled_front
from analysis.runs import Runs

METRICS = {
    "f1": "F1",
    "map": "mAP",
    "epg": "EPG",
    "box_iou": "IoU",
    "box_iou_tuned": "IoU tuned",
}
"""Metric keys and what tables call them; fractions in [0, 1], higher is better."""
TITLES = {**METRICS, "on_object_epg": "EPG on objects"}
"""The same with what is compared where it was measured, but never chosen by."""
OBJECTIVES = ("val_f1", "val_epg", "val_box_iou_tuned")
"""What Pareto-dominance is decided on: three objectives, all of the validation split."""
ANNOTATION = {"annotated_fraction": 1.0, "dilation": 0.0}
"""How boxes are used, and what a training without such a parameter does: all, and as they are."""
SETTING = ("dataset", "network", "attribution", "layer", *ANNOTATION, "variant")
"""What is held fixed when losses are compared; ``variant`` names what else differs."""
CURVE = (*SETTING, "loss", "seed")
"""What one front is pooled over: all lambdas and epochs that share these."""
BASELINE, CONTROL = "baseline", "lambda = 0"
"""References: the checkpoint that guidance starts from, and the same training without guidance."""
LAYERS = ("input", "mid1", "mid2", "mid3", "final")
"""The order in which layers are shown; others follow by name."""
LOSSES = ("energy", "l1", "ppce", "rrr_star")
"""The paper's losses in the order in which they are shown; others follow by name."""
GUIDANCE_ONLY = ("loss", "lambda_loc", "attribution", "dilation", "annotated_fraction")
"""Parameters, with all below them, that mean nothing to a training without a localization loss."""


def guided(runs: Runs) -> pd.DataFrame:
    """Every training with a localization loss, whatever its status, described by CURVE.

    Trainings share a curve only if all their parameters agree but lambda_loc and the seeds. What
    differs otherwise is spelled out in ``variant`` (``epochs=8``), and after the loss's name where
    it is a field of the loss.

    Returns:
        The rows of ``runs.runs`` with the columns of CURVE and ``lambda_loc``, indexed as there.
    """
    rows = runs.runs[runs.runs["kind"] == "guided_training"]
    rows = rows[_loss_names(rows) != "none"]
    of_loss = [name for name in runs.parameters if _below(name, ["loss"])]
    others = [
        name
        for name in runs.parameters
        if name not in of_loss
        and name != "lambda_loc"
        and name not in ANNOTATION
        and not re.fullmatch(r"(start\.)*seed", name)
    ]
    annotation = {
        name: _column(rows, name).fillna(usual).astype(float) for name, usual in ANNOTATION.items()
    }
    rows = rows.assign(
        **annotation,
        dataset=_nested(rows, r"data(set)?\.name"),
        network=_nested(rows, r"network\.name"),
        attribution=_column(rows, "attribution.name"),
        layer=_column(rows, "attribution.layer"),
        loss=_loss_names(rows),
        seed=_column(rows, "seed"),
        lambda_loc=_column(rows, "lambda_loc"),
    ).fillna(dict.fromkeys(SETTING[:-1], "unknown"))
    rows["variant"] = _differences(rows, SETTING[:4], others)
    differing = _differences(rows, (*SETTING[:4], "loss"), of_loss)
    rows["loss"] = rows["loss"].where(differing == "", rows["loss"] + " " + differing)
    return rows


def candidates(runs: Runs) -> pd.DataFrame:
    """One row per epoch of a finished training with a localization loss.

    Returns:
        Columns result_id, CURVE, lambda_loc, epoch, val_*, test_*.
    """
    rows = guided(runs)
    rows = rows.loc[rows["status"] == "FINISHED", ["result_id", *CURVE, "lambda_loc"]]
    return in_order(rows.merge(_epochs(runs), on="result_id"), ["lambda_loc", "epoch"])


def references(runs: Runs) -> pd.DataFrame:
    """What the guided trainings of a setting and seed are compared with; never pooled with them.

    BASELINE is the evaluation of the checkpoint that they start from, at the same attribution.
    CONTROL is the last epoch of the training without a loss that starts from the same checkpoint
    and agrees in every parameter but GUIDANCE_ONLY, at the same attribution.

    Returns:
        At most one row per SETTING, seed and ``reference``, with result_id, epoch, val_*, test_*.
    """
    epochs = _epochs(runs)
    finished = runs.finished.sort_values("started", kind="stable")
    evaluations = finished[finished["kind"] == "attribution_evaluation"]
    controls = finished[finished["kind"] == "guided_training"]
    controls = controls[_loss_names(controls) == "none"]
    of_attribution = [name for name in runs.parameters if _below(name, ["attribution"])]
    of_training = [name for name in runs.parameters if not _below(name, GUIDANCE_ONLY)]
    key = [*SETTING, "seed"]
    rows = []
    for values, group in guided(runs).groupby(key):
        example = runs.runs.loc[group.index[0]]
        plain = controls[controls["start"] == example["start"]]
        plain = plain[_agree(plain, example, of_training)]
        evaluated = evaluations[_agree(evaluations, example, of_attribution)]
        for name, subjects in ((BASELINE, [example["start"]]), (CONTROL, plain["result_id"])):
            newest = evaluated.loc[evaluated["start"].isin(subjects), "result_id"].tail(1)
            last = epochs[epochs["result_id"].isin(newest)].sort_values("epoch").tail(1)
            rows += [(*values, name, *row) for row in last.itertuples(index=False, name=None)]
    columns = [*key, "reference", *epochs.columns]
    return in_order(pd.DataFrame(rows, columns=columns), ["reference"])


def front(
    candidates: pd.DataFrame, binning: float | None = BINNING, accuracy: str = "f1"
) -> pd.DataFrame:
    """The Pareto-dominant rows of each curve, pooled over lambda and epoch.

    Decided on OBJECTIVES, with ``accuracy`` (``f1``, or ``map`` as in the supplement) in the place
    of F1; of equals the smallest lambda and then the earliest epoch stays.
    """
    objectives = (f"val_{accuracy}", *OBJECTIVES[1:])
    return pooled_front(candidates, objectives, CURVE, binning, ties=("lambda_loc", "epoch"))


def words(setting: Mapping[Any, Any]) -> dict[str, str]:
    """The values of SETTING as people read them; empty where there is nothing to say."""
    found = {name: str(setting[name]) for name in SETTING}
    fraction, dilation = (float(setting[name]) for name in ANNOTATION)
    found["annotated_fraction"] = "" if fraction == 1 else f"{100 * fraction:g} % annotated"
    found["dilation"] = "" if dilation == 0 else f"boxes dilated by {100 * dilation:g} %"
    return found


def in_order(rows: pd.DataFrame, then: Iterable[str] = ()) -> pd.DataFrame:
    """Rows by setting (layers from input to final), loss (as in the paper), seed, and as said."""
    ranks = {"layer": LAYERS, "loss": (BASELINE, CONTROL, *LOSSES)}
    names = ("dataset", "network", "attribution", *ANNOTATION, "variant", "layer", "loss", "seed")

    def rank(column: pd.Series) -> pd.Series:
        known = ranks.get(str(column.name))
        if known is None:
            return column
        return column.map(lambda v: f"{known.index(v):02d}" if v in known else f"~{v}")

    by = [*(name for name in names if name in rows), *then]
    return rows.sort_values(by, key=rank, kind="stable", ignore_index=True)


def _epochs(runs: Runs) -> pd.DataFrame:
    """``runs.epochs()`` with a column for each of METRICS on both splits, logged or not."""
    epochs = runs.epochs()
    wanted = [f"{split}_{metric}" for split in ("val", "test") for metric in METRICS]
    absent = [name for name in wanted if name not in epochs]
    return epochs.assign(**dict.fromkeys(absent, float("nan")))


def _column(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column, or NaN in every row where there is none of that name."""
    return rows[name] if name in rows else pd.Series(float("nan"), index=rows.index)


def _loss_names(rows: pd.DataFrame) -> pd.Series:
    """The localization loss of each training; ``none`` where it has none."""
    return _column(rows, "loss.name").astype(object).fillna("none")


def _nested(rows: pd.DataFrame, pattern: str) -> pd.Series:
    """A parameter, else that of what the result starts from, else of what this starts from, ..."""
    found = pd.Series(float("nan"), index=rows.index, dtype=object)
    for name in sorted(
        (c for c in map(str, rows.columns) if re.fullmatch(rf"(start\.)*{pattern}", c)), key=len
    ):
        found = found.where(found.notna(), rows[name])
    return found


def _below(name: str, parents: Sequence[str]) -> bool:
    """Whether a dotted name is one of the parents or lies below one."""
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def _differences(rows: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.Series:
    """For each row the columns in which its group disagrees, with its values: ``epochs=8``."""
    text = pd.Series("", index=rows.index)
    for _, group in rows.groupby(list(by)):
        differing = [name for name in columns if group[name].nunique(dropna=False) > 1]
        for index in group.index if differing else ():
            text[index] = ", ".join(f"{name}={group[name][index]!s}" for name in differing)
    return text


def _agree(rows: pd.DataFrame, example: pd.Series, columns: Sequence[str]) -> pd.Series:
    """Which rows agree with the example in these columns, where both have a value."""
    agree = pd.Series(True, index=rows.index)
    for name in columns:
        if pd.notna(example[name]):
            agree &= rows[name].isna() | (rows[name] == example[name])
    return agree
