"""Classification losses against what the authors' code gave for the same logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainables.losses.classification import binary_loss, classification_loss

GOLDEN = Path(__file__).parents[2] / "golden" / "probing" / "losses.npz"
KINDS = {
    "ce": ("ce", "zero", "target"),
    "bce": ("bce", "zero", "target"),
    "ubce": ("bce", "uniform", "target"),
    "bce_multi": ("bce", "zero", "target_multi"),
    "ubce_multi": ("bce", "uniform", "target_multi"),
}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN, allow_pickle=False))


def labels_of(golden: dict[str, np.ndarray], name: str) -> Tensor:
    labels = torch.from_numpy(golden[name])
    return labels.float() if labels.ndim == 2 else functional.one_hot(labels, 5).float()


def compare(loss: Tensor, logits: Tensor, golden: dict[str, np.ndarray], name: str) -> None:
    (gradient,) = torch.autograd.grad(loss, logits)
    kwargs = {"atol": 1e-6, "rtol": 1e-5}
    torch.testing.assert_close(loss.detach(), torch.tensor(golden[f"{name}_loss"]), **kwargs)
    torch.testing.assert_close(gradient, torch.from_numpy(golden[f"{name}_grad"]), **kwargs)


@pytest.mark.parametrize("name", [*KINDS, *(f"{kind}_biased" for kind in KINDS)])
def test_value_and_gradient_are_the_reference_codes(name, golden):
    objective, off_target, target = KINDS[name.removesuffix("_biased")]
    biased = name.endswith("_biased")
    logits = torch.from_numpy(golden["logits"]).requires_grad_()
    shifted = logits + float(golden["logit_bias"]) if biased else logits
    loss = classification_loss(objective, shifted, labels_of(golden, target), off_target)
    compare(loss, logits, golden, name)


def test_any_off_value_may_be_asked_for(golden):
    logits = torch.from_numpy(golden["logits"]).requires_grad_()
    compare(binary_loss(logits, labels_of(golden, "target"), 2e-3), logits, golden, "ubce_off2e-3")


def test_a_shift_of_all_logits_moves_bce_and_not_ce(golden):
    logits, labels = torch.from_numpy(golden["logits"]), labels_of(golden, "target")
    shifted = logits + torch.from_numpy(golden["shift"]).float()[:, None]
    for objective in ("ce", "bce"):
        moved = shifted.clone().requires_grad_()
        loss = classification_loss(objective, moved, labels)
        compare(loss, moved, golden, f"{objective}_shifted")
    ce = [classification_loss("ce", z, labels).item() for z in (logits, shifted)]
    bce = [classification_loss("bce", z, labels).item() for z in (logits, shifted)]
    assert ce[0] == pytest.approx(ce[1], abs=1e-5)
    assert abs(bce[0] - bce[1]) > 1e-2
