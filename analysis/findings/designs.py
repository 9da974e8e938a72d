"""The findings of IDSDS (Hesse et al., 2024), I1 to I11, A1 and A2, as runs bear them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from analysis.findings.design_accuracy import AccuracyCosts
from analysis.findings.design_also import CamsAgree, UniformBaselineWins
from analysis.findings.design_evidence import DesignEvidence
from analysis.findings.design_finding import DesignFinding
from analysis.findings.design_methods import (
    IncrementalDeletionIsBlind,
    LogitBeatsProbability,
    RawBeatsAbsolute,
    SmoothingHarms,
)
from analysis.findings.design_networks import (
    ArchitectureMatters,
    BiasHarms,
    DepthHarms,
    NormHarms,
    SelfExplaining,
    WidthHarms,
)
from analysis.findings.finding import FAILS, HOLDS, UNDECIDED

FINDINGS: tuple[DesignFinding, ...] = (
    SelfExplaining(),
    RawBeatsAbsolute(),
    SmoothingHarms(),
    DepthHarms(),
    WidthHarms(),
    NormHarms(),
    BiasHarms(),
    ArchitectureMatters(),
    LogitBeatsProbability(),
    AccuracyCosts(),
    IncrementalDeletionIsBlind(),
    UniformBaselineWins(),
    CamsAgree(),
)


def design_verdicts(
    evidence: DesignEvidence, findings: Sequence[DesignFinding] = FINDINGS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every finding, and every comparison behind them.

    Returns:
        Findings: id, claim, verdict, holding, failing, undecided (comparisons that decide), why
        (all reasons, if it is undecided), source. Comparisons: finding and the fields of
        DesignContrast.
    """
    rows, contrasts = [], []
    for finding in findings:
        found = list(finding.compare(evidence))
        deciding = [contrast for contrast in found if contrast.decides]
        verdicts = [contrast.verdict for contrast in deciding]
        verdict = finding.judge(deciding)
        reasons = dict.fromkeys(c.reason for c in deciding if c.verdict == UNDECIDED)
        why = "; ".join(reasons) or "no run to compare"
        rows.append(
            {
                "id": finding.id,
                "claim": finding.claim,
                "verdict": verdict,
                "holding": verdicts.count(HOLDS),
                "failing": verdicts.count(FAILS),
                "undecided": verdicts.count(UNDECIDED),
                "why": why if verdict == UNDECIDED else "",
                "source": finding.source,
            }
        )
        contrasts += [{"finding": finding.id, **asdict(contrast)} for contrast in found]
    return pd.DataFrame(rows), pd.DataFrame(contrasts)
