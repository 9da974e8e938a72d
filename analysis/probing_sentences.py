"""The words of the report on probes: what its tables mean, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.findings.finding import HOLDS
from analysis.probing_tables import points

ACCURACIES = (
    "Mean ± standard deviation over seeds, in percent, of probes at their last epoch, on test if "
    "they were tested, else on validation. BCE wants 0 of absent classes, as in the paper's text; "
    "BCE 1/C wants 1/C, as in its code. The same probes on the untrained network are the control, "
    "with Wilson's 95 % interval over images (F1 taken for a share of them): what does not exceed "
    "it, marked *, is not read, and what has no control neither. The paper's numbers are of linear "
    "probes on ImageNet, CE → BCE."
)
LOSSES = (
    "GridPG in percent, differences in points with 95 % bootstrap intervals over mosaics: pairs on "
    "the same mosaics (common images), two samples where each probe chose its own. A comparison "
    "holds or fails where all of its interval lies on one side. Verdicts in the last column are "
    "of what decides: linear probes by off-target 0, for the methods that the paper names."
)
GAUGE = (
    "GridPG in percent with the class mean of the last layer as trained and taken out (centred), "
    "and of CE's probe with the class mean of BCE's. No softmax sees the difference. Gain is BCE "
    "less CE, in points, as trained and with both centred; gone is the share of a gain of either "
    "sign, where its interval excludes 0, that goes with the class mean: how much is the gauge."
)
SHIFT = (
    "The same multiple alpha of the mean feature, scaled to length 1, added to the weights of all "
    "classes: softmax and cross-entropy stay, GridPG does not. The paper shows one mosaic by LRP, "
    "65.7 → 11.9."
)
DEPTH = (
    "One to three layers side by side, in percent, means over seeds: accuracy and GridPG with one "
    "class an image, F1 and EPG with several."
)
DEAD = (
    "Share of the maps without anything positive, in percent, by loss: such maps have entropy 0, "
    "which is not a virtue, and no GridPG."
)
PAPER = (
    "How to Probe (Gairola et al., ICLR 2025): each sentence as a set of comparisons, read where "
    "both probes exceed their untrained controls. All that decide must hold, one that fails is "
    "enough, others are shown in brackets. Intervals are of 95 % each, over images or mosaics; "
    "p-values are corrected for the comparisons of a finding (Holm). P10a to c are ours."
)
NOTHING = "No probe has finished: there is nothing to compare."


def finding_sentences(findings: pd.DataFrame, shown: Sequence[str] = ("P1", "P10b")) -> list[str]:
    """The main findings, and what all come to; a line each."""
    counts = findings[["holding", "failing", "undecided"]].sum(axis=1)
    asked = counts > 0
    lines = []
    for row in findings[asked & findings["id"].isin(shown)].to_dict("records"):
        total = row["holding"] + row["failing"] + row["undecided"]
        low, high = points(row["effect_low"]), points(row["effect_high"])
        effect = f"{low if low == high else f'{low} to {high}'} points"
        beside = f" {row['note'][:1].upper()}{row['note'][1:]}." if row["note"] else ""
        lines.append(
            f"{row['id']}, {row['claim']}: {row['verdict']}, {row['holding']} of {total} "
            f"comparisons hold, {row['failing']} fail; {effect}.{beside}"
        )
    said = []
    for verdict in (HOLDS, "fails", "undecided"):
        ids = findings.loc[asked & (findings["verdict"] == verdict), "id"]
        if len(ids):
            said.append(f"{verdict} {', '.join(ids)}")
    if not asked.all():
        said.append(f"no runs for {', '.join(findings.loc[~asked, 'id'])}")
    return [*lines, f"What the paper says, on these runs: {'; '.join(said)}."]


def arrows_reading(arrows: pd.DataFrame) -> str:
    """One line that says what the figure of losses shows."""
    read = arrows[arrows["read"]]
    rows = read if len(read) else arrows
    gains = rows["score_bce"] - rows["score_ce"]
    moves = (rows["accuracy_bce"] - rows["accuracy_ce"]).mean()
    which = "that exceed their controls" if len(read) else "although none exceeds its control"
    return (
        f"From CE to BCE, linear probes {which}: GridPG rises in {int((gains > 0).sum())} of "
        f"{len(rows)} arrows, by {points(gains.mean())} points in the mean; accuracy moves by "
        f"{points(moves)}. Up is better."
    )


def depth_reading(rows: pd.DataFrame) -> str:
    """One line that says what the figure of layers shows."""
    said = []
    by = ["panel", "form", "method"]
    for name, title in (("accuracy", "accuracy or F1"), ("score", "localization")):
        ends = []
        for _, part in rows.dropna(subset=name).groupby(by, sort=False):
            means = part.groupby("layers")[name].mean()
            if len(means) > 1:
                ends.append((str(part["form"].iloc[0]), means.iloc[-1] - means.iloc[0]))
        for form in dict.fromkeys(form for form, _ in ends):
            changes = [change for one, change in ends if one == form]
            rising = sum(change > 0 for change in changes)
            mean = points(sum(changes) / len(changes))
            said.append(f"{title} of {form} probes rises in {rising} of {len(changes)} ({mean})")
    line = "; ".join(said)
    return f"From the fewest to the most layers (mean change in points): {line}."
