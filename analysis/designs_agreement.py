"""Whether protocols agree on methods, and whether grids, baselines and seeds matter to them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations
from types import MappingProxyType

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.designs import DEFAULT, FIXED, LOGIT, MARK, OUTSIDE, PLAIN, TUNED, UPDATED
from analysis.findings.design_evidence import DesignEvidence
from analysis.paper_tables import DATASET, NETWORK, PROTOCOLS, PUBLISHED
from analysis.tables import NONE, number

PUBLISHED_STABILITY: Mapping[frozenset[str], float] = {
    frozenset({"p16_zero", "p4_zero"}): 0.93,
    frozenset({"p16_zero", "p64_zero"}): 0.90,
    frozenset({"p16_zero", "p16_random"}): 0.99,
    frozenset({"p16_zero", "p16_blur"}): 0.96,
}
"""The paper's, section 5, of ResNet-50."""
PUBLISHED_SEEDS = 0.996
"""The least of the paper's between five seeds."""
LEAST_METHODS = 3
"""Two orders of fewer methods say nothing about each other."""
NAMES = {TUNED: "IDSDS", PLAIN: "SDS", FIXED: "IDS", UPDATED: "IDS updated"}
"""What tables call the protocols."""


@lru_cache
def published_agreement() -> Mapping[frozenset[str], float]:
    """Rank correlations of the paper's tables 4 to 6, whose numbers are rounded; 19 methods."""
    columns = dict(zip(PROTOCOLS, np.array(list(PUBLISHED.values())).T, strict=True))
    return MappingProxyType(
        {
            frozenset(pair): float(statistics.spearman(*(columns[name] for name in pair)))
            for pair in combinations((TUNED, PLAIN, FIXED), 2)
        }
    )


def agreement(evidence: DesignEvidence) -> pd.DataFrame:
    """Rank correlations between protocols over the methods of a network, over the seeds of both.

    Returns:
        Columns network, one, other (protocols), methods (how many), spearman, published (where it
        is the paper's network, data and methods).
    """
    rows = evidence.scores
    rows = rows[(rows["output"] == LOGIT) & rows["setting"].eq(DEFAULT)]
    found: list[tuple[object, ...]] = []
    for network, part in rows.groupby("network", sort=False):
        by_protocol = dict(list(part.groupby("protocol")))
        for pair in combinations((TUNED, PLAIN, FIXED, UPDATED), 2):
            if set(pair) <= set(by_protocol):
                one, other = (by_protocol[name] for name in pair)
                rho, methods = correlation(one, other, ["method", "seed"])
                known = published_agreement().get(frozenset(pair), np.nan)
                found.append((network, *pair, len(methods), rho, papers(part, methods, known)))
    return _correlations(found)


def stability(evidence: DesignEvidence) -> pd.DataFrame:
    """Rank correlations of the score after fine-tuning between grids, baselines and seeds.

    Settings are compared over the seeds that both have, seeds at the paper's setting. What is not
    in domain has MARK behind its name.

    Returns:
        Columns network, one, other (settings, or seeds), methods, spearman, published.
    """
    rows = evidence.scores
    rows = rows[(rows["output"] == LOGIT) & rows["protocol"].isin([TUNED, OUTSIDE])]
    mark = rows["protocol"].map({TUNED: "", OUTSIDE: MARK})
    rows = rows.assign(
        of_setting=rows["setting"] + mark, of_seed="seed " + rows["seed"].astype(str) + mark
    )
    found: list[tuple[object, ...]] = []
    for network, part in rows.groupby("network", sort=False):
        for pair in combinations(dict.fromkeys(part["of_setting"]), 2):
            one, other = (part[part["of_setting"] == setting] for setting in pair)
            rho, methods = correlation(one, other, ["method", "seed"])
            known = PUBLISHED_STABILITY.get(frozenset(pair), np.nan)
            found.append((network, *pair, len(methods), rho, papers(part, methods, known)))
        same = part[part["setting"] == DEFAULT]
        for pair in combinations(dict.fromkeys(same["of_seed"]), 2):
            one, other = (same[same["of_seed"] == seed] for seed in pair)
            rho, methods = correlation(one, other, ["method"])
            known = np.nan if MARK in "".join(pair) else PUBLISHED_SEEDS
            found.append((network, *pair, len(methods), rho, papers(part, methods, known)))
    return _correlations(found)


def correlation(one: pd.DataFrame, other: pd.DataFrame, by: list[str]) -> tuple[float, list[str]]:
    """Spearman's correlation over the methods of both, of means over what both have; which."""
    both = one[[*by, "value"]].merge(other[[*by, "value"]], on=by, suffixes=("", "_other")).dropna()
    means = both.groupby("method")[["value", "value_other"]].mean()
    methods = [str(method) for method in means.index]
    if len(means) < LEAST_METHODS:
        return np.nan, methods
    return float(statistics.spearman(*means.to_numpy(float).T)), methods


def papers(rows: pd.DataFrame, methods: list[str], value: float) -> float:
    """The paper's number where it stands beside ours: its network, data and methods; else NaN."""
    same = set(rows["network"]) == {NETWORK} and set(rows["dataset"]) == {DATASET}
    return value if same and set(methods) == set(PUBLISHED) else np.nan


def correlations_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Correlations for people; the paper's beside where there is one that is comparable."""
    table = frame.replace({"one": NAMES, "other": NAMES})
    table["network"] = table["network"].str.removeprefix("small_")
    table["methods"] = table["methods"].map(number)
    for name in ("spearman", "published"):
        table[name] = [NONE if pd.isna(value) else f"{value:.3f}" for value in table[name]]
    if (table["published"] == NONE).all():
        table = table.drop(columns="published")
    return table.rename(columns={"published": "the paper's"})


def papers_agreement() -> str:
    """The paper's correlations between protocols, as a sentence."""
    pairs = [(pair, published_agreement()[frozenset(pair)]) for pair in
             combinations((TUNED, PLAIN, FIXED), 2)]  # fmt: skip
    return ", ".join(f"{NAMES[one]} and {NAMES[other]} {rho:.3f}" for (one, other), rho in pairs)


def _correlations(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    names = ["network", "one", "other", "methods", "spearman", "published"]
    table = pd.DataFrame(rows, columns=names).astype({"spearman": float, "published": float})
    return table[table["methods"] >= LEAST_METHODS].reset_index(drop=True)
