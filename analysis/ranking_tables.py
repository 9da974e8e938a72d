"""Rankings as tables for people. Scores stand as they are: not all of them are shares."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.ranking import Ranking
from analysis.tables import NONE, number, percent

ACROSS = 10
"""Protocols side by side in one table of agreement; more go below."""


def score(value: float) -> str:
    """A score with three digits after the point: 0.236, -0.005, 15.612."""
    return NONE if pd.isna(value) else f"{value:.3f}"


def span(low: float, high: float) -> str:
    """An interval of scores: 0.21 to 0.26."""
    return NONE if pd.isna(low) else f"{score(low)} to {score(high)}"


def title_of(ranking: Ranking) -> str:
    """What a ranking is of."""
    better = "higher" if ranking.methods["higher_is_better"].all() else "lower"
    return f"{ranking.protocol} · {ranking.setting} · {better} is better{counts_of(ranking)}"


def counts_of(ranking: Ranking) -> str:
    """What a ranking rests on; empty where nothing is ranked."""
    rows = ranking.ranked
    if rows.empty:
        return ""
    explanations, images = rows["explanations"].max(), rows["images"].max()
    if explanations == images:
        return f" · {images} images"
    return f" · {explanations} explanations of {images} images"


def ranking_table(ranking: Ranking) -> pd.DataFrame:
    """The methods, the best first, reference lines among them."""
    rows = ranking.methods
    reach = zip(rows["rank_low"], rows["rank_high"], strict=True)
    table = pd.DataFrame(
        {
            "setting": title_of(ranking),
            "rank": rows["rank"].map(number),
            "range": [_ranks(low, high) for low, high in reach],
            "method": rows["label"].where(~rows["reference_line"], rows["label"] + " (reference)"),
            "mean": rows["mean"].map(score),
            "mean 95 %": [span(*ends) for ends in zip(rows["low"], rows["high"], strict=True)],
            "tie": rows["group"].map(number),
            "% def": rows["defined_fraction"].map(percent),
        }
    )
    if (rows["defined_fraction"] < 1).any():
        value = rows["filled_with"].iloc[0]
        filled = zip(rows["filled_mean"], rows["filled_rank"], strict=True)
        table[f"undef. as {value:.3g}"] = [
            score(mean) if pd.isna(rank) else f"{score(mean)} ({number(rank)})"
            for mean, rank in filled
        ]
    return table


def names_table(rankings: Sequence[Ranking]) -> pd.DataFrame:
    """What a name in the tables stands for, where that is not the method's key."""
    rows = pd.concat([pd.DataFrame(columns=["label", "method"]), *(r.methods for r in rankings)])
    rows = rows.loc[rows["label"] != rows["method"], ["label", "method"]].drop_duplicates()
    return rows.rename(columns={"label": "in the tables", "method": "key"})


def agreement_tables(agreement: pd.DataFrame, correlation: str = "kendall") -> list[pd.DataFrame]:
    """Every protocol against every other, a table per setting and ACROSS columns."""
    tables = []
    for setting, rows in agreement.groupby("setting", sort=False):
        names = list(dict.fromkeys([*rows["protocol"], *rows["other"]]))
        values = {(n, n): 1.0 for n in names}
        for one, other, value in zip(
            rows["protocol"], rows["other"], rows[correlation], strict=True
        ):
            values[one, other] = values[other, one] = value
        for first in range(0, len(names), ACROSS):
            shown = names[first : first + ACROSS]
            table = pd.DataFrame({"setting": str(setting), "": range(1, len(names) + 1)})
            table["protocol"] = names
            for place, name in enumerate(shown, first + 1):
                cells = [values[one, name] for one in names]
                table[str(place)] = [NONE if pd.isna(v) else f"{v:.2f}" for v in cells]
            tables.append(table)
    return tables


def agreement_pairs_table(agreement: pd.DataFrame) -> pd.DataFrame:
    """Every two protocols with their intervals."""
    return pd.DataFrame(
        {
            "setting": agreement["setting"],
            "protocol": agreement["protocol"],
            "other": agreement["other"],
            "methods": agreement["methods"].map(number),
            **_correlations(agreement),
        }
    )


def paper_table(beside: pd.DataFrame) -> pd.DataFrame:
    """Our means beside the paper's, where network, data and methods are the paper's."""
    rows = beside[beside["comparable"]]
    return pd.DataFrame(
        {
            "setting": rows["protocol"] + " · " + rows["setting"],
            "method": rows["paper"],
            "ours": rows["mean"].map(score),
            "95 %": [span(*ends) for ends in zip(rows["low"], rows["high"], strict=True)],
            "the paper's": rows["published"].map(score),
            "difference": (rows["mean"] - rows["published"]).map(score),
        }
    )


def paper_order_table(order: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations of our order with the paper's."""
    return pd.DataFrame(
        {
            "setting": order["setting"],
            "protocol": order["protocol"],
            "methods": order["methods"].map(number),
            **_correlations(order),
        }
    )


def _correlations(rows: pd.DataFrame) -> dict[str, list[str]]:
    found = {}
    for name, title in (("kendall", "Kendall's tau"), ("spearman", "Spearman's rho")):
        ends = zip(rows[name], rows[f"{name}_low"], rows[f"{name}_high"], strict=True)
        found[title] = [
            NONE if pd.isna(value) else f"{value:.2f} ({low:.2f} to {high:.2f})"
            for value, low, high in ends
        ]
    return found


def _ranks(low: float, high: float) -> str:
    if pd.isna(low):
        return NONE
    return number(low) if low == high else f"{number(low)} to {number(high)}"
