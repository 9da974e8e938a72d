"""POS, NEG, deletion and insertion against the authors' arrays, a plain loop, counted forwards."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.trainables.attribution.idsds_golden import arrays
from tests.trainables.metrics.ltx_golden import FILE, classes_of, model_of, normalize, normalized
from tests.trainables.metrics.plain_removal import probability, ranks_first, removed, trapezoid
from tests.trainables.networks import pictures, tiny_model
from trainables.baselines import Zero
from trainables.batch import Batch
from trainables.metrics.incremental_deletion import Ids
from trainables.metrics.metric import Metric
from trainables.metrics.perturbation_curves import (
    Deletion,
    Insertion,
    Neg,
    PerturbationCurve,
    Pos,
)
from trainables.metrics.pixel_deletion import PixelDeletion
from trainables.passes import Passes

CURVES: dict[str, PerturbationCurve] = {
    "POS": Pos(), "NEG": Neg(), "DEL": Deletion(), "INS": Insertion()
}  # fmt: skip


def labeled(images: Tensor, labels: Tensor | list[int]) -> Batch:
    """One explanation of class 0 for each image."""
    return replace(
        Batch.single(images, torch.zeros(len(images), dtype=torch.long)),
        labels=torch.as_tensor(labels),
    )


@pytest.mark.parametrize("norm", ["imagenet", "half"])
@pytest.mark.parametrize("which", ["target", "predicted"])
def test_scores_are_the_authors(norm: str, which: str):
    golden, maps = arrays(FILE), arrays(FILE)["maps"][:, 0]
    with Passes(model_of(norm), labeled(normalized(norm), classes_of(norm, which))) as passes:
        for name, metric in CURVES.items():
            scores = 100 * metric(passes, maps)
            theirs = golden[f"{name}_{norm}_{which}_per_image"]
            torch.testing.assert_close(scores, theirs, atol=1e-3, rtol=0)
            assert float(scores.mean()) == pytest.approx(
                float(golden[f"{name}_{norm}_{which}"]), abs=1e-3
            )
            if which == "predicted":
                again = replace(metric, reference_class="predicted")
                torch.testing.assert_close(100 * again(passes, maps), scores)
        assert passes.counts.forwards == 12 * (1 + 9 + 9)


def test_perturbed_images_are_the_authors():
    golden, model = arrays(FILE), model_of("half")
    seen: list[Tensor] = []
    with Passes(model, labeled(normalized("half")[:1], [0])) as passes:
        handle = model.module.register_forward_pre_hook(lambda _m, x: seen.append(x[0]))
        for metric in (Pos(), Neg()):
            metric(passes, golden["maps"][:1, 0])
        handle.remove()
    images = torch.cat(seen)[1:]
    for row, name in ((2, "POS"), (9 + 2, "NEG")):
        theirs = normalize(golden[f"masked0_{name}_30pct"], "half")[0]
        torch.testing.assert_close(images[row], theirs, atol=1e-7, rtol=0)


@pytest.mark.parametrize("points", [2, 7, 10])
@pytest.mark.parametrize("name", CURVES)
def test_several_explanations_of_an_image_equal_a_plain_loop(name: str, points: int):
    model, images = tiny_model(), pictures(2)
    index, labels = [1, 0, 1], [3, 1]
    batch = Batch(
        images=images,
        image_ids=["a", "b"],
        image_index=torch.tensor(index),
        targets=torch.tensor([0, 1, 2]),
        labels=torch.tensor(labels),
    )
    maps = torch.randint(5, (3, 12, 12), generator=torch.Generator().manual_seed(0)).double()
    metric = replace(CURVES[name], points=points)
    with Passes(model, batch) as passes:
        scores, curves = metric.traced(passes, maps)
        assert passes.counts.forwards == 2 + 3 * (points - 1)
    order = "descending" if name in ("POS", "DEL") else "ascending"
    said = ranks_first if name in ("POS", "NEG") else probability
    black = torch.zeros_like(images[0])
    for n, image in enumerate(index):
        plain = [
            said(model, removed(images[image], maps[n], black, 144 * k // points, order),
                 labels[image])
            for k in range(points)
        ]  # fmt: skip
        assert curves is not None
        assert curves[n].tolist() == pytest.approx(plain, abs=1e-12)
        assert float(scores[n]) == pytest.approx(trapezoid(plain, 1 / points), abs=1e-12)


def test_protocols_share_the_steps_at_which_they_meet():
    model, batch = tiny_model(), labeled(pictures(3), [0, 1, 2])
    maps = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))

    def forwards(*metrics: Metric) -> int:
        with Passes(model, batch) as passes:
            for metric in metrics:
                metric(passes, maps)
            return passes.counts.forwards // 3

    assert forwards(Pos(), Deletion()) == 10
    assert forwards(Neg(), Insertion(), PixelDeletion()) == 10
    assert forwards(Insertion(), PixelDeletion(order="descending"), Deletion()) == 1 + 9 + 9
    assert forwards(Ids(), Ids(order="descending"), Insertion(baseline=Zero())) == 1 + 31 + 31 + 8
    assert forwards(Ids(points=10, baseline="black"), Insertion()) == 10


def test_a_model_that_does_not_look_scores_the_ends_of_the_range():
    model = tiny_model()
    model.module.fc.weight.data.zero_()
    model.module.fc.bias.data = torch.tensor([1e3, 0.0, 0.0, 0.0], dtype=torch.float64)
    maps = torch.rand(2, 12, 12, dtype=torch.float64)
    with Passes(model, labeled(pictures(2), [0, 1])) as passes:
        for metric in CURVES.values():
            assert metric(passes, maps).tolist() == pytest.approx([0.9, 0.0])
            assert metric.range == (0.0, 0.9)


def test_a_right_image_scores_a_twentieth_at_least():
    """Its first point alone, where the first step loses the class."""
    assert Pos().area(torch.eye(10)[:1]).tolist() == pytest.approx([0.05])


def test_a_constant_map_is_undefined():
    maps = torch.zeros(2, 12, 12, dtype=torch.float64)
    maps[1, 2, 3] = 1
    with Passes(tiny_model(), labeled(pictures(2), [0, 1])) as passes:
        for metric in CURVES.values():
            scores, curves = metric.traced(passes, maps)
            assert curves is not None
            assert scores.isnan().tolist() == [True, False]
            assert curves.isnan().all(1).tolist() == [True, False]
            assert replace(metric, undefined="zero").reduce(scores.numpy()) == pytest.approx(
                float(scores[1]) / 2
            )


def test_keys_ranges_and_refusals():
    assert Pos(points=5).key == "pos_k5"
    assert Deletion(baseline=Zero()).key == "deletion_zero"
    assert Neg(reference_class="predicted").key == "neg_predicted"
    assert Insertion(points=4).range == (0, 0.75)
    assert Pos(undefined="worst").worst == pytest.approx(0.9)
    with pytest.raises(ValueError, match=r"insertion.points = 1: expected 2"):
        Insertion(points=1)
    batch = Batch.single(pictures(1), torch.tensor([0]))
    with (
        Passes(tiny_model(), batch) as passes,
        pytest.raises(ValueError, match="no labels; say 'predicted'"),
    ):
        Pos()(passes, torch.rand(1, 12, 12))
    assert math.isfinite(Pos().worst)
