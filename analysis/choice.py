"""What a user of the sweep would choose: one model per curve, and how good the curve is."""

from __future__ import annotations

import pandas as pd

from analysis.guidance import BASELINE, CURVE, OBJECTIVES, SETTING, in_order
from analysis.pareto import best_within_f1_loss, hypervolume

TOLERANCE = 0.05
"""How much F1 a chosen model may lose against the baseline: 5 points in Model Guidance."""
CHOSEN_BY = ("epg", "box_iou_tuned")
"""Metrics whose best model is looked for."""


def choices(front: pd.DataFrame, references: pd.DataFrame, accuracy: str = "f1") -> pd.DataFrame:
    """For each curve and each of CHOSEN_BY the best member whose F1 is within TOLERANCE.

    Chosen on validation, against the baseline's F1 on validation.

    Args:
        front: Pareto-dominant rows, as ``guidance.front`` returns them.
        references: as ``guidance.references`` returns them.
        accuracy: what may not be lost, ``f1`` or ``map``.

    Returns:
        One row per (CURVE, ``chosen_by``) with lambda_loc, epoch, val_* and test_* of the chosen
        row; NaN where no member keeps enough F1 or there is no baseline to compare with.

    Source: Model Guidance (Rao et al., ICCV 2023), appendix D.1.1.
    """
    x = f"val_{accuracy}"
    baselines = references[references["reference"] == BASELINE].dropna(subset=x)
    baseline_x = baselines.set_index([*SETTING, "seed"])[x].to_dict()
    rows = []
    for values, members in front.groupby(list(CURVE)):
        key = dict(zip(CURVE, values, strict=True))
        for metric in CHOSEN_BY:
            least = baseline_x.get(tuple(key[name] for name in (*SETTING, "seed")))
            chosen = (
                None
                if least is None
                else best_within_f1_loss(members, least, f"val_{metric}", TOLERANCE, f1=x)
            )
            rows.append({**key, "chosen_by": metric, **({} if chosen is None else chosen)})
    columns = [*CURVE, "chosen_by", *front.columns.drop(list(CURVE))]
    return in_order(pd.DataFrame(rows, columns=columns), ["chosen_by"])


def volumes(front: pd.DataFrame) -> pd.DataFrame:
    """Hypervolume of each curve's front in OBJECTIVES above the origin: CURVE, ``hypervolume``.

    A share of the unit cube: 1 would be perfect F1, EPG and IoU at once.
    """
    rows = [
        (*values, hypervolume(members[list(OBJECTIVES)].to_numpy()))
        for values, members in front.groupby(list(CURVE))
    ]
    return in_order(pd.DataFrame(rows, columns=[*CURVE, "hypervolume"]))


def summary(choices: pd.DataFrame, volumes: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """What each loss reaches on test, over seeds, with the references above it.

    Returns:
        One row per SETTING and ``loss`` (BASELINE and CONTROL among them): ``seeds``, and
        ``*_mean`` and ``*_sd`` (n - 1; NaN for one seed) of ``<metric>`` and ``<metric>_f1`` (test
        values of the model chosen by the metric) and of ``hypervolume``.
    """
    quantities = [volumes.rename(columns={"hypervolume": "value"}).assign(quantity="hypervolume")]
    at_references = references.rename(columns={"reference": "loss"})
    for metric in CHOSEN_BY:
        chosen = choices[choices["chosen_by"] == metric]
        for frame in (chosen, at_references):
            for column, quantity in ((f"test_{metric}", metric), ("test_f1", f"{metric}_f1")):
                if column in frame:
                    part = frame[[*CURVE, column]].rename(columns={column: "value"})
                    quantities.append(part.assign(quantity=quantity))
    rows = pd.concat(quantities, ignore_index=True)
    key = [*SETTING, "loss"]
    values = rows.groupby([*key, "quantity"])["value"]
    found = rows.groupby(key)["seed"].nunique().rename("seeds").to_frame()
    for how, statistic in (("mean", values.mean()), ("sd", values.std())):
        found = found.join(statistic.unstack("quantity").add_suffix(f"_{how}"))
    return in_order(found.reset_index())
