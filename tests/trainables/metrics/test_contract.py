"""What every metric of maps promises.

Parametrized over everything registered: a new class is tested before its author writes a test.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

import trainables.metrics  # noqa: F401  registers
from tests.device_literals import device_literals
from trainables.metrics.metric import Metric, Undefined
from trainables.metrics.pooled import PooledMetric
from trainables.metrics.smoothing import SmoothedMetric

METRICS = [cls() for _, cls in sorted(Metric.registered.items())]
each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
ASKING = {
    *("sds", "idsds", "map_similarity", "class_sensitivity", "network_response"),
    *("ids", "pixel_deletion", "adp", "pic", "pos", "neg", "deletion", "insertion"),
}
"""Metrics that ask the model, or for maps again: their own files score by them, those that perturb
step by step in test_perturbation_contract.py."""
each_metric_of_maps = pytest.mark.parametrize(
    "metric", [m for m in METRICS if m.name not in ASKING], ids=lambda metric: metric.key
)
SIZE = (18, 24)


def passes_with(masks: Tensor) -> Any:
    """What a metric that only looks at maps reads of the passes: the batch, with segments that
    leave out the first row of each mask, and some of it undecided."""
    images = torch.zeros(len(masks), 3, *SIZE, dtype=torch.float64)
    segments = (masks & masks.roll(1, 1)).to(torch.int8)
    segments[:, -1, :5] = -1
    return SimpleNamespace(batch=SimpleNamespace(images=images, masks=masks, segments=segments))


def masks_for(metric: Metric, n: int) -> Tensor:
    """Boxes of several sizes; cells of 3 x 3 where these are asked for."""
    masks = torch.zeros(n, *SIZE, dtype=torch.bool)
    for i in range(n):
        if "cells" in metric.requires:
            masks[i, 6 * (i % 3) : 6 * (i % 3) + 6, 8:16] = True
        else:
            masks[i, 1 : 4 + i % 3, 2 + i % 2 : 7] = True
    return masks


def perfect_maps(metric: Metric, masks: Tensor) -> Tensor:
    """The object where its pixels are known, its box else, one pixel where neither is asked for."""
    if "segments" in metric.requires:
        return (passes_with(masks).batch.segments == 1).double()
    if metric.requires:
        return masks.double()
    maps = torch.zeros(len(masks), *SIZE, dtype=torch.float64)
    maps[:, 5, 7] = 1
    return maps


def random_maps(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *SIZE, generator=generator, dtype=torch.float64)


def policies(metric: Metric) -> dict[str, Metric]:
    """The metric under every policy for undefined rows that it accepts."""
    accepted = {"drop"} if isinstance(metric, PooledMetric) else set(get_args(Undefined))
    if metric.chance is None:
        accepted -= {"chance"}
    if not math.isfinite(metric.worst):
        accepted -= {"worst"}
    return {policy: replace(metric, undefined=policy) for policy in sorted(accepted)}


@each_metric_of_maps
def test_perfect_map_beats_every_random_map(metric: Metric) -> None:
    masks = masks_for(metric, 6)
    sign = 1 if metric.higher_is_better else -1
    perfect = sign * metric(passes_with(masks), perfect_maps(metric, masks))
    for seed in range(20):
        random = sign * metric(passes_with(masks), random_maps(6, seed))
        assert (perfect >= random).all()
        assert perfect.sum() > random.sum()  # one random map may hit by chance


BOX, OBJECT, DECIDED, PIXELS = 15, 10, 427, 432
KNOWN = {
    "average_precision": (0.5, ((DECIDED - 9) ** 2 / DECIDED + 9 / 2) / DECIDED),
    "bounding_box_iou": (BOX / PIXELS, 1 / BOX),
    "box_iou": (BOX / PIXELS, 1 / BOX),
    "entropy": (math.log2(PIXELS), 0),
    "epg": (BOX / PIXELS, 1),
    "gini": (0, 1 - 1 / PIXELS),
    "grid_pg": (1 / 9, 1),
    "mean_iou": (417 / DECIDED / 2, (417 / 426 + 1 / OBJECT) / 2),
    "on_object_epg": (OBJECT / BOX, 1),
    "pixel_accuracy": (417 / DECIDED, 418 / DECIDED),
    "pointing_game": (BOX / PIXELS, 1),
    "segmentation_f1": (0, 2 / (1 + OBJECT)),
}
"""What a uniform map scores without a filter, and one pixel on the object alone."""


@each_metric_of_maps
def test_uniform_and_one_hot_maps_score_what_is_known(metric: Metric) -> None:
    if isinstance(metric, SmoothedMetric):
        metric = replace(metric, smooth_px=0)
    masks = masks_for(metric, 1)
    passes = passes_with(masks)
    one_hot = torch.zeros(1, *SIZE, dtype=torch.float64)
    place = (masks & (passes.batch.segments == 1))[0].nonzero()[0]
    one_hot[0, place[0], place[1]] = 3.0
    for maps, known in zip(
        (0.7 * torch.ones_like(one_hot), one_hot), KNOWN[metric.name], strict=True
    ):
        # the code's 1e-7 a pixel moves a Gini index by some 1e-5
        assert metric(passes, maps).item() == pytest.approx(known, rel=1e-9, abs=2e-5)


@each_metric_of_maps
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scores_stay_within_the_range(metric: Metric, dtype: torch.dtype) -> None:
    low, high = metric.range
    assert low < high
    masks = masks_for(metric, 6)
    if "cells" not in metric.requires:
        masks[4], masks[5] = False, True
    for scale in (0.0, 1e-30, 1e-8, 1.0, 1e30):
        for maps in (random_maps(6), random_maps(6).abs(), torch.ones(6, *SIZE), masks.double()):
            scores = metric(passes_with(masks), scale * maps.to(dtype))
            assert scores.shape == (6,)
            assert scores.dtype == dtype
            assert (scores.isnan() | ((scores >= low) & (scores <= high))).all()


@each_metric_of_maps
def test_batch_equals_its_singles(metric: Metric) -> None:
    maps, masks = random_maps(5), masks_for(metric, 5)
    singles = [metric(passes_with(masks[i : i + 1]), maps[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(
        metric(passes_with(masks), maps), torch.cat(singles), rtol=1e-12, atol=0
    )


def as_array(traces: Tensor | None) -> np.ndarray | None:
    return None if traces is None else traces.numpy()


@each_metric_of_maps
def test_order_of_the_batch_does_not_matter(metric: Metric) -> None:
    maps, masks, order = random_maps(5), masks_for(metric, 5), [3, 1, 4, 0, 2]
    permuted, permuted_traces = metric.traced(passes_with(masks[order]), maps[order])
    scores, traces = metric.traced(passes_with(masks), maps)
    torch.testing.assert_close(permuted, scores[order], rtol=1e-12, atol=0)
    assert metric.reduce(permuted.numpy(), as_array(permuted_traces)) == pytest.approx(
        metric.reduce(scores.numpy(), as_array(traces)), rel=1e-12
    )


@each_metric_of_maps
def test_a_batch_of_none_gives_none(metric: Metric) -> None:
    scores = metric(passes_with(masks_for(metric, 0)), random_maps(0))
    assert scores.shape == (0,)
    assert math.isnan(metric.reduce(scores.numpy()))
    assert math.isnan(metric.defined_fraction(scores.numpy()))


@each_metric_of_maps
def test_maps_are_read_only_and_scores_carry_no_graph(metric: Metric) -> None:
    maps, masks = random_maps(3), masks_for(metric, 3)
    before = maps.clone()
    scores = metric(passes_with(masks), maps.requires_grad_())
    assert not scores.requires_grad
    assert torch.equal(maps, before)


@each_metric
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, *SIZE[::-1]), (3, 1, *SIZE)], ids=str)
def test_maps_that_are_not_of_image_size_are_refused(
    metric: Metric, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=rf"\({', '.join(map(str, shape))}\).*\(18, 24\) px"):
        metric(passes_with(masks_for(metric, 3)), torch.ones(shape, dtype=torch.float64))


@each_metric
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_map_is_refused_and_not_called_undefined(metric: Metric, bad: float) -> None:
    maps = random_maps(3)
    maps[1, 2, 3] = bad
    with pytest.raises(ValueError, match="1 of 3 maps"):
        metric(passes_with(masks_for(metric, 3)), maps)


@pytest.mark.parametrize(
    "metric", [m for m in METRICS if not isinstance(m, PooledMetric)], ids=lambda m: m.key
)
def test_undefined_rows_count_as_the_policy_says(metric: Metric) -> None:
    scores = np.array([0.25, np.nan, 0.75, np.nan])
    worst = metric.range[0] if metric.higher_is_better else metric.range[1]
    stands_for = {"zero": 0.0, "worst": worst, "chance": metric.chance}
    for policy, under in policies(metric).items():
        assert under.defined_fraction(scores) == 0.5
        if policy == "drop":
            assert under.reduce(scores) == 0.5
            assert math.isnan(under.reduce(np.array([np.nan])))
        else:
            value = stands_for[policy]
            assert value is not None
            assert under.reduce(scores) == pytest.approx((1.0 + 2 * value) / 4)
            assert under.reduce(np.array([np.nan])) == pytest.approx(value)
    assert {"drop", "zero"} <= set(policies(metric))


@each_metric
def test_policies_have_different_keys(metric: Metric) -> None:
    keys = [under.key for under in policies(metric).values()]
    assert len(set(keys)) == len(keys)
    assert metric.key == metric.name


@each_metric
def test_a_policy_without_a_value_is_refused(metric: Metric) -> None:
    for policy in set(get_args(Undefined)) - set(policies(metric)):
        with pytest.raises(ValueError, match=f"undefined = '{policy}'.*say"):
            replace(metric, undefined=policy)


@each_metric
def test_an_unknown_policy_is_refused(metric: Metric) -> None:
    with pytest.raises(ValueError, match=r"undefined = 'best'.*'drop', 'zero', 'chance', 'worst'"):
        replace(metric, undefined="best")  # type: ignore[arg-type]


@each_metric
def test_source_is_stated_and_no_device_is_named(metric: Metric) -> None:
    assert "Source:" in (type(metric).__doc__ or "")
    assert device_literals(type(metric)) == []


def test_the_contract_itself_cannot_be_built() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Metric()  # type: ignore[abstract]


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'iou'; known: .*box_iou"):
        Metric.named("iou")
