"""Probes of one to three layers: P7 and P8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

from analysis.findings.contrast import Contrast, ProbeFinding, Rule, standing
from analysis.findings.finding import FAILS
from analysis.findings.probe_evidence import Probe, ProbeEvidence, layered
from analysis.findings.probe_losses import named
from analysis.findings.probing_numbers import deeper_beside

SLACK = 0.01
"""A fall of at most a point is none; ours."""


@dataclass(frozen=True)
class DeeperBcosProbes(ProbeFinding):
    """P7."""

    id: ClassVar[str] = "P7"
    claim: ClassVar[str] = "Deeper B-cos probes gain in both"
    says: ClassVar[str] = (
        "From one to three layers of B-cos probes trained by BCE neither accuracy nor GridPG fall "
        "with one class an image, nor F1 and EPG with several; Grad-CAM is exempt. Fewest and most "
        "layers are compared; a single step that falls by all of its interval fails it, too."
    )
    source: ClassVar[str] = "section 5.2, figures 7 and 8"
    form: ClassVar[str] = "bcos"

    def rule(self, metric: str) -> Rule:
        """What is said of more layers, by accuracy, f1, grid_pg or epg."""
        return "not_below"

    def compare(self, evidence: ProbeEvidence) -> Iterator[Contrast]:
        asked = dict(evidence.by_bce(form=self.form))
        for group in layered(evidence, list(asked)):
            first, decides = group[0], asked[group[0]]
            several = bool(evidence.first(first, "several"))
            yield from self.steps(evidence, group, decides)
            family = "epg" if several else "grid_pg"
            for scored, protocol, own in evidence.scored(first, family):
                exempt = evidence.attribution(first, scored) == "grad_cam"
                said = decides and own and not exempt
                gains: list[Contrast] = []
                for fewer, more in steps_of(group):
                    there = deeper_beside(
                        first.kind, first.pretraining, evidence.attribution(first, scored)
                    )
                    contrast = Contrast.of(
                        evidence.gain((more, scored), (fewer, scored), protocol),
                        self.rule(family),
                        margin=self.margin(family),
                        why=evidence.unread(fewer, more),
                        what=step(evidence, fewer, more),
                        metric=protocol,
                        method=scored.method,
                        images=scored.images,
                        results=(
                            *evidence.evaluation_ids(more, scored),
                            *evidence.evaluation_ids(fewer, scored),
                        ),
                        published=there,
                        decides=said,
                        **named(more, scored),
                    )
                    gains.append(contrast)
                yield from telling(gains)

    def steps(
        self, evidence: ProbeEvidence, group: Sequence[Probe], decides: bool
    ) -> Iterator[Contrast]:
        """Accuracy (or F1) by layers."""
        metric = evidence.metric(group[0])
        found = [
            Contrast.of(
                evidence.accuracy_gain(more, fewer),
                self.rule(metric),
                margin=self.margin(metric),
                why=evidence.unread(fewer, more),
                what=step(evidence, fewer, more),
                metric=metric,
                results=(*evidence.ids(more), *evidence.ids(fewer)),
                decides=decides,
                **named(more),
            )
            for fewer, more in steps_of(group)
        ]
        yield from telling(found)

    def margin(self, metric: str) -> float:
        """What counts as no fall."""
        return SLACK

    def note(self, contrasts: Sequence[Contrast], evidence: ProbeEvidence) -> str:
        return standing(contrasts)


@dataclass(frozen=True)
class DeeperConventionalProbes(DeeperBcosProbes):
    """P8."""

    id: ClassVar[str] = "P8"
    claim: ClassVar[str] = "Deeper conventional probes trade GridPG"
    says: ClassVar[str] = (
        "From one to three layers of conventional probes trained by BCE accuracy (F1) rises, "
        "GridPG falls with one class an image, and EPG rises with several."
    )
    form: ClassVar[str] = "conventional"

    def rule(self, metric: str) -> Rule:
        return "below" if metric == "grid_pg" else "above"

    def margin(self, metric: str) -> float:
        return 0.0


def steps_of(group: Sequence[Probe]) -> list[tuple[Probe, Probe]]:
    """Fewest and most layers, then each step where there are several."""
    ends = [(group[0], group[-1])]
    return ends + (list(pairwise(group)) if len(group) > 2 else [])


def step(evidence: ProbeEvidence, fewer: Probe, more: Probe) -> str:
    """What a comparison of layers is called."""
    counts = [int(evidence.first(p, "layers")) for p in (fewer, more)]
    return f"{counts[1]} layers over {counts[0]}"


def telling(found: Sequence[Contrast]) -> Iterator[Contrast]:
    """The ends decide; a step that fails does, too, and others are shown only."""
    for number, contrast in enumerate(found):
        fails = contrast.verdict == FAILS and contrast.decides
        yield contrast if number == 0 or fails else replace(contrast, decides=False)
