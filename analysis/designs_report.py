"""The report on network designs: fine-tuned networks, their scores, and findings I1 to I11."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pandas as pd

from analysis import designs_tables as shown
from analysis import tables
from analysis.designs_plots import CHANNELS, best_figure, best_reading, channels_figure
from analysis.document import Block, Heading, Paragraph, Picture, Table
from analysis.findings.design_evidence import DesignEvidence
from analysis.findings.designs import accuracy_against_best, design_verdicts
from analysis.runs import Runs

NETWORKS = (
    "Before / after fine-tuning with deleted patches, in percent: accuracy on whole images, and "
    "with whichever patch deleted. A network is in domain if the latter rose and the former fell "
    "by one point at most; otherwise its score is an SDS. MAD: mean absolute difference of the "
    "class's probability and of Grad-CAM (scaled to [0, 1]) between the two networks; top 9: share "
    "of the images that excite a channel most which both networks have. An unrelated pair of "
    "networks is the yardstick."
)
SCORES = "Mean in-domain single deletion score in hundredths, of logits; a column a network."
FINDINGS = (
    "IDSDS (Hesse et al., 2024): a network is better than another if most of the methods that suit "
    "both score higher on it, each with its interval over shared images. Networks that are not in "
    "domain leave a comparison open."
)
AGREEMENT = "Spearman's correlation over methods, between protocols; the paper's of ResNet-50."
STABILITY = "Spearman's correlation over methods, between grids, baselines and seeds."
NOTHING = "No network has been fine-tuned and judged: there is nothing to compare."


@dataclass(frozen=True)
class DesignFrames:
    """Everything that is computed from the runs; drawn and printed elsewhere."""

    evidence: DesignEvidence
    networks: pd.DataFrame
    scores: pd.DataFrame
    best: pd.DataFrame
    agreement: pd.DataFrame
    stability: pd.DataFrame
    findings: pd.DataFrame
    contrasts: pd.DataFrame

    @classmethod
    def of(cls, runs: Runs) -> DesignFrames:
        """All frames of these runs."""
        evidence = DesignEvidence.of(runs)
        findings, contrasts = design_verdicts(evidence)
        return cls(
            evidence=evidence,
            networks=shown.networks_table(evidence),
            scores=shown.scores_frame(evidence),
            best=accuracy_against_best(evidence),
            agreement=shown.agreement(evidence),
            stability=shown.stability(evidence),
            findings=findings,
            contrasts=contrasts,
        )

    def csvs(self) -> dict[str, pd.DataFrame]:
        """The frames by the names of their files."""
        return {
            "designs_networks": self.evidence.comparisons,
            "designs_scores": self.scores,
            "designs_best": self.best,
            "designs_agreement": self.agreement,
            "designs_stability": self.stability,
            "designs_findings": self.findings,
            "designs_comparisons": self.contrasts,
        }

    def blocks(self, runs: Runs) -> list[Block]:
        """The sections, in the order of the questions a reader asks."""
        if self.networks.empty:
            return []
        caption = best_reading(self.best)
        found: list[Block] = [
            Heading("Networks before and after fine-tuning"),
            Paragraph(NETWORKS),
            Table(self.networks),
            Picture(best_figure(self.best, caption), "best_against_accuracy", caption),
            Heading("Scores"),
            Paragraph(SCORES),
            Table(shown.scores_table(self.scores)),
            Heading("What the paper says (I1-I11)"),
            Paragraph(FINDINGS),
            Table(shown.findings_table(self.findings)),
        ]
        if len(self.contrasts):
            count = f"{len(self.contrasts)} comparisons"
            found.append(Table(shown.contrasts_table(self.contrasts), folded=count))
        for title, note, frame in self._correlations():
            found += [Heading(title), Paragraph(note), Table(shown.correlations_table(frame))]
        return [*found, *self._channels(runs)]

    def terminal(self) -> str:
        """The tables of the report for a terminal of 100 columns."""
        if self.networks.empty:
            return ""
        parts = [
            _titled("Networks before and after fine-tuning", NETWORKS),
            tables.text(self.networks),
            _titled("Scores", SCORES),
            tables.text(shown.scores_table(self.scores)),
        ]
        for title, note, frame in self._correlations():
            parts += [_titled(title, note), tables.text(shown.correlations_table(frame))]
        parts += [_titled("What the paper says (I1-I11)", FINDINGS)]
        return "\n\n".join([*parts, tables.text(shown.findings_table(self.findings))])

    def short_lines(self) -> list[str]:
        """What follows, a sentence each."""
        if self.networks.empty:
            return [NOTHING]
        passing = int(self.best["in_domain"].sum())
        lines = [f"{passing} of {len(self.best)} fine-tuned networks are in domain."]
        for verdict in ("holds", "fails", "undecided"):
            ids = self.findings.loc[self.findings["verdict"] == verdict, "id"]
            if len(ids):
                lines.append(f"{verdict}: {', '.join(ids)}.")
        return [*lines, best_reading(self.best)]

    def _correlations(self) -> list[tuple[str, str, pd.DataFrame]]:
        """Title, note and frame of the correlations that there are."""
        found = [
            ("Do the protocols agree?", AGREEMENT, self.agreement),
            ("Is the score stable?", STABILITY, self.stability),
        ]
        return [one for one in found if len(one[2])]

    def _channels(self, runs: Runs) -> list[Block]:
        """The images that excite channels most, of each fine-tuned network."""
        found: list[Block] = []
        tuned = self.evidence.comparisons[self.evidence.comparisons["pair"] == "finetuned"]
        for row in tuned.to_dict("records"):
            arrays = runs.arrays(row["result_id"], "channels.npz")
            if arrays:
                title = f"{row['network']} {row['setting']} seed {row['seed']}"
                name = f"channels_{row['network']}_{row['setting']}_{row['seed']}"
                overlap = 0.0 if pd.isna(row["overlap_at_9"]) else row["overlap_at_9"]
                caption = CHANNELS.format(share=tables.percent(overlap, 0))
                found.append(Picture(channels_figure(arrays, title, caption), name, caption))
        return [Heading("What excites a channel most"), *found] if found else []


def _titled(title: str, note: str) -> str:
    return "\n".join([title.upper(), textwrap.fill(note, tables.WIDTH)])
