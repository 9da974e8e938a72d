"""What every metric promises that perturbs images step by step, on a model with known evidence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import trainables.metrics  # noqa: F401  registers
from trainables.batch import Batch
from trainables.metrics.incremental_deletion import Ids
from trainables.metrics.metric import Metric
from trainables.metrics.pixel_deletion import PixelDeletion
from trainables.models.network import Model
from trainables.passes import Passes

NAMES = ("ids", "pixel_deletion", "adp", "pic", "pos", "neg", "deletion", "insertion")
METRICS = [Metric.named(name) for name in NAMES]
each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
OTHER_WAY = [Ids(order="descending"), PixelDeletion(order="descending")]
"""Protocols whose direction a field turns around."""
SIZE = (9, 11)


class Evidence(nn.Module):
    """Class 0 by the red of an image, against a little green; class 1 by a constant."""

    def forward(self, images: Tensor) -> Tensor:
        red, green, _ = images.sum((2, 3)).unbind(1)
        return torch.stack([8 * red - 0.5 * green, torch.full_like(red, 3.0)], 1)


def passes_with(masks: Tensor) -> Passes:
    """Passes over images whose object speaks for class 0, and whose background a little against.

    Red is spread over the mask and green over the rest, one in all each.
    """
    inside, outside = masks.double(), (~masks).double()
    red, green = (part / part.sum((1, 2), keepdim=True).clamp(min=1) for part in (inside, outside))
    n = len(masks)
    batch = Batch(
        images=torch.stack([red, green, torch.zeros_like(red)], 1),
        image_ids=[str(i) for i in range(n)],
        image_index=torch.arange(n),
        targets=torch.zeros(n, dtype=torch.long),
        masks=masks,
        labels=torch.zeros(n, dtype=torch.long),
    )
    model = Model(Evidence(), {"input": ""}, lambda pixels: pixels.double() / 255)
    return Passes(model, batch).__enter__()  # its hooks go with the model


def box_masks(n: int) -> Tensor:
    masks = torch.zeros(n, *SIZE, dtype=torch.bool)
    for i in range(n):
        masks[i, 1 : 4 + i % 3, 2 + i % 2 : 7] = True
    return masks


def random_maps(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *SIZE, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("metric", METRICS + OTHER_WAY, ids=lambda metric: metric.key)
def test_perfect_map_beats_every_random_map(metric: Metric) -> None:
    masks = box_masks(6)
    sign = 1 if metric.higher_is_better else -1
    perfect = metric(passes_with(masks), masks.double())
    for seed in range(20):
        assert (sign * perfect > sign * metric(passes_with(masks), random_maps(6, seed))).all()


@each_metric
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scores_stay_within_the_range(metric: Metric, dtype: torch.dtype) -> None:
    low, high = metric.range
    assert low < high
    masks = box_masks(6)
    masks[4], masks[5] = False, True
    for scale in (0.0, 1e-30, 1e-8, 1.0, 1e30):
        for maps in (random_maps(6), random_maps(6).abs(), torch.ones(6, *SIZE), masks.double()):
            scores = metric(passes_with(masks), scale * maps.to(dtype))
            assert scores.shape == (6,)
            assert scores.dtype == dtype
            assert (scores.isnan() | ((scores >= low) & (scores <= high))).all()


@each_metric
def test_batch_equals_its_singles(metric: Metric) -> None:
    maps, masks = random_maps(5), box_masks(5)
    singles = [metric(passes_with(masks[i : i + 1]), maps[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(
        metric(passes_with(masks), maps), torch.cat(singles), rtol=1e-12, atol=0
    )


@each_metric
def test_order_of_the_batch_does_not_matter(metric: Metric) -> None:
    maps, masks, order = random_maps(5), box_masks(5), [3, 1, 4, 0, 2]
    permuted = metric(passes_with(masks[order]), maps[order])
    scores = metric(passes_with(masks), maps)
    torch.testing.assert_close(permuted, scores[order], rtol=1e-12, atol=0)
    assert metric.reduce(permuted.numpy()) == pytest.approx(
        metric.reduce(scores.numpy()), rel=1e-12
    )


@each_metric
def test_a_batch_of_none_gives_none(metric: Metric) -> None:
    scores = metric(passes_with(box_masks(0)), random_maps(0))
    assert scores.shape == (0,)
    assert math.isnan(metric.reduce(scores.numpy()))
    assert math.isnan(metric.defined_fraction(scores.numpy()))


@each_metric
def test_maps_are_read_only_and_scores_carry_no_graph(metric: Metric) -> None:
    maps, masks = random_maps(3), box_masks(3)
    before = maps.clone()
    scores = metric(passes_with(masks), maps.requires_grad_())
    assert not scores.requires_grad
    assert torch.equal(maps, before)


@each_metric
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 11, 9), (3, 1, *SIZE)], ids=str)
def test_maps_that_are_not_of_image_size_are_refused(
    metric: Metric, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=rf"\({', '.join(map(str, shape))}\).*\(9, 11\) px"):
        metric(passes_with(box_masks(3)), torch.ones(shape, dtype=torch.float64))


@each_metric
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_map_is_refused_and_not_called_undefined(metric: Metric, bad: float) -> None:
    maps = random_maps(3)
    maps[1, 2, 3] = bad
    with pytest.raises(ValueError, match="1 of 3 maps"):
        metric(passes_with(box_masks(3)), maps)
