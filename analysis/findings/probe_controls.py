"""Our controls: what sees no probe, P10, and maps that are dead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from analysis.findings.contrast import Contrast, ProbeFinding
from analysis.findings.finding import FAILS, HOLDS, UNDECIDED
from analysis.findings.probe_evidence import ProbeEvidence
from analysis.probing import (
    AS_TRAINED,
    BCE,
    BCE_UNIFORM,
    CE,
)

BLIND = "rollout"
"""The method that looks at no probe."""
EXACT = 1e-6
"""Means that differ from one over the cells by less are that: scores come in single precision."""


@dataclass(frozen=True)
class RolloutIsBlind(ProbeFinding):
    """P10, its negative control."""

    id: ClassVar[str] = "P10a"
    claim: ClassVar[str] = "Pure rollout sees no probe (ours)"
    says: ClassVar[str] = (
        "Scores of pure attention rollout are bit for bit the same for all probes of one frozen "
        "transformer on the same mosaics, and their mean GridPG is one over the number of cells. "
        "No control is asked for: this holds of any probe."
    )
    source: ClassVar[str] = "ours; the paper (table C2) has rollout change with the loss"

    def compare(self, evidence: ProbeEvidence) -> Iterator[Contrast]:
        rows = evidence.evaluated
        rows = rows[(rows["attribution"] == BLIND) & (rows["gauge"] == AS_TRAINED)]
        place = ["dataset", "backbone", "pretraining", "images", "choice", "side", "split"]
        # backbones that were trained from another seed are other backbones
        backbones = rows["seed"].str.split(".").str[0].str.extract(r"/(.*)$", expand=False)
        for values, part in rows.groupby([*place, backbones.fillna("")], dropna=False, sort=False):
            yield self.judged(evidence, dict(zip(place, values, strict=False)), part)

    def judged(
        self, evidence: ProbeEvidence, place: dict[str, object], part: pd.DataFrame
    ) -> Contrast:
        """One transformer with all its probes."""
        side = float(str(place["side"]))
        known = evidence.values[evidence.values["result_id"].isin(part["result_id"])]
        keys = sorted(set(known.loc[known["family"] == "grid_pg", "protocol"]))
        columns = [
            column
            for result_id in part["result_id"]
            for key in keys[:1]
            if (column := evidence.rows.column(result_id, key)) is not None
        ]
        names = ("dataset", "backbone", "pretraining", "images")
        where: dict[str, Any] = {name: str(place[name]) for name in names}
        found = Contrast(
            what=f"{len(columns)} probes",
            metric=keys[0] if keys else "grid_pg",
            verdict=UNDECIDED,
            method=BLIND,
            variant=str(place["choice"]),
            results=tuple(part["result_id"]),
            **where,
        )
        if len(columns) < 2 or side != side:
            return replace(found, why="fewer than two probes with scores of mosaics")
        first, chance = columns[0], 1 / side**2
        alike = [
            column
            for column in columns
            if np.array_equal(column.images, first.images)
            and np.array_equal(column.targets, first.targets)
        ]
        if len(alike) < 2:
            return replace(found, why="no two probes were scored on the same mosaics")
        equal = all(np.array_equal(c.scores, first.scores, equal_nan=True) for c in alike)
        mean = float(np.nanmean(first.scores))
        exact = abs(mean - chance) < EXACT
        said = "scores differ between probes" if not equal else f"mean is not {chance:.6f}"
        return replace(
            found,
            verdict=HOLDS if equal and exact else FAILS,
            why="" if equal and exact else said,
            what=f"{len(alike)} of {len(columns)} probes on the same mosaics",
            units=len(np.unique(first.images.astype(str))),
            paired=True,
            seeds=1,
            value=mean,
            against=chance,
            effect=mean - chance,
        )


def dead_maps(evidence: ProbeEvidence) -> pd.DataFrame:
    """Share of maps without anything positive, by loss.

    Returns:
        Columns dataset, backbone, method, images, kind (of evaluation), a column per loss, NaN
        where no run says.
    """
    rows = evidence.evaluated
    rows = rows[(rows["gauge"] == AS_TRAINED) & rows["dead"].notna()]
    place = ["dataset", "backbone", "method", "images", "kind"]
    wide = rows.pivot_table(index=place, columns="loss", values="dead", aggfunc="mean", sort=False)
    return wide.reindex(columns=[CE, BCE, BCE_UNIFORM]).rename_axis(columns=None).reset_index()
