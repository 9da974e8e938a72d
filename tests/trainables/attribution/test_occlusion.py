"""Occlusion against captum, identities, and counts by hand."""

from __future__ import annotations

import pytest
import torch
from captum.attr import Occlusion as Theirs
from torch import nn

from tests.trainables.networks import pictures, tiny_model
from trainables.attribution.occlusion import Occlusion
from trainables.baselines import Uniform, Zero
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.passes import Passes

TARGETS = torch.tensor([2, 0, 3])


@pytest.mark.parametrize(("window_px", "stride_px"), [(4, 4), (5, 3), (3, 2), (12, 1), (1, 1)])
def test_agrees_with_captum_also_where_the_border_cuts_a_window(window_px, stride_px):
    model, batch = tiny_model(), Batch.single(pictures(3)[..., :11], TARGETS)
    window_px = min(window_px, 11)
    method = Occlusion(window_px=window_px, stride_px=stride_px, score="logit")
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = method(passes)
    theirs = Theirs(model.module).attribute(
        batch.images,
        target=TARGETS,
        sliding_window_shapes=(3, window_px, window_px),
        strides=(3, stride_px, stride_px),
        baselines=0,
        perturbations_per_eval=8,
    )
    # captum sums in float32
    torch.testing.assert_close(maps, theirs[:, 0].double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", ["probability", "sigmoid"])
def test_agrees_with_captum_on_probabilities_and_other_baselines(score):
    model, batch = tiny_model(), Batch.single(pictures(3), TARGETS)
    method = Occlusion(window_px=5, stride_px=2, score=score, baseline=Uniform())
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = method(passes)
    activation = nn.Softmax(1) if score == "probability" else nn.Sigmoid()
    theirs = Theirs(nn.Sequential(model.module, activation)).attribute(
        batch.images,
        target=TARGETS,
        sliding_window_shapes=(3, 5, 5),
        strides=(3, 2, 2),
        baselines=Uniform().images(batch),
    )
    # captum sums in float32
    torch.testing.assert_close(maps, theirs[:, 0].double(), rtol=1e-5, atol=1e-6)


def test_one_pixel_of_a_linear_model_is_its_contribution():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 4)).double()
    model = Model(module.eval(), {"input": ""}, lambda images: images)
    images = pictures(3)[..., :6, :6]
    method = Occlusion(window_px=1, stride_px=1, score="logit")
    with evaluating(module), Passes(model, Batch.single(images, TARGETS)) as passes:
        maps = method(passes)
    weights = module[1].weight[TARGETS].detach().view(3, 3, 6, 6)
    torch.testing.assert_close(maps, (weights * images).sum(1), rtol=1e-9, atol=1e-12)


def test_one_forward_a_window_serves_all_targets_and_scores():
    model = tiny_model()
    batch = Batch(
        images=pictures(2),
        image_ids=["a", "b"],
        image_index=torch.tensor([0, 0, 1, 0]),
        targets=torch.tensor([0, 1, 2, 3]),
    )
    found = []
    for budget in (1, 2**30):
        with evaluating(model.module), Passes(model, batch, budget_bytes=budget) as passes:
            found.append(Occlusion(window_px=4, stride_px=3)(passes))
            Occlusion(window_px=4, stride_px=3, score="logit")(passes)
            assert passes.logits.shape == (2, 4)
            # starts 0, 3, 6, 9 along each axis; and the images as they are
            assert passes.counts.forwards == 2 * (16 + 1)
            assert passes.counts.backwards.total() == 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("window_px", "stride_px"), [(0, 0), (3, 4), (3, 0)])
def test_windows_that_leave_gaps_are_refused(window_px, stride_px):
    with pytest.raises(ValueError, match="no larger than the window"):
        Occlusion(window_px=window_px, stride_px=stride_px)


def test_a_window_larger_than_the_images_is_refused():
    model = tiny_model()
    message = "window of 15 px in images of 12 x 12 px: choose window_px no larger"
    with (
        Passes(model, Batch.single(pictures(3), TARGETS)) as passes,
        pytest.raises(ValueError, match=message),
    ):
        Occlusion(baseline=Zero())(passes)
    assert passes.counts.forwards == 0
