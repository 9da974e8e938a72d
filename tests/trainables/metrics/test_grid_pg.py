"""The grid pointing game against the authors' arrays and values by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_pipelines.grids import cell_masks, compose, draw_grids
from tests.trainables.networks import CLASSES, tiny_model
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.metrics.grid_pg import GridPg
from trainables.metrics.localization import Epg
from trainables.metrics.metric import Metric
from trainables.passes import Passes

GOLDEN = Path(__file__).parents[2] / "golden" / "probing" / "metrics.npz"
with np.load(GOLDEN, allow_pickle=False) as arrays:
    golden = dict(arrays)
each_map = pytest.mark.parametrize("name", golden["names"].tolist())


def score(metric: Metric, maps: Tensor, masks: Tensor) -> np.ndarray:
    images = torch.zeros(len(maps), 3, *maps.shape[1:])
    passes: Any = SimpleNamespace(batch=SimpleNamespace(images=images, masks=masks))
    return metric(passes, maps).numpy()


def cells(side: int, *size: int) -> Tensor:
    return torch.from_numpy(cell_masks(side, *size))


def in_each_cell(metric: GridPg, one: np.ndarray) -> np.ndarray:
    """Scores of one map for each cell, undefined ones counted as the authors' code does."""
    masks = cells(metric.side, *one.shape)
    return np.nan_to_num(score(metric, torch.from_numpy(one).expand(len(masks), -1, -1), masks))


@each_map
@pytest.mark.parametrize("side", [2, 3])
def test_each_cell_has_the_authors_share(name: str, side: Any) -> None:
    ours = in_each_cell(GridPg(side=side, epsilon=1e-12), golden[f"map/{name}"])
    np.testing.assert_allclose(ours, golden[f"gridpg{side}/{name}"], atol=1e-6)


@each_map
def test_so_it_has_behind_a_gaussian(name: str) -> None:
    metric = GridPg(smooth_px=9, smooth_kernel="gaussian", epsilon=1e-12)
    ours = in_each_cell(metric, golden[f"map/{name}"])
    np.testing.assert_allclose(ours, golden[f"gridpg3_blur9/{name}"], atol=1e-6)


def test_so_it_has_behind_the_papers_gaussian() -> None:
    metric = GridPg(smooth_px=129, smooth_kernel="gaussian")
    np.testing.assert_allclose(
        in_each_cell(metric, golden["map129"]), golden["gridpg3_blur129"], atol=1e-5
    )


@pytest.mark.parametrize("smooth_px", [0, 15])
def test_mosaics_by_columns_are_those_of_the_mask(smooth_px: int) -> None:
    names = ["rand_mixed", "gauss_cell5", "all_negative", "rand_pos"] + 5 * ["rand_mixed"]
    maps = torch.from_numpy(np.stack([golden[f"map/{name}"] for name in names]))
    by_column = cells(3, 48, 48).unflatten(0, (3, 3)).transpose(0, 1).flatten(0, 1)
    ours = score(GridPg(smooth_px=smooth_px), maps, by_column)
    np.testing.assert_allclose(
        np.nan_to_num(ours), golden[f"bcosv2_loc_smooth{smooth_px}"], atol=1e-6
    )


def test_epg_is_the_authors_up_to_their_rounding() -> None:
    metric = Epg(smooth_px=5, faint=0.0, epsilon=1e-12)
    blurred = Epg(smooth_px=9, smooth_kernel="gaussian", faint=0.0, epsilon=1e-12)
    box, segment = (torch.from_numpy(golden[f"{k}_mask"] > 0)[None] for k in ("box", "seg"))
    for name in golden["names"]:
        one = torch.from_numpy(golden[f"map/{name}"])[None]
        for mine, masks, key, tolerance in (
            (metric, box, "epg_unrounded", 1e-6),
            (metric, box, "epg", 0.011),
            (blurred, box, "epg_blur9", 0.011),
            (metric, segment, "seg_epg", 0.011),
        ):
            ours = np.nan_to_num(score(mine, one, masks))[0]
            assert ours == pytest.approx(golden[f"{key}/{name}"], abs=tolerance), (name, key)


def test_a_map_in_its_cell_scores_one_and_a_uniform_one_chance() -> None:
    masks, plain = cells(3, 12, 12), GridPg(smooth_px=0)
    assert score(plain, masks.double(), masks).tolist() == [1.0] * 9
    uniform = torch.full((9, 12, 12), 0.3, dtype=torch.float64)
    np.testing.assert_allclose(score(plain, uniform, masks), plain.chance)
    smoothed = score(GridPg(), uniform, masks)
    assert smoothed.mean() == pytest.approx(1 / 9)
    assert smoothed[0] < 1 / 9 < smoothed[4]


def test_undefined_maps_drop_as_in_the_paper_or_count_as_zero_or_chance() -> None:
    maps = torch.zeros(2, 6, 6)
    maps[0, :2, :2] = 1
    scores = score(GridPg(smooth_px=0), maps, cells(3, 6, 6)[[0, 0]])
    np.testing.assert_array_equal(scores, [1.0, np.nan])
    assert GridPg().reduce(scores) == 1
    assert GridPg(undefined="zero").reduce(scores) == 0.5
    assert GridPg(undefined="chance").reduce(scores) == pytest.approx((1 + 1 / 9) / 2)
    assert GridPg(undefined="chance", side=2).reduce(scores) == pytest.approx(0.625)


@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1.0, 1e30])
def test_scores_do_not_know_the_scale(scale: float) -> None:
    maps, masks = torch.rand(9, 12, 12, dtype=torch.float64) - 0.3, cells(3, 12, 12)
    np.testing.assert_allclose(
        score(GridPg(), scale * maps, masks), score(GridPg(), maps, masks), rtol=1e-9
    )


def test_keys() -> None:
    assert GridPg().key == "grid_pg"
    assert GridPg(side=2).key == "grid_pg_n2"
    assert GridPg(smooth_px=129, smooth_kernel="gaussian").key == "grid_pg_smooth129_gaussian"


@pytest.mark.parametrize(
    "kind", ["box", "more than a cell", "two cells", "of 2 x 2", "empty", "odd size"]
)
def test_masks_that_are_no_cells_are_refused(kind: str) -> None:
    masks = cells(3, 12, 12)[:2].clone()
    if kind == "box":
        masks[0, 0, 0] = False
    elif kind == "more than a cell":
        masks[0, 11, 11] = True
    elif kind == "two cells":
        masks[1] |= masks[0]
    elif kind == "of 2 x 2":
        masks = cells(2, 12, 12)[:2]
    elif kind == "empty":
        masks[0] = False
    else:
        masks = torch.ones(2, 10, 12, dtype=torch.bool)
    with pytest.raises(ValueError, match="each mask must be one cell of 3 x 3"):
        score(GridPg(), torch.ones(masks.shape), masks)


def test_a_mosaic_is_one_image_with_a_target_for_each_cell() -> None:
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (20, 3, 6, 6), np.uint8)
    labels = np.arange(20) % CLASSES
    grids = draw_grids(np.arange(20), labels, side=2, count=3, seed=1)
    model = tiny_model()
    mosaics = compose(tiles[grids.rows.ravel()], grids.side)
    batch = Batch(
        images=model.encode(torch.from_numpy(mosaics)),
        image_ids=grids.ids([f"image{i}" for i in range(20)]),
        image_index=torch.arange(3).repeat_interleave(4),
        targets=torch.from_numpy(grids.classes.ravel()),
        masks=cells(2, 12, 12).repeat(3, 1, 1),
    )
    with Passes(model, batch) as passes:
        maps = InputXGradient()(passes)
        scores = GridPg(side=2)(passes, maps)
        assert passes.counts.forwards in (3, 12)  # a mosaic once, or once for each target
    assert scores.shape == (12,)
    for n in range(12):
        smoothed = GridPg(side=2).smoothed(maps[n : n + 1])[0].relu().numpy()
        y, x = divmod(n % 4, 2)
        own = smoothed[6 * y : 6 * y + 6, 6 * x : 6 * x + 6].sum()
        assert scores[n].item() == pytest.approx(own / smoothed.sum(), rel=1e-9)
