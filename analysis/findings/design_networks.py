"""Findings on networks: I1 and I4 to I8, by the majority of the methods that two networks share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from analysis.design_methods import OWN
from analysis.designs import TUNED
from analysis.findings.design_cells import Cell
from analysis.findings.design_evidence import DesignEvidence
from analysis.findings.design_finding import DesignContrast, DesignFinding
from analysis.findings.finding import UNDECIDED

Chains = Sequence[Sequence[str]]

DEPTHS: Chains = (
    ("resnet18", "resnet50", "resnet101", "resnet152"),
    ("vgg11", "vgg13", "vgg16", "vgg19"),
    ("small_resnet", "small_deep_resnet"),
)
"""Networks from shallow to deep."""
WIDTHS: Chains = (("resnet50", "wide_resnet50_2"), ("small_resnet", "small_wide_resnet"))
"""A network and a wider one."""
NORMS: Chains = (
    ("resnet50", "fixup_resnet50", "xresnet50"),
    ("vgg16_bn", "vgg16", "xvgg16"),
    ("small_resnet", "small_fixup_resnet", "small_xresnet"),
    ("small_vgg_bn", "small_vgg", "small_xvgg"),
)
"""With batch norm, without, without any bias as well."""
ARCHITECTURES: Chains = (
    ("vgg16", "resnet50", "vit_base_patch16"),
    ("small_vgg", "small_resnet", "small_vit"),
)
"""From the best to the worst, as the paper has it."""
ASKS_NOTHING = frozenset({"small_vgg"})
"""In the sample for its architecture: alone it asks for no network of a chain."""
EXPLAINING: Mapping[str, Sequence[str]] = {
    "resnet50": ("bcos_resnet50", "bagnet33"),
    "small_resnet": ("small_bcos_resnet", "small_bagnet"),
}
"""The plain network, and those beside it that explain themselves by the methods OWN."""


@dataclass(frozen=True)
class SelfExplaining(DesignFinding):
    """I1."""

    id: ClassVar[str] = "I1"
    claim: ClassVar[str] = "B-cos and BagNet beat the plain network's best post-hoc method"
    source: ClassVar[str] = "section 5, figure 3, table 4"

    def compare(self, evidence: DesignEvidence) -> Iterator[DesignContrast]:
        for plain, networks in EXPLAINING.items():
            if not {plain, *networks} & set(evidence.networks):
                continue
            rival, _ = evidence.best(plain, without=OWN)
            for network, method in zip(networks, OWN, strict=True):
                why = evidence.missing_network(plain) or ("" if rival else f"no score on {plain}")
                what = f"{method} of {network} over {rival or 'the best method'} of {plain}"
                if why:
                    yield DesignContrast(
                        what=what, protocol=TUNED, verdict=UNDECIDED, why=why, network=network
                    )
                else:
                    yield evidence.contrast(Cell(network, method), Cell(plain, rival), what)


@dataclass(frozen=True)
class Ordered(DesignFinding):
    """Networks in an order: each of a chain above the next, if any of the chain is there."""

    chains: ClassVar[Chains]

    def compare(self, evidence: DesignEvidence) -> Iterator[DesignContrast]:
        for chain in self.chains:
            if (set(chain) - ASKS_NOTHING) & set(evidence.networks):
                for better, worse in pairwise(chain):
                    yield from evidence.majority(better, worse)


@dataclass(frozen=True)
class DepthHarms(Ordered):
    """I4."""

    id: ClassVar[str] = "I4"
    claim: ClassVar[str] = "The deeper, the lower the score"
    source: ClassVar[str] = "section 5, figure 4"
    chains: ClassVar[Chains] = DEPTHS


@dataclass(frozen=True)
class WidthHarms(Ordered):
    """I5."""

    id: ClassVar[str] = "I5"
    claim: ClassVar[str] = "The wider, the lower the score"
    source: ClassVar[str] = "section 5, figure 4"
    chains: ClassVar[Chains] = WIDTHS


@dataclass(frozen=True)
class NormHarms(Ordered):
    """I6."""

    id: ClassVar[str] = "I6"
    claim: ClassVar[str] = "Without batch norm the score is higher"
    source: ClassVar[str] = "section 5, figure 4"
    chains: ClassVar[Chains] = tuple((bare, normed) for normed, bare, _ in NORMS)


@dataclass(frozen=True)
class BiasHarms(Ordered):
    """I7."""

    id: ClassVar[str] = "I7"
    claim: ClassVar[str] = "Without biases as well it is higher still"
    source: ClassVar[str] = "section 5, figure 4"
    chains: ClassVar[Chains] = tuple((bare, biased) for _, biased, bare in NORMS)


@dataclass(frozen=True)
class ArchitectureMatters(Ordered):
    """I8."""

    id: ClassVar[str] = "I8"
    claim: ClassVar[str] = "VGG above ResNet above ViT"
    source: ClassVar[str] = "section 5, figure 4"
    chains: ClassVar[Chains] = ARCHITECTURES
