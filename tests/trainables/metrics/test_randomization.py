"""Sanity checks on tiny networks: methods that see the class and the weights, and a blind one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from tests.trainables.networks import CLASSES, tiny_model
from trainables.attribution.attribution import Attribution
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.metrics.metric import Metric
from trainables.metrics.randomization import (
    ClassSensitivity,
    MapSimilarity,
    explained_by,
    map_similarity,
    other_class,
)
from trainables.passes import Passes


def batch_of(images: int = 3, size: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(2)
    return Batch(
        images=torch.rand(images, 3, size, size, generator=generator, dtype=torch.float64),
        image_ids=[f"image{i}" for i in range(images)],
        image_index=torch.tensor([0, 1, 1, 2])[: images + 1],
        targets=torch.tensor([1, 0, 3, 2])[: images + 1],
    )


def full_size(method: Attribution, passes: Passes) -> Tensor:
    return method.at_image_size(method(passes), passes)


def blind(passes: Passes) -> Tensor:
    """Maps that know neither class nor weights."""
    return passes.batch.images[passes.batch.image_index].sum(1)


Explain = Callable[[Passes], Tensor]
IXG: Explain = partial(full_size, InputXGradient())


def scored(metric: Metric, explain: Explain, batch: Batch | None = None) -> tuple[Tensor, Passes]:
    with Passes(tiny_model(), batch or batch_of()) as passes:
        return metric(passes, explain(passes), explain), passes


def test_similarity_equals_scipy_on_pixels_and_on_a_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, 6, 9, generator=generator) for _ in range(2))
    first[1, :3] = 0  # ties
    for one, other, ours in zip(first, second, map_similarity(first, second), strict=True):
        expected = spearmanr(one.flatten(), other.flatten()).statistic
        assert ours.item() == pytest.approx(expected, abs=1e-12)
    means = [
        maps.double().unflatten(2, (3, 3)).unflatten(1, (3, 2)).mean((2, 4))
        for maps in (first, second)
    ]
    for one, other, ours in zip(*means, map_similarity(first, second, grid=3), strict=True):
        expected = spearmanr(one.flatten(), other.flatten()).statistic
        assert ours.item() == pytest.approx(expected, abs=1e-12)


def test_equal_maps_score_one_opposite_ones_minus_one_constant_ones_nothing() -> None:
    maps = torch.randn(2, 20, 20, generator=torch.Generator().manual_seed(0))
    assert map_similarity(maps, 3 * maps + 1, grid=7).tolist() == [1, 1]
    assert map_similarity(maps, -maps, grid=7).tolist() == [-1, -1]
    # 0.1 has no exact mean: cells of other sizes differ by a rounding
    assert map_similarity(maps, torch.full_like(maps, 0.1), grid=7).isnan().all()


@pytest.mark.parametrize("which", ["second", "last"])
def test_a_method_that_is_blind_to_the_class_scores_one(which: str) -> None:
    metric = ClassSensitivity(grid=6, against=which)  # type: ignore[arg-type]
    assert scored(metric, blind)[0].tolist() == [1.0] * 4
    seeing, passes = scored(metric, IXG)
    assert (seeing < 0.999).all()
    assert (seeing >= -1).all()
    assert passes.counts.forwards <= 2 * 4


def test_class_sensitivity_compares_with_the_largest_other_class() -> None:
    batch = batch_of()
    with Passes(tiny_model(), batch) as passes:
        first = IXG(passes)
        logits = passes.logits[batch.image_index]
        others = other_class(logits, batch.targets, "second")
        ours = ClassSensitivity(grid=0)(passes, first, IXG)
    swapped = Batch(
        images=batch.images, image_ids=batch.image_ids, image_index=batch.image_index,
        targets=others,
    )  # fmt: skip
    with Passes(tiny_model(), swapped) as passes:
        torch.testing.assert_close(ours, map_similarity(first, IXG(passes)))
    ranked = logits.argsort(1, descending=True)
    expected = torch.where(ranked[:, 0] == batch.targets, ranked[:, 1], ranked[:, 0])
    assert others.tolist() == expected.tolist()
    last = other_class(logits, batch.targets, "last")
    lowest = torch.where(ranked[:, -1] == batch.targets, ranked[:, -2], ranked[:, -1])
    assert last.tolist() == lowest.tolist()


def test_methods_share_the_passes_about_the_other_class() -> None:
    methods = [InputXGradient(), GradCam(), InputXGradient(absolute=True)]
    alone = 0
    with Passes(tiny_model(), batch_of()) as passes:
        passes.expect(n for method in methods for n in method.needs(passes.model))
        for method in methods:
            explain = partial(full_size, method)
            together = ClassSensitivity(grid=6)(passes, explain(passes), explain)
            single, single_passes = scored(ClassSensitivity(grid=6), explain)
            torch.testing.assert_close(together, single, equal_nan=True)
            alone = max(alone, single_passes.counts.forwards)
    assert passes.counts.forwards == alone


def test_the_same_model_repeats_itself_and_another_does_not() -> None:
    metric = MapSimilarity(grid=6)
    batch = batch_of()
    with Passes(tiny_model(), batch) as passes:
        maps = IXG(passes)
        assert metric(passes, maps, IXG).tolist() == [1.0] * 4
        other = metric(passes, maps, explained_by(tiny_model(1), IXG))
    with Passes(tiny_model(1), batch) as passes:
        torch.testing.assert_close(other, map_similarity(maps, IXG(passes), grid=6))
    assert (other < 0.9).all()
    with Passes(tiny_model(), batch) as passes:
        trivial = metric(passes, blind(passes), explained_by(tiny_model(1), blind))
        assert trivial.tolist() == [1.0] * 4


@pytest.mark.parametrize("metric", [MapSimilarity(grid=6), ClassSensitivity(grid=6)], ids=str)
def test_batch_order_and_emptiness(metric: Metric) -> None:
    batch, order = batch_of(), [2, 0, 3, 1]
    explain = explained_by(tiny_model(1), IXG) if metric.name == "map_similarity" else IXG
    with Passes(tiny_model(), batch) as passes:
        scores = metric(passes, IXG(passes), explain)
    permuted = Batch(
        images=batch.images, image_ids=batch.image_ids,
        image_index=batch.image_index[order], targets=batch.targets[order],
    )  # fmt: skip
    with Passes(tiny_model(), permuted) as passes:
        maps = IXG(passes)
        torch.testing.assert_close(metric(passes, maps, explain), scores[order])
        # constant maps are undefined, and not averaged
        dead = metric(passes, torch.zeros_like(maps), explain)
        assert dead.isnan().all()
        assert np.isnan(metric.reduce(dead.numpy()))
    nobody = torch.zeros(0, dtype=torch.long)
    empty = Batch(
        images=batch.images, image_ids=batch.image_ids, image_index=nobody, targets=nobody
    )
    with Passes(tiny_model(), empty) as passes:
        assert metric(passes, torch.zeros(0, 12, 12), blind).shape == (0,)


def test_what_is_missing_is_named() -> None:
    with Passes(tiny_model(), batch_of()) as passes:
        maps = blind(passes)
        for metric in (MapSimilarity(grid=6), ClassSensitivity(grid=6)):
            with pytest.raises(ValueError, match=f"{metric.key} explains again"):
                metric(passes, maps)
        with pytest.raises(ValueError, match="14 x 14 cells on maps of"):
            MapSimilarity()(passes, maps, blind)
    with pytest.raises(ValueError, match=r"map_similarity\.grid = -1"):
        MapSimilarity(grid=-1)
    with pytest.raises(ValueError, match="at least two classes"):
        other_class(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), "second")
    with pytest.raises(ValueError, match=r"\(2, 3, 3\) and \(2, 4, 4\)"):
        map_similarity(torch.zeros(2, 3, 3), torch.zeros(2, 4, 4))


def test_keys() -> None:
    assert ClassSensitivity().key == "class_sensitivity"
    assert ClassSensitivity(against="last", grid=7).key == "class_sensitivity_grid7_last"
    assert CLASSES > 2
