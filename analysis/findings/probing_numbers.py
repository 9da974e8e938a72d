"""Published numbers of How to Probe, in percent or points, to stand beside ours.

Source: How to Probe (Gairola et al., ICLR 2025): text, tables C1, C2, E1, E2 and E3; ImageNet. What
stands in figures alone is not here. Kinds are those of ``kind_of``, methods bear our names, and a
supervised backbone is ``supervised`` whatever its loss was.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch

CNN, BCOS_CNN, VIT, BCOS_VIT = "cnn", "bcos_cnn", "vit", "bcos_vit"
KINDS = {
    BCOS_VIT: ("bcos_*vit*", "small_bcos_vit*"),
    BCOS_CNN: ("bcos_*", "small_bcos_*"),
    VIT: ("*vit*", "*deit*"),
}
"""Which networks, by name, stand for each kind; all others are conventional convolutional ones."""
KIND_NAMES = {CNN: "RN50", BCOS_CNN: "B-RN50", VIT: "ViT-B/16", BCOS_VIT: "B-ViTc"}
"""The paper's network of each kind."""
Pair = tuple[float, float]

ACCURACY: Mapping[tuple[str, str], Pair] = {
    (CNN, "moco_v2"): (67.5, 66.9),
    (CNN, "byol"): (70.1, 69.3),
    (CNN, "dino"): (71.2, 70.6),
    (CNN, "supervised"): (75.5, 75.6),
    (BCOS_CNN, "moco_v2"): (66.3, 65.4),
    (BCOS_CNN, "byol"): (68.3, 68.1),
    (BCOS_CNN, "dino"): (68.8, 67.5),
    (BCOS_CNN, "supervised"): (72.4, 73.7),
    (VIT, "supervised"): (73.2, 72.8),
    (VIT, "dino"): (77.2, 77.6),
    (VIT, "moco_v3"): (76.3, 75.1),
    (BCOS_VIT, "supervised"): (77.3, 78.1),
    (BCOS_VIT, "dino"): (77.1, 77.3),
}
"""Top-1 of linear probes trained by CE and by BCE; B-ViTc is the B size."""
GRID_PG: Mapping[tuple[str, str, str], Pair] = {
    (BCOS_CNN, "moco_v2", "bcos"): (48, 81),
    (BCOS_CNN, "byol", "bcos"): (43, 71),
    (BCOS_CNN, "dino", "bcos"): (43, 80),
    (BCOS_CNN, "supervised", "bcos"): (15, 87),
    (BCOS_CNN, "supervised", "integrated_gradients"): (24, 86),
    (BCOS_CNN, "supervised", "input_x_gradient"): (15, 65),
    (BCOS_CNN, "supervised", "grad_cam"): (14, 72),
    (CNN, "clip", "lrp"): (19, 51),
    (CNN, "moco_v2", "lrp"): (50, 80),
    (CNN, "byol", "lrp"): (48, 66),
    (CNN, "dino", "lrp"): (52, 92),
    (CNN, "supervised", "lrp"): (9, 32),
    (CNN, "supervised", "integrated_gradients"): (14, 28),
    (CNN, "supervised", "input_x_gradient"): (10, 18),
    (CNN, "supervised", "grad_cam"): (16, 42),
    (CNN, "moco_v2", "score_cam"): (52.6, 54.4),
    (CNN, "byol", "score_cam"): (38.1, 40.5),
    (CNN, "dino", "score_cam"): (44.2, 55.9),
    (BCOS_CNN, "moco_v2", "score_cam"): (30.2, 43.2),
    (BCOS_CNN, "byol", "score_cam"): (45.3, 50.2),
    (BCOS_CNN, "dino", "score_cam"): (51.0, 67.7),
    (VIT, "supervised", "transformer_attribution"): (34, 50),
    (VIT, "dino", "transformer_attribution"): (31, 43),
    (VIT, "moco_v3", "transformer_attribution"): (48, 52),
    (BCOS_VIT, "supervised", "bcos"): (61, 84),
    (BCOS_VIT, "dino", "bcos"): (47, 80),
}
"""GridPG of linear probes, CE and BCE; supervised ones of the CNNs from table E2, ScoreCAM from
table E3. B-ViTc is the B size supervised, the S size by DINO."""
GRID_PG_GAIN: Mapping[tuple[str, str, str], float] = {
    (BCOS_VIT, "supervised", "bcos"): 23.5,
    (BCOS_VIT, "dino", "bcos"): 32.7,
    (VIT, "supervised", "transformer_attribution"): 15.7,
    (VIT, "dino", "transformer_attribution"): 11.7,
    (VIT, "moco_v3", "transformer_attribution"): 4.4,
}
"""Gains in points as the text and table C1 (its middle column) have them."""
OTHER_VIT_GAINS: Mapping[str, Pair] = {
    "supervised": (0.7, 0.4),
    "dino": (5.3, 4.8),
    "moco_v3": (3.8, 3.3),
}
"""Table C1's outer columns, whose methods our copy of the paper does not name."""
COMPLEXITY: Mapping[tuple[str, str], tuple[Pair, Pair, Pair]] = {
    (BCOS_CNN, "bcos"): ((-2.72, 0.10), (-1.87, 0.14), (-2.35, 0.16)),
    (BCOS_CNN, "input_x_gradient"): ((-0.13, 0.0), (-0.08, 0.0), (-0.08, 0.0)),
    (BCOS_CNN, "integrated_gradients"): ((-0.09, 0.0), (-0.04, 0.0), (-0.05, 0.0)),
    (BCOS_CNN, "grad_cam"): ((-1.07, 0.13), (-2.82, 0.20), (-2.51, 0.19)),
    (BCOS_CNN, "guided_backprop"): ((-0.23, 0.02), (-0.14, 0.01), (-0.13, 0.01)),
    (CNN, "input_x_gradient"): ((0.01, 0.0), (-0.04, 0.01), (0.01, 0.0)),
    (CNN, "integrated_gradients"): ((-0.01, 0.0), (-0.08, 0.0), (0.0, 0.0)),
    (CNN, "lrp"): ((-1.48, 0.07), (-0.85, 0.04), (-2.01, 0.12)),
    (CNN, "grad_cam"): ((1.13, -0.25), (1.61, -0.25), (-2.94, 0.23)),
    (CNN, "guided_backprop"): ((-0.14, 0.01), (-0.24, 0.02), (0.0, 0.0)),
}
"""Table E1: what BCE adds to entropy (bits) and Gini, by MoCo v2, BYOL and DINO."""
SELF_SUPERVISED = ("moco_v2", "byol", "dino")
"""The order of table E1."""
DEEPER: Mapping[tuple[str, str, str], tuple[Pair, ...]] = {
    (CNN, "moco_v2", "integrated_gradients"): ((66.9, 69), (71.3, 83)),
    (CNN, "byol", "integrated_gradients"): ((69.3, 83), (72.1, 85)),
    (CNN, "dino", "integrated_gradients"): ((70.6, 70), (73.1, 89)),
    (BCOS_VIT, "dino", "bcos"): ((77.3, 80.3), (78.2, 82.1), (79.7, 83.4)),
}
"""Accuracy and GridPG with BCE: on the CNN a linear probe and a B-cos one of three layers, on the
B-ViTc-B a linear probe and B-cos ones of two and three."""
EPG_BY_AREA: Mapping[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]] = {
    ("transformer_attribution", "supervised"): ((26.4, 42.8, 53.7, 71.0), (28.2, 44.5, 55.2, 72.1)),
    ("transformer_attribution", "dino"): ((40.2, 51.4, 61.5, 77.5), (41.7, 52.5, 62.2, 77.7)),
    ("transformer_attribution", "moco_v3"): ((34.2, 50.5, 59.5, 76.1), (36.5, 52.2, 60.1, 76.5)),
    ("rollout", "supervised"): ((28.6, 42.8, 53.1, 70.5), (30.1, 43.9, 53.5, 71.1)),
    ("rollout", "dino"): ((41.1, 53.3, 61.1, 76.8), (42.0, 52.6, 60.4, 76.5)),
    ("rollout", "moco_v3"): ((36.5, 50.6, 57.9, 75.1), (36.8, 51.2, 58.5, 75.5)),
    ("vit_cx", "supervised"): ((14.6, 28.6, 42.2, 61.2), (14.6, 29.1, 41.6, 61.4)),
    ("vit_cx", "dino"): ((14.5, 28.4, 42.3, 62.2), (15.2, 29.3, 43.1, 63.1)),
    ("vit_cx", "moco_v3"): ((14.2, 28.9, 43.3, 63.2), (15.4, 30.1, 44.2, 63.3)),
}
"""Table C2: EPG of ViT-B/16 on ImageNet by growing boxes, CE and BCE."""
SHIFT: Pair = (65.7, 11.9)
"""GridPG of LRP on one mosaic before and after all logits are shifted."""


def kind_of(backbone: str) -> str:
    """The kind of a network, by the key of its backbone."""
    for kind, patterns in KINDS.items():
        if any(fnmatch(backbone, pattern) for pattern in patterns):
            return kind
    return CNN


def trained_by(pretraining: str) -> str:
    """The paper's word for a pre-training."""
    return "supervised" if pretraining.startswith("supervised") else pretraining


def accuracy_beside(kind: str, pretraining: str) -> str:
    """The paper's accuracies of linear probes; empty if it has none."""
    return _pair(ACCURACY.get((kind, trained_by(pretraining))))


def grid_pg_beside(kind: str, pretraining: str, method: str) -> str:
    """The paper's GridPG of linear probes, and the gain where it is stated; empty if none."""
    key = (kind, trained_by(pretraining), method)
    pair, gain = _pair(GRID_PG.get(key)), GRID_PG_GAIN.get(key)
    return pair + (f" ({gain:+g})" if gain is not None else "")


def complexity_beside(kind: str, pretraining: str, method: str, family: str) -> str:
    """What BCE adds to entropy or Gini in table E1; empty if it is not there."""
    row = COMPLEXITY.get((kind, method))
    if row is None or pretraining not in SELF_SUPERVISED:
        return ""
    entropy, gini = row[SELF_SUPERVISED.index(pretraining)]
    return f"{entropy if family == 'entropy' else gini:+.2f}"


def epg_beside(kind: str, pretraining: str, method: str) -> str:
    """What BCE adds to EPG by growing boxes in table C2; empty if it is not there."""
    pair = EPG_BY_AREA.get((method, trained_by(pretraining))) if kind == VIT else None
    if pair is None:
        return ""
    return ", ".join(f"{b - a:+.1f}" for a, b in zip(*pair, strict=True))


def deeper_beside(kind: str, pretraining: str, method: str) -> str:
    """Accuracy and GridPG of deeper probes in the paper; empty if it has none."""
    steps = DEEPER.get((kind, trained_by(pretraining), method), ())
    return " → ".join(f"{accuracy:g}, {score:g}" for accuracy, score in steps)


def _pair(pair: Pair | None) -> str:
    return "" if pair is None else f"{pair[0]:g} → {pair[1]:g}"
