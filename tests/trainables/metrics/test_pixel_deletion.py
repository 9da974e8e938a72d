"""Pixel deletion against Quantus's and Chefer's arrays and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainables.attribution.idsds_golden import arrays
from tests.trainables.metrics.plain_removal import probability, ranks_first, removed, trapezoid
from tests.trainables.networks import pictures, tiny_model
from trainables.baselines import Zero
from trainables.batch import Batch
from trainables.metrics.perturbation import Held
from trainables.metrics.pixel_deletion import PixelDeletion
from trainables.metrics.removal import Order, Removals, places
from trainables.models.network import Model
from trainables.passes import Passes

ORDERS: dict[str, Order] = {"lif": "ascending", "mif": "descending"}


@pytest.mark.parametrize("features_in_step", [1, 8, 13])
@pytest.mark.parametrize("order", ORDERS)
def test_curves_and_areas_are_those_of_quantus(features_in_step: int, order: str):
    golden = arrays("probing/pixel_deletion")
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 3),
    ).double()  # fmt: skip
    module.load_state_dict({k[3:]: t for k, t in golden.items() if k.startswith("sd/")})
    model = Model(module, {"input": ""}, lambda pixels: pixels.double())
    steps = PixelDeletion.per_step(features_in_step, 64)
    metric = PixelDeletion(order=ORDERS[order], step=steps.step, until_empty=True, baseline=Zero())
    with Passes(model, Batch.single(golden["image"], golden["target"])) as passes:
        clean = passes.logits.softmax(1).gather(1, golden["target"][:, None])[:, 0]
        scores, curves = metric.traced(passes, golden["attribution"][:, 0])
    assert curves is not None
    key = f"quantus_{order}_step{features_in_step}"
    np.testing.assert_allclose(clean, golden["prob_unperturbed"], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(curves, golden[key], atol=1e-5, rtol=1e-4)
    width = len(metric.steps) - 1
    np.testing.assert_allclose(scores * width, golden[f"{key}_auc"], atol=1e-5, rtol=1e-4)


def test_least_important_pixels_go_in_the_order_of_quantus():
    golden = arrays("probing/pixel_deletion")
    turns = places(golden["attribution"][:, 0].float(), "ascending").flatten(1)
    theirs = golden["quantus_order_lif"]
    assert torch.equal(turns.gather(1, theirs.long()), torch.arange(64).expand(3, -1))


class Chefer(nn.Module):
    """Means of cells of 16 px, and a linear layer."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.avg_pool2d(x, 16).flatten(1)
        return nn.functional.linear(pooled, self.weight, self.bias)


@pytest.mark.parametrize("order", ORDERS)
def test_hits_and_differences_are_those_of_chefers_code(order: str):
    golden = arrays("probing/pixel_deletion")
    small = golden["chefer_lowres_u8"].float() / 255
    images = small.repeat_interleave(16, 2).repeat_interleave(16, 3)
    pixel = torch.arange(50176)
    maps = torch.stack([pixel * 7919 % 50176, (pixel * 3331 + 17) % 50176]) / 50176
    maps = maps.view(2, 224, 224)
    module = Chefer(golden["chefer_fc_weight"].float(), golden["chefer_fc_bias"].float())
    model = Model(module, {"input": ""}, lambda pixels: (pixels / 255 - 0.5) / 0.5)
    metric = PixelDeletion(order=ORDERS[order], output="hit")
    assert metric.steps == tuple(golden["chefer_fractions"].tolist())
    with Passes(model, Batch.single((images - 0.5) / 0.5, golden["chefer_target"])) as passes:
        _, curves = metric.traced(passes, maps)
        assert passes.counts.forwards == 2 * 10
        clean = passes.logits
        after = passes.get(
            Removals(maps=Held(maps), order=ORDERS[order], fill="black")
        ).logits(metric.shares)  # fmt: skip
        assert passes.counts.forwards == 2 * 10  # what the metric has asked for already
    assert curves is not None
    np.testing.assert_array_equal(curves.T, golden[f"chefer_{order}_hits"])
    probabilities = after.softmax(2).amax(2) - clean.softmax(1).amax(1, keepdim=True)
    logits = after.amax(2) - clean.amax(1, keepdim=True)
    for name, ours in (("prob", probabilities), ("logit", logits)):
        theirs = golden[f"chefer_{order}_{name}_diff"]
        np.testing.assert_allclose(ours.T, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("output", ["probability", "hit"])
@pytest.mark.parametrize("until_empty", [False, True])
@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_several_explanations_of_an_image_equal_a_plain_loop(
    order: Order, until_empty: bool, output
):
    model, images = tiny_model(), pictures(2)
    index, targets = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 3])
    batch = Batch(images=images, image_ids=["a", "b"], image_index=index, targets=targets)
    maps = torch.randint(5, (3, 12, 12), generator=torch.Generator().manual_seed(0)).double()
    metric = PixelDeletion(order=order, step=0.3, until_empty=until_empty, output=output)
    with Passes(model, batch) as passes:
        scores, curves = metric.traced(passes, maps)
        steps = 4 if until_empty else 3
        assert passes.counts.forwards == 2 + 3 * steps
    assert metric.steps == (0.3, 0.6, 0.9, 1.0)[:steps]
    said = probability if output == "probability" else ranks_first
    black = torch.zeros_like(images[0])
    for n, (image, target) in enumerate(zip(index.tolist(), targets.tolist(), strict=True)):
        plain = [
            said(model, removed(images[image], maps[n], black, count, order), target)
            for count in (43, 86, 129, 144)[:steps]
        ]
        assert curves is not None
        assert curves[n].tolist() == pytest.approx(plain, abs=1e-12)
        assert float(scores[n]) == pytest.approx(trapezoid(plain, 1 / (steps - 1)), abs=1e-12)


def test_a_curve_of_one_point_scores_its_height():
    model, batch = tiny_model(), Batch.single(pictures(1), torch.tensor([0]))
    with Passes(model, batch) as passes:
        scores, curves = PixelDeletion(step=0.7).traced(passes, torch.rand(1, 12, 12))
    assert curves is not None
    assert curves.shape == (1, 1)
    assert scores == curves[0]


@pytest.mark.parametrize(
    ("features_in_step", "features", "steps"), [(1, 50176, 50176), (224, 50176, 224), (13, 64, 5)]
)
def test_steps_of_so_many_features_are_exact(features_in_step: int, features: int, steps: int):
    shares = PixelDeletion.per_step(features_in_step, features).shares
    removed_features = [int(share * features) for share in shares]
    whole = range(features_in_step, features + features_in_step, features_in_step)
    assert removed_features == [min(count, features) for count in whole]
    assert len(shares) == steps


def test_directions_keys_and_refusals():
    assert PixelDeletion().higher_is_better
    assert not PixelDeletion(order="descending").higher_is_better
    quantus = PixelDeletion.per_step(8, 64, feature="value")
    assert quantus.key == "pixel_deletion_step0.125_until_empty_value"
    assert PixelDeletion(baseline=Zero()).key == "pixel_deletion_zero"
    for step in (0.0, -0.1, 1.5, 1.0):
        with pytest.raises(ValueError, match=f"step = {step}"):
            PixelDeletion(step=step)
    assert PixelDeletion(step=1.0, until_empty=True).steps == (1.0,)
