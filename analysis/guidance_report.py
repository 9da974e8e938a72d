"""The report on model guidance: every frame it rests on, and the blocks that show them."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, fields

import pandas as pd

from analysis import guidance, tables
from analysis.choice import choices, summary, volumes
from analysis.document import Block, Heading, Interactive, Paragraph, Picture, Table
from analysis.findings.evidence import Evidence
from analysis.findings.guidance import verdicts
from analysis.findings_report import (
    PAPER,
    TITLE,
    finding_sentences,
    findings_blocks,
    findings_compact,
)
from analysis.guidance import SETTING, words
from analysis.interactive import interactive_front
from analysis.panel import heading, panel_columns, panel_figure, panel_reading, read_examples
from analysis.plots import front_figure, reading, sheets
from analysis.positive_control import positive_control
from analysis.runs import Runs
from analysis.sentences import (
    CONTROL,
    FRONTS,
    NO_FRONT,
    SUMMARY,
    control_sentence,
)


@dataclass(frozen=True)
class GuidanceFrames:
    """Everything that is computed from the runs; drawn and printed elsewhere."""

    guided: pd.DataFrame
    candidates: pd.DataFrame
    references: pd.DataFrame
    front: pd.DataFrame
    choices: pd.DataFrame
    summary: pd.DataFrame
    control: pd.DataFrame
    findings: pd.DataFrame
    comparisons: pd.DataFrame

    @classmethod
    def of(cls, runs: Runs) -> GuidanceFrames:
        """All frames of these runs."""
        guided, candidates = guidance.guided(runs), guidance.candidates(runs)
        references = guidance.references(runs)
        front = guidance.front(candidates)
        chosen = choices(front, references)
        judged, comparisons = verdicts(Evidence.of(guided, candidates, references))
        return cls(
            guided=guided,
            candidates=candidates,
            references=references,
            front=front,
            choices=chosen,
            summary=summary(chosen, volumes(front), references),
            control=positive_control(candidates, references),
            findings=judged,
            comparisons=comparisons,
        )

    def csvs(self) -> dict[str, pd.DataFrame]:
        """The frames by the names of their files."""
        return {
            f"guidance_{f.name}": getattr(self, f.name) for f in fields(self) if f.name != "guided"
        }

    def blocks(self, runs: Runs) -> list[Block]:
        """The sections on guidance, in the order of the questions a reader asks."""
        if self.candidates.empty:
            return []
        return [
            Heading("Fronts"),
            *_fronts(self),
            Heading("What each loss reaches"),
            Paragraph(SUMMARY),
            Table(tables.summary_table(self.summary)),
            Heading("Does guidance move what it guides?"),
            Paragraph(CONTROL),
            Table(tables.control_table(self.control)),
            *findings_blocks(self.findings, self.comparisons),
            *_panels(runs, self),
            Heading("Every Pareto-dominant model"),
            Paragraph(FRONTS),
            Table(
                tables.fronts_table(self.front, self.references),
                folded=f"{len(self.front)} models of {len(self.candidates)} epochs",
            ),
        ]

    def terminal(self) -> str:
        """The tables of the report for a terminal of 100 columns."""
        if self.candidates.empty:
            return ""
        parts = [
            ("Pareto-dominant models", FRONTS, tables.fronts_table(self.front, self.references)),
            ("What each loss reaches", SUMMARY, tables.summary_table(self.summary)),
            ("Does guidance move what it guides?", CONTROL, tables.control_table(self.control)),
            (TITLE, PAPER, findings_compact(self.findings)),
        ]
        texts = [
            "\n".join([title.upper(), textwrap.fill(note, tables.WIDTH), "", tables.text(table)])
            for title, note, table in parts
        ]
        return "\n\n".join(texts)

    def short_lines(self) -> list[str]:
        """What follows, a sentence each: the positive control and the paper's findings."""
        if self.candidates.empty:
            return [NO_FRONT]
        return [control_sentence(self.control), *finding_sentences(self.findings)]


def _fronts(frames: GuidanceFrames) -> list[Block]:
    found: list[Block] = []
    for name, settings in sheets(frames.candidates).items():
        caption = reading(settings, frames.choices, frames.references)
        drawn = (settings, frames.candidates, frames.front, frames.references)
        found.append(Picture(front_figure(*drawn, caption), name, caption))
        hint = (
            "The same to explore: hover for the run behind a mark, click the legend to hide a loss."
        )
        found.append(Interactive(interactive_front(*drawn), f"interactive_{name}", hint))
    return found


def _panels(runs: Runs, frames: GuidanceFrames) -> list[Block]:
    """One picture per setting whose results kept example maps."""
    columns = panel_columns(frames.candidates, frames.references)
    found: list[Block] = []
    for values, part in columns.groupby(list(SETTING), sort=False):
        loaded = [
            (heading(row), read_examples(runs, row["result_id"])) for _, row in part.iterrows()
        ]
        shown = [(title, examples) for title, examples in loaded if examples is not None]
        if shown:
            caption = panel_reading(shown)
            said = words(dict(zip(SETTING, values, strict=True)))
            setting = " · ".join(filter(None, said.values()))
            title = f"{setting} · seed {part['seed'].iloc[0]}"
            name = "_".join(["maps", *re.findall(r"\w+", setting)])
            found.append(Picture(panel_figure(shown, title, caption), name, caption))
    return [Heading("Example maps"), *found] if found else []
