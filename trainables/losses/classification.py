"""Classification losses: cross-entropy, and binary cross-entropy with its two kinds of absence."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

Objective = Literal["bce", "ce"]
OffTarget = Literal["zero", "uniform"]


def classification_loss(
    objective: Objective, logits: Tensor, labels: Tensor, off_target: OffTarget = "zero"
) -> Tensor:
    """Mean loss of logits (B, K) with labels (B, K), float, 1 where the class is there.

    Source: How to Probe (Gairola et al., ICLR 2025), section 4; the uniform off-target is its
        code's, for single and several labels alike.

    Args:
        objective: ``bce`` is the mean over images and classes, ``ce`` over images, each of exactly
            one class.
        logits: of the images.
        labels: of the images.
        off_target: what BCE wants of an absent class.
    """
    if objective == "ce":
        return functional.cross_entropy(logits, labels.argmax(1))
    return binary_loss(logits, labels, 0.0 if off_target == "zero" else 1 / labels.shape[1])


def binary_loss(logits: Tensor, labels: Tensor, off_value: float) -> Tensor:
    """Mean over images and classes of the binary cross-entropy, absent classes at ``off_value``."""
    targets = labels.clamp(min=off_value)
    return functional.binary_cross_entropy_with_logits(logits, targets)
