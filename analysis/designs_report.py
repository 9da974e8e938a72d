"""The report on network designs: fine-tuned networks, their scores, and findings I1 to I11."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pandas as pd

from analysis import designs_agreement as agreeing
from analysis import designs_tables as shown
from analysis import tables
from analysis.designs import FINETUNED, PLAIN, TUNED
from analysis.designs_plots import CHANNELS, best_figure, best_reading, channels_figure
from analysis.document import Block, Heading, Paragraph, Picture, Table
from analysis.findings.design_accuracy import accuracy_against_best
from analysis.findings.design_evidence import DesignEvidence
from analysis.findings.designs import design_verdicts
from analysis.runs import Runs

NETWORKS = (
    "Before / after fine-tuning with deleted patches, in percent: top-1 on whole images, and with "
    "whichever patch deleted. A network is in domain if the latter rose and the former fell by one "
    "point at most; otherwise its score is an SDS. In the paper, on ImageNet, the worst patch "
    "gains 4.1 to 12.6 points and top-1 changes by -0.7 to +4.2."
)
ACCURACIES = "Table 3 of the paper beside ours: before / after, in percent."
LIKENESS = (
    "MAD: mean absolute difference of the class's probability, and of Grad-CAM scaled to [0, 1]; "
    "top 9: share of the images that excite a channel most which both have. The unrelated pair is "
    "the yardstick. The paper's ResNet-50: 0.049 and 0.047; unrelated: 0.133 and 0.193."
)
SCORES = (
    "In hundredths, of logits, at 16 patches and the zero baseline; higher is better. Methods bear "
    "the paper's names; of several variants the one that does as its code did, others their keys. "
    f"{shown.MARK} the network is not in domain, or not known to be: an SDS. {shown.RARE} defined "
    "on less than half of the images, where maps are not constant."
)
PROTOCOLS = (
    "The same methods by every protocol: single deletion after fine-tuning (IDSDS), explaining the "
    "probability instead (after softmax) and without fine-tuning (SDS); incremental deletion (IDS) "
    "with maps made once, and anew at each step. In hundredths."
)
FINDINGS = (
    "IDSDS (Hesse et al., 2024): a network is better than another if most of the methods that suit "
    "both score higher on it, each with its interval over shared images. A finding holds if all of "
    "its comparisons hold and none is missing; one that fails is enough for it to fail. Intervals "
    "over fewer than 20 images, or over less than half of them, decide nothing."
)
AGREEMENT = (
    "Spearman's correlation over the methods of a network. The paper's, of ResNet-50 on ImageNet: "
    "{papers}."
)
STABILITY = (
    "Spearman's correlation over methods, between grids, baselines and seeds. The paper's, of "
    "ResNet-50: 16 patches and 4 0.93, and 64 0.90; zero and random 0.99, and blur 0.96; seeds at "
    f"least 0.996. {shown.MARK} not in domain."
)
NOTHING = "No network has been judged: there is nothing to compare."


@dataclass(frozen=True)
class DesignFrames:
    """Everything that is computed from the runs; drawn and printed elsewhere."""

    evidence: DesignEvidence
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
            best=accuracy_against_best(evidence),
            agreement=agreeing.agreement(evidence),
            stability=agreeing.stability(evidence),
            findings=findings,
            contrasts=contrasts,
        )

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return self.evidence.scores.empty and self.evidence.comparisons.empty

    def csvs(self) -> dict[str, pd.DataFrame]:
        """The frames by the names of their files."""
        return {
            "designs_networks": self.evidence.comparisons,
            "designs_scores": self.evidence.scores,
            "designs_best": self.best,
            "designs_agreement": self.agreement,
            "designs_stability": self.stability,
            "designs_findings": self.findings,
            "designs_comparisons": self.contrasts,
        }

    def blocks(self, runs: Runs) -> list[Block]:
        """The sections, in the order of the questions a reader asks."""
        if self.empty:
            return []
        caption = best_reading(self.best)
        found: list[Block] = []
        for title, note, parts in self._tables():
            found += [Heading(title), Paragraph(note), *(Table(part) for part in parts)]
        found += [Paragraph(line) for line in shown.reasons(self.findings, self.contrasts)]
        if len(self.contrasts):
            count = f"{len(self.contrasts)} comparisons"
            found.append(Table(shown.contrasts_table(self.contrasts), folded=count))
        if len(self.best):
            found += [Heading("Score against accuracy")]
            found += [Picture(best_figure(self.best, caption), "best_against_accuracy", caption)]
        return [*found, *self._channels(runs)]

    def terminal(self) -> str:
        """The tables of the report for a terminal of 100 columns."""
        if self.empty:
            return ""
        parts = []
        for title, note, frames in self._tables(short=True):
            parts += [_titled(title, note), *map(tables.text, frames)]
        said = shown.reasons(self.findings, self.contrasts)
        lines = [textwrap.fill(line, tables.WIDTH) for line in said]
        return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])

    def short_lines(self) -> list[str]:
        """What follows, a sentence each."""
        if self.empty:
            return [NOTHING]
        networks = shown.networks_table(self.evidence)
        lines = ["No fine-tuned network has been compared with what it was."]
        if len(networks):
            inside = int((networks["in domain"] == "yes").sum())
            lines = [f"In domain: {inside} of {len(networks)} fine-tunings."]
        for verdict in ("holds", "fails", "undecided"):
            ids = self.findings.loc[self.findings["verdict"] == verdict, "id"]
            if len(ids):
                lines.append(f"{verdict}: {', '.join(ids)}.")
        reading = [best_reading(self.best)] if len(self.best) else []
        return [*lines, *reading, *self.evidence.notes]

    def _tables(self, *, short: bool = False) -> list[tuple[str, str, list[pd.DataFrame]]]:
        """Title, note and tables of each section that has any; findings stand last.

        Args:
            short: without the scores before fine-tuning, if there are those after.
        """
        evidence = self.evidence
        after, before = (scores(evidence, protocol) for protocol in (TUNED, PLAIN))
        papers = AGREEMENT.format(papers=agreeing.papers_agreement())
        found = [
            ("Networks before and after fine-tuning", NETWORKS, [shown.networks_table(evidence)]),
            ("Accuracies and the paper's", ACCURACIES, [shown.accuracies_table(evidence)]),
            ("How alike networks are", LIKENESS, [shown.likeness_table(evidence)]),
            ("Scores after fine-tuning (IDSDS)", SCORES, after),
            ("Scores before fine-tuning (SDS)", SCORES, [] if short and after else before),
            ("Methods by every protocol", PROTOCOLS, [shown.protocols_table(evidence)]),
            ("Do the protocols agree?", papers, [agreeing.correlations_table(self.agreement)]),
            ("Is the score stable?", STABILITY, [agreeing.correlations_table(self.stability)]),
            ("What the paper says", FINDINGS, [shown.findings_table(self.findings)]),
        ]
        return [one for one in found if any(len(table) for table in one[2])]

    def _channels(self, runs: Runs) -> list[Block]:
        """The images that excite channels most, of each fine-tuned network."""
        found: list[Block] = []
        tuned = self.evidence.comparisons[self.evidence.comparisons["pair"] == FINETUNED]
        for row in tuned.to_dict("records"):
            arrays = runs.arrays(row["result_id"], "channels.npz")
            if arrays:
                title = f"{row['network']} {row['setting']} seed {row['seed']}"
                seed = "".join(c for c in str(row["seed"]).replace(" (", "_") if c not in " )")
                name = f"channels_{row['network']}_{row['setting']}_{seed}"
                caption = CHANNELS.format(share=tables.percent(row["overlap_at_9"], 0))
                found.append(Picture(channels_figure(arrays, title, caption), name, caption))
        return [Heading("What excites a channel most"), *found] if found else []


def scores(evidence: DesignEvidence, protocol: str) -> list[pd.DataFrame]:
    """The scores by a protocol as tables that fit a terminal."""
    table = shown.scores_table(evidence, protocol)
    return shown.side_by_side(table) if len(table) else []


def _titled(title: str, note: str) -> str:
    return "\n".join([title.upper(), textwrap.fill(note, tables.WIDTH)])
