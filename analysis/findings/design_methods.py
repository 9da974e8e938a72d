"""Findings on methods: I2, I3, I9 and I11, on the networks that the paper compares methods on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from analysis.design_methods import ONE_ARM, RAW, SIGNED, SMOOTHED, absolute
from analysis.designs import FIXED, PROBABILITY, UPDATED
from analysis.findings.design_cells import Cell
from analysis.findings.design_evidence import DesignEvidence
from analysis.findings.design_finding import DesignContrast, DesignFinding, counted
from analysis.findings.finding import UNDECIDED

PLAIN_NETWORKS = ("resnet50", "small_resnet")
"""Networks on which the paper compares methods."""
SOFTMAX_NETWORKS = (("resnet50", "vgg16"), ("small_resnet", "small_vgg"))
"""Networks on which it explains probabilities, too."""


def plain_networks(evidence: DesignEvidence) -> list[str]:
    """Of the networks on which methods are compared, those that there are."""
    return [name for name in PLAIN_NETWORKS if name in evidence.networks]


@dataclass(frozen=True)
class RawBeatsAbsolute(DesignFinding):
    """I2: of five pairs the better three, by the score with signed maps."""

    id: ClassVar[str] = "I2"
    claim: ClassVar[str] = "Signed maps beat absolute ones for the better half of methods"
    source: ClassVar[str] = "section 5, figure 3"

    def compare(self, evidence: DesignEvidence) -> Iterator[DesignContrast]:
        half = -(-len(SIGNED) // 2)
        for network in plain_networks(evidence):
            why = evidence.missing_network(network)
            means = evidence.levels(network).set_index("method")["value"]
            pairs = [m for m in SIGNED if m in means and absolute(m) in means]
            unknown = [m for m in SIGNED if m not in pairs]
            known = sorted(pairs, key=lambda m: -means[m])
            # what is missing may belong to the better half, and takes the place of the last
            better = known[: max(0, half - len(unknown))]
            each = [
                evidence.contrast(
                    Cell(network, method),
                    Cell(network, absolute(method)),
                    f"{method} over {absolute(method)} on {network}",
                    decides=False,
                )
                for method in known
            ]
            what = f"signed over absolute on {network}"
            yield counted(each[: len(better)], what, why, members=half)
            for method in unknown if not why else ():
                yield evidence.contrast(
                    Cell(network, method),
                    Cell(network, absolute(method)),
                    f"{method} over {absolute(method)} on {network}",
                )
            yield from each


@dataclass(frozen=True)
class SmoothingHarms(DesignFinding):
    """I3."""

    id: ClassVar[str] = "I3"
    claim: ClassVar[str] = "SmoothGrad lowers the score of IxG, IG and Grad-CAM++"
    source: ClassVar[str] = "section 5, figure 3"

    def compare(self, evidence: DesignEvidence) -> Iterator[DesignContrast]:
        for network in plain_networks(evidence):
            for smoothed, method in SMOOTHED:
                yield evidence.contrast(
                    Cell(network, method),
                    Cell(network, smoothed),
                    f"{method} over {smoothed} on {network}",
                )


@dataclass(frozen=True)
class LogitBeatsProbability(DesignFinding):
    """I9: on the paper's two networks, or their small siblings; others are shown."""

    id: ClassVar[str] = "I9"
    claim: ClassVar[str] = "Explaining the logit beats explaining the probability"
    source: ClassVar[str] = "section 5, figure 4"

    def compare(self, evidence: DesignEvidence) -> Iterator[DesignContrast]:
        there = set(evidence.networks)
        deciding = [n for pair in SOFTMAX_NETWORKS if set(pair) & there for n in pair]
        for network in deciding:
            yield from self.on(evidence, network)
        for network in evidence.networks:
            if network not in deciding and evidence.methods(network, output=PROBABILITY):
                yield from self.on(evidence, network, decides=False)

    def on(
        self, evidence: DesignEvidence, network: str, *, decides: bool = True
    ) -> Iterator[DesignContrast]:
        """The majority of a network's methods, then the methods."""
        what, why = f"logit over probability on {network}", evidence.missing_network(network)
        if not why and not evidence.methods(network, output=PROBABILITY):
            why = f"{network}: no method explains the probability"
        if why:
            yield counted([], what, why, decides=decides)
            return
        each = [
            evidence.contrast(
                Cell(network, method),
                Cell(network, method, output=PROBABILITY),
                f"{method}: {what}",
                decides=False,
            )
            for method in evidence.methods(network)
            if method not in ONE_ARM
        ]
        yield counted(each, what, decides=decides)
        yield from each


@dataclass(frozen=True)
class IncrementalDeletionIsBlind(DesignFinding):
    """I11."""

    id: ClassVar[str] = "I11"
    claim: ClassVar[str] = "IDS: absolute maps win if fixed; raw IxG, IG, IG-U if updated"
    source: ClassVar[str] = "section 5, table 5 and figure 3"

    def compare(self, evidence: DesignEvidence) -> Iterator[DesignContrast]:
        for network in plain_networks(evidence):
            for method in SIGNED:
                yield evidence.contrast(
                    Cell(network, absolute(method), FIXED),
                    Cell(network, method, FIXED),
                    f"{absolute(method)} over {method} on {network}, fixed maps",
                )
            rival, _ = evidence.best(network, UPDATED, without=RAW)
            for method in RAW:
                what = f"{method} over {rival or 'the best other'} on {network}, updated maps"
                why = evidence.missing(Cell(network, method, UPDATED))
                if rival and not why:
                    yield evidence.contrast(
                        Cell(network, method, UPDATED), Cell(network, rival, UPDATED), what
                    )
                else:
                    yield DesignContrast(
                        what=what,
                        protocol=UPDATED,
                        verdict=UNDECIDED,
                        why=why or f"no other method on {network} by {UPDATED}",
                        network=network,
                        method=method,
                    )
