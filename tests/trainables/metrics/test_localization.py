"""EPG, IoU and its threshold against the authors' arrays, plain loops and values by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import reference
from trainables.metrics.localization import (
    IOU_THRESHOLDS,
    BoxIou,
    Epg,
    ThresholdSelection,
    select_iou_threshold,
    to_unit_range,
)
from trainables.metrics.metric import Metric, Undefined

GOLDEN = Path(__file__).parents[2] / "golden" / "guidance" / "metrics.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def golden_maps(golden: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    rows = zip(golden["boxes"].tolist(), golden["n_boxes"].tolist(), strict=True)
    masks = [reference.union_mask(boxes[:count], (16, 20)) for boxes, count in rows]
    return torch.from_numpy(golden["attr"]), torch.from_numpy(np.stack(masks))


def score(metric: Metric, maps: Tensor, masks: Tensor | None) -> Tensor:
    images = torch.zeros(len(maps), 3, *maps.shape[1:])
    passes: Any = SimpleNamespace(batch=SimpleNamespace(images=images, masks=masks))
    return metric(passes, maps)


def random_case(n: int = 40, size: tuple[int, int] = (7, 9)) -> tuple[Tensor, Tensor]:
    """Maps of few values, so that thresholds are hit exactly; dead, flat and faint ones too."""
    generator = np.random.default_rng(3)
    maps = generator.integers(-4, 21, size=(n, *size)) / 20
    maps[0], maps[1], maps[2], maps[3] = 0, 0.3, -1, maps[3] * 1e-9
    masks = generator.random((n, *size)) < 0.3
    masks[0], masks[1], masks[4], masks[5] = False, False, True, False
    return torch.from_numpy(maps), torch.from_numpy(masks)


def test_each_row_has_the_authors_epg(
    golden: dict[str, np.ndarray], golden_maps: tuple[Tensor, Tensor]
) -> None:
    scores = score(Epg(), *golden_maps).numpy()
    np.testing.assert_allclose(np.nan_to_num(scores), golden["epg_each"], atol=1e-5)


@pytest.mark.parametrize("row", range(5), ids=["0.1", "0.3", "0.5", "0.7", "0.9"])
def test_each_row_has_the_authors_iou(
    golden: dict[str, np.ndarray], golden_maps: tuple[Tensor, Tensor], row: int
) -> None:
    metric = BoxIou(threshold=float(golden["iou_thresholds"][row]))
    scores = score(metric, *golden_maps).numpy()
    np.testing.assert_allclose(np.nan_to_num(scores), golden["iou_each"][row], atol=1e-5)


@pytest.mark.parametrize(("name", "metric"), [("epg", Epg()), ("iou05", BoxIou())])
def test_aggregates_equal_the_authors(
    golden: dict[str, np.ndarray],
    golden_maps: tuple[Tensor, Tensor],
    name: str,
    metric: Metric,
) -> None:
    maps, masks = golden_maps
    policies: tuple[tuple[Undefined, str], ...] = (("zero", "1"), ("drop", "0"))
    for policy, suffix in policies:
        mean, counted, defined = golden[f"{name}_mean_include_undefined_{suffix}"]
        under = replace(metric, undefined=policy)
        scores = score(under, maps, masks).numpy()
        assert under.reduce(scores) == pytest.approx(mean, abs=1e-5)
        assert len(scores) == counted
        assert under.defined_fraction(scores) == pytest.approx(defined / counted)
    assert metric.undefined == "zero"  # the code's own choice


@pytest.mark.parametrize(("name", "metric"), [("epg", Epg()), ("iou05", BoxIou())])
def test_means_over_boxes_of_some_size_equal_the_authors(
    golden: dict[str, np.ndarray],
    golden_maps: tuple[Tensor, Tensor],
    name: str,
    metric: Metric,
) -> None:
    maps, masks = golden_maps
    area = masks.sum((1, 2))
    chosen = (area >= 20) & (area < 100)
    mean, counted, _ = golden[f"{name}_mean_box_size_20_to_100"]
    scores = score(metric, maps[chosen], masks[chosen]).numpy()
    assert len(scores) == counted
    assert metric.reduce(scores) == pytest.approx(mean, abs=1e-5)


def test_scores_equal_plain_loops() -> None:
    maps, masks = random_case()
    pairs = list(zip(maps.numpy(), masks.numpy(), strict=True))
    expected = [reference.epg(one, mask) for one, mask in pairs]
    np.testing.assert_allclose(score(Epg(), maps, masks), expected, rtol=1e-12)
    for threshold in (0.0, 0.05, 0.5, 0.95):
        expected = [reference.box_iou(one, mask, threshold) for one, mask in pairs]
        iou = score(BoxIou(threshold=threshold), maps, masks)
        np.testing.assert_allclose(iou, expected, rtol=1e-12)


@pytest.mark.parametrize("level", [1e-3, 1.0, 1e6])
def test_epg_of_a_uniform_map_is_the_share_of_the_box(level: float) -> None:
    masks = torch.zeros(1, 6, 10, dtype=torch.bool)
    masks[0, 1:4, 2:7] = True
    maps = torch.full((1, 6, 10), level, dtype=torch.float64)
    assert score(Epg(), maps, masks).item() == pytest.approx(15 / 60)


def test_map_inside_the_box_scores_one_and_outside_zero() -> None:
    masks = torch.zeros(1, 6, 10, dtype=torch.bool)
    masks[0, 1:4, 2:7] = True
    for metric in (Epg(), BoxIou()):
        assert score(metric, masks.double() - 0.5, masks).item() == 1
        assert score(metric, 0.5 - masks.double(), masks).item() == 0


def test_epg_sees_the_sizes_and_iou_only_the_shape() -> None:
    maps = torch.tensor([[[4.0, 1.0], [2.0, 9.0]]])
    masks = torch.tensor([[[True, True], [False, False]]])
    assert score(Epg(), maps, masks).item() == pytest.approx(5 / 16)
    assert score(BoxIou(), maps, masks).item() == 0  # only the 9 exceeds half of the range
    assert score(BoxIou(threshold=0.3), maps, masks).item() == pytest.approx(1 / 3)


def test_epg_of_a_map_without_positive_importance_is_undefined() -> None:
    maps = torch.stack([torch.zeros(3, 3), -torch.ones(3, 3), torch.full((3, 3), 1e-9)])
    assert score(Epg(), maps, torch.ones(3, 3, 3, dtype=torch.bool)).isnan().all()


def test_iou_is_undefined_only_where_nothing_is_marked_and_nothing_shown() -> None:
    dead, flat = torch.zeros(3, 3), torch.ones(3, 3)
    nothing, something = torch.zeros(3, 3, dtype=torch.bool), torch.eye(3, dtype=torch.bool)
    maps = torch.stack([dead, dead, flat, flat])
    masks = torch.stack([nothing, something, nothing, something])
    expected = [np.nan, 0, 0, 1 / 3]
    np.testing.assert_allclose(score(BoxIou(), maps, masks), expected, rtol=1e-6)


def test_comparison_with_the_threshold_is_strict() -> None:
    maps = torch.tensor([[[0.0, 0.5, 1.0]]], dtype=torch.float64)
    masks = torch.tensor([[[False, True, True]]])
    assert score(BoxIou(threshold=0.5), maps, masks).item() == 0.5
    assert score(BoxIou(threshold=0.499), maps, masks).item() == 1


def test_unit_range_of_dead_flat_and_other_maps() -> None:
    maps = torch.tensor(
        [[[-1.0, 0.0]], [[3.0, 3.0]], [[2.0, 4.0]], [[-2.0, 4.0]], [[1e-9, 4e-9]]],
        dtype=torch.float64,
    )
    # The last spreads by less than 1e-7: over its maximum, its smallest value not subtracted.
    expected = [[[0.0, 0.0]], [[1.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]], [[0.25, 1.0]]]
    np.testing.assert_allclose(to_unit_range(maps), expected, rtol=1e-12)


def test_rounding_noise_on_a_constant_map_is_not_blown_up() -> None:
    noise = 1e-8 * torch.arange(9, dtype=torch.float64).view(1, 3, 3)
    assert (to_unit_range(1 + noise) > 0.95).all()


@pytest.mark.parametrize("metric", [Epg(), BoxIou()], ids=lambda metric: metric.key)
def test_a_batch_without_fitting_masks_is_refused(metric: Metric) -> None:
    maps = torch.ones(2, 4, 5)
    with pytest.raises(ValueError, match=f"{metric.key} needs masks"):
        score(metric, maps, None)
    with pytest.raises(ValueError, match=r"\(2, 4, 5\).*\(3, 4, 5\)"):
        score(metric, maps, torch.ones(3, 4, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"masks of torch\.bool"):
        score(metric, maps, torch.ones(2, 4, 5))


def test_thresholds_are_nineteen_plain_numbers() -> None:
    assert IOU_THRESHOLDS[0] == 0.05
    assert IOU_THRESHOLDS[9] == 0.5
    assert IOU_THRESHOLDS[-1] == 0.95
    assert len(IOU_THRESHOLDS) == 19
    assert BoxIou(threshold=IOU_THRESHOLDS[2]).key == "box_iou_t0.15"


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 1.5])
def test_a_threshold_that_no_map_can_pass_is_refused(threshold: float) -> None:
    with pytest.raises(
        ValueError, match=rf"threshold = {threshold}.*'tuned' or a number in \[0, 1\)"
    ):
        BoxIou(threshold=threshold)


def test_a_threshold_still_to_be_tuned_has_its_own_key_and_cannot_score() -> None:
    tuned = BoxIou(threshold="tuned")
    assert tuned.key == "box_iou_tuned"
    with pytest.raises(ValueError, match="select it first"):
        score(tuned, torch.ones(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))
    assert tuned.at(0.35) == BoxIou(threshold=0.35)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("slab_px", [1, 63 * 7, 2**22])
def test_selection_equals_scoring_at_each_threshold(dtype: torch.dtype, slab_px: int) -> None:
    maps, masks = random_case()
    selection = select_iou_threshold(maps.to(dtype), masks, slab_px=slab_px)
    means = []
    for threshold in IOU_THRESHOLDS:
        metric = BoxIou(threshold=threshold)
        means.append(metric.reduce(score(metric, maps.to(dtype), masks).numpy()))
    np.testing.assert_allclose(selection.means, means, rtol=1e-6)
    assert selection.threshold == IOU_THRESHOLDS[int(np.argmax(means))]


def test_selection_of_batches_adds_up(golden_maps: tuple[Tensor, Tensor]) -> None:
    maps, masks = golden_maps
    total = ThresholdSelection()
    for some_maps, some_masks in zip(maps.split(7), masks.split(7), strict=True):
        total = total + select_iou_threshold(some_maps, some_masks)
    whole = select_iou_threshold(maps, masks)
    assert total.count == whole.count == len(maps)
    assert total.threshold == whole.threshold
    np.testing.assert_allclose(total.means, whole.means, rtol=1e-12)


def test_selection_at_the_goldens_thresholds(
    golden: dict[str, np.ndarray], golden_maps: tuple[Tensor, Tensor]
) -> None:
    selection = select_iou_threshold(*golden_maps, thresholds=golden["iou_thresholds"].tolist())
    np.testing.assert_allclose(selection.means, golden["iou_each"].mean(1), atol=1e-5)


def test_the_lowest_of_equal_thresholds_is_selected() -> None:
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, 1:3, 1:3] = True
    selection = select_iou_threshold(masks.double(), masks)
    assert selection.means.tolist() == [1.0] * 19
    assert selection.threshold == 0.05


def test_the_best_threshold_is_found() -> None:
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 1:3, 1:3] = True
    maps = torch.where(masks, 1.0, 0.62)
    maps[0, 0, 0] = 0.0
    assert select_iou_threshold(maps, masks).threshold == 0.65


def test_selection_from_nothing_is_refused() -> None:
    nothing = select_iou_threshold(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4, dtype=torch.bool))
    assert nothing == ThresholdSelection()
    assert np.isnan(nothing.means).all()
    with pytest.raises(ValueError, match="no annotated object"):
        _ = nothing.threshold


def test_selection_from_a_broken_map_is_refused() -> None:
    maps, masks = random_case()
    maps[7, 2, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        select_iou_threshold(maps, masks)


def test_selections_over_other_thresholds_do_not_add_up() -> None:
    maps, masks = random_case()
    with pytest.raises(ValueError, match="do not add up"):
        _ = ThresholdSelection() + select_iou_threshold(maps, masks, thresholds=(0.5,))
    with pytest.raises(ValueError, match="must ascend"):
        select_iou_threshold(maps, masks, thresholds=(0.5, 0.5))
