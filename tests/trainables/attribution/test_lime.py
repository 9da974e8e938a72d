"""LIME against its definition, captum's own samples on images, and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import Lime as Theirs
from skimage.segmentation import quickshift
from torch import Tensor, nn

from tests.trainables.networks import pictures, tiny_model
from trainables.attribution.lime import Lime, Switches, segment_means
from trainables.attribution.segmentation import Grid, Quickshift
from trainables.baselines import Zero
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.passes import Passes

TARGETS = torch.tensor([2, 0, 3, 1])
SMALL = Lime(samples=40, segmentation=Grid(cells=3))


def batch_of(images: Tensor, index: list[int], targets: list[int], *ids: str) -> Batch:
    return Batch(
        images=images,
        image_ids=ids or [f"image {i}" for i in range(len(images))],
        image_index=torch.tensor(index),
        targets=torch.tensor(targets),
    )


def switches_of(method: Lime) -> Switches:
    return Switches(samples=method.samples, segmentation=method.segmentation, seed=method.seed)


@pytest.mark.parametrize("score", ["probability", "sigmoid", "logit"])
@pytest.mark.parametrize("baseline", [None, Zero()])
def test_maps_follow_the_definition(score, baseline):
    """Weights and ridge regression as the package lime has them, sample by sample."""
    model, images = tiny_model(), pictures(2)
    batch = batch_of(images, [1, 0, 1], [0, 1, 2])
    method = Lime(
        samples=40, segmentation=Grid(cells=3), score=score, baseline=baseline,
        penalty=0.5, kernel_width=0.4,
    )  # fmt: skip
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = method(passes)
        drawn = passes.get(switches_of(method))
        for n, (image, target) in enumerate(((1, 0), (0, 1), (1, 2))):
            x, z = images[image], drawn.shown[image].double().numpy()
            segments = drawn.segments[image]
            hidden = torch.zeros_like(x)
            if baseline is None:
                for segment in range(9):
                    for channel in range(3):
                        inside = x[channel][segments == segment]
                        hidden[channel][segments == segment] = inside.mean()
            said, weights = [], []
            for row in z:
                seen = torch.where(torch.tensor(row[segments.numpy()]) > 0, x, hidden)
                logits = model.module(seen[None])[0]
                kinds = {
                    "probability": logits.softmax(0),
                    "sigmoid": logits.sigmoid(),
                    "logit": logits,
                }
                said.append(kinds[score][target].item())
                length = np.linalg.norm(row)
                distance = 1 - row.sum() / (length * 3) if length else 1.0
                weights.append(np.sqrt(np.exp(-(distance**2) / 0.4**2)))
            # the intercept is not penalized
            a, w = np.hstack([z, np.ones((40, 1))]), np.diag(weights)
            penalty = np.diag([0.5] * 9 + [0.0])
            solution = np.linalg.solve(a.T @ w @ a + penalty, a.T @ w @ np.array(said))
            expected = torch.from_numpy(solution[:9])[segments]
            torch.testing.assert_close(maps[n], expected, rtol=1e-4, atol=1e-6)


def test_agrees_with_captum_on_the_images_themselves():
    model, images = tiny_model(), pictures(1)
    method = Lime(samples=40, segmentation=Grid(cells=3), penalty=0.5)
    with evaluating(model.module), Passes(model, batch_of(images, [0], [2])) as passes:
        maps = method(passes)
        drawn = passes.get(switches_of(method))
        rows = iter(drawn.shown[0].long())

        def weight(_image: Tensor, _perturbed: Tensor, switches: Tensor, **_: object) -> float:
            share = switches.double().mean().sqrt().item()  # cosine with the vector of ones
            return float(np.exp(-((1 - share) ** 2) / (2 * 0.25**2)))

        with torch.random.fork_rng(devices=[]):
            theirs = Theirs(
                nn.Sequential(model.module, nn.Softmax(1)),
                interpretable_model=SkLearnRidge(alpha=0.5),
                similarity_func=weight,
                perturb_func=lambda _image, **_: next(rows)[None],
            ).attribute(
                images,
                target=2,
                feature_mask=drawn.segments[:, None].expand(-1, 3, -1, -1),
                baselines=segment_means(images, drawn.segments),
                n_samples=40,
                perturbations_per_eval=7,
            )
    torch.testing.assert_close(maps, theirs[:, 0].double(), rtol=1e-4, atol=1e-7)


def test_on_a_linear_model_a_segment_is_worth_what_hiding_it_takes():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 4)).double()
    model = Model(module.eval(), {"input": ""}, lambda images: images)
    images = pictures(4)
    method = Lime(
        samples=60, segmentation=Grid(cells=2), score="logit", penalty=1e-6, baseline=Zero()
    )
    with evaluating(module), Passes(model, Batch.single(images, TARGETS)) as passes:
        maps = method(passes)
    contributions = (module[1].weight[TARGETS].detach().view(4, 3, 12, 12) * images).sum(1)
    quarters = contributions.unfold(1, 6, 6).unfold(2, 6, 6).sum((3, 4))
    expected = quarters.repeat_interleave(6, 1).repeat_interleave(6, 2)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)


def test_one_forward_a_sample_serves_all_targets_and_fits():
    model, found = tiny_model(), []
    batch = batch_of(pictures(2), [0, 0, 1, 0], [0, 1, 2, 3])
    for budget in (1, 2**30):
        with evaluating(model.module), Passes(model, batch, budget_bytes=budget) as passes:
            found.append(SMALL(passes))
            Lime(samples=40, segmentation=Grid(cells=3), penalty=9.0, score="sigmoid")(passes)
        assert passes.counts.forwards == 2 * 40
        assert passes.counts.backwards.total() == 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_the_draw_belongs_to_the_image_and_no_global_generator_moves():
    model, images = tiny_model(), pictures(2)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    found = {}
    for ids in (("a", "b"), ("b", "a")):
        with Passes(model, batch_of(images[[0, 0]], [0, 1], [2, 2], *ids)) as passes:
            found[ids] = SMALL(passes)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    torch.testing.assert_close(found["a", "b"], found["b", "a"].flip(0), rtol=1e-9, atol=1e-13)
    assert not torch.allclose(found["a", "b"][0], found["a", "b"][1], rtol=1e-3)


def test_the_first_sample_shows_everything_and_the_others_about_half():
    with Passes(tiny_model(), batch_of(pictures(2), [0, 1], [0, 1])) as passes:
        drawn = passes.get(Switches(samples=400, segmentation=Grid(cells=3), seed=0))
    assert drawn.counts == [9, 9]
    assert drawn.shown[:, 0].all()
    assert drawn.shown[:, 1:].double().mean() == pytest.approx(0.5, abs=0.02)


def test_images_of_a_batch_may_have_different_numbers_of_segments():
    images = blocks()
    images[1] = 0.5  # one segment
    model, batch = tiny_model(), batch_of(images, [0, 1], [2, 2])
    method = Lime(samples=30, segmentation=Quickshift(max_distance=10))
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = method(passes)
        counts = passes.get(switches_of(method)).counts
    assert counts[0] > counts[1] == 1
    alone = batch_of(images[:1], [0], [2])
    with evaluating(model.module), Passes(model, alone) as passes:
        torch.testing.assert_close(method(passes), maps[:1], rtol=1e-9, atol=1e-13)
    # its mean color hides nothing
    torch.testing.assert_close(maps[1], torch.zeros_like(maps[1]), rtol=0, atol=1e-6)


def blocks() -> Tensor:
    """Two images of 24 px whose left and right halves differ in color, encoded with deviations."""
    images = torch.zeros(2, 3, 24, 24, dtype=torch.float64)
    images[:, 0, :, 12:] = 2.5
    images[:, 2, :, :12] = -2.0
    return images


def test_segments_of_quickshift_do_not_cross_a_strong_edge_nor_depend_on_the_encoding():
    image, method = blocks()[0], Quickshift(max_distance=10)
    segments = method(image)
    assert segments.unique().tolist() == list(range(int(segments.max()) + 1))
    assert not set(segments[:, :12].unique().tolist()) & set(segments[:, 12:].unique().tolist())
    assert torch.equal(segments, method(image / 4 + 7))
    assert torch.equal(segments, method(torch.cat([image, 0.5 - image])))  # six channels


def test_quickshift_with_the_settings_of_lime_is_scikit_images():
    image = torch.rand(3, 40, 32, generator=torch.Generator().manual_seed(0))
    image[:, 0, 0], image[:, 0, 1] = 0, 1  # its range
    theirs = quickshift(
        image.double().permute(1, 2, 0).numpy(), kernel_size=4, max_dist=200, ratio=0.2, rng=0
    )
    ours = Quickshift()(image)
    assert ours.max() > 0
    assert torch.equal(ours, torch.from_numpy(theirs))


def test_a_grid_has_no_more_cells_than_pixels():
    image = torch.zeros(3, 4, 6)
    assert Grid(cells=2)(image).tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    assert Grid(cells=50)(image).tolist() == torch.arange(24).view(4, 6).tolist()


@pytest.mark.parametrize("values", [{"samples": 1}, {"penalty": 0}, {"kernel_width": 0}])
def test_what_cannot_be_fitted_is_refused(values):
    with pytest.raises(ValueError, match="expected at least 2 samples, and the others above 0"):
        Lime(**values)


def test_segments_of_a_gray_image_are_refused():
    with pytest.raises(ValueError, match="1 channels: expected 3 colors first; use the segment"):
        Quickshift()(torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="grid of 0 cells"):
        Grid(cells=0)
