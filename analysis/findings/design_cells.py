"""Cells of a study of designs, which of them are in domain, and on how many images they rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.designs import DEFAULT, FINETUNED, LOGIT, OUTSIDE, PROBABILITY, TUNED
from analysis.probing_rows import Column


class Cell(NamedTuple):
    """What is looked up: a method on a network by a protocol, over seeds."""

    network: str
    method: str
    protocol: str = TUNED
    output: str = LOGIT
    setting: str = DEFAULT

    def __str__(self) -> str:
        after = " after the softmax" if self.output == PROBABILITY else ""
        setting = "" if self.setting == DEFAULT else f", {self.setting}"
        return f"{self.method}{after} on {self.network} by {self.protocol}{setting}"


def gated(scores: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """The scores with OUTSIDE for TUNED on every fine-tuning that does not pass the gate.

    Each network, setting and seed passes for itself; what no comparison says anything of does not.
    """
    inside, names = passing(comparisons), ["network", "setting", "seed"]
    known = [tuple(map(str, row)) in inside for row in scores[names].to_numpy()]
    outside = (scores["protocol"] == TUNED) & ~np.array(known, dtype=bool)
    return scores.assign(protocol=scores["protocol"].mask(outside, OUTSIDE))


def passing(comparisons: pd.DataFrame) -> set[tuple[str, str, str]]:
    """Network, setting and seed of the fine-tunings that pass the gate, by all that is known."""
    tuned = comparisons[comparisons["pair"] == FINETUNED]
    passes = tuned["in_domain"].eq(1).groupby([tuned[n] for n in ("network", "setting", "seed")])
    known = passes.all()
    return {(str(n), str(setting), str(seed)) for n, setting, seed in known.index[known]}


def images(column: Column, *, defined: bool = False) -> int:
    """How many images have an explanation, or one with a defined score."""
    return len(pd.unique(column.images[~np.isnan(column.scores)] if defined else column.images))
