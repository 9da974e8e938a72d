"""The report on probes: what loss and depth do to accuracy and to maps, and the controls."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pandas as pd

from analysis import probing_tables, tables
from analysis.document import Block, Heading, Paragraph, Picture, Table
from analysis.findings.probe_controls import dead_maps, gauges, shifts
from analysis.findings.probe_evidence import ProbeEvidence
from analysis.findings.probe_losses import LINEAR, loss_contrasts
from analysis.findings.probing import probe_verdicts
from analysis.probing import BCE, BCE_UNIFORM, CE, OWN_HEAD, UNTRAINED
from analysis.probing_plots import arrows_figure, depth_figure
from analysis.probing_tables import points
from analysis.runs import Runs

ACCURACIES = (
    "Mean ± standard deviation over seeds, in percent, of probes at their last epoch, on test if "
    "they were tested, else on validation. BCE wants 0 of absent classes, as in the paper's text; "
    "BCE 1/C wants 1/C, as in its code. The same probes on the untrained network are the control, "
    "with Wilson's 95 % interval over images (F1 taken for a share of them): what does not exceed "
    "it, marked *, is not read, and what has no control neither. The paper's numbers are of linear "
    "probes on ImageNet, CE → BCE."
)
LOSSES = (
    "GridPG in percent, differences in points with 95 % bootstrap intervals over mosaics: pairs on "
    "the same mosaics (common images), two samples where each probe chose its own. A comparison "
    "holds or fails where all of its interval lies on one side. Verdicts in the last column are "
    "of what decides: linear probes by off-target 0, for the methods that the paper names."
)
GAUGE = (
    "GridPG in percent with the class mean of the last layer as trained and taken out (centred), "
    "and of CE's probe with the class mean of BCE's. No softmax sees the difference. Gain is BCE "
    "less CE, in points, as trained and with both centred; gone is the share of a gain above 0 "
    "that goes with the class mean: how much of what BCE adds is the gauge."
)
SHIFT = (
    "The same multiple alpha of the mean feature, scaled to length 1, added to the weights of all "
    "classes: softmax and cross-entropy stay, GridPG does not. The paper shows one mosaic by LRP, "
    "65.7 → 11.9."
)
DEPTH = (
    "One to three layers side by side, in percent, means over seeds: accuracy and GridPG with one "
    "class an image, F1 and EPG with several."
)
DEAD = (
    "Share of the maps without anything positive, in percent, by loss: such maps have entropy 0, "
    "which is not a virtue, and no GridPG."
)
PAPER = (
    "How to Probe (Gairola et al., ICLR 2025): each sentence as a set of comparisons, read where "
    "both probes exceed their untrained controls. All that decide must hold, one that fails is "
    "enough, others are shown in brackets. Intervals are of 95 % each, over images or mosaics; "
    "p-values are corrected for the comparisons of a finding (Holm). P10a to c are ours."
)
NOTHING = "No probe has finished: there is nothing to compare."


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
            accuracies=probing_tables.accuracies(evidence),
            references=probing_tables.references(evidence),
            values=evidence.values.merge(described, on="result_id", how="left"),
            depth=probing_tables.depth_rows(evidence),
            gauges=gauges(evidence),
            shifts=shifts(evidence),
            dead=dead_maps(evidence),
            arrows=arrows(evidence),
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
            caption = self.arrows_reading()
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
        return [control, *probing_tables.finding_sentences(self.findings)]

    def arrows_reading(self) -> str:
        """One line that says what the figure of losses shows."""
        read = self.arrows[self.arrows["read"]]
        rows = read if len(read) else self.arrows
        gains = rows["score_bce"] - rows["score_ce"]
        moves = (rows["accuracy_bce"] - rows["accuracy_ce"]).mean()
        which = "that exceed their controls" if len(read) else "although none exceeds its control"
        return (
            f"From CE to BCE, linear probes {which}: GridPG rises in {int((gains > 0).sum())} of "
            f"{len(rows)} arrows, by {points(gains.mean())} points in the mean; accuracy moves by "
            f"{points(moves)}. Up is better."
        )

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


def arrows(evidence: ProbeEvidence) -> pd.DataFrame:
    """What ``arrows_figure`` draws: each linear probe by BCE over its twin by CE."""
    found, several = [], evidence.trained["dataset"].nunique() > 1
    sides = evidence.evaluated.groupby("result_id")["side"].first()
    for probe, _, contrast in loss_contrasts(evidence, "grid_pg", "above", **LINEAR):
        if contrast.decides and contrast.effect == contrast.effect:
            rival = evidence.partner(probe)
            found.append(
                {
                    "panel": " · ".join([probe.backbone, *([probe.dataset] if several else [])]),
                    "method": contrast.method,
                    "pretraining": probe.pretraining,
                    "chance": 1 / sides[contrast.results[0]] ** 2,
                    "accuracy_ce": evidence.share(rival)[0],
                    "accuracy_bce": evidence.share(probe)[0],
                    "score_ce": contrast.against,
                    "score_bce": contrast.value,
                    "read": not evidence.unread(probe, rival),
                }
            )
    names = ["panel", "method", "pretraining", "chance", "accuracy_ce", "accuracy_bce"]
    return pd.DataFrame(found, columns=[*names, "score_ce", "score_bce", "read"])


def depth_reading(rows: pd.DataFrame) -> str:
    """One line that says what the figure of layers shows."""
    said = []
    by = ["panel", "form", "method"]
    for name, title in (("accuracy", "accuracy or F1"), ("score", "localization")):
        ends = []
        for _, part in rows.dropna(subset=name).groupby(by, sort=False):
            means = part.groupby("layers")[name].mean()
            if len(means) > 1:
                ends.append((str(part["form"].iloc[0]), means.iloc[-1] - means.iloc[0]))
        for form in dict.fromkeys(form for form, _ in ends):
            changes = [change for one, change in ends if one == form]
            rising = sum(change > 0 for change in changes)
            mean = points(sum(changes) / len(changes))
            said.append(f"{title} of {form} probes rises in {rising} of {len(changes)} ({mean})")
    line = "; ".join(said)
    return f"From the fewest to the most layers (mean change in points): {line}."
