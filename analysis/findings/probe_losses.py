"""Probes trained by BCE beside the same trained by CE: P1, P2, P4, P6 and P9."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from analysis.findings.contrast import Contrast, ProbeFinding, Rule, standing
from analysis.findings.probe_evidence import Probe, ProbeEvidence, Scored
from analysis.findings.probing_numbers import (
    BCOS_CNN,
    BCOS_VIT,
    CNN,
    VIT,
    accuracy_beside,
    complexity_beside,
    grid_pg_beside,
)
from analysis.probing import BCE, BCE_UNIFORM, LOSSES

SAME_ACCURACY = 0.015
"""What P2 calls the same."""
ROUNDING = 0.005
"""A Gini coefficient that falls by less is equal: table E1 has two digits."""
LINEAR: Mapping[str, Any] = {"form": "conventional", "layers": 1.0}
"""The paper's first probe."""
LOCALIZING = {
    CNN: ("lrp", "lime"),
    BCOS_CNN: ("bcos", "lime", "integrated_gradients"),
    VIT: ("transformer_attribution",),
    BCOS_VIT: ("bcos",),
}
"""Methods whose localization the paper says gains by BCE, by the kind of the backbone."""


def loss_contrasts(
    evidence: ProbeEvidence,
    family: str,
    rule: Rule,
    *,
    margin: float = 0.0,
    **wanted: Any,
) -> Iterator[tuple[Probe, Scored, Contrast]]:
    """BCE minus CE of every way that probes were scored by a family of protocols.

    What ``decides`` says here is which of two off-targets, two choices of images does.

    Args:
        evidence: the runs.
        family: of protocols.
        rule: what is said of the difference.
        margin: of the rule.
        wanted: columns of ``trained`` that the probes must have.
    """
    for probe, first in evidence.against_ce(**wanted):
        rival = evidence.partner(probe)
        why = evidence.unread(probe, rival)
        for scored, protocol, decides in evidence.scored(probe, family):
            gain = evidence.gain((probe, scored), (rival, scored), protocol)
            yield (
                probe,
                scored,
                Contrast.of(
                    gain,
                    rule,
                    margin=margin,
                    why=why if gain is not None else why or "no scores of CE to compare",
                    what=f"{LOSSES[probe.loss]} over CE",
                    metric=protocol,
                    method=scored.method,
                    images=scored.images,
                    results=(
                        *evidence.evaluation_ids(probe, scored),
                        *evidence.evaluation_ids(rival, scored),
                    ),
                    decides=first and decides,
                    **named(probe, scored),
                ),
            )


def named(probe: Probe, scored: Scored | None = None) -> dict[str, Any]:
    """The fields of a contrast that say where it stands."""
    choice = scored.choice if scored else ""
    variant = ", ".join(filter(None, (probe.variant, choice)))
    return {**probe.named, "variant": variant}


def off_target_note(contrasts: Sequence[Contrast]) -> str:
    """Which BCE decides, and what the other comes to."""
    beside = [c for c in contrasts if c.loss == BCE_UNIFORM and c.claimed and not c.decides]
    if any(c.decides and c.loss == BCE_UNIFORM for c in contrasts):
        return "BCE of the code (off-target 1/C) decides where the text's (0) was not run"
    holding = sum(c.verdict == "holds" for c in beside)
    other = f"; with 1/C, as in the code, {holding} of {len(beside)} hold" if beside else ""
    return f"decided by off-target 0, as in the paper's text{other}"


@dataclass(frozen=True)
class BceLocalizesBetter(ProbeFinding):
    """P1."""

    id: ClassVar[str] = "P1"
    claim: ClassVar[str] = "BCE probes are localized better (GridPG)"
    says: ClassVar[str] = (
        "GridPG of linear probes trained by BCE is above that of the same probes trained by CE, "
        "for B-cos, LRP, LIME and, on B-cos networks, integrated gradients; not said of input x "
        "gradient, Grad-CAM and guided backpropagation, which are shown. BCE wants 0 of absent "
        "classes (the text) and decides; with 1/C (the code) it stands beside."
    )
    source: ClassVar[str] = "section 5.1, figures 3 and 4, table E2"
    kinds: ClassVar[tuple[str, ...]] = (CNN, BCOS_CNN)

    def compare(self, evidence: ProbeEvidence) -> Iterator[Contrast]:
        for probe, scored, found in loss_contrasts(evidence, "grid_pg", "above"):
            if probe.kind not in self.kinds:
                continue
            method = evidence.attribution(probe, scored)
            linear = all(evidence.first(probe, k) == v for k, v in LINEAR.items())
            there = grid_pg_beside(probe.kind, probe.pretraining, method) if linear else ""
            mine = beside(found, there, linear and method in LOCALIZING[probe.kind])
            yield mine
            if mine.decides:
                yield from self.with_dead(evidence, probe, scored, mine)
        yield from whole_networks(evidence, self.kinds)

    def with_dead(
        self, evidence: ProbeEvidence, probe: Probe, scored: Scored, found: Contrast
    ) -> Iterator[Contrast]:
        """The same with maps without anything positive counted as 0, as in the code, if any are."""
        rival = evidence.partner(probe)
        gain = evidence.gain((probe, scored), (rival, scored), found.metric, dead=0.0)
        if gain is not None and gain.effect != found.effect:
            more = {name: getattr(found, name) for name in (*named(probe), "method", "images")}
            yield Contrast.of(
                gain,
                "above",
                why=evidence.unread(probe, rival),
                what=f"{found.what}, dead maps count 0",
                metric=found.metric,
                results=found.results,
                decides=False,
                claimed=False,
                **more,
            )

    def note(self, contrasts: Sequence[Contrast], evidence: ProbeEvidence) -> str:
        return "; ".join(filter(None, (off_target_note(contrasts), standing(contrasts))))


@dataclass(frozen=True)
class TransformersGainToo(BceLocalizesBetter):
    """P9."""

    id: ClassVar[str] = "P9"
    claim: ClassVar[str] = "BCE helps vision transformers, too"
    says: ClassVar[str] = (
        "GridPG of linear probes on transformers gains by BCE: for transformer attribution (CGW1) "
        "on conventional ones, for B-cos on B-cos ones."
    )
    source: ClassVar[str] = "section 6, tables 1 and C1"
    kinds: ClassVar[tuple[str, ...]] = (VIT, BCOS_VIT)


@dataclass(frozen=True)
class AccuracyStays(ProbeFinding):
    """P2."""

    id: ClassVar[str] = "P2"
    claim: ClassVar[str] = "Accuracy does not depend on the loss"
    says: ClassVar[str] = (
        "The accuracies of a probe trained by BCE and by CE differ by at most 1.5 points. The "
        "interval takes both as samples of their own, although the images are the same: it holds "
        "or fails where all of it lies within or outside."
    )
    source: ClassVar[str] = "section 5.1, tables in section E"

    def compare(self, evidence: ProbeEvidence) -> Iterator[Contrast]:
        for probe, first in evidence.against_ce():
            rival = evidence.partner(probe)
            yield Contrast.of(
                evidence.accuracy_gain(probe, rival),
                "within",
                margin=SAME_ACCURACY,
                why=evidence.unread(probe, rival),
                what=f"{LOSSES[probe.loss]} beside CE",
                metric=evidence.metric(probe),
                results=(*evidence.ids(probe), *evidence.ids(rival)),
                published=accuracy_beside(probe.kind, probe.pretraining)
                if all(evidence.first(probe, k) == v for k, v in LINEAR.items())
                else "",
                decides=first,
                **named(probe),
            )

    def note(self, contrasts: Sequence[Contrast], evidence: ProbeEvidence) -> str:
        known = [c.effect for c in contrasts if c.decides and c.read and c.effect == c.effect]
        inside = sum(abs(effect) <= SAME_ACCURACY for effect in known)
        return f"{inside} of {len(known)} differences are within 1.5 points" if known else ""


@dataclass(frozen=True)
class BceIsSimpler(ProbeFinding):
    """P4."""

    id: ClassVar[str] = "P4"
    claim: ClassVar[str] = "BCE maps are simpler and more compact"
    says: ClassVar[str] = (
        "Entropy falls by BCE and the Gini coefficient does not (a fall of less than 0.005 is "
        "none), for all methods but, on conventional convolutional networks, input x gradient, "
        "integrated gradients, and Grad-CAM unless pre-trained by DINO."
    )
    source: ClassVar[str] = "section E, table E1"

    def compare(self, evidence: ProbeEvidence) -> Iterator[Contrast]:
        rules: tuple[tuple[str, Rule, float], ...] = (
            ("entropy", "below", 0.0),
            ("gini", "not_below", ROUNDING),
        )
        for family, rule, margin in rules:
            found = loss_contrasts(evidence, family, rule, margin=margin, **LINEAR)
            for probe, scored, contrast in found:
                method = evidence.attribution(probe, scored)
                there = complexity_beside(probe.kind, probe.pretraining, method, family)
                yield beside(contrast, there, not self.exempt(probe, method))

    @staticmethod
    def exempt(probe: Probe, method: str) -> bool:
        """Whether the paper's own table has no such effect."""
        if probe.kind != CNN:
            return False
        fine = method in ("input_x_gradient", "integrated_gradients")
        return fine or (method == "grad_cam" and probe.pretraining != "dino")

    def note(self, contrasts: Sequence[Contrast], evidence: ProbeEvidence) -> str:
        return standing(contrasts)


@dataclass(frozen=True)
class BceKeepsConfidence(ProbeFinding):
    """P6."""

    id: ClassVar[str] = "P6"
    claim: ClassVar[str] = "BCE maps bear pixel deletion longer"
    says: ClassVar[str] = (
        "While the least important pixels are deleted, the target's confidence stays higher (area "
        "under the curve) for probes trained by BCE, for B-cos and LRP; mixed for other methods, "
        "and reversed for Grad-CAM on B-cos networks."
    )
    source: ClassVar[str] = "section 5.1, figure 6 and section E"

    def compare(self, evidence: ProbeEvidence) -> Iterator[Contrast]:
        for probe, scored, found in loss_contrasts(evidence, "pixel_deletion", "above", **LINEAR):
            method = evidence.attribution(probe, scored)
            yield beside(found, "", method in ("bcos", "lrp"))

    def note(self, contrasts: Sequence[Contrast], evidence: ProbeEvidence) -> str:
        return standing(contrasts)


def whole_networks(evidence: ProbeEvidence, kinds: Collection[str]) -> Iterator[Contrast]:
    """The same of networks that were trained as a whole by both losses, to stand beside."""
    for probe in evidence.whole():
        rival = evidence.partner(probe)
        for scored, protocol, _ in evidence.scored(probe, "grid_pg"):
            if probe.loss == BCE and probe.kind in kinds:
                yield Contrast.of(
                    evidence.gain((probe, scored), (rival, scored), protocol),
                    "above",
                    what="BCE over CE, end to end",
                    metric=protocol,
                    method=scored.method,
                    images=scored.images,
                    results=(
                        *evidence.evaluation_ids(probe, scored),
                        *evidence.evaluation_ids(rival, scored),
                    ),
                    claimed=False,
                    decides=False,
                    **{**named(probe, scored), "pretraining": "end to end"},
                )


def beside(found: Contrast, published: str, said: bool) -> Contrast:
    """A comparison with the paper's numbers; it decides only where the paper says so.

    Args:
        found: the comparison.
        published: the numbers.
        said: whether the paper says it of these.
    """
    return replace(found, published=published, claimed=said, decides=found.decides and said)
