"""Gini index and entropy against the authors' arrays, plain formulas and values by hand."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.metrics.complexity import Entropy, Gini
from trainables.metrics.metric import Metric

GOLDEN = Path(__file__).parents[2] / "golden" / "probing" / "metrics.npz"
with np.load(GOLDEN, allow_pickle=False) as arrays:
    golden = dict(arrays)
MAPS = torch.from_numpy(np.stack([golden[f"map/{name}"] for name in golden["names"]]))


def score(metric: Metric, maps: Tensor) -> np.ndarray:
    images = torch.zeros(len(maps), 3, *maps.shape[1:])
    passes: Any = SimpleNamespace(batch=SimpleNamespace(images=images))
    return metric(passes, maps).numpy()


@pytest.mark.parametrize(
    ("metric", "key", "tolerance"),
    [
        (Gini(), "gini", 1e-6),
        (Entropy(), "entropy", 1e-4),
        (Entropy(smooth_px=9, smooth_kernel="gaussian"), "entropy_blur9", 1e-4),
    ],
    ids=["gini", "entropy", "entropy_blur9"],
)
def test_scores_are_the_authors_but_for_dead_maps(
    metric: Metric, key: str, tolerance: float
) -> None:
    expected = [golden[f"{key}/{name}"] for name in golden["names"]]
    ours = score(metric, MAPS)
    np.testing.assert_allclose(np.nan_to_num(ours), expected, atol=tolerance)
    dead = [name.startswith("all_") for name in golden["names"]]
    np.testing.assert_array_equal(np.isnan(ours), dead)


@pytest.mark.parametrize(
    ("name", "values"),
    [("onehot", np.eye(100)[0]), ("const", np.ones(100)), ("ramp", np.arange(100.0))],
)
def test_gini_of_plain_vectors_is_the_authors(name: str, values: np.ndarray) -> None:
    ours = score(Gini(), torch.from_numpy(values).view(1, 10, 10))
    assert ours[0] == pytest.approx(golden[f"gini_vec/{name}"], abs=1e-9)


def test_gini_equals_the_mean_difference_of_pairs() -> None:
    maps = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for one, ours in zip(maps.numpy(), score(Gini(epsilon=0.0), maps), strict=True):
        v = np.maximum(one, 0).ravel()
        pairs = np.abs(v[:, None] - v).sum() / (2 * len(v) ** 2 * v.mean())
        assert ours == pytest.approx(pairs, rel=1e-12)


def test_entropy_equals_the_sum_by_hand() -> None:
    maps = torch.tensor([[[1.0, 3.0], [-5.0, 4.0]]], dtype=torch.float64)
    p = np.array([1, 3, 4]) / 8
    bits = -(p * np.log2(p)).sum()
    assert score(Entropy(smooth_px=0, epsilon=0.0), maps)[0] == pytest.approx(bits, rel=1e-12)


@pytest.mark.parametrize("metric", [Gini(), Entropy()], ids=lambda metric: metric.key)
def test_only_the_control_is_free_of_scale(metric: Metric) -> None:
    control = type(metric)(unit_sum=True)
    maps = MAPS[1:2].double()
    np.testing.assert_allclose(
        score(control, 1e-12 * maps), score(control, maps), rtol=1e-9, atol=1e-12
    )
    assert abs(score(metric, 1e-12 * maps) - score(metric, maps))[0] > 0.05
    assert control.key == f"{metric.key}_unit_sum"


def test_a_dead_map_is_never_the_best() -> None:
    scores = score(Entropy(), torch.stack([MAPS[1], torch.zeros_like(MAPS[1])]))
    assert Entropy().reduce(scores) == pytest.approx(scores[0])
    assert Entropy().defined_fraction(scores) == 0.5
    assert Entropy(undefined="zero").reduce(scores) == pytest.approx(scores[0] / 2)  # the code's
    assert math.isnan(Entropy().reduce(scores[1:]))
    with pytest.raises(ValueError, match="range has no end"):
        Entropy(undefined="worst")
