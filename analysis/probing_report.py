"""The report on probes: what loss and depth do to accuracy and to maps, and the controls."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pandas as pd

from analysis import probing_summary, probing_tables, tables
from analysis.document import Block, Heading, Paragraph, Picture, Table
from analysis.findings.probe_controls import dead_maps
from analysis.findings.probe_evidence import ProbeEvidence
from analysis.findings.probe_gauge import gauges, shifts
from analysis.findings.probing import probe_verdicts
from analysis.probing import BCE, BCE_UNIFORM, CE, OWN_HEAD, UNTRAINED
from analysis.probing_plots import arrows_figure, depth_figure
from analysis.probing_sentences import (
    ACCURACIES,
    DEAD,
    DEPTH,
    GAUGE,
    LOSSES,
    NOTHING,
    PAPER,
    SHIFT,
    arrows_reading,
    depth_reading,
    finding_sentences,
)
from analysis.runs import Runs


@dataclass(frozen=True)
class ProbingFrames:
    """Everything that is computed from probes, and how it is shown."""

    accuracies: pd.DataFrame
    references: pd.DataFrame
    values: pd.DataFrame
    """Every mean that evaluations logged, with what each is of."""
    depth: pd.DataFrame
    gauges: pd.DataFrame
    shifts: pd.DataFrame
    dead: pd.DataFrame
    arrows: pd.DataFrame
    findings: pd.DataFrame
    contrasts: pd.DataFrame

    @classmethod
    def of(cls, runs: Runs) -> ProbingFrames:
        """All frames of these runs."""
        evidence = ProbeEvidence.of(runs)
        findings, contrasts = probe_verdicts(evidence)
        described = evidence.evaluated.drop(columns=["status", "kind"])
        return cls(
            accuracies=probing_summary.accuracies(evidence),
            references=probing_summary.references(evidence),
            values=evidence.values.merge(described, on="result_id", how="left"),
            depth=probing_summary.depth_rows(evidence),
            gauges=gauges(evidence),
            shifts=shifts(evidence),
            dead=dead_maps(evidence),
            arrows=probing_summary.arrows(evidence),
            findings=findings,
            contrasts=contrasts,
        )

    @property
    def empty(self) -> bool:
        """Whether no probe has finished."""
        return bool(self.accuracies.filter(like="_mean").isna().all(axis=None))

    @property
    def losses(self) -> pd.DataFrame:
        """The comparisons of P1 and P9."""
        return self.contrasts[self.contrasts["finding"].isin(["P1", "P9"])]

    def csvs(self) -> dict[str, pd.DataFrame]:
        """The frames by the names of their files."""
        return {
            "probing_accuracies": pd.concat([self.accuracies, self.references]),
            "probing_values": self.values,
            "probing_depth": self.depth,
            "probing_gauges": self.gauges,
            "probing_shifts": self.shifts,
            "probing_dead_maps": self.dead,
            "probing_findings": self.findings,
            "probing_comparisons": self.contrasts,
        }

    def blocks(self, runs: Runs) -> list[Block]:
        """The sections, in the order of the questions a reader asks."""
        if self.empty:
            return []
        found: list[Block] = [Heading("What the paper says (P1-P10)"), Paragraph(PAPER)]
        found.append(Table(probing_tables.findings_table(self.findings)))
        sentences = self.findings[["id", "says", "source"]]
        count = len(self.contrasts)
        found.append(Table(sentences, folded="The sentences in full"))
        if count:
            all_of_them = probing_tables.contrasts_table(self.contrasts)
            found.append(Table(all_of_them, folded=f"All {count} comparisons"))
        for title, note, table in self._sections():
            found += [Heading(title), Paragraph(note), Table(table)]
        if len(self.arrows):
            caption = arrows_reading(self.arrows)
            found.append(Picture(arrows_figure(self.arrows, caption), "probing_losses", caption))
        deep = self._deep()
        if len(deep):
            caption = depth_reading(deep)
            found.append(Picture(depth_figure(deep, caption), "probing_depth", caption))
        return found

    def terminal(self) -> str:
        """The tables for a terminal of 100 columns; what the paper says stands last."""
        if self.empty:
            return ""
        parts = []
        for title, note, table in self._sections(compact=True):
            parts += [f"{title.upper()}\n{textwrap.fill(note, tables.WIDTH)}", tables.text(table)]
        parts.append(f"WHAT THE PAPER SAYS (P1-P10)\n{textwrap.fill(PAPER, tables.WIDTH)}")
        parts.append(tables.text(probing_tables.findings_compact(self.findings)))
        return "\n\n".join(parts)

    def short_lines(self) -> list[str]:
        """What follows, a sentence each."""
        if self.empty:
            return [NOTHING]
        rows = self.accuracies[self.accuracies["pretraining"] != UNTRAINED]
        probes = int(rows.filter(like="_mean").notna().to_numpy().sum())
        above = int((rows.filter(like="_exceeds") == "yes").to_numpy().sum())
        control = (
            f"Controls: {above} of {probes} probes on trained backbones exceed the same probe on "
            "the untrained one; the others are not read."
        )
        return [control, *finding_sentences(self.findings)]

    def _sections(self, compact: bool = False) -> list[tuple[str, str, pd.DataFrame]]:
        """Titles, notes and tables; a compact table fits 100 columns."""
        every = pd.concat([self.accuracies, self.references]) if len(self.references) else None
        rows = self.accuracies if every is None else every
        rows = rows.sort_values(["dataset", "backbone", "variant"], kind="stable")
        marks = {f"{loss}_exceeds": "" for loss in (CE, BCE, BCE_UNIFORM)}
        rows = rows.fillna({**marks, "published": ""})
        found = [("Accuracy of the probes", ACCURACIES, probing_tables.accuracy_table(rows))]
        losses = self.losses
        if compact:
            linear = losses["probe"].str.fullmatch(r"conventional(?!.*_l\d).*")
            losses = losses[linear | (losses["probe"] == OWN_HEAD)]
        if len(losses):
            table = probing_tables.loss_table(losses)
            if compact:
                table = table.drop(columns=["probe", "Δ 1/C (95 %)"])
            found.append(("GridPG from CE to BCE", LOSSES, table))
        if len(self.gauges):
            found.append(("The gauge", GAUGE, probing_tables.gauge_table(self.gauges)))
        if len(self.shifts):
            found.append(("A common shift", SHIFT, probing_tables.shift_table(self.shifts)))
        depth = self._deep() if compact else self.depth
        if len(depth):
            found.append(("Layers of the probe", DEPTH, probing_tables.depth_table(depth)))
        if len(self.dead):
            found.append(("Dead maps", DEAD, probing_tables.dead_table(self.dead)))
        return found

    def _deep(self) -> pd.DataFrame:
        """What the figure by depth shows: probes by BCE, by CE where there are no others."""
        rows = self.depth
        for loss in (BCE, BCE_UNIFORM, CE):
            if (rows["loss"] == loss).any():
                rows = rows[rows["loss"] == loss]
                break
        place = rows["backbone"] + " · " + rows["pretraining"]
        several = rows["dataset"].nunique() > 1
        return rows.assign(panel=place + " · " + rows["dataset"] if several else place)
