"""The words of the report on guidance: what its tables mean, and what follows from them."""

from __future__ import annotations

import pandas as pd

from analysis.choice import TOLERANCE
from analysis.pareto import BINNING
from analysis.plots import titles
from analysis.positive_control import RATIO
from analysis.tables import percent, ratio

FRONTS = (
    "Chosen on validation from F1, EPG and IoU at the tuned threshold, pooled over lambda and "
    f"epoch for each loss and seed, compared in steps of {100 * BINNING:g} points. "
    "Validation / test, in percent; baseline and lambda = 0 are references and belong to no front."
)
SUMMARY = (
    "Test values of the model with the best validation EPG (or IoU) on the front of its seed whose "
    f"validation F1 is at most {100 * TOLERANCE:g} points below the baseline's: mean ± standard "
    "deviation over seeds, in percent. Hypervolume is that of the validation front in F1, EPG and "
    "IoU above the origin, in percent of the unit cube."
)
SELF_CHECKS = (
    "Analytic identities that a method's maps must meet on a network before they are believed "
    "there, checked on a few images of every evaluation; errors are relative."
)
CONTROL = (
    "Positive control, a test of the instrument: validation EPG after the last epoch at the "
    "largest lambda of the Energy loss, against lambda = 0; mean ± standard deviation over "
    "seeds, in percent. The spread is the larger of the two standard deviations; the control "
    f"passes if the difference is more than {RATIO:g} times the spread."
)
MANY = 4
"""Settings that a sentence names one by one; of more only those that stand out."""
NO_FRONT = "No guided training has finished: there is no front to show and nothing to conclude."


def control_sentence(control: pd.DataFrame) -> str:
    """The positive control at each setting, from ``findings.positive_control``."""
    if len(control) > 1 and control["ratio"].isna().all() and control["verdict"].nunique() == 1:
        return f"Positive control: {control['verdict'].iloc[0]} at all {len(control)} settings."
    said = []
    passing = control["verdict"] == "pass"
    if len(control) > MANY:
        said.append(f"passes at {passing.sum()} of {len(control)} settings")
        control = control[~passing]
    for where, row in zip(titles(control), control.to_dict("records"), strict=True):
        numbers = f" ({percent(row['difference'])} points, {ratio(row['ratio'])} times the spread)"
        said.append(f"{where}: {row['verdict']}{numbers if pd.notna(row['ratio']) else ''}")
    return (
        f"Positive control, EPG at the largest Energy lambda against lambda = 0. {'; '.join(said)}."
    )
