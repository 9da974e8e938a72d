"""What Model Guidance (Rao et al., ICCV 2023) ran: its datasets, networks, layers and methods."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatch

from analysis.findings.finding import Key

VOC, COCO = "voc2007", "coco2014"
DATASETS = (VOC, COCO)
VANILLA, XDNN, BCOS = "vanilla", "xdnn", "bcos"
KINDS = (VANILLA, XDNN, BCOS)
ENDS = ("input", "final")
"""The layers of the main paper."""
NETWORKS = {
    VANILLA: ("resnet*", "small_resnet*"),
    XDNN: ("xresnet*", "small_xresnet*"),
    BCOS: ("bcos_*", "small_bcos_*"),
}
"""Which networks, by name, stand for each kind. Fixup networks have biases: they are no X-DNN."""
PAPERS = ("resnet50", "xresnet50", "bcos_resnet50")
"""The paper's own networks."""
LAMBDAS = 3
"""How many lambdas the paper trained each loss with."""
GRAD_CAM = "grad_cam"
ATTRIBUTIONS = {VANILLA: "input_x_gradient", XDNN: "input_x_gradient", BCOS: "bcos"}
"""What the paper pairs each kind with; on an X-DNN, integrated gradients are input x gradient."""


def kind_of(network: str) -> str:
    """The paper's kind of a network; the network's own name if it is of none."""
    for kind, patterns in NETWORKS.items():
        if any(fnmatch(network, pattern) for pattern in patterns):
            return kind
    return network


def is_paired(network: str, attribution: str) -> bool:
    """Whether the paper guides networks of this kind by this method.

    Networks of no kind of the paper go with any method but Grad-CAM, which is a study of its own.
    """
    return attribution == ATTRIBUTIONS.get(kind_of(network), attribution) != GRAD_CAM


def keys(
    datasets: Sequence[str], kinds: Sequence[str], layers: Sequence[str], whats: Sequence[str]
) -> list[Key]:
    """Every combination."""
    return [
        Key(dataset, kind, layer, what)
        for dataset in datasets
        for kind in kinds
        for layer in layers
        for what in whats
    ]


def needs(missing: Collection[Key], expected: Collection[Key]) -> list[str]:
    """What is missing, in as few words as can be: whole datasets, then networks, then details.

    Comparisons that are of no dataset are named alone.
    """
    lacking = set(missing)
    alone = [key.what for key in expected if not key.dataset and key in lacking]
    expected = [key for key in expected if key.dataset]
    whole = [
        dataset
        for dataset in dict.fromkeys(key.dataset for key in expected)
        if all(key in lacking for key in expected if key.dataset == dataset)
    ]
    said = [", ".join(alone)] if alone else []
    said += [f"all on {' and '.join(whole)}"] if whole else []
    cells = dict.fromkeys(key[:3] for key in expected if key.dataset not in whole)
    for dataset, kind, layer in cells:
        here = [key for key in expected if key[:3] == (dataset, kind, layer)]
        absent = [key.what for key in here if key in lacking]
        if absent:
            detail = "" if len(absent) == len(here) else f"{', '.join(absent)}: "
            said.append(f"{detail}{kind} at {layer} on {dataset}")
    return said
