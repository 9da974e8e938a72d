"""RISE against the authors' arrays, an independent interpolation, and counts by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from torch import Tensor, nn

from tests.trainables.networks import CLASSES, pictures, tiny_model
from trainables.attribution import rise
from trainables.attribution.rise import CHUNK, Masks, Rise
from trainables.baselines import Uniform, Zero
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.passes import Passes

GOLDEN = Path(__file__).parents[2] / "golden" / "idsds"
INDEX, TARGETS = [1, 0, 1, 1], [0, 1, 2, 3]
SMALL = Rise(masks=30, cells=4, probability=0.3)


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


@cache
def tiny_vgg() -> Model:
    """The network of tests/golden/idsds/README.md."""
    features = []
    for a, b in ((3, 12), (12, 24), (24, 32)):
        features += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    module = nn.Sequential()
    module.features = nn.Sequential(*features)
    module.pool, module.flatten = nn.AdaptiveAvgPool2d(2), nn.Flatten()
    module.fc1, module.relu, module.fc2 = nn.Linear(128, 24), nn.ReLU(), nn.Linear(24, 10)
    weights = {k[2:]: torch.from_numpy(v) for k, v in golden("tiny_vgg").items() if k[:2] == "w."}
    module.load_state_dict(weights)
    return Model(module.eval(), {"input": "", "final": "features"}, lambda images: images)


def as_drawn(monkeypatch: pytest.MonkeyPatch, suffix: str = "") -> None:
    """The grids and offsets of the golden file instead of a draw."""
    arrays = golden("rise")
    drawn = tuple(torch.from_numpy(arrays[f"{name}{suffix}"]) for name in ("grid", "shift"))
    monkeypatch.setattr(rise, "draw", lambda *_: drawn)


def batch_of(images: Tensor, index: list[int], targets: list[int]) -> Batch:
    return Batch(
        images=images,
        image_ids=[f"image {i}" for i in range(len(images))],
        image_index=torch.tensor(index),
        targets=torch.tensor(targets),
    )


@pytest.mark.parametrize(("suffix", "side"), [("", 64), ("224", 224)])
def test_masks_are_those_of_the_authors(monkeypatch, suffix, side):
    as_drawn(monkeypatch, suffix)
    theirs = torch.from_numpy(golden("rise")[f"masks{suffix}"][:, 0])
    masks = Masks(count=len(theirs), cells=8, probability=0.1, seed=0)
    ours = masks.numbered(torch.arange(len(theirs)), torch.zeros(1, 3, side, side))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("method", ["RISE", "RISE-U"])
def test_maps_are_those_of_the_authors(monkeypatch, method):
    as_drawn(monkeypatch)
    arrays = golden("rise")
    given = torch.from_numpy(arrays[f"baseline.{method}"])
    monkeypatch.setattr(Uniform, "images", lambda _, batch: given.expand_as(batch.images))
    ours = Rise(masks=40, baseline=Zero() if method == "RISE" else Uniform())
    assert ours.probability == arrays["p1"]
    images, targets = (torch.from_numpy(arrays[name]) for name in ("images", "targets"))
    with evaluating(tiny_vgg().module), Passes(tiny_vgg(), Batch.single(images, targets)) as passes:
        maps = ours(passes)
    theirs = torch.from_numpy(arrays[f"map.{method}"][:, 0])
    assert (maps - theirs).abs().max() < 1e-5 * theirs.abs().max()
    assert passes.counts.forwards == 3 * 40
    batch = batch_of(images[:1], [0] * 10, list(range(10)))
    with evaluating(tiny_vgg().module), Passes(tiny_vgg(), batch) as passes:
        every_class = ours(passes)[:, ::8, ::8]
    assert passes.counts.forwards == 40
    theirs = torch.from_numpy(arrays[f"allclass_img0.{method}"])
    assert (every_class - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("size", [(12, 12), (13, 22)])
@pytest.mark.parametrize("cells", [2, 5])
def test_masks_are_cut_from_enlarged_grids(size, cells):
    masks = Masks(count=6, cells=cells, probability=0.4, seed=3)
    numbers = torch.tensor([4, 0, 4])
    ours = masks.numbered(numbers, torch.zeros(1, 3, *size, dtype=torch.float64))
    cell = tuple(-(-side // cells) for side in size)
    grids, offsets = rise.draw(6, cells, 0.4, 3, cell)
    for mask, number in zip(ours, numbers.tolist(), strict=True):
        factors = [(cells + 1) * px / cells for px in cell]
        large = zoom(
            grids[number].double().numpy(), factors, order=1, mode="mirror", grid_mode=True
        )
        row, column = offsets[number].tolist()
        cut = large[row : row + size[0], column : column + size[1]]
        np.testing.assert_allclose(mask.numpy(), cut, atol=1e-12)


def test_offsets_lie_within_a_cell_and_cells_are_kept_as_often_as_asked():
    grids, offsets = rise.draw(4000, 5, 0.1, 0, (3, 28))
    assert [set(offsets[:, 0].tolist()), set(offsets[:, 1].tolist())] == [{*range(3)}, {*range(28)}]
    assert grids.double().mean() == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("baseline", [Zero(), Uniform(seed=2)])
@pytest.mark.parametrize("score", ["probability", "sigmoid", "logit"])
def test_maps_follow_the_definition(baseline, score):
    model, images = tiny_model(), pictures(2)
    batch = batch_of(images, INDEX, TARGETS)
    method = Rise(masks=30, cells=4, probability=0.3, baseline=baseline, score=score)
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = method(passes)
        masks = Masks(count=30, cells=4, probability=0.3, seed=0)
        masks = masks.numbered(torch.arange(30), images)
        for n, (image, target) in enumerate(zip(INDEX, TARGETS, strict=True)):
            expected = torch.zeros(12, 12, dtype=torch.float64)
            for mask in masks:
                seen = mask * images[image] + (1 - mask) * baseline.images(batch)[image]
                logits = model.module(seen[None])[0]
                said = {
                    "probability": logits.softmax(0),
                    "sigmoid": logits.sigmoid(),
                    "logit": logits,
                }
                expected += said[score][target] * mask / (30 * 0.3)
            torch.testing.assert_close(maps[n], expected, rtol=1e-10, atol=1e-13)


def test_the_size_of_the_slabs_does_not_matter():
    model, batch, found = tiny_model(), batch_of(pictures(2), INDEX, TARGETS), []
    for budget in (1, 2**20, 2**30):
        with evaluating(model.module), Passes(model, batch, budget_bytes=budget) as passes:
            found.append(SMALL(passes))
        assert passes.counts.forwards == 2 * 30
    for maps in found[1:]:
        torch.testing.assert_close(maps, found[0], rtol=1e-12, atol=1e-15)


def test_methods_that_differ_in_what_they_make_of_the_scores_share_the_forwards():
    model, batch = tiny_model(), batch_of(pictures(2), INDEX, TARGETS)
    values = {"masks": 30, "cells": 4, "probability": 0.3}
    others = [Rise(**values, score="logit"), Rise(**values, absolute=True)]
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = [method(passes) for method in (SMALL, *others)]
        assert passes.counts.forwards == 2 * 30
        assert passes.counts.backwards.total() == 0
        Rise(**values, baseline=Uniform())(passes)
        assert passes.counts.forwards == 2 * 2 * 30
    assert torch.equal(maps[0], maps[2])
    assert not torch.allclose(maps[0], maps[1])


def test_never_are_all_masks_there_at_once(monkeypatch):
    sizes: list[int] = []
    numbered = Masks.numbered

    def counted(self: Masks, numbers: Tensor, images: Tensor) -> Tensor:
        sizes.append(len(numbers))
        return numbered(self, numbers, images)

    monkeypatch.setattr(Masks, "numbered", counted)
    model, batch = tiny_model(), batch_of(pictures(1), [0], [2])
    with evaluating(model.module), Passes(model, batch, budget_bytes=2**19) as passes:
        Rise(masks=200)(passes)
    assert max(sizes) <= CHUNK
    assert sum(sizes) == 2 * 200  # for the copies, and for the sum


def test_a_model_that_says_the_same_of_all_gives_the_mean_mask_with_any_baseline():
    model, batch = tiny_model(), batch_of(pictures(2), INDEX, TARGETS)
    for parameter in model.module.fc.parameters():
        parameter.detach().zero_()
    masks = Masks(count=30, cells=4, probability=0.3, seed=0)
    mean = masks.numbered(torch.arange(30), batch.images).mean(0) / 0.3 / CLASSES
    for baseline in (Zero(), Uniform()):
        method = Rise(masks=30, cells=4, probability=0.3, baseline=baseline)
        with evaluating(model.module), Passes(model, batch) as passes:
            maps = method(passes)
        torch.testing.assert_close(maps, mean.expand_as(maps), rtol=1e-12, atol=0)


def test_half_precision_images_give_maps_of_their_dtype():
    model, images = tiny_model(), pictures(1)
    model.module.bfloat16()
    with evaluating(model.module), Passes(model, batch_of(images.bfloat16(), [0], [1])) as passes:
        maps = SMALL(passes)
    exact = tiny_model()
    with evaluating(exact.module), Passes(exact, batch_of(images, [0], [1])) as passes:
        expected = SMALL(passes)
    assert maps.dtype == torch.bfloat16
    torch.testing.assert_close(maps.double(), expected, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("values", [{"masks": 0}, {"cells": 1}, {"probability": 0}])
def test_what_makes_no_mask_is_refused(values):
    with pytest.raises(ValueError, match="expected at least 1 mask and 2 cells"):
        Rise(**values)


def test_the_key_names_what_differs():
    assert Rise(baseline=Uniform()).key == "rise_uniform"
    assert Rise(masks=8000, cells=7, probability=0.5).key == "rise_n8000_s7_p0.5"
