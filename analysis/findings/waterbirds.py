"""Guidance against a spurious correlation, Waterbirds-100: R9, section 5.5 of Model Guidance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from analysis.findings.evidence import Evidence
from analysis.findings.finding import FAILS, HOLDS, NAN, UNDECIDED, Comparison, Finding, Key
from analysis.findings.paper_grid import BCOS, ENDS, KINDS, VANILLA, XDNN, is_paired, keys, kind_of
from analysis.guidance import BASELINE
from analysis.styles import label

WATERBIRDS = "waterbirds"
CELL = (
    "dataset",
    "network",
    "attribution",
    "layer",
    "annotated_fraction",
    "variant",
    "loss",
    "setting",
)
"""What runs have in common that are averaged; ``setting`` is conventional or reversed."""
COLUMNS = ("result_id", "baseline", *CELL, "seed", "subset", "overall", "g3")
"""One row per training: ``baseline`` is the result id of the one that it is compared with; ``loss``
may be BASELINE, of which only result id, setting and the accuracies are read; ``overall`` and
``g3`` are accuracies on test, NaN where a training has not finished."""
FRACTION = 0.01
"""The share of training images whose boxes the paper uses."""
SETTINGS = ("conventional", "reversed")
GUIDED = ("energy", "l1")
ACCURACIES = {"overall": "overall", "g3": "G3"}
"""Over all images, and of waterbirds on land, which the paper calls the worst group."""
Numbers = tuple[float, float]
PUBLISHED: Mapping[tuple[str, str, str, str], tuple[Numbers, Numbers]] = {
    (BCOS, "input", "energy", "conventional"): ((71.2, 0.1), (56.1, 4.0)),
    (BCOS, "input", "l1", "conventional"): ((69.5, 0.2), (51.1, 1.9)),
    (BCOS, "final", "energy", "conventional"): ((71.1, 0.9), (53.1, 0.8)),
    (BCOS, "final", "l1", "conventional"): ((68.2, 1.1), (49.4, 2.6)),
    (XDNN, "input", "energy", "conventional"): ((73.1, 3.4), (49.2, 4.8)),
    (XDNN, "input", "l1", "conventional"): ((69.6, 3.2), (41.8, 3.8)),
    (XDNN, "final", "energy", "conventional"): ((71.9, 4.2), (54.2, 3.2)),
    (XDNN, "final", "l1", "conventional"): ((71.7, 1.4), (42.8, 2.8)),
    (VANILLA, "input", "energy", "conventional"): ((71.2, 1.0), (47.9, 3.5)),
    (VANILLA, "input", "l1", "conventional"): ((73.1, 1.6), (51.1, 4.0)),
    (VANILLA, "final", "energy", "conventional"): ((78.1, 2.6), (60.7, 5.5)),
    (VANILLA, "final", "l1", "conventional"): ((77.8, 1.0), (55.4, 2.5)),
    (BCOS, "input", "energy", "reversed"): ((83.6, 1.1), (62.8, 2.1)),
    (BCOS, "input", "l1", "reversed"): ((82.2, 0.9), (58.8, 5.0)),
    (BCOS, "final", "energy", "reversed"): ((83.2, 1.1), (60.2, 3.9)),
    (BCOS, "final", "l1", "reversed"): ((82.8, 0.8), (56.3, 1.8)),
    (XDNN, "input", "energy", "reversed"): ((82.6, 2.0), (63.9, 3.6)),
    (XDNN, "input", "l1", "reversed"): ((79.3, 1.3), (63.6, 6.1)),
    (XDNN, "final", "energy", "reversed"): ((81.5, 0.9), (62.3, 3.3)),
    (XDNN, "final", "l1", "reversed"): ((80.4, 1.8), (59.8, 4.8)),
    (VANILLA, "input", "energy", "reversed"): ((75.1, 2.9), (52.4, 1.7)),
    (VANILLA, "input", "l1", "reversed"): ((73.7, 2.7), (49.7, 3.7)),
    (VANILLA, "final", "energy", "reversed"): ((78.9, 1.9), (56.5, 3.7)),
    (VANILLA, "final", "l1", "reversed"): ((77.1, 2.5), (51.6, 3.1)),
}
"""Table C1: overall and G3, each mean and deviation over four runs, in percent."""
PUBLISHED_BASELINES: Mapping[tuple[str, str], tuple[Numbers, Numbers]] = {
    (BCOS, "conventional"): ((68.7, 0.2), (43.4, 2.4)),
    (XDNN, "conventional"): ((69.1, 0.6), (38.6, 2.5)),
    (VANILLA, "conventional"): ((70.8, 0.0), (53.7, 2.1)),
    (BCOS, "reversed"): ((80.1, 0.2), (56.6, 2.4)),
    (XDNN, "reversed"): ((79.6, 0.5), (61.4, 2.5)),
    (VANILLA, "reversed"): ((78.1, 0.1), (46.3, 2.1)),
}
"""Table C1: the baselines, over two runs."""


@dataclass(frozen=True)
class GuidanceUnlearnsPlaces(Finding):
    """R9; in the paper it bears no number."""

    id: ClassVar[str] = "R9"
    claim: ClassVar[str] = "Guidance helps on Waterbirds"
    says: ClassVar[str] = (
        "B-cos guided at the input, by Energy and by L1, with 1 % of the boxes, in the "
        "conventional and in the reversed setting: mean accuracy, overall and of waterbirds on "
        "land (G3), is above that of the baseline. The paper's 24 cells stand beside."
    )
    source: ClassVar[str] = "section 5.5, table 1; section C, table C1"

    def expected(self) -> list[Key]:
        return keys([WATERBIRDS], [BCOS], ["input"], self.whats())

    def whats(self) -> list[str]:
        """What the comparisons of one network and layer are called."""
        return [self.what(*part) for part in product(GUIDED, SETTINGS, ACCURACIES)]

    def what(self, loss: str, setting: str, accuracy: str) -> str:
        """What one comparison is called."""
        return f"{label(loss)} gains {ACCURACIES[accuracy]}, {setting}"

    def compare(self, evidence: Evidence) -> Iterator[Comparison]:
        rows = evidence.waterbirds
        if rows.empty:
            return
        guided = rows[rows["loss"] != BASELINE]
        for values, runs in guided.groupby(list(CELL), sort=False, dropna=False):
            cell: dict[str, Any] = dict(zip(CELL, values, strict=True))
            kind, layer = kind_of(cell["network"]), cell["layer"]
            loss, setting = cell["loss"], cell["setting"]
            same = (rows["loss"] == BASELINE) & (rows["setting"] == setting)
            own = rows[same & rows["result_id"].isin(runs["baseline"])]
            baselines = own.drop_duplicates("result_id")
            share = cell["annotated_fraction"]
            boxes = "" if share == FRACTION else f" ({100 * share:g} % annotated)"
            for accuracy in ACCURACIES:
                what = self.what(loss, setting, accuracy) + boxes
                yield against_baseline(
                    runs,
                    baselines,
                    accuracy,
                    key=Key(cell["dataset"], kind, layer, what),
                    published=published(kind, layer, loss, setting, accuracy),
                    decides=(kind, layer) == (BCOS, "input")
                    and loss in GUIDED
                    and is_paired(cell["network"], cell["attribution"]),
                )

    def note(self, comparisons: Sequence[Comparison]) -> str:
        """How many cells improve overall, beside the paper's 19 of 24."""
        overall = [c for c in comparisons if c.metric == "overall" and c.key.layer in ENDS]
        cells = [c for c in overall if c.key.kind in KINDS and c.verdict != UNDECIDED]
        better = sum(comparison.verdict == HOLDS for comparison in cells)
        there = sum(improves(*cell) for cell in PUBLISHED)
        return f"overall gains in {better} of {len(cells)} cells (paper: {there} of 24)"


def waterbirds_rows(outcomes: pd.DataFrame, trained: pd.DataFrame) -> pd.DataFrame:
    """COLUMNS from accuracies by group.

    Args:
        outcomes: one row per finished training, baselines (loss BASELINE) in each setting that
            something is guided in: result_id, ``baseline``, CELL, lambda_loc, seed,
            ``annotation_seed``, ``accuracy`` and ``accuracy_g3`` on test.
        trained: every guided training, whatever its status, without accuracies.
    """
    unfinished = trained[~trained["result_id"].isin(outcomes["result_id"])]
    rows = pd.concat([f for f in (outcomes, unfinished) if len(f)] or [outcomes], ignore_index=True)
    if rows.groupby("loss")["lambda_loc"].nunique().max() > 1:
        several = rows["lambda_loc"].map(lambda weight: f"lambda_loc={weight:g}")
        both = [
            ", ".join(filter(None, pair)) for pair in zip(rows["variant"], several, strict=True)
        ]
        rows = rows.assign(variant=both)
    names = {"annotation_seed": "subset", "accuracy": "overall", "accuracy_g3": "g3"}
    return rows.rename(columns=names).reindex(columns=list(COLUMNS))


def against_baseline(
    runs: pd.DataFrame,
    baselines: pd.DataFrame,
    accuracy: str,
    *,
    key: Key,
    published: str,
    decides: bool,
) -> Comparison:
    """Whether the mean over runs is above the mean over baselines; a missing run leaves it open.

    The deviation is that of the gains of runs, rows of one cell, each over its own baseline. These
    are there once each.
    """
    own, reference = runs[accuracy].astype(float), baselines[accuracy].astype(float)
    of_result = baselines.set_index("result_id")[accuracy].astype(float)
    gains = own - runs["baseline"].map(of_result).astype(float)
    effect, why = own.mean(skipna=False) - reference.mean(skipna=False), ""
    if own.isna().any():
        why = f"{own.isna().sum()} of {len(own)} runs missing"
    elif reference.isna().any() or not runs["baseline"].isin(baselines["result_id"]).all():
        why = "no baseline, or not all of them"
    return Comparison(
        key=key,
        metric=accuracy,
        verdict=UNDECIDED if why else HOLDS if effect > 0 else FAILS,
        why=why,
        network=str(runs["network"].iloc[0]),
        attribution=str(runs["attribution"].iloc[0]),
        variant=str(runs["variant"].iloc[0]),
        seeds=len(runs),
        value=float(own.mean()),
        against=float(reference.mean()),
        effect=NAN if math.isnan(effect) else float(effect),
        sd=float(np.std(gains, ddof=1)) if len(gains) > 1 else NAN,
        published=published,
        results=(*runs["result_id"], *baselines["result_id"]),
        decides=decides,
    )


def improves(kind: str, layer: str, loss: str, setting: str) -> bool:
    """Whether overall accuracy is above the baseline's in the paper's table."""
    guided = PUBLISHED[kind, layer, loss, setting][0][0]
    return guided > PUBLISHED_BASELINES[kind, setting][0][0]


def published(kind: str, layer: str, loss: str, setting: str, accuracy: str) -> str:
    """The paper's numbers of a cell beside those of its baseline; empty if it has none."""
    if (kind, layer, loss, setting) not in PUBLISHED:
        return ""
    index = list(ACCURACIES).index(accuracy)
    (mean, sd), (base, base_sd) = (
        numbers[index]
        for numbers in (PUBLISHED[kind, layer, loss, setting], PUBLISHED_BASELINES[kind, setting])
    )
    return f"{mean:.1f} ± {sd:.1f}, baseline {base:.1f} ± {base_sd:.1f}"
