"""The report on pre-trained backbones: what their nearest neighbours know."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pandas as pd

from analysis import neighbors, tables
from analysis.document import Block, Heading, Paragraph, Picture, Table
from analysis.probing_plots import learning_figure
from analysis.runs import Runs
from analysis.tables import NONE, number, percent

NEIGHBORS = (
    "Accuracy in percent of nearest neighbours among the features of the training images, on "
    "validation, with Wilson's 95 % interval over images, beside that of the same network without "
    "training. Nothing is trained for it: it says what a backbone knows before any probe."
)
NOTHING = "No backbone has been judged by its neighbours: there is nothing to compare."


@dataclass(frozen=True)
class PretrainingFrames:
    """Everything that is computed from pre-trainings, and how it is shown."""

    judged: pd.DataFrame
    learning: pd.DataFrame

    @classmethod
    def of(cls, runs: Runs) -> PretrainingFrames:
        """All frames of these runs."""
        return cls(neighbors.judged(runs), neighbors.learning(runs))

    @property
    def known(self) -> pd.DataFrame:
        """The backbones with a number."""
        return self.judged[self.judged["knn"].notna()]

    def csvs(self) -> dict[str, pd.DataFrame]:
        """The frames by the names of their files."""
        return {"pretraining_neighbors": self.judged, "pretraining_epochs": self.learning}

    def blocks(self, runs: Runs) -> list[Block]:
        """The table and the curves."""
        if self.known.empty:
            return []
        table = neighbors_table(self.known)
        found: list[Block] = [Heading("What backbones know"), Paragraph(NEIGHBORS), Table(table)]
        if len(self.learning):
            caption = " ".join(self.short_lines())
            drawn = learning_figure(self.learning, caption)
            found.append(Picture(drawn, "pretraining_neighbors", caption))
        return found

    def terminal(self) -> str:
        """The table for a terminal of 100 columns."""
        if self.known.empty:
            return ""
        table = tables.text(neighbors_table(self.known))
        return f"WHAT BACKBONES KNOW\n{textwrap.fill(NEIGHBORS, tables.WIDTH)}\n\n{table}"

    def short_lines(self) -> list[str]:
        """Which backbones know more than the untrained network, a sentence for each network."""
        if self.known.empty:
            return [NOTHING]
        lines = []
        for key, part in self.known.groupby(["dataset", "backbone"], sort=False):
            trained = part[part["pretraining"] != "none"]
            said = [
                f"{name} {percent(rows['knn'].mean())}"
                for name, rows in trained.groupby("pretraining", sort=False)
            ]
            above = sum(one is True for one in trained["exceeds"])
            lines.append(
                f"Neighbours of {key[1]} on {key[0]}: {', '.join(said) or 'nothing trained'}; "
                f"untrained {percent(part['untrained'].mean())}; {above} of {len(trained)} are "
                "above the untrained network's interval."
            )
        return lines


def neighbors_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of nearest neighbours of each backbone, beside the untrained network's."""
    ends = zip(judged["low"], judged["high"], strict=True)
    limits = zip(judged["untrained"], judged["untrained_high"], strict=True)
    return pd.DataFrame(
        {
            "setting": [f"{r['dataset']} · {r['backbone']}" for r in judged.to_dict("records")],
            "pre-training": judged["pretraining"],
            "seed": judged["seed"],
            "epochs": judged["epochs"].map(number),
            "kNN": judged["knn"].map(percent),
            "95 %": [NONE if pd.isna(a) else f"{percent(a)} to {percent(b)}" for a, b in ends],
            "untrained": [
                percent(v) if pd.isna(top) else f"{percent(v)} (to {percent(top)})"
                for v, top in limits
            ],
            "above it": judged["exceeds"].map({True: "yes", False: "no"}).fillna(NONE),
        }
    )
