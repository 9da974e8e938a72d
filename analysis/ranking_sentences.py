"""The words of the report on rankings: what its tables mean, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.paper_tables import AS_RUN
from analysis.ranking import LEAST_DEFINED, Ranking
from analysis.ranking_tables import score, span
from analysis.statistics import ALPHA, RESAMPLES
from analysis.tables import percent

RANKINGS = (
    "Means over the explanations that are defined for every ranked method, the best first; a "
    f"method that is defined on less than {percent(LEAST_DEFINED, 0)} % is not ranked. Intervals "
    f"(of ranks: range) hold 95 % of {RESAMPLES} draws of the images, with all explanations of an "
    "image together. "
    "Methods of one tie group are not told apart from its best (Student's paired test over "
    f"images, {percent(ALPHA, 0)} %, Holm-corrected for all pairs). Reference lines look at no "
    "model and have no rank. Where scores are undefined, the last column counts them as 0, or "
    "as the worst score of all where lower is better, with the rank that follows."
)
STAR = (
    "A star (*) marks methods exactly as the authors' code ran them (set "
    f"{AS_RUN}); they are never pooled with the methods as published."
)
AGREEMENT = (
    "Kendall's tau-b between the orders in which two protocols put the methods that both rank: 1 "
    "is the same order, 0 none, -1 the reverse; each protocol's better end comes first."
)
PAPER = (
    "IDSDS (Hesse et al., NeurIPS 2024), tables 4 to 7: ResNet-50 on the validation images of "
    "ImageNet. Only methods that ran exactly as the authors' code stand beside its numbers, and "
    "only on that network and data."
)
PAPER_ORDER = (
    "Rank correlation of our order of the methods with that of the paper's tables (ResNet-50, "
    "ImageNet), for methods that ran exactly as the authors' code. On another network or other "
    "data this says whether the order carries over, not whether the paper was reproduced."
)
CURVES = (
    "Mean over the explanations that are defined for the method, with its 95 % interval; the "
    "best methods of the ranking are colored."
)
NO_RANKING = "No evaluation by protocols has finished: there is nothing to rank."


def reading(ranking: Ranking) -> str:
    """One line that says what a ranking shows: who leads, who ties, who beats the references."""
    rows = ranking.ranked
    if rows.empty:
        return "No method is defined often enough to be ranked."
    leader, tied = rows.iloc[0], rows[rows["group"] == 1]
    interval = span(leader["low"], leader["high"])
    said = [f"{leader['label']} leads with {score(leader['mean'])} (95 %: {interval})"]
    if len(tied) > 1:
        said.append(f", not told apart from {_listed(tied['label'].tolist()[1:])}")
    lines = ranking.methods[ranking.methods["reference_line"]].dropna(subset="mean")
    if len(lines):
        best, higher = lines.iloc[0], leader["higher_is_better"]
        better = rows["mean"] > best["mean"] if higher else rows["mean"] < best["mean"]
        beating = int((better & (rows["p_reference"] < ALPHA)).sum())
        said.append(
            f"; {beating} of {len(rows)} methods beat the best reference line, "
            f"{best['label']} ({score(best['mean'])})"
        )
    return f"{''.join(said)}."


def agreement_sentence(setting: str, agreement: pd.DataFrame) -> str:
    """Which two protocols agree least and which most."""
    rows = agreement[agreement["setting"] == setting].dropna(subset="kendall")
    if rows.empty:
        return ""
    said = []
    ordered = rows.sort_values("kendall", ascending=False, kind="stable").to_dict("records")
    ends = [("most ", ordered[0]), ("least ", ordered[-1])] if len(rows) > 1 else [("", ordered[0])]
    for how, row in ends:
        said.append(
            f"{how}{row['protocol']} and {row['other']} (tau {row['kendall']:.2f}, 95 %: "
            f"{row['kendall_low']:.2f} to {row['kendall_high']:.2f})"
        )
    return f"Agreement of protocols: {'; '.join(said)}."


def _listed(names: Sequence[str], most: int = 3) -> str:
    """Names as a phrase: a, b, c and 4 more."""
    shown = list(names[:most])
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
