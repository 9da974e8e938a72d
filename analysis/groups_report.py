"""The report on group trainings: accuracy by group, with and without guidance."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analysis import groups, tables
from analysis.document import Block, Heading, Paragraph, Picture, Table
from analysis.findings.guidance import waterbirds_verdicts
from analysis.findings_report import finding_sentences, findings_blocks
from analysis.groups import ACCURACIES, BASELINE, PLACE
from analysis.panel import panel_figure, panel_reading, read_examples
from analysis.runs import Runs

GROUPS = (
    "Test accuracy in percent, mean ± standard deviation over seeds x drawings of the annotated "
    "images; the baseline, which uses no boxes, over seeds. G1 landbirds on land, G2 landbirds on "
    "water, G3 waterbirds on land, G4 waterbirds on water; training and validation hold G1 and G4 "
    "alone. Least: the mean over runs of each run's worst group, where the paper always means G3. "
    "EPG and IoU (at the baseline's tuned threshold) are about the box where birds are labelled, "
    "and about all but the box where places are. The baseline is the same networks in both "
    "settings: what it gets wrong about the bird it gets right about the place."
)
NOTHING = "No guided group training has finished: there is nothing to compare."
MAPS = {"epg": "EPG", "box_iou_tuned": "IoU"}
TITLES = {**ACCURACIES, **MAPS}
"""Values and what tables call them."""
SHOWN = ("accuracy", "accuracy_g3", "accuracy_worst")
"""Accuracies whose gain is told in a sentence."""


@dataclass(frozen=True)
class GroupFrames:
    """Everything that is computed from group trainings, and how it is shown."""

    outcomes: pd.DataFrame
    cells: pd.DataFrame
    findings: pd.DataFrame
    comparisons: pd.DataFrame

    @classmethod
    def of(cls, runs: Runs) -> GroupFrames:
        """All frames of these runs."""
        outcomes = groups.outcomes(runs)
        findings, comparisons = waterbirds_verdicts(outcomes, groups.trained(runs))
        return cls(outcomes, groups.cells(outcomes), findings, comparisons)

    @property
    def guided(self) -> pd.DataFrame:
        """The cells with a loss."""
        return self.cells[self.cells["loss"] != BASELINE]

    def csvs(self) -> dict[str, pd.DataFrame]:
        """The frames by the names of their files."""
        return {
            "group_outcomes": self.outcomes,
            "group_cells": self.cells,
            "group_findings": self.findings,
            "group_comparisons": self.comparisons,
        }

    def blocks(self, runs: Runs) -> list[Block]:
        """The table by groups, every run, and maps."""
        if self.guided.empty:
            return []
        return [
            Heading("Accuracy by group"),
            Paragraph(GROUPS),
            Table(cells_table(self.cells)),
            Table(outcomes_table(self.outcomes), folded=f"{len(self.outcomes)} runs"),
            *findings_blocks(self.findings, self.comparisons),
            *_panels(runs, self.outcomes),
        ]

    def terminal(self) -> str:
        """The table for a terminal of 100 columns."""
        if self.guided.empty:
            return ""
        shown = (("ACCURACY BY GROUP", ACCURACIES), ("WHERE THE MAPS LIE", MAPS))
        texts = [f"{t}\n\n{tables.text(cells_table(self.cells, titles))}" for t, titles in shown]
        return "\n\n".join([textwrap.fill(GROUPS, tables.WIDTH), *texts])

    def short_lines(self) -> list[str]:
        """What guidance does to each accuracy, a sentence each."""
        if self.guided.empty:
            return [NOTHING]
        gains = [gain_sentence(self.guided, key) for key in SHOWN]
        return [*gains, *finding_sentences(self.findings)]


def cells_table(cells: pd.DataFrame, titles: Mapping[str, str] = TITLES) -> pd.DataFrame:
    """Every cell below its baseline: mean ± sd in percent.

    Args:
        cells: as ``groups.cells`` returns them.
        titles: which values are shown, and what they are called.
    """
    table = pd.DataFrame(
        {
            "setting": _titles(cells),
            "loss": _losses(cells),
            "boxes": [tables.percent(share, 0) for share in cells["annotated_fraction"]],
            "runs": cells["runs"].map(tables.number),
        }
    )
    for key, title in titles.items():
        columns = zip(cells[f"{key}_mean"], cells[f"{key}_sd"], strict=True)
        table[title] = [tables.mean_and_sd(mean, sd) for mean, sd in columns]
    return table


def outcomes_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Every run, in percent."""
    table = pd.DataFrame(
        {
            "setting": _titles(outcomes),
            "loss": _losses(outcomes),
            "seed": outcomes["seed"].map(tables.number),
            "drawing": outcomes["annotation_seed"].map(tables.number),
        }
    )
    for key, title in TITLES.items():
        table[title] = outcomes[key].map(tables.percent)
    return table


def gain_sentence(guided: pd.DataFrame, key: str) -> str:
    """In how many cells an accuracy rises above the baseline's, and where by how much."""
    gains = guided[f"{key}_gain"]
    each = [
        f"{row['setting']} {row['layer']} {row['loss']} {_points(row[f'{key}_gain'])}"
        + (f" ({row['network']})" if guided["network"].nunique() > 1 else "")
        for row in guided.to_dict("records")
    ]
    what = {"accuracy": "Overall accuracy", "accuracy_worst": "Accuracy of the worst group"}
    return (
        f"{what.get(key, f'Accuracy of {ACCURACIES[key]}')} is above the baseline's in "
        f"{int((gains > 0).sum())} of {len(guided)} cells; points of difference: {'; '.join(each)}."
    )


def _points(gain: float) -> str:
    return tables.NONE if pd.isna(gain) else f"{100 * gain:+.1f}"


def _titles(rows: pd.DataFrame) -> list[str]:
    names = [name for name in PLACE if name != "setting"]
    where = ("setting", *names)
    return [
        " · ".join(str(row[n]) for n in where if row[n] != "") for row in rows.to_dict("records")
    ]


def _losses(rows: pd.DataFrame) -> list[str]:
    """The loss, with its lambda where a title has several."""
    several = rows["lambda_loc"].nunique() > 1
    pairs = zip(rows["loss"], rows["lambda_loc"], strict=True)
    return [
        f"{loss} {weight:g}" if several and weight == weight else loss for loss, weight in pairs
    ]


def _panels(runs: Runs, outcomes: pd.DataFrame) -> list[Block]:
    """One picture per setting and layer: the baseline's maps beside each loss's, of one seed."""
    evaluation_of = groups.trained(runs).set_index("result_id")["evaluation"]
    found: list[Block] = []
    for _, part in outcomes.groupby(list(PLACE), sort=False):
        guided = part[(part["loss"] != BASELINE) & (part["seed"] == part["seed"].min())]
        guided = guided.groupby(["loss", "lambda_loc"], sort=False).head(1)
        if guided.empty:
            continue
        shown = [(BASELINE, evaluation_of[guided["result_id"].iloc[0]])]
        shown += list(zip(_losses(guided), guided["result_id"], strict=True))
        loaded = [(title, read_examples(runs, result_id)) for title, result_id in shown]
        columns = [(title, examples) for title, examples in loaded if examples is not None]
        if columns:
            title = f"{_titles(guided)[0]} · seed {guided['seed'].iloc[0]}"
            caption = panel_reading(columns)
            name = "_".join(["maps", *re.findall(r"\w+", _titles(guided)[0])])
            found.append(Picture(panel_figure(columns, title, caption), name, caption))
    return [Heading("Example maps"), *found] if found else []
