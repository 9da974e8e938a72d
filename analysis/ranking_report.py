"""The report on rankings of methods: every frame it rests on, and the blocks that show them."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import ranking_tables, tables
from analysis.document import Block, Heading, Paragraph, Picture, Table
from analysis.panel import Examples, panel_figure, panel_reading, read_examples
from analysis.ranking import Ranking, agreement, beside_paper, paper_order, rankings
from analysis.ranking_plots import curves_figure, ranking_figure
from analysis.ranking_sentences import (
    AGREEMENT,
    CURVES,
    NO_RANKING,
    PAPER,
    PAPER_ORDER,
    RANKINGS,
    STAR,
    agreement_sentence,
    reading,
)
from analysis.runs import Runs
from analysis.scores import evaluated, read_curves, read_scores

PANEL_COLUMNS = 8
"""Methods side by side in one picture of maps."""
HEADING_WIDTH = 20
"""Characters that fit above a map."""


@dataclass(frozen=True)
class RankingFrames:
    """Everything that is computed from the runs; drawn and printed elsewhere."""

    evaluated: pd.DataFrame
    rankings: list[Ranking]
    agreement: pd.DataFrame
    curves: pd.DataFrame
    paper: pd.DataFrame
    paper_order: pd.DataFrame
    notes: list[str]
    """A sentence for each thing that was left out."""

    @classmethod
    def of(cls, runs: Runs) -> RankingFrames:
        """All frames of these runs."""
        rows = evaluated(runs)
        scores, notes = read_scores(runs, rows)
        found = rankings(scores)
        beside = beside_paper(found, rows)
        return cls(
            evaluated=rows,
            rankings=found,
            agreement=agreement(found),
            curves=read_curves(runs, rows, scores),
            paper=beside,
            paper_order=paper_order(found, beside),
            notes=notes,
        )

    def csvs(self) -> dict[str, pd.DataFrame]:
        """The frames by the names of their files."""
        parts = {
            "ranking": [r.methods for r in self.rankings],
            "ranking_pairs": [r.pairs for r in self.rankings],
        }
        found = {name: pd.concat(part) for name, part in parts.items() if part}
        return found | {
            "ranking_agreement": self.agreement,
            "ranking_curves": self.curves,
            "ranking_paper": self.paper,
            "ranking_paper_order": self.paper_order,
        }

    def blocks(self, runs: Runs) -> list[Block]:
        """The sections on rankings, in the order of the questions a reader asks."""
        if not self.rankings:
            return []
        named = ranking_tables.names_table(self.rankings)
        found: list[Block] = [Heading("Rankings"), Paragraph(RANKINGS), *map(Paragraph, self.notes)]
        if len(named):
            found += [Paragraph(STAR), Table(named, folded="Which key each name stands for")]
        for ranking in self.rankings:
            found += self._blocks_of(ranking)
        if len(self.agreement):
            pairs = ranking_tables.agreement_pairs_table(self.agreement)
            matrices = ranking_tables.agreement_tables(self.agreement)
            found += [Heading("Do the protocols agree?"), Paragraph(AGREEMENT)]
            found += [Table(matrix) for matrix in matrices]
            found.append(Table(pairs, folded="Every two protocols with their intervals"))
        return [*found, *self._paper(), *self._panels(runs)]

    def terminal(self) -> str:
        """The tables of the report for a terminal of 100 columns."""
        if not self.rankings:
            return ""
        shown = [tables.text(ranking_tables.ranking_table(r)) for r in self.rankings]
        starred = [STAR] if len(ranking_tables.names_table(self.rankings)) else []
        notes = [textwrap.fill(line, tables.WIDTH) for line in (RANKINGS, *starred, *self.notes)]
        parts = ["\n".join(["RANKINGS", *notes]), *shown]
        if len(self.agreement):
            matrices = map(tables.text, ranking_tables.agreement_tables(self.agreement))
            parts += [_titled("Do the protocols agree?", AGREEMENT), *matrices]
        for block in self._paper():
            match block:
                case Heading(text):
                    parts.append(text.upper())
                case Paragraph(text):
                    parts.append(textwrap.fill(text, tables.WIDTH))
                case Table(frame):
                    parts.append(tables.text(frame))
        return "\n\n".join(parts)

    def short_lines(self) -> list[str]:
        """What follows, a sentence each: who leads each ranking, and whether protocols agree."""
        if not self.rankings:
            return [NO_RANKING, *self.notes]
        settings = list(dict.fromkeys(r.setting for r in self.rankings))
        lines = []
        for setting in settings:
            where = f" ({setting})" if len(settings) > 1 else ""
            here = [r for r in self.rankings if r.setting == setting]
            lines += [f"{r.protocol}{where}: {reading(r)}" for r in here]
            said = agreement_sentence(setting, self.agreement)
            lines += [said.replace(":", f"{where}:", 1)] if said else []
        return lines

    def _blocks_of(self, ranking: Ranking) -> list[Block]:
        """The table of one ranking, its figure, and the curves behind it."""
        caption, name = reading(ranking), self._name(ranking)
        title = ranking_tables.title_of(ranking)
        found: list[Block] = [
            Picture(ranking_figure(ranking, title, caption), f"ranking_{name}", caption),
            Table(ranking_tables.ranking_table(ranking)),
        ]
        rows = self.curves
        rows = rows[(rows["setting"] == ranking.setting) & (rows["protocol"] == ranking.protocol)]
        if len(rows):
            drawn = curves_figure(ranking, rows, title, CURVES)
            found.append(Picture(drawn, f"curves_{name}", CURVES))
        return found

    def _name(self, ranking: Ranking) -> str:
        """What the files of a ranking are called: its protocol, and the setting if need be."""
        several = len({r.setting for r in self.rankings}) > 1
        words = [ranking.protocol, *(re.findall(r"\w+", ranking.setting) if several else [])]
        return "_".join(words)

    def _paper(self) -> list[Block]:
        """The paper's numbers, where they may stand beside ours, else how far the order agrees."""
        found: list[Block] = []
        if self.paper["comparable"].any():
            found += [Paragraph(PAPER), Table(ranking_tables.paper_table(self.paper))]
        if len(self.paper_order):
            order = ranking_tables.paper_order_table(self.paper_order)
            found += [Paragraph(PAPER_ORDER), Table(order)]
        return [Heading("Beside the paper"), *found] if found else []

    def _panels(self, runs: Runs) -> list[Block]:
        """Pictures of the maps that results kept, of each setting's first ranking, best first."""
        found: list[Block] = []
        seen: set[str] = set()
        for ranking in self.rankings:
            if ranking.setting in seen:
                continue
            seen.add(ranking.setting)
            loaded = [
                (row["label"], read_examples(runs, row["result_id"]))
                for _, row in ranking.methods.iterrows()
            ]
            shown = _of_equal_images([(t, e) for t, e in loaded if e is not None])
            for first in range(0, len(shown), PANEL_COLUMNS):
                columns = shown[first : first + PANEL_COLUMNS]
                caption = panel_reading(columns)
                title = f"{ranking.setting} · in the order of {ranking.protocol}"
                words = ["maps", *re.findall(r"\w+", ranking.setting)]
                name = "_".join([*words, str(first // PANEL_COLUMNS + 1)])
                headed = [(_heading(label), examples) for label, examples in columns]
                found.append(Picture(panel_figure(headed, title, caption), name, caption))
        return [Heading("Example maps"), *found] if found else []


def _heading(label: str) -> str:
    """A name broken at its underscores, to fit above a map."""
    lines = [""]
    for word in re.findall(r"[^_]+_?", label):
        if len(lines[-1]) + len(word) > HEADING_WIDTH and lines[-1]:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)


def _of_equal_images(columns: list[tuple[str, Examples]]) -> list[tuple[str, Examples]]:
    """The columns that show the same images as the first."""
    return [
        (title, found)
        for title, found in columns
        if np.array_equal(found.image_ids, columns[0][1].image_ids)
        and found.names == columns[0][1].names
    ]


def _titled(title: str, note: str) -> str:
    return "\n".join([title.upper(), textwrap.fill(note, tables.WIDTH)])
