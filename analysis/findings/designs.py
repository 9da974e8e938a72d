"""The findings of IDSDS (Hesse et al., NeurIPS D&B 2024), I1 to I11, as runs bear them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy import stats

from analysis.designs import FIXED, LOGIT, PROBABILITY, TUNED, UPDATED
from analysis.findings.contrast import Contrast, corrected
from analysis.findings.design_evidence import (
    ARCHITECTURES,
    DEPTHS,
    NORMS,
    OWN_METHODS,
    PLAIN_NETWORKS,
    WIDTHS,
    DesignEvidence,
    counted,
)
from analysis.findings.finding import FAILS, HOLDS, UNDECIDED, every

SMOOTHED = (
    ("smooth_grad_input_x_gradient", "input_x_gradient"),
    ("smooth_grad_integrated_gradients", "integrated_gradients"),
    ("smooth_grad_cam_pp", "grad_cam_pp"),
)
"""A method over noisy copies, and the method."""
SIGNED = ("input_x_gradient", "integrated_gradients", "integrated_gradients_uniform")
"""Methods whose sign the paper discusses: I x G, IG, IG-U."""
ABSOLUTE = "_abs"


@dataclass(frozen=True)
class DesignFinding:
    """A sentence of the paper that runs can bear out or contradict."""

    id: ClassVar[str]
    claim: ClassVar[str]
    source: ClassVar[str]

    def compare(self, evidence: DesignEvidence) -> Iterator[Contrast]:
        """The comparisons that these runs were made for."""
        raise NotImplementedError

    def judge(self, contrasts: Sequence[Contrast]) -> str:
        """All that decide must hold, one that fails is enough."""
        return every([contrast.verdict for contrast in contrasts])


@dataclass(frozen=True)
class SelfExplaining(DesignFinding):
    """I1."""

    id: ClassVar[str] = "I1"
    claim: ClassVar[str] = "B-cos and BagNet beat the best post-hoc method of the plain network"
    source: ClassVar[str] = "section 5, figure 3, table 4"

    def compare(self, evidence: DesignEvidence) -> Iterator[Contrast]:
        for network, (method, plain) in OWN_METHODS.items():
            if network in evidence.networks and plain in evidence.networks:
                rival, _ = evidence.best(plain)
                found = evidence.gain(
                    evidence.columns(network, method), evidence.columns(plain, rival)
                )
                yield Contrast.of(
                    found,
                    "above",
                    why=evidence.gate(network) or evidence.gate(plain),
                    what=f"{method} of {network} over {rival or 'the best method'} of {plain}",
                    metric=TUNED,
                    method=method,
                    backbone=network,
                )


@dataclass(frozen=True)
class RawBeatsAbsolute(DesignFinding):
    """I2."""

    id: ClassVar[str] = "I2"
    claim: ClassVar[str] = "Signed maps beat absolute ones for the better half of the methods"
    source: ClassVar[str] = "section 5, figure 3"

    def compare(self, evidence: DesignEvidence) -> Iterator[Contrast]:
        for network in [name for name in PLAIN_NETWORKS if name in evidence.networks]:
            methods = evidence.methods(network)
            pairs = [m for m in methods if m + ABSOLUTE in methods]
            means = {m: mean_of(evidence, network, m) for m in pairs}
            better = sorted(pairs, key=lambda m: -means[m])[: -(-len(pairs) // 2)]
            each = [signs(evidence, network, method, TUNED, decides=False) for method in better]
            why = evidence.gate(network) or ("" if each else "no method with both signs")
            yield counted(each, f"signed over absolute on {network}", why)
            yield from each


@dataclass(frozen=True)
class SmoothingHarms(DesignFinding):
    """I3."""

    id: ClassVar[str] = "I3"
    claim: ClassVar[str] = "SmoothGrad lowers the score of I x G, IG and Grad-CAM++"
    source: ClassVar[str] = "section 5, figure 3"

    def compare(self, evidence: DesignEvidence) -> Iterator[Contrast]:
        for network in [name for name in PLAIN_NETWORKS if name in evidence.networks]:
            known = evidence.methods(network)
            for smoothed, plain in SMOOTHED:
                if smoothed in known and plain in known:
                    yield Contrast.of(
                        evidence.gain(
                            evidence.columns(network, smoothed), evidence.columns(network, plain)
                        ),
                        "below",
                        why=evidence.gate(network),
                        what=f"{smoothed} below {plain}",
                        metric=TUNED,
                        method=smoothed,
                        backbone=network,
                    )


@dataclass(frozen=True)
class Ordered(DesignFinding):
    """Designs in an order, each better than the next."""

    chains: ClassVar[Sequence[Sequence[str]]]
    best_first: ClassVar[bool] = True

    def compare(self, evidence: DesignEvidence) -> Iterator[Contrast]:
        for chain in self.chains:
            present = [name for name in chain if name in evidence.networks]
            for pair in self.pairs(present):
                better, worse = pair if self.best_first else pair[::-1]
                yield from evidence.majority(better, worse, f"{better} over {worse}")

    def pairs(self, present: Sequence[str]) -> list[tuple[str, str]]:
        """Which networks of a chain are compared: neighbours."""
        return list(pairwise(present))


@dataclass(frozen=True)
class DepthHarms(Ordered):
    """I4."""

    id: ClassVar[str] = "I4"
    claim: ClassVar[str] = "The deeper, the lower the score"
    source: ClassVar[str] = "section 5, figure 4"
    chains: ClassVar[Sequence[Sequence[str]]] = DEPTHS


@dataclass(frozen=True)
class WidthHarms(Ordered):
    """I5."""

    id: ClassVar[str] = "I5"
    claim: ClassVar[str] = "The wider, the lower the score"
    source: ClassVar[str] = "section 5, figure 4"
    chains: ClassVar[Sequence[Sequence[str]]] = WIDTHS


@dataclass(frozen=True)
class NormHarms(Ordered):
    """I6."""

    id: ClassVar[str] = "I6"
    claim: ClassVar[str] = "Without batch norm the score is higher"
    source: ClassVar[str] = "section 5, figure 4"
    chains: ClassVar[Sequence[Sequence[str]]] = tuple(chain[:2] for chain in NORMS)
    best_first: ClassVar[bool] = False


@dataclass(frozen=True)
class BiasHarms(Ordered):
    """I7."""

    id: ClassVar[str] = "I7"
    claim: ClassVar[str] = "Without biases as well it is higher still"
    source: ClassVar[str] = "section 5, figure 4"
    chains: ClassVar[Sequence[Sequence[str]]] = tuple(chain[1:] for chain in NORMS)
    best_first: ClassVar[bool] = False


@dataclass(frozen=True)
class ArchitectureMatters(Ordered):
    """I8."""

    id: ClassVar[str] = "I8"
    claim: ClassVar[str] = "VGG above ResNet above ViT"
    source: ClassVar[str] = "section 5, figure 4"
    chains: ClassVar[Sequence[Sequence[str]]] = ARCHITECTURES


@dataclass(frozen=True)
class LogitBeatsProbability(DesignFinding):
    """I9."""

    id: ClassVar[str] = "I9"
    claim: ClassVar[str] = "Explaining the logit beats explaining the probability"
    source: ClassVar[str] = "section 5, figure 4"

    def compare(self, evidence: DesignEvidence) -> Iterator[Contrast]:
        for network in evidence.networks:
            after = evidence.methods(network, TUNED, PROBABILITY)
            common = [m for m in evidence.methods(network, TUNED, LOGIT) if m in after]
            if not common:
                continue
            each = [
                Contrast.of(
                    evidence.gain(
                        evidence.columns(network, method),
                        evidence.columns(network, method, TUNED, PROBABILITY),
                    ),
                    "above",
                    what=f"{method}: logit over probability on {network}",
                    metric=TUNED,
                    method=method,
                    backbone=network,
                    decides=False,
                )
                for method in common
            ]
            yield counted(each, f"logit over probability on {network}", evidence.gate(network))
            yield from each


@dataclass(frozen=True)
class AccuracyCosts(DesignFinding):
    """I10."""

    id: ClassVar[str] = "I10"
    claim: ClassVar[str] = "A network's best score falls with its accuracy"
    source: ClassVar[str] = "section 5, figure 5b"

    def compare(self, evidence: DesignEvidence) -> Iterator[Contrast]:
        table = accuracy_against_best(evidence)
        passing = table[table["in_domain"]]
        if min(passing["best"].nunique(), passing["accuracy"].nunique()) < 4:
            why = f"{len(passing)} networks pass the gate; four that differ can be ordered"
            what = "rank correlation of best score and accuracy"
            yield Contrast(what=what, metric=TUNED, verdict=UNDECIDED, why=why)
            return
        found = stats.spearmanr(passing["best"], passing["accuracy"])
        rho, p = float(found.statistic), float(found.pvalue)
        verdict = UNDECIDED if not p < 0.05 else HOLDS if rho < 0 else FAILS
        yield Contrast(
            what=f"rank correlation of best score and accuracy, {len(passing)} networks",
            metric=TUNED,
            verdict=verdict,
            why="" if verdict != UNDECIDED else f"p = {p:.2f}",
            effect=rho,
            p=p,
        )


@dataclass(frozen=True)
class IncrementalDeletionIsBlind(DesignFinding):
    """I11."""

    id: ClassVar[str] = "I11"
    claim: ClassVar[str] = "IDS prefers absolute maps if they are fixed, signed ones if updated"
    source: ClassVar[str] = "section 5, table 5 and figure 3"

    def compare(self, evidence: DesignEvidence) -> Iterator[Contrast]:
        for network in [name for name in PLAIN_NETWORKS if name in evidence.networks]:
            for protocol in (FIXED, UPDATED):
                known = evidence.methods(network, protocol)
                for method in SIGNED:
                    if method in known and method + ABSOLUTE in known:
                        yield signs(evidence, network, method, protocol, signed=protocol == UPDATED)


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
)


def signs(
    evidence: DesignEvidence,
    network: str,
    method: str,
    protocol: str,
    *,
    signed: bool = True,
    decides: bool = True,
) -> Contrast:
    """Signed maps of a method against absolute ones, or the other way round."""
    sides = [evidence.columns(network, name, protocol) for name in (method, method + ABSOLUTE)]
    own, rival = sides if signed else sides[::-1]
    better = "signed over absolute" if signed else "absolute over signed"
    return Contrast.of(
        evidence.gain(own, rival),
        "above",
        why=evidence.gate(network) if protocol == TUNED and decides else "",
        what=f"{method} by {protocol}: {better}",
        metric=protocol,
        method=method,
        backbone=network,
        decides=decides,
    )


def mean_of(evidence: DesignEvidence, network: str, method: str) -> float:
    """Mean score of a method on a network, over seeds; -inf where there is none."""
    rows = evidence.scores
    rows = rows[
        (rows["network"] == network)
        & (rows["method"] == method)
        & (rows["protocol"] == TUNED)
        & (rows["output"] == LOGIT)
    ]
    mean = rows["value"].mean()
    return float(mean) if mean == mean else -np.inf


def accuracy_against_best(evidence: DesignEvidence) -> pd.DataFrame:
    """Every fine-tuned network: network, accuracy (clean, after), method, best, in_domain."""
    rows = []
    tuned = evidence.comparisons[evidence.comparisons["pair"] == "finetuned"]
    for network, part in tuned.groupby("network", sort=False):
        method, value = evidence.best(str(network))
        accuracy = float(part["accuracy_after"].mean())
        rows.append((network, accuracy, method, value, not evidence.gate(str(network))))
    names = ["network", "accuracy", "method", "best", "in_domain"]
    return pd.DataFrame(rows, columns=names).astype({"in_domain": bool})


def design_verdicts(
    evidence: DesignEvidence, findings: Sequence[DesignFinding] = FINDINGS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every finding, and every comparison behind them.

    Returns:
        Findings: id, claim, verdict, holding, failing, undecided (comparisons that decide), why
        (of the first that is undecided), source. Comparisons: finding and the fields of Contrast.
    """
    rows, contrasts = [], []
    for finding in findings:
        found = corrected(list(finding.compare(evidence)))
        deciding = [contrast for contrast in found if contrast.decides]
        verdicts = [contrast.verdict for contrast in deciding]
        open_ones = [contrast.why for contrast in deciding if contrast.verdict == UNDECIDED]
        rows.append(
            {
                "id": finding.id,
                "claim": finding.claim,
                "verdict": finding.judge(deciding),
                "holding": verdicts.count(HOLDS),
                "failing": verdicts.count(FAILS),
                "undecided": verdicts.count(UNDECIDED),
                "why": next(iter(open_ones), "" if deciding else "no run to compare"),
                "source": finding.source,
            }
        )
        contrasts += [
            {"finding": finding.id, **asdict(contrast), "results": " ".join(contrast.results)}
            for contrast in found
        ]
    return pd.DataFrame(rows), pd.DataFrame(contrasts)
