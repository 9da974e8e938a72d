"""What the paper says beside its findings, on the networks that it compares methods on: A1, A2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from analysis.design_methods import SIGNED, absolute
from analysis.findings.design_cells import Cell
from analysis.findings.design_evidence import DesignEvidence
from analysis.findings.design_finding import DesignContrast, DesignFinding
from analysis.findings.design_methods import plain_networks
from analysis.findings.finding import FAILS, HOLDS

AGNOSTIC = (
    *SIGNED,
    *map(absolute, SIGNED),
    *("IG-SG-SQ", "Saliency", "RISE", "RISE-U"),
)
"""Methods that any network can be explained by."""
SAME = 5e-4
"""Means that differ by less are printed alike in the paper's tables."""


@dataclass(frozen=True)
class UniformBaselineWins(DesignFinding):
    """A1."""

    id: ClassVar[str] = "A1"
    claim: ClassVar[str] = "IG-U is the best of the methods that suit any network"
    source: ClassVar[str] = "section 5, figure 3, table 4"

    def compare(self, evidence: DesignEvidence) -> Iterator[DesignContrast]:
        for network in plain_networks(evidence):
            for method in AGNOSTIC:
                if method != "IG-U":
                    yield evidence.contrast(
                        Cell(network, "IG-U"),
                        Cell(network, method),
                        f"IG-U over {method} on {network}",
                    )


@dataclass(frozen=True)
class CamsAgree(DesignFinding):
    """A2: both weigh channels alike where one average stands before the last layer."""

    id: ClassVar[str] = "A2"
    claim: ClassVar[str] = "Grad-CAM and XGrad-CAM have one score on a ResNet"
    source: ClassVar[str] = "table 4"

    def compare(self, evidence: DesignEvidence) -> Iterator[DesignContrast]:
        for network in plain_networks(evidence):
            found = evidence.contrast(
                Cell(network, "Grad-CAM"),
                Cell(network, "XGrad-CAM"),
                f"Grad-CAM as XGrad-CAM on {network}",
            )
            if found.of_images:
                verdict = HOLDS if abs(found.effect) < SAME else FAILS
                found = replace(found, verdict=verdict, why="")
            yield found
