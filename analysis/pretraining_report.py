"""The report on pre-trained backbones: what their nearest neighbours know, beside no training."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pandas as pd

from analysis import tables
from analysis.document import Block, Heading, Paragraph, Table
from analysis.runs import Runs

EVALUATION = "knn_evaluation"
"""Kind of runs: the nearest neighbours of a backbone's features."""
UNTRAINED = "none"
PLACE = ("dataset", "backbone", "seed")
"""What a backbone and the untrained one that it is compared with share."""
TITLE = "What nearest neighbours know"
ABOUT = (
    "Accuracy in percent on validation images of a vote of the 20 nearest training images, by the "
    "features that probes get, and in brackets the points above the same network without training; "
    "means ± standard deviations over seeds."
)
NOTHING = "No backbone has been judged by its neighbours: there is nothing to compare."


def neighbors(runs: Runs) -> pd.DataFrame:
    """Accuracy of the nearest neighbours of every finished backbone.

    Returns:
        Columns result_id, PLACE, ``pretraining``, ``knn_accuracy``, and ``gain`` over the
        untrained backbone of its place (NaN without one, and for that one itself).
    """
    rows = runs.finished[runs.finished["kind"] == EVALUATION]
    values = runs.history[runs.history["metric"] == "knn_accuracy"]
    values = values.rename(columns={"value": "knn_accuracy"})[["result_id", "knn_accuracy"]]
    names = {"data.name": "dataset", "tag.backbone": "backbone", "tag.pretraining": "pretraining"}
    found = rows.rename(columns=names).reindex(columns=["result_id", *PLACE, "pretraining"])
    found["seed"] = pd.to_numeric(found["seed"]).fillna(0).astype(int)
    found = found.merge(values, on="result_id", how="inner")
    before = found[found["pretraining"] == UNTRAINED].set_index(list(PLACE))["knn_accuracy"]
    of_place = pd.MultiIndex.from_frame(found[list(PLACE)])
    found["gain"] = found["knn_accuracy"] - before.reindex(of_place).to_numpy()
    found.loc[found["pretraining"] == UNTRAINED, "gain"] = float("nan")
    return found.sort_values([*PLACE, "pretraining"], ignore_index=True)


def neighbors_table(found: pd.DataFrame) -> pd.DataFrame:
    """A row for each network, a column for each pre-training, the untrained one first."""
    rows = []
    for (dataset, backbone), group in found.groupby(["dataset", "backbone"], sort=True):
        row = {"data": dataset, "network": backbone, "untrained": tables.NONE}
        for name, runs in group.groupby("pretraining", sort=True):
            text = tables.mean_and_sd(runs["knn_accuracy"].mean(), runs["knn_accuracy"].std())
            if name == UNTRAINED:
                row["untrained"] = text
                continue
            gain = runs["gain"].mean()
            row[str(name)] = text if pd.isna(gain) else f"{text} ({100 * gain:+.1f})"
        rows.append(row)
    return pd.DataFrame(rows).fillna(tables.NONE)


@dataclass(frozen=True)
class PretrainingFrames:
    """Everything that is computed from judged backbones, and how it is shown."""

    neighbors: pd.DataFrame

    @classmethod
    def of(cls, runs: Runs) -> PretrainingFrames:
        """All frames of these runs."""
        return cls(neighbors(runs))

    def csvs(self) -> dict[str, pd.DataFrame]:
        """The frames by the names of their files."""
        return {"pretraining_neighbors": self.neighbors}

    def blocks(self, runs: Runs) -> list[Block]:
        """The table."""
        if self.neighbors.empty:
            return []
        return [Heading(TITLE), Paragraph(ABOUT), Table(neighbors_table(self.neighbors))]

    def terminal(self) -> str:
        """The table for a terminal of 100 columns."""
        if self.neighbors.empty:
            return ""
        table = tables.text(neighbors_table(self.neighbors))
        return "\n\n".join([TITLE.upper(), table, textwrap.fill(ABOUT, tables.WIDTH)])

    def short_lines(self) -> list[str]:
        """The best of each network, a sentence each."""
        if self.neighbors.empty:
            return [NOTHING]
        lines = []
        for backbone, group in self.neighbors.groupby("backbone", sort=True):
            means = group.groupby("pretraining")[["knn_accuracy", "gain"]].mean()
            trained = means.drop(index=UNTRAINED, errors="ignore")
            if trained.empty:
                continue
            best, least = trained["knn_accuracy"].idxmax(), trained["gain"].min()
            told = f"{100 * trained.loc[best, 'knn_accuracy']:.1f} %"
            gains = (
                "" if pd.isna(least) else f"; least gain over no training {100 * least:+.1f} points"
            )
            lines.append(f"Neighbours in {backbone}: {best} knows most ({told}){gains}.")
        return lines or [NOTHING]
