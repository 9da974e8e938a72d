"""I10: what a network's best score has to do with its accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy import stats

from analysis.designs import DEFAULT, FINETUNED, OUTSIDE, TUNED
from analysis.findings.design_cells import passing
from analysis.findings.design_evidence import DesignEvidence
from analysis.findings.design_finding import DesignContrast, DesignFinding
from analysis.findings.finding import FAILS, HOLDS, NAN, UNDECIDED
from analysis.statistics import ALPHA, spearman

LEAST_NETWORKS = 5
"""The order of four has no exact p-value below 0.05."""
EXACT = 8
"""Up to so many networks all orders are counted: 40,320."""


@dataclass(frozen=True)
class AccuracyCosts(DesignFinding):
    """I10."""

    id: ClassVar[str] = "I10"
    claim: ClassVar[str] = "A network's best score falls with its accuracy"
    source: ClassVar[str] = "section 5, figure 5b"

    def compare(self, evidence: DesignEvidence) -> Iterator[DesignContrast]:
        table = accuracy_against_best(evidence)
        table = table[table["in_domain"]]
        known = table.dropna(subset=["best", "accuracy"])
        unknown = [name for name in table["network"] if name not in set(known["network"])]
        without = f", without {', '.join(unknown)} (no score)" if unknown else ""
        what = f"rank correlation of best score and accuracy, {len(known)} networks{without}"
        rho = p = NAN
        if min(known["best"].nunique(), known["accuracy"].nunique()) < LEAST_NETWORKS:
            why = f"{len(known)} networks in domain with a score; five that differ can be ordered"
            verdict = UNDECIDED
        else:
            rho, p = rank_test(known["best"].to_numpy(float), known["accuracy"].to_numpy(float))
            verdict = UNDECIDED if not p < ALPHA else HOLDS if rho < 0 else FAILS
            why = f"Spearman {rho:+.2f}, p = {p:.2f}" if verdict == UNDECIDED else ""
        yield DesignContrast(what=what, protocol=TUNED, verdict=verdict, why=why, effect=rho, p=p)


def accuracy_against_best(evidence: DesignEvidence) -> pd.DataFrame:
    """Every fine-tuned network at the paper's grid and baseline.

    Returns:
        Columns network, accuracy (clean, after), method, best (its score) and in_domain. Means over
        the seeds that pass the gate; of a network where none does, over all, and its score is an
        SDS.
    """
    rows, inside = [], passing(evidence.comparisons)
    tuned = evidence.comparisons[
        (evidence.comparisons["pair"] == FINETUNED) & (evidence.comparisons["setting"] == DEFAULT)
    ]
    for network, part in tuned.groupby("network", sort=False):
        passes = np.array([(network, DEFAULT, str(seed)) in inside for seed in part["seed"]])
        accuracy = part.loc[passes if passes.any() else part.index, "accuracy_after"].mean()
        method, value = evidence.best(str(network), TUNED if passes.any() else OUTSIDE)
        rows.append((network, float(accuracy), method, value, bool(passes.any())))
    names = ["network", "accuracy", "method", "best", "in_domain"]
    return pd.DataFrame(rows, columns=names).astype({"in_domain": bool})


def rank_test(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Spearman's rho of two (n,) and its two-sided p-value.

    Exact, over all orders, for few values; of Student's distribution beyond.
    """
    rho, n = float(spearman(first, second)), len(first)
    if n > EXACT:
        return rho, float(stats.spearmanr(first, second).pvalue)
    orders = np.array(list(permutations(second))).reshape(factorial(n), n)
    all_rho = spearman(np.broadcast_to(first, orders.shape), orders)
    return rho, float(np.mean(np.abs(all_rho) >= abs(rho) - 1e-9))
