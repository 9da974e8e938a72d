"""IDS against the authors' arrays, a plain loop, and counted passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.trainables.attribution.idsds_golden import arrays, network
from tests.trainables.metrics.plain_removal import probability, removed
from tests.trainables.networks import gradient_of, pictures, tiny_model
from trainables.attribution.attribution import Attribution
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.baselines import Blur
from trainables.batch import Batch
from trainables.metrics.incremental_deletion import Ids
from trainables.metrics.removal import Order
from trainables.models.network import evaluating
from trainables.passes import Passes

METHODS = {
    "IxG": InputXGradient(),
    "IxG_abs": InputXGradient(absolute=True),
    "Grad-CAM": GradCam(),
}
CURVE = {"IxG": 1e-5, "IxG_abs": 1e-5, "Grad-CAM": 0.05}
SCORE = {"IxG": 1e-5, "IxG_abs": 1e-5, "Grad-CAM": 5e-4}


def explain_by(method: Attribution) -> Callable[[Passes], Tensor]:
    return lambda passes: method.at_image_size(method(passes), passes)


def stored_maps(method: str) -> Tensor:
    maps = arrays("idsds/tiny_gap")[f"map.{method.removesuffix('_abs')}"][:, 0]
    return maps.abs() if method.endswith("_abs") else maps


def traced(metric: Ids, method: str, images: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Scores and curves of the golden images; all passes are counted."""
    golden, model = arrays("idsds/tiny_gap"), network("tiny_gap")
    batch = Batch.single(golden["images"][images], golden["targets"][images])
    with evaluating(model.module), Passes(model, batch) as passes:
        explain, maps = explain_by(METHODS[method]), stored_maps(method)[images]
        scores, curves = metric.traced(passes, maps, explain)
        assert passes.counts.forwards == metric.points * len(batch.images)
    assert curves is not None
    return scores, curves


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_fixed_curves_are_the_authors(method: str, order: Order):
    golden = arrays("idsds/ids_tiny_gap")
    scores, curves = traced(Ids(order=order), method)
    key = f"fix.{order}.{method}"
    assert (curves - golden[f"curve.{key}"]).abs().max() < CURVE[method]
    assert abs(scores.mean() - golden[f"score.{key}"]) < SCORE[method]


@pytest.mark.parametrize(
    ("method", "order"),
    [("IxG", "ascending"), ("IxG_abs", "ascending"), ("Grad-CAM", "ascending"),
     ("IxG", "descending")],
)  # fmt: skip
def test_updated_curves_are_the_authors(method: str, order: Order):
    golden = arrays("idsds/ids_tiny_gap")
    scores, curves = traced(Ids(order=order, updated=True), method)
    key = f"upd.{order}.{method}"
    assert (curves - golden[f"curve.{key}"]).abs().max() < CURVE[method]
    assert abs(scores.mean() - golden[f"score.{key}"]) < SCORE[method]


def test_blur_and_seven_steps_and_small_batches_are_the_authors():
    golden = arrays("idsds/ids_tiny_gap")
    for key, metric in (("blur", Ids(baseline=Blur())), ("steps7", Ids(points=7))):
        scores, curves = traced(metric, "IxG")
        assert (curves - golden[f"curve.{key}.fix.ascending.IxG"]).abs().max() < 1e-5
        assert abs(scores.mean() - golden[f"score.{key}.fix.ascending.IxG"]) < 1e-5
    halves = [traced(Ids(), "IxG", half)[0].mean() for half in (slice(3), slice(3, 6))]
    assert abs(sum(halves) / 2 - golden["score.batch3.fix.ascending.IxG"]) < 1e-5


def plain_ids(model, image, target, values, points, order, explain=None) -> list[float]:
    """One image; with ``explain`` the order is made anew, after what is gone already."""
    zero, gone = torch.zeros_like(image), torch.zeros_like(values, dtype=torch.bool)
    front = -math.inf if order == "ascending" else math.inf
    curve = [probability(model, image, target)]
    for k in range(1, points):
        count = values.numel() * k // points
        ordering = values.masked_fill(gone, front)
        perturbed = removed(image, ordering, zero, count, order)
        gone = removed(torch.zeros(1, *values.shape), ordering, torch.ones(1, *values.shape),
                       count, order)[0] == 1  # fmt: skip
        curve.append(probability(model, perturbed, target))
        if explain is not None:
            values = explain(perturbed)
    return curve


@pytest.mark.parametrize("updated", [False, True])
@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_several_explanations_of_an_image_equal_a_plain_loop(order: Order, updated: bool):
    model, images = tiny_model(), pictures(3)
    index, targets = torch.tensor([1, 0, 1, 2]), torch.tensor([2, 0, 3, 1])
    batch = Batch(images=images, image_ids=["a", "b", "c"], image_index=index, targets=targets)
    metric = Ids(order=order, points=5, updated=updated)
    explain = explain_by(InputXGradient())

    def explained(target: int, image: Tensor) -> Tensor:
        gradient = gradient_of(model, image[None], torch.tensor([target]), "input")
        return (image * gradient[0]).sum(0)

    with evaluating(model.module), Passes(model, batch) as passes:
        passes.expect(InputXGradient().needs(model))
        maps = explain(passes)
        before, clean = maps.clone(), passes.counts.forwards
        scores, curves = metric.traced(passes, maps, explain)
        assert passes.counts.forwards == clean + 4 * 4
    assert torch.equal(maps, before)
    for n, (image, target) in enumerate(zip(index.tolist(), targets.tolist(), strict=True)):
        plain = plain_ids(
            model, images[image], target, maps[n], 5, order,
            partial(explained, target) if updated else None,
        )  # fmt: skip
        assert curves is not None
        assert curves[n].tolist() == pytest.approx(plain, abs=1e-12)
        assert float(scores[n]) == pytest.approx(sum(plain) / 5, abs=1e-12)


def test_an_explained_step_answers_its_own_probability():
    """32 forwards and 31 explanations, the first of them the map that is judged."""
    model, images = tiny_model(), pictures(2)
    explained = []

    def explain(passes: Passes) -> Tensor:
        explained.append(len(passes.batch.targets))
        return explain_by(InputXGradient())(passes)

    batch = Batch.single(images, torch.tensor([0, 1]))
    with evaluating(model.module), Passes(model, batch) as passes:
        Ids(updated=True)(passes, explain(passes), explain)
        assert sum(explained) == 2 * 31
        assert passes.counts.forwards == 2 * 32
        assert passes.counts.backwards["input"] == 2 * 31


def test_slabs_of_one_image_give_the_same_updated_scores():
    model, batch = tiny_model(), Batch.single(pictures(3), torch.tensor([0, 1, 2]))
    explain, metric = explain_by(InputXGradient()), Ids(points=4, updated=True)
    scores = []
    for budget in (2**30, 2**30, 1):
        with evaluating(model.module), Passes(model, batch, budget_bytes=budget) as passes:
            scores.append(metric(passes, explain(passes), explain))
    torch.testing.assert_close(scores[2], scores[1], rtol=1e-12, atol=1e-12)


def test_a_model_that_does_not_look_scores_its_probability():
    model = tiny_model()
    model.module.fc.weight.data.zero_()
    batch = Batch.single(pictures(2), torch.tensor([0, 1]))
    with Passes(model, batch) as passes:
        clean = passes.logits.softmax(1)[[0, 1], [0, 1]]
        scores = Ids()(passes, torch.zeros(2, 12, 12, dtype=torch.float64))
    torch.testing.assert_close(scores, clean)


def test_directions_keys_and_refusals():
    assert Ids().higher_is_better
    assert not Ids(order="descending").higher_is_better
    assert Ids(order="descending", undefined="worst").worst == 1
    keys = [Ids(points=7).key, Ids(updated=True).key, Ids(baseline=Blur()).key]
    assert keys == ["ids_k7", "ids_updated", "ids_blur"]
    with pytest.raises(ValueError, match="points = 0"):
        Ids(points=0)
    batch = Batch.single(pictures(1), torch.tensor([0]))
    with (
        Passes(tiny_model(), batch) as passes,
        pytest.raises(ValueError, match="needs a way to explain"),
    ):
        Ids(updated=True)(passes, torch.zeros(1, 12, 12))
