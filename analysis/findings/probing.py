"""The findings of How to Probe (Gairola et al., ICLR 2025), P1 to P10, as runs bear them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from analysis.findings.contrast import Contrast, ProbeFinding, ProbeVerdict
from analysis.findings.finding import FAILS, HOLDS, UNDECIDED
from analysis.findings.probe_controls import RolloutIsBlind
from analysis.findings.probe_evidence import ProbeEvidence
from analysis.findings.probe_gauge import GainIsGauge, ShiftMovesMaps
from analysis.findings.probe_layers import DeeperBcosProbes, DeeperConventionalProbes
from analysis.findings.probe_losses import (
    AccuracyStays,
    BceIsSimpler,
    BceKeepsConfidence,
    BceLocalizesBetter,
    TransformersGainToo,
)
from analysis.findings.probe_pretraining import LossMattersMore, SmallBoxesGainMost
from analysis.probing import unit_of

FINDINGS: tuple[ProbeFinding, ...] = (
    BceLocalizesBetter(),
    AccuracyStays(),
    LossMattersMore(),
    BceIsSimpler(),
    SmallBoxesGainMost(),
    BceKeepsConfidence(),
    DeeperBcosProbes(),
    DeeperConventionalProbes(),
    TransformersGainToo(),
    RolloutIsBlind(),
    GainIsGauge(),
    ShiftMovesMaps(),
)


def probe_verdicts(
    evidence: ProbeEvidence, findings: Sequence[ProbeFinding] = FINDINGS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every finding, and every comparison behind them.

    Returns:
        Findings: id, claim, verdict, holding, failing, undecided (comparisons that decide),
        effect_low, effect_high (lowest and highest effect; those of entropies are in the note),
        seeds, units (fewest), decided_by, note, says, source. Comparisons: finding and the fields
        of Contrast, results as one text.
    """
    rows, contrasts = [], []
    for finding in findings:
        found = finding.verdict(evidence)
        rows.append(_row(finding, found))
        contrasts += [_contrast(finding.id, contrast) for contrast in found.contrasts]
    names = list(_contrast("", Contrast(what="", metric="", verdict="")))
    return pd.DataFrame(rows), pd.DataFrame(contrasts, columns=names)


def _row(finding: ProbeFinding, found: ProbeVerdict) -> dict[str, object]:
    deciding = found.deciding
    verdicts = [contrast.verdict for contrast in deciding]
    bits = [c.effect for c in deciding if unit_of(c.metric) == 1 and c.effect == c.effect]
    effects = pd.Series([c.effect for c in deciding if unit_of(c.metric) != 1], dtype=float)
    said = [f"entropy {min(bits):+.2f} to {max(bits):+.2f} bits"] if bits else []
    known = [contrast for contrast in deciding if contrast.seeds]
    return {
        "id": finding.id,
        "claim": finding.claim,
        "verdict": found.verdict,
        "holding": verdicts.count(HOLDS),
        "failing": verdicts.count(FAILS),
        "undecided": verdicts.count(UNDECIDED),
        "effect_low": effects.min(),
        "effect_high": effects.max(),
        "seeds": min((contrast.seeds for contrast in known), default=0),
        "units": min((contrast.units for contrast in known), default=0),
        "decided_by": _decided_by(found),
        "note": "; ".join(filter(None, [*said, found.note])),
        "says": finding.says,
        "source": finding.source,
    }


def _decided_by(found: ProbeVerdict) -> str:
    """The comparisons that fail or are open, whichever the verdict rests on."""
    telling = FAILS if any(c.verdict == FAILS for c in found.deciding) else UNDECIDED
    said = []
    for contrast in found.deciding:
        if contrast.verdict == telling:
            place = (contrast.backbone, contrast.pretraining, contrast.probe, contrast.method)
            why = f" ({contrast.why})" if contrast.why else ""
            said.append(f"{' '.join(filter(None, place))}: {contrast.what}{why}")
    return "; ".join(said)


def _contrast(finding: str, contrast: Contrast) -> dict[str, object]:
    return {"finding": finding, **asdict(contrast), "results": " ".join(contrast.results)}
