"""Designs as tables: networks before and after fine-tuning, scores, agreement, stability."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.designs import DEFAULT, FIXED, LOGIT, PLAIN, TUNED, UPDATED
from analysis.findings.design_evidence import DesignEvidence
from analysis.tables import NONE, number, percent

PUBLISHED_AGREEMENT = {(TUNED, PLAIN): 0.899, (TUNED, FIXED): 0.371, (PLAIN, FIXED): 0.640}
"""Rank correlations of the paper's tables 4 to 6, which are rounded: ResNet-50, 19 methods."""
PUBLISHED_STABILITY = {
    ("p16_zero", "p4_zero"): 0.93,
    ("p16_zero", "p64_zero"): 0.90,
    ("p16_zero", "p16_random"): 0.99,
    ("p16_zero", "p16_blur"): 0.96,
}
"""The paper's, section 5."""
LEAST_METHODS = 3
"""Two orders of fewer methods say nothing about each other."""


def networks_table(evidence: DesignEvidence) -> pd.DataFrame:
    """Every pair of networks that was compared, accuracies in percent, before and after."""
    rows = []
    for row in evidence.comparisons.to_dict("records"):
        tuned = row["pair"] == "finetuned"
        method, value = evidence.best(row["network"]) if tuned else ("", np.nan)
        gate = evidence.gate(row["network"], row["setting"]) if tuned else ""
        rows.append(
            {
                "network": _short(row["network"]) if tuned else "unrelated pair",
                "known": row["setting"] if tuned else _short(row["beside"]),
                "top-1": f"{percent(row['accuracy_before'])} / {percent(row['accuracy_after'])}",
                "worst patch": f"{percent(row['corrupted_accuracy_before'])} / "
                f"{percent(row['corrupted_accuracy_after'])}",
                "in domain": NONE if not tuned else "no" if gate else "yes",
                "MAD p": _three(row["mad_softmax"]),
                "MAD CAM": _three(row["mad_grad_cam"]),
                "top 9": percent(row["overlap_at_9"], 0),
                "best method": method.replace("integrated_gradients", "ig") or NONE,
                "IDSDS": _three(value),
            }
        )
    return pd.DataFrame(rows)


def scores_frame(evidence: DesignEvidence) -> pd.DataFrame:
    """Mean score of every method on every network: a row a method, a column a network.

    The in-domain score at the paper's grid and baseline, of logits, over seeds.
    """
    rows = evidence.scores
    rows = rows[
        (rows["protocol"] == TUNED) & (rows["output"] == LOGIT) & (rows["setting"] == DEFAULT)
    ]
    wide = rows.pivot_table(index="method", columns="network", values="value", sort=False)
    return wide.rename_axis(columns=None).reset_index()


def scores_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The scores in hundredths, so that nine networks fit a line."""
    table = frame.copy()
    for name in table.columns[1:]:
        table[name] = [NONE if pd.isna(v) else f"{100 * v:.0f}" for v in table[name]]
    return table.rename(columns=_short)


def agreement(evidence: DesignEvidence) -> pd.DataFrame:
    """Rank correlations between protocols over the methods of a network.

    Returns:
        Columns network, protocol, other, methods (how many), spearman, published.
    """
    rows = evidence.scores
    rows = rows[(rows["output"] == LOGIT) & rows["setting"].eq(DEFAULT)]
    found = []
    for network, part in rows.groupby("network", sort=False):
        means = part.pivot_table(index="method", columns="protocol", values="value")
        for one, other in combinations((TUNED, PLAIN, FIXED, UPDATED), 2):
            rho, methods = correlation(means, one, other)
            if methods:
                published = PUBLISHED_AGREEMENT.get((one, other), np.nan)
                found.append((network, one, other, methods, rho, published))
    names = ["network", "protocol", "other", "methods", "spearman", "published"]
    return pd.DataFrame(found, columns=names)


def stability(evidence: DesignEvidence) -> pd.DataFrame:
    """Rank correlations of the in-domain score between grids, baselines and seeds.

    Returns:
        Columns network, one, other (settings, or seeds), methods, spearman, published.
    """
    rows = evidence.scores
    rows = rows[(rows["output"] == LOGIT) & (rows["protocol"] == TUNED)]
    found = []
    for network, part in rows.groupby("network", sort=False):
        for by in ("setting", "seed"):
            same = part if by == "setting" else part[part["setting"] == DEFAULT]
            means = same.pivot_table(index="method", columns=by, values="value", sort=False)
            for one, other in combinations(means.columns, 2):
                rho, methods = correlation(means, one, other)
                if methods:
                    pair = (str(one), str(other))
                    known = {**PUBLISHED_STABILITY, **_turned(PUBLISHED_STABILITY)}
                    word = "" if by == "setting" else "seed "
                    found.append(
                        (network, word + pair[0], word + pair[1], methods, rho, known.get(pair))
                    )
    names = ["network", "one", "other", "methods", "spearman", "published"]
    return pd.DataFrame(found, columns=names).astype({"published": float})


def correlation(means: pd.DataFrame, one: object, other: object) -> tuple[float, int]:
    """Spearman's correlation of two columns over the methods of both, and how many these are."""
    if one not in means or other not in means:
        return np.nan, 0
    both = means[[one, other]].dropna()
    if len(both) < LEAST_METHODS:
        return np.nan, 0
    columns = [statistics.ranks(both[c].to_numpy(float), higher_is_better=True) for c in both]
    return float(statistics.spearman(columns[0], columns[1])), len(both)


def correlations_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Correlations for people, the paper's beside."""
    table = frame.copy()
    table["methods"] = table["methods"].map(number)
    for name in ("spearman", "published"):
        table[name] = table[name].map(_two)
    return table.rename(columns={"published": "the paper's"})


def findings_table(findings: pd.DataFrame) -> pd.DataFrame:
    """Every finding with its verdict, how many comparisons hold, and what leaves it open."""
    deciding = findings["holding"] + findings["failing"] + findings["undecided"]
    pairs = zip(findings["holding"], deciding, strict=True)
    return pd.DataFrame(
        {
            "id": findings["id"],
            "the paper says": findings["claim"],
            "these runs": findings["verdict"],
            "hold": [f"{holding} of {n}" if n else NONE for holding, n in pairs],
            "open, because": findings["why"].replace("", NONE),
        }
    )


def contrasts_table(contrasts: pd.DataFrame) -> pd.DataFrame:
    """Every comparison with its effect and interval."""
    rows = contrasts.to_dict("records")
    return pd.DataFrame(
        {
            "finding": contrasts["finding"],
            "comparison": contrasts["what"],
            "verdict": contrasts["verdict"],
            "effect": [_three(row["effect"]) for row in rows],
            "interval": [
                NONE if pd.isna(row["low"]) else f"{row['low']:+.3f} to {row['high']:+.3f}"
                for row in rows
            ],
            "open, because": contrasts["why"].replace("", NONE),
        }
    )


def _short(network: str) -> str:
    """A network's name without what all of the sample's have."""
    return network.removeprefix("small_")


def _turned(pairs: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return {(b, a): value for (a, b), value in pairs.items()}


def _two(value: float) -> str:
    return NONE if pd.isna(value) else f"{value:.2f}"


def _three(value: float) -> str:
    return NONE if pd.isna(value) else f"{value:.3f}"
