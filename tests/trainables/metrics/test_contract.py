"""What every metric of maps promises.

Parametrized over everything registered: a new class is tested before its author writes a test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

import trainables.metrics  # noqa: F401  registers
from data_pipelines.patches import cell_of_pixel, cell_sides
from tests.device_literals import device_literals
from tests.trainables.networks import CLASSES, tiny_model
from trainables.batch import Batch
from trainables.metrics.localization import LocalizationMetric
from trainables.metrics.metric import Metric, Undefined
from trainables.metrics.single_deletion import Deletions, SingleDeletion, target_drops
from trainables.models.network import evaluating
from trainables.passes import Passes

METRICS = [cls() for _, cls in sorted(Metric.registered.items())]
each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
SIZE = (9, 11)
MODEL = tiny_model()


@dataclass(frozen=True)
class Case:
    """Explanations of one image each: row i speaks of image i of one generated sequence."""

    masks: Tensor
    maps: Tensor
    rows: Sequence[int]

    def at(self, chosen: Sequence[int]) -> Case:
        """Some rows, in this order."""
        return Case(self.masks[chosen], self.maps[chosen], [self.rows[i] for i in chosen])

    @property
    def batch(self) -> Batch:
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(8, 3, *SIZE, generator=generator, dtype=torch.float64)
        rows = torch.tensor(self.rows, dtype=torch.long)
        batch = Batch.single(images[rows], rows % CLASSES, self.masks)
        return replace(batch, image_ids=[f"image {row}" for row in self.rows])


def case(masks: Tensor, maps: Tensor) -> Case:
    return Case(masks, maps, range(len(maps)))


def scores_of(metric: Metric, case: Case) -> Tensor:
    """Scores over the tiny network in eval mode, as an evaluation asks for them."""
    with evaluating(MODEL.module), Passes(MODEL, case.batch) as passes:
        return metric(passes, case.maps)


def box_masks(n: int) -> Tensor:
    masks = torch.zeros(n, *SIZE, dtype=torch.bool)
    for i in range(n):
        masks[i, 1 : 4 + i % 3, 2 + i % 2 : 7] = True
    return masks


def random_maps(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *SIZE, generator=generator, dtype=torch.float64)


def masks_as_maps(metric: LocalizationMetric, case: Case) -> Tensor:
    """All importance on the object."""
    return case.masks.double()


def effects_as_maps(metric: SingleDeletion, case: Case) -> Tensor:
    """What the deletion of a cell does to the target, spread over the cell."""
    batch, patches = case.batch, metric.patches
    with evaluating(MODEL.module), Passes(MODEL, batch) as passes:
        deleted = passes.get(Deletions(patches=patches, baseline=metric.baseline))
        drops = target_drops(passes.logits, deleted, batch.image_index, batch.targets)
    cell = torch.from_numpy(cell_of_pixel(patches, *SIZE))
    spread = drops[:, cell.clamp(min=0)] / math.prod(cell_sides(patches, *SIZE))
    return torch.where(cell >= 0, spread, 0.0)


PERFECT: dict[type[Metric], Callable[..., Tensor]] = {
    LocalizationMetric: masks_as_maps,
    SingleDeletion: effects_as_maps,
}
"""Maps that no other can beat, by the kind of metric: a new kind states its own here."""


def perfect_maps(metric: Metric, case: Case) -> Tensor:
    makers = [make for kind, make in PERFECT.items() if isinstance(metric, kind)]
    assert makers, f"PERFECT lacks the kind of {metric.name}"
    return makers[0](metric, case)


def policies(metric: Metric) -> dict[str, Metric]:
    """The metric under every policy for undefined rows that it accepts."""
    accepted = set(get_args(Undefined))
    if metric.chance is None:
        accepted.remove("chance")
    if not math.isfinite(metric.worst):
        accepted.remove("worst")
    return {policy: replace(metric, undefined=policy) for policy in sorted(accepted)}


@each_metric
def test_perfect_map_beats_every_random_map(metric: Metric) -> None:
    masks = box_masks(6)
    sign = 1 if metric.higher_is_better else -1
    maps = perfect_maps(metric, case(masks, random_maps(6)))
    perfect = scores_of(metric, case(masks, maps))
    for seed in range(20):
        scores = scores_of(metric, case(masks, random_maps(6, seed)))
        assert (sign * perfect > sign * scores).all()


@each_metric
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scores_stay_within_the_range(metric: Metric, dtype: torch.dtype) -> None:
    low, high = metric.range
    assert low < high
    masks = box_masks(6)
    masks[4], masks[5] = False, True
    for scale in (0.0, 1e-30, 1e-8, 1.0, 1e30):
        for maps in (random_maps(6), random_maps(6).abs(), torch.ones(6, *SIZE), masks.double()):
            scores = scores_of(metric, case(masks, scale * maps.to(dtype)))
            assert scores.shape == (6,)
            assert scores.dtype == dtype
            assert (scores.isnan() | ((scores >= low) & (scores <= high))).all()


@each_metric
def test_batch_equals_its_singles(metric: Metric) -> None:
    whole = case(box_masks(5), random_maps(5))
    singles = [scores_of(metric, whole.at([i])) for i in range(5)]
    torch.testing.assert_close(scores_of(metric, whole), torch.cat(singles), rtol=1e-12, atol=0)


@each_metric
def test_order_of_the_batch_does_not_matter(metric: Metric) -> None:
    whole, order = case(box_masks(5), random_maps(5)), [3, 1, 4, 0, 2]
    permuted = scores_of(metric, whole.at(order))
    scores = scores_of(metric, whole)
    torch.testing.assert_close(permuted, scores[order], rtol=1e-12, atol=0)
    assert metric.reduce(permuted.numpy()) == pytest.approx(
        metric.reduce(scores.numpy()), rel=1e-12
    )


@each_metric
def test_a_batch_of_none_gives_none(metric: Metric) -> None:
    scores = scores_of(metric, case(box_masks(0), random_maps(0)))
    assert scores.shape == (0,)
    assert math.isnan(metric.reduce(scores.numpy()))
    assert math.isnan(metric.defined_fraction(scores.numpy()))


@each_metric
def test_maps_are_read_only_and_scores_carry_no_graph(metric: Metric) -> None:
    maps, masks = random_maps(3), box_masks(3)
    before = maps.clone()
    scores = scores_of(metric, case(masks, maps.requires_grad_()))
    assert not scores.requires_grad
    assert torch.equal(maps, before)


@each_metric
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 11, 9), (3, 1, *SIZE)], ids=str)
def test_maps_that_are_not_of_image_size_are_refused(
    metric: Metric, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=rf"\({', '.join(map(str, shape))}\).*\(9, 11\) px"):
        scores_of(metric, case(box_masks(3), torch.ones(shape, dtype=torch.float64)))


@each_metric
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_map_is_refused_and_not_called_undefined(metric: Metric, bad: float) -> None:
    maps = random_maps(3)
    maps[1, 2, 3] = bad
    with pytest.raises(ValueError, match="1 of 3 maps"):
        scores_of(metric, case(box_masks(3), maps))


@each_metric
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
