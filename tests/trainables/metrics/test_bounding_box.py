"""The box around a map's marked pixels against the authors' arrays, plain loops, values by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.metrics.bounding_box import BoundingBoxIou, bounding_boxes

GOLDEN = Path(__file__).parents[2] / "golden" / "probing" / "metrics.npz"
with np.load(GOLDEN, allow_pickle=False) as arrays:
    golden = dict(arrays)
PLAIN = BoundingBoxIou(smooth_px=0)
AUTHORS = BoundingBoxIou(half_open=True, epsilon=1e-12)


def score(metric: BoundingBoxIou, maps: Tensor, masks: Tensor) -> np.ndarray:
    images = torch.zeros(len(maps), 3, *maps.shape[1:])
    passes: Any = SimpleNamespace(batch=SimpleNamespace(images=images, masks=masks))
    return metric(passes, maps).numpy()


def on_golden(metric: BoundingBoxIou, name: str) -> float:
    maps, masks = torch.from_numpy(golden[f"map/{name}"]), torch.from_numpy(golden["box_mask"] > 0)
    return float(np.nan_to_num(score(metric, maps[None], masks[None]))[0])


@pytest.mark.parametrize("name", golden["names"].tolist())
def test_each_map_has_the_authors_iou_up_to_their_rounding(name: str) -> None:
    ours, theirs = on_golden(AUTHORS, name), golden[f"bbox_iou_t0.3/{name}"]
    assert ours == pytest.approx(theirs, abs=0.011)
    assert round(ours, 2) == pytest.approx(theirs, abs=1e-6)


def test_the_defaults_depart_where_the_fields_say() -> None:
    whole = golden["box_mask"].sum() / golden["box_mask"].size
    assert on_golden(BoundingBoxIou(), "rand_pos") == pytest.approx(whole)  # 0.42, not 0.44
    assert on_golden(AUTHORS, "rand_pos") == pytest.approx(whole * 48**2 / 47**2, rel=1e-6)
    # a scale of 1e-13 is no reason to see nothing
    assert on_golden(BoundingBoxIou(), "tiny_scale") == pytest.approx(whole)
    assert on_golden(AUTHORS, "tiny_scale") == 0


def plain_iou(values: np.ndarray, mask: np.ndarray, threshold: float, end: int) -> float:
    """IoU by loops over pixels; the box reaches ``end`` beyond its last row and column."""
    positive = np.maximum(values, 0)
    low, high = positive.min(), positive.max()
    if high == 0:
        return np.nan
    level = low + threshold * (high - low)
    marked = [p for p in np.ndindex(values.shape) if positive[p] >= level - 1e-12]
    box = set()
    for y in range(min(p[0] for p in marked), max(p[0] for p in marked) + end):
        for x in range(min(p[1] for p in marked), max(p[1] for p in marked) + end):
            box.add((y, x))
    inside = {p for p in np.ndindex(values.shape) if mask[p]}
    return len(box & inside) / max(1, len(box | inside))


@pytest.mark.parametrize("half_open", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.77, 1.0])
def test_scores_equal_plain_loops(threshold: float, half_open: bool) -> None:
    generator = np.random.default_rng(3)
    maps = generator.normal(size=(30, 7, 9)) ** 3
    maps[0], maps[1], maps[2], maps[3] = 0, 0.3, -1, maps[3] * 1e-9
    masks = generator.random((30, 7, 9)) < 0.3
    masks[4], masks[5] = False, True
    metric = BoundingBoxIou(smooth_px=0, threshold=threshold, half_open=half_open)
    expected = [
        plain_iou(one, mask, threshold, 0 if half_open else 1)
        for one, mask in zip(maps, masks, strict=True)
    ]
    ours = score(metric, torch.from_numpy(maps), torch.from_numpy(masks))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_two_corners_mark_all_between_them() -> None:
    maps, masks = torch.zeros(1, 6, 8), torch.zeros(1, 6, 8, dtype=torch.bool)
    maps[0, 1, 2], maps[0, 4, 5] = 1, 0.3
    masks[0, 1:5, 2:6] = True
    assert score(PLAIN, maps.double(), masks).tolist() == [1]
    half_open = BoundingBoxIou(smooth_px=0, half_open=True)
    np.testing.assert_allclose(score(half_open, maps, masks), [9 / 16])


def test_one_pixel_is_a_box_and_for_the_authors_none() -> None:
    marked = torch.zeros(2, 4, 5, dtype=torch.bool)
    marked[0, 3, 4] = True
    assert torch.equal(bounding_boxes(marked), marked)
    assert not bounding_boxes(marked, half_open=True).any()


def test_a_map_without_positive_importance_is_undefined_and_counts_as_zero() -> None:
    maps = torch.stack([torch.zeros(4, 4), -torch.ones(4, 4), torch.ones(4, 4)])
    masks = torch.ones(3, 4, 4, dtype=torch.bool)
    scores = score(PLAIN, maps, masks)
    np.testing.assert_array_equal(scores, [np.nan, np.nan, 1])
    assert PLAIN.reduce(scores) == pytest.approx(1 / 3)
    assert BoundingBoxIou(undefined="drop").reduce(scores) == 1


@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1e30])
def test_scores_do_not_know_the_scale(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(9, 12, 12, generator=generator, dtype=torch.float64)
    masks = torch.rand(9, 12, 12, generator=generator) < 0.5
    np.testing.assert_array_equal(
        score(BoundingBoxIou(), scale * maps, masks), score(BoundingBoxIou(), maps, masks)
    )


def test_keys() -> None:
    assert BoundingBoxIou().key == "bounding_box_iou"
    assert BoundingBoxIou(threshold=0.5, half_open=True).key == "bounding_box_iou_t0.5_half_open"


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.5])
def test_a_threshold_that_marks_all_or_nothing_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=rf"threshold = {threshold}: expected .*\(0, 1\]"):
        BoundingBoxIou(threshold=threshold)


def test_a_negative_epsilon_is_refused() -> None:
    with pytest.raises(ValueError, match=r"epsilon = -1\.0: expected 0 or more"):
        BoundingBoxIou(epsilon=-1.0)
