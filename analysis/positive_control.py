"""Whether guidance moves what it guides: a check of the instrument, not of the paper."""

from __future__ import annotations

import pandas as pd

from analysis.guidance import CONTROL, SETTING, in_order

RATIO = 3.0
"""By how many spreads guidance must move EPG for the positive control to pass."""


def positive_control(candidates: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """Whether guidance moves what it guides: a check of the instrument, not of the paper.

    Validation EPG at the largest lambda of the Energy loss minus that of CONTROL, both after the
    last epoch, against the spread over seeds. Only seeds that have both count.

    Args:
        candidates: as ``guidance.candidates`` returns them.
        references: as ``guidance.references`` returns them.

    Returns:
        One row per SETTING: lambda_loc, ``seeds`` (how many), ``control`` and ``guided`` (means
        over seeds), ``control_sd`` and ``guided_sd`` (n - 1), ``difference``, ``spread`` (the
        larger of the two, so that passing does not depend on which one is meant), ``ratio``, and
        ``verdict``: pass (ratio above RATIO), fail, or what is missing.
    """
    control = references[references["reference"] == CONTROL]
    columns = ["lambda_loc", "seeds", "control", "guided", "control_sd", "guided_sd"]
    rows = []
    for values, group in candidates.groupby(list(SETTING)):
        at = group[group["loss"] == "energy"]
        at = at[at["lambda_loc"] == at["lambda_loc"].max()].dropna(subset="val_epg")
        last = at.sort_values("epoch").groupby("seed").tail(1)
        both = last.merge(control, on=[*SETTING, "seed"], suffixes=("", "_control"))
        both = both.dropna(subset="val_epg_control")
        pair = both[["val_epg_control", "val_epg"]]
        rows.append((*values, at["lambda_loc"].max(), len(both), *pair.mean(), *pair.std()))
    found = pd.DataFrame(rows, columns=[*SETTING, *columns])
    found["difference"] = found["guided"] - found["control"]
    found["spread"] = found[["control_sd", "guided_sd"]].max(axis=1)
    found["ratio"] = found["difference"] / found["spread"]
    found["verdict"] = ["pass" if ratio > RATIO else "fail" for ratio in found["ratio"]]
    found.loc[found["seeds"] < 2, "verdict"] = "needs >= 2 seeds"
    return in_order(found)
