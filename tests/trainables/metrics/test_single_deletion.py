"""Single deletion against the authors' arrays, plain loops with scipy, and what must come out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from tests.trainables.attribution.idsds_golden import NETWORKS, arrays, network
from tests.trainables.networks import CLASSES, hooks_of, pictures, tiny_model
from trainables.attribution.attribution import Attribution
from trainables.attribution.cam import GradCam, LayerCam, XGradCam
from trainables.attribution.cam_pp import GradCamPP
from trainables.attribution.gradient import InputXGradient, Saliency, SignedGradient
from trainables.attribution.integrated_gradients import IntegratedGradients
from trainables.baselines import Baseline, Blur, Random, Zero
from trainables.batch import Batch
from trainables.metrics.single_deletion import (
    Deletions,
    Idsds,
    Sds,
    SingleDeletion,
    cell_sums,
    corrupted_accuracy,
    target_drops,
)
from trainables.models.network import Model, evaluating
from trainables.passes import Passes

BASELINES = [Zero(), Random(seed=3), Blur(size_px=5, sigma=2.0)]
SIDES = {4: 2, 16: 4, 64: 8}
CAMS = ("Grad-CAM", "Grad-CAMpp", "XG-CAM", "Layer-CAM")
OTHERS = ("IxG", "Gradient", "IG", "IG-U")
AS_RUN: dict[str, Attribution] = {
    "IxG": InputXGradient(),
    "IxG_abs": InputXGradient(absolute=True),
    "Gradient": SignedGradient(),
    "Gradient_abs": Saliency(channels="sum"),
    "IG": IntegratedGradients(),
    "IG_abs": IntegratedGradients(absolute=True),
    "Grad-CAM": GradCam(normalize=True),
    "Grad-CAMpp": GradCamPP(weights="torchcam", normalize=True),
    "XG-CAM": XGradCam(normalize=True),
    "Layer-CAM": LayerCam(normalize=True),
}


def batch_of(images: Tensor, index: list[int], targets: list[int]) -> Batch:
    names = [f"image {i}" for i in range(len(images))]
    return Batch(
        images=images,
        image_ids=names,
        image_index=torch.tensor(index, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
    )


def five_of_four() -> Batch:
    """Five explanations of four images; the last image has none."""
    return batch_of(pictures(4), [1, 0, 1, 2, 1], [0, 1, 2, 3, 3])


def some_maps(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 12, 12, generator=generator, dtype=torch.float64)


def score(metric: SingleDeletion, batch: Batch, maps: Tensor, model: Model | None = None) -> Tensor:
    model = model or tiny_model()
    with evaluating(model.module), Passes(model, batch) as passes:
        return metric(passes, maps)


def deletions_of(
    batch: Batch, patches: int, baseline: Baseline, model: Model | None = None
) -> Tensor:
    model = model or tiny_model()
    with evaluating(model.module), Passes(model, batch) as passes:
        return passes.get(Deletions(patches=patches, baseline=baseline))


def plainly_deleted(model: Model, batch: Batch, patches: int, baseline: Baseline) -> Tensor:
    """One copy and one forward at a time."""
    side, blank = SIDES[patches], baseline.images(batch)
    tall, wide = (pixels // side for pixels in batch.images.shape[2:])
    answer = []
    for image in range(len(batch.images)):
        for cell in range(patches):
            top, left = cell // side * tall, cell % side * wide
            copy = batch.images[[image]].clone()
            inside = (..., slice(top, top + tall), slice(left, left + wide))
            copy[inside] = blank[[image]][inside]
            with torch.no_grad():
                answer.append(model.module(copy)[0])
    return torch.stack(answer).view(len(batch.images), patches, -1)


def plain_scores(
    model: Model, batch: Batch, maps: Tensor, patches: int, baseline: Baseline, output: str
) -> list[float]:
    """Cell by cell, scipy a row."""
    side, deleted = SIDES[patches], plainly_deleted(model, batch, patches, baseline)
    with torch.no_grad():
        whole = model.module(batch.images)
    if output == "probability":
        whole, deleted = whole.softmax(-1), deleted.softmax(-1)
    scores = []
    for n, (image, target) in enumerate(zip(batch.image_index, batch.targets, strict=True)):
        blocks = [b for row in maps[n].chunk(side, 0) for b in row.chunk(side, 1)]
        drops = [float(whole[image, target] - deleted[image, m, target]) for m in range(patches)]
        scores.append(spearmanr([float(b.sum()) for b in blocks], drops).statistic)
    return scores


class TestGolden:
    """The authors' networks, images, drops and correlations."""

    @pytest.mark.parametrize("name", NETWORKS)
    def test_logits_of_the_deleted_images_and_their_worst_are_theirs(self, name: str) -> None:
        golden = arrays(f"idsds/{name}")
        batch = Batch.single(golden["images"], golden["targets"])
        deleted = deletions_of(batch, 16, Zero(), network(name))
        expected = golden["derived.G4.masked_logits"]
        torch.testing.assert_close(deleted, expected, rtol=0, atol=1e-5)
        for labels in (golden["targets"], expected.argmax(2)[:, 0], expected.argmax(2)[:, 5]):
            right = [
                all(int(np.argmax(row)) == int(label) for row in rows)
                for rows, label in zip(expected.numpy(), labels, strict=True)
            ]
            assert corrupted_accuracy(deleted, labels).tolist() == right

    @pytest.mark.parametrize("patches", SIDES)
    @pytest.mark.parametrize("name", NETWORKS)
    def test_drops_and_scores_of_their_maps_are_theirs(self, name: str, patches: int) -> None:
        golden, side, metric = arrays(f"idsds/{name}"), SIDES[patches], Sds(patches=patches)
        batch = Batch.single(golden["images"], golden["targets"])
        model = network(name)
        with evaluating(model.module), Passes(model, batch) as passes:
            deleted = passes.get(metric.deletions)
            torch.testing.assert_close(passes.logits, golden["logits"], rtol=0, atol=1e-5)
            drops = target_drops(passes.logits, deleted, batch.image_index, batch.targets)
            torch.testing.assert_close(drops, golden[f"sd.G{side}.drops"], rtol=0, atol=1e-5)
            for method in (*OTHERS, *(f"{m}_abs" for m in OTHERS), *CAMS):
                maps = golden[f"map.{method.removesuffix('_abs')}"].squeeze(1)
                found = metric(passes, maps.abs() if method.endswith("_abs") else maps)
                expected = golden[f"sd.G{side}.rho.{method}"]
                assert torch.equal(~found.isnan(), golden[f"sd.G{side}.kept.{method}"]), method
                # small cells of a CAM nearly tie: float32 sums, theirs, order some of them
                rounded = method in CAMS and patches == 64
                atol = 5e-3 if rounded else 1e-9
                torch.testing.assert_close(found, expected, rtol=0, atol=atol, equal_nan=True)
                mean = metric.reduce(found.numpy())
                assert mean == pytest.approx(float(golden[f"sd.G{side}.score.{method}"]), abs=atol)
                if patches == 16:
                    cells = cell_sums(maps.abs() if method.endswith("_abs") else maps, 16)
                    theirs = golden[f"sd.G4.cells.{method}"]
                    atol = 1e-5 * float(theirs.abs().max())
                    torch.testing.assert_close(cells, theirs, rtol=0, atol=atol)
            assert passes.counts.forwards == 6 * (1 + patches)

    @pytest.mark.parametrize("name", NETWORKS)
    def test_the_blurred_baseline_is_theirs(self, name: str) -> None:
        golden = arrays(f"idsds/{name}")
        batch = Batch.single(golden["images"], golden["targets"])
        deleted = deletions_of(batch, 16, Blur(), network(name))
        drops = target_drops(golden["logits"], deleted, torch.arange(6), golden["targets"])
        torch.testing.assert_close(drops, golden["sd.G4.blur.drops"], rtol=0, atol=1e-5)
        maps = golden["map.IxG"].squeeze(1)
        found = score(Sds(baseline=Blur()), batch, maps, network(name))
        torch.testing.assert_close(found, golden["sd.G4.blur.rho.IxG"], rtol=0, atol=1e-9)
        mean = Sds(baseline=Blur()).reduce(found.numpy())
        assert mean == pytest.approx(float(golden["sd.G4.blur.score.IxG"]), abs=1e-9)

    @pytest.mark.parametrize("name", NETWORKS)
    def test_drops_of_the_probability_are_theirs(self, name: str) -> None:
        golden, metric = arrays(f"idsds/{name}"), Sds(drop_output="probability")
        batch = Batch.single(golden["images"], golden["targets"])
        model = network(name)
        with evaluating(model.module), Passes(model, batch) as passes:
            drops = target_drops(
                model.probabilities(passes.logits),
                model.probabilities(passes.get(metric.deletions)),
                batch.image_index,
                batch.targets,
            )
            torch.testing.assert_close(drops, golden["post.sd.G4.drops"], rtol=0, atol=1e-5)
            for method in ("IxG", "IG", "Grad-CAM", "Layer-CAM"):
                found = metric(passes, golden[f"post.map.{method}"].squeeze(1))
                expected = golden[f"post.sd.G4.rho.{method}"]
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-9, equal_nan=True)
                assert torch.equal(~found.isnan(), golden[f"post.sd.G4.kept.{method}"])
                mean = metric.reduce(found.numpy())
                assert mean == pytest.approx(float(golden[f"post.sd.G4.score.{method}"]), abs=1e-9)

    @pytest.mark.parametrize("name", NETWORKS)
    def test_scores_of_our_maps_are_theirs(self, name: str) -> None:
        """From the image to the score: the maps of the methods as run, instead of the stored."""
        golden, model = arrays(f"idsds/{name}"), network(name)
        batch = Batch.single(golden["images"], golden["targets"])
        with evaluating(model.module), Passes(model, batch) as passes:
            passes.expect(need for method in AS_RUN.values() for need in method.needs(model))
            for key, method in AS_RUN.items():
                found = Sds()(passes, method.at_image_size(method(passes), passes))
                expected = golden[f"sd.G4.rho.{key}"]
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-9, equal_nan=True)
                mean = Sds().reduce(found.numpy())
                assert mean == pytest.approx(float(golden[f"sd.G4.score.{key}"]), abs=1e-9)


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.name)
@pytest.mark.parametrize("patches", [4, 16])
def test_deletions_equal_one_copy_at_a_time(patches: int, baseline: Baseline) -> None:
    model, batch = tiny_model(), five_of_four()
    expected = plainly_deleted(model, batch, patches, baseline)
    found = deletions_of(batch, patches, baseline, model)
    assert found.shape == (4, patches, CLASSES)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("output", ["logit", "probability"])
@pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.name)
@pytest.mark.parametrize("patches", [4, 16])
def test_scores_equal_plain_loops_with_scipy(patches: int, baseline: Baseline, output: str) -> None:
    model, batch, maps = tiny_model(), five_of_four(), some_maps(5)
    metric = Sds(patches=patches, baseline=baseline, drop_output=output)  # type: ignore[arg-type]
    expected = plain_scores(model, batch, maps, patches, baseline, output)
    np.testing.assert_allclose(score(metric, batch, maps, model), expected, rtol=0, atol=1e-12)


def spread(drops: Tensor, patches: int) -> Tensor:
    """Drops (N, P) as maps of 12 x 12 px."""
    side = SIDES[patches]
    grid = drops.unflatten(1, (side, side))
    return grid.repeat_interleave(12 // side, 1).repeat_interleave(12 // side, 2)


@pytest.mark.parametrize("patches", [4, 16])
def test_the_effects_themselves_score_one_and_their_negation_minus_one(patches: int) -> None:
    batch, model = five_of_four(), tiny_model()
    deleted = deletions_of(batch, patches, Zero(), model)
    with torch.no_grad():
        drops = target_drops(model.module(batch.images), deleted, batch.image_index, batch.targets)
    effects = spread(drops, patches)
    for metric in (Sds(patches=patches), Idsds(patches=patches)):
        assert (score(metric, batch, effects, model) == 1).all()
        assert (score(metric, batch, -effects, model) == -1).all()
        assert (score(metric, batch, 1e-3 * effects + 7, model) == 1).all()


def test_random_maps_score_around_zero() -> None:
    n = 3000
    batch = batch_of(pictures(1), [0] * n, [n % CLASSES for n in range(n)])
    scores = score(Sds(), batch, some_maps(n))
    # of P random ranks the correlation has variance 1 / (P - 1)
    assert abs(float(scores.mean())) < 4 / math.sqrt(15 * n)
    assert float(scores.var()) == pytest.approx(1 / 15, rel=0.1)


def test_a_map_of_one_cell_scores_by_the_rank_of_its_drop() -> None:
    batch, model = batch_of(pictures(1), [0] * 16, [2] * 16), tiny_model()
    one_hot = spread(torch.eye(16, dtype=torch.float64), 16)
    scores = score(Sds(), batch, one_hot, model)
    drops = model.module(batch.images)[0, 2] - deletions_of(batch, 16, Zero(), model)[0, :, 2]
    ranks = drops.argsort().argsort().double() + 1
    # 8 (r - 8.5) over the root of 60 (one rank of 16, fifteen of 8) times 340 (ranks 1 to 16)
    torch.testing.assert_close(scores, 8 * (ranks - 8.5) / math.sqrt(60 * 340), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("value", [0.0, 0.1, -3e-30, 1e30])
def test_a_constant_map_is_undefined(value: float, dtype: torch.dtype) -> None:
    batch = five_of_four()
    scores = score(Sds(), batch, torch.full((5, 12, 12), value, dtype=dtype))
    assert scores.isnan().all()
    assert scores.dtype == dtype
    assert math.isnan(Sds().reduce(scores.numpy()))
    assert Sds(undefined="chance").reduce(scores.numpy()) == 0
    assert Sds().defined_fraction(scores.numpy()) == 0


class Constant(nn.Module):
    """A network that does not look."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.arange(CLASSES, dtype=x.dtype).expand(len(x), CLASSES)


def test_a_network_that_does_not_look_leaves_every_score_undefined() -> None:
    blind = Model(Constant(), {"input": ""}, lambda images: images)
    assert score(Sds(), five_of_four(), some_maps(5), blind).isnan().all()


def test_what_the_grid_leaves_over_is_neither_deleted_nor_summed() -> None:
    images, maps = pictures(2)[:, :, :11, :10], some_maps(2)[:, :11, :10]
    other, elsewhere = images.clone(), maps.clone()
    elsewhere[:, 8:], elsewhere[:, :, 8:] = 99.0, -99.0
    assert torch.equal(cell_sums(maps, 16), cell_sums(elsewhere, 16))
    sums = [maps[0, r : r + 2, c : c + 2].sum() for r in range(0, 8, 2) for c in range(0, 8, 2)]
    torch.testing.assert_close(cell_sums(maps, 16)[0], torch.stack(sums))
    seen: list[Tensor] = []
    model = tiny_model()
    model.module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    deletions_of(batch_of(other, [], []), 16, Zero(), model)
    copies = torch.cat(seen)
    assert (copies[:, :, 8:] != 0).all()
    assert (copies[:, :, :, 8:] != 0).all()
    assert ((copies == 0).flatten(1).sum(1) == 3 * 2 * 2).all()


class TestSharing:
    """One forward an image and cell, whatever is asked of them."""

    def test_every_method_output_and_name_shares_the_deletions(self) -> None:
        model, batch, method = tiny_model(), five_of_four(), InputXGradient(layer="final")
        with evaluating(model.module), Passes(model, batch) as passes:
            maps = method.at_image_size(method(passes), passes)
            assert passes.counts.forwards == 4
            backwards = dict(passes.counts.backwards)
            for seed in range(3):
                for metric in (Sds(), Idsds(), Sds(drop_output="probability")):
                    metric(passes, some_maps(5, seed))
            Sds()(passes, maps)
            corrupted_accuracy(passes.get(Sds().deletions), torch.zeros(4, dtype=torch.long))
            assert passes.counts.forwards == 4 + 16 * 4
            Sds(patches=4)(passes, maps)
            assert passes.counts.forwards == 4 + 16 * 4 + 4 * 4
            Sds(baseline=Random())(passes, maps)
            assert passes.counts.forwards == 4 + 16 * 4 + 4 * 4 + 16 * 4
            assert dict(passes.counts.backwards) == backwards

    def test_explanations_cost_nothing_and_without_any_the_answer_is_the_same(self) -> None:
        many, none = five_of_four(), batch_of(pictures(4), [], [])
        assert torch.equal(deletions_of(many, 16, Zero()), deletions_of(none, 16, Zero()))

    @pytest.mark.parametrize("budget", [1, 10**5, 2**30])
    def test_slabs_of_any_size_give_the_same_answer(self, budget: int) -> None:
        model, batch, request = tiny_model(), five_of_four(), Deletions(patches=16, baseline=Zero())
        with (
            evaluating(model.module),
            Passes(model, batch, budget_bytes=budget) as passes,
        ):
            found = passes.get(request)
            assert passes.counts.forwards == 64
        expected = plainly_deleted(model, batch, 16, Zero())
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        assert hooks_of(model.module) == 0
        assert not found.requires_grad

    def test_a_batch_of_no_image_has_no_deletions(self) -> None:
        assert deletions_of(batch_of(pictures(0), [], []), 16, Zero()).shape == (0, 16, CLASSES)


def test_corrupted_accuracy_by_hand() -> None:
    deleted = torch.zeros(3, 4, 3)
    deleted[0, :, 1] = 1  # right under every deletion
    deleted[1, :, 1] = 1
    deleted[1, 2, 0] = 2  # wrong under one
    deleted[2, :, 2] = 1  # wrong under all
    assert corrupted_accuracy(deleted, torch.tensor([1, 1, 1])).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("metric", "key"),
    [
        (Sds(), "sds"),
        (Sds(patches=64, baseline=Blur()), "sds_p64_blur"),
        (Idsds(patches=4, baseline=Random(seed=2)), "idsds_p4_random_seed2"),
        (Sds(drop_output="probability"), "sds_probability"),
        (Idsds(undefined="zero"), "idsds_zero"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keys_name_the_protocol(metric: SingleDeletion, key: str) -> None:
    assert metric.key == key


def test_grids_that_the_protocol_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Sds.patches = 9: expected one of 4, 16, 64"):
        Sds(patches=9)  # type: ignore[arg-type]
    small = batch_of(pictures(1)[:, :, :7, :7], [0], [0])
    with pytest.raises(ValueError, match=r"7 x 7 px has no grid of 8 x 8 cells"):
        score(Sds(patches=64), small, torch.ones(1, 7, 7))


def test_both_names_are_one_protocol_with_ids_of_their_own() -> None:
    assert Sds().result_id != Idsds().result_id
    assert Sds().deletions == Idsds().deletions
    assert replace(Sds(), patches=4).deletions != Sds().deletions
