"""The four losses against the authors' arrays, against plain loops, against values by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests import reference
from trainables.losses.localization import L1, Energy, Ppce, RrrStar, normalize
from trainables.losses.loss import Loss

GOLDEN = Path(__file__).parents[2] / "golden" / "guidance"
KEYS: dict[str, Loss] = {"Energy": Energy(), "L1": L1(), "PPCE": Ppce(), "RRR": RrrStar()}
each_loss = pytest.mark.parametrize(("key", "loss"), KEYS.items(), ids=KEYS)
both_precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)

# What the reference returns NaN for, and what we return there.
FINITE_VALUE = {
    ("PPCE", f"random_{what}"): 0.0 for what in ("box_empty", "no_boxes", "box_inverted")
}
FINITE_GRADIENT = {("RRR", "all_zero_box"): 0.0}


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def union_masks(arrays: dict[str, np.ndarray], size: tuple[int, int]) -> Tensor:
    rows = zip(arrays["boxes"].tolist(), arrays["n_boxes"].tolist(), strict=True)
    masks = [reference.union_mask(boxes[:count], size) for boxes, count in rows]
    return torch.from_numpy(np.stack(masks))


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    full = functional.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False)
    return full.squeeze(1)


def assert_golden_value(actual: Tensor, expected: np.ndarray) -> None:
    rtol, atol = (1e-6, 1e-9) if actual.dtype == torch.float64 else (1e-4, 1e-6)
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=rtol, atol=atol)


def assert_golden_gradient(actual: Tensor, expected: np.ndarray, key: str) -> None:
    if actual.dtype == torch.float64:
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-6, atol=1e-9)
        return
    rtol = 1e-2 if key == "PPCE" else 1e-3
    for one, other in zip(actual.numpy(), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-4 * np.abs(other).max() + 1e-12)


@both_precisions
@each_loss
def test_random_maps_give_the_authors_values_and_gradients(
    key: str, loss: Loss, dtype: torch.dtype
) -> None:
    arrays = golden("losses_random")
    masks = torch.from_numpy(arrays["mask"]).bool()
    assert torch.equal(masks, union_masks(arrays, (18, 24)))
    raw = torch.from_numpy(arrays["raw"]).to(dtype).requires_grad_()
    post = loss.prepare(raw)
    values = loss(post, masks)
    if post is raw:
        by_raw = by_post = torch.autograd.grad(values.sum(), raw)[0]
    else:
        by_raw, by_post = torch.autograd.grad(values.sum(), (raw, post))
    assert_golden_value(values, arrays[f"{key}_value"])
    assert_golden_gradient(by_raw, arrays[f"{key}_grad_raw"], key)
    assert_golden_gradient(by_post, arrays[f"{key}_grad_post"], key)


@both_precisions
@each_loss
def test_upsampled_maps_give_the_authors_values_and_gradients(
    key: str, loss: Loss, dtype: torch.dtype
) -> None:
    arrays = golden("losses_upsampled")
    height, width = arrays["out_hw"].tolist()
    raw = torch.from_numpy(arrays["raw"]).to(dtype).requires_grad_()
    full = upsample(loss.prepare(raw), (height, width))
    values = loss(full, union_masks(arrays, (height, width)))
    assert_golden_value(full, arrays[f"{key}_map"])
    assert_golden_value(values, arrays[f"{key}_value"])
    (gradient,) = torch.autograd.grad(values.sum(), raw)
    assert_golden_gradient(gradient, arrays[f"{key}_grad_raw"], key)


@pytest.mark.parametrize(("key", "least"), [("L1", 0.01), ("PPCE", 1.0)])
def test_preparing_after_the_upsampling_is_another_loss(key: str, least: float) -> None:
    arrays = golden("losses_upsampled")
    height, width = arrays["out_hw"].tolist()
    maps = upsample(torch.from_numpy(arrays["raw"]).double(), (height, width))
    values = KEYS[key](KEYS[key].prepare(maps), union_masks(arrays, (height, width)))
    assert np.abs(values.numpy() - arrays[f"{key}_value"]).max() > least


@pytest.mark.parametrize("case", range(16), ids=golden("losses_edge")["names"].tolist())
@each_loss
def test_edge_cases_give_the_authors_values_and_gradients(key: str, loss: Loss, case: int) -> None:
    arrays = golden("losses_edge")
    name = str(arrays["names"][case])
    masks = union_masks(arrays, (8, 8))[case : case + 1]
    raw = torch.from_numpy(arrays["raw"][case : case + 1]).double().requires_grad_()
    values = loss(loss.prepare(raw), masks)
    (gradient,) = torch.autograd.grad(values.sum(), raw)
    value_there, gradient_there = arrays[f"{key}_value"][case], arrays[f"{key}_grad_raw"][case]
    assert np.isnan(value_there) == ((key, name) in FINITE_VALUE)
    assert np.isnan(gradient_there).any() == ((key, name) in FINITE_GRADIENT)
    expected = np.array([FINITE_VALUE.get((key, name), value_there)])
    expected_gradient = np.nan_to_num(gradient_there, nan=0.0)[None]
    assert_golden_value(values, expected)
    assert_golden_gradient(gradient, expected_gradient, key)


@pytest.mark.parametrize("seed", range(5))
@each_loss
def test_values_equal_plain_loops(key: str, loss: Loss, seed: int) -> None:
    generator = np.random.default_rng(seed)
    raw = generator.normal(size=(4, 3, 5))
    masks = generator.random((4, 7, 9)) < 0.3
    prepared = loss.prepare(torch.from_numpy(raw))
    full = upsample(prepared, (7, 9))
    values = loss(full, torch.from_numpy(masks))
    formula = getattr(reference, loss.name)
    for i in range(4):
        plain = reference.prepared(loss.name, raw[i])
        plain_full = reference.upsampled(plain, (7, 9))
        np.testing.assert_allclose(prepared[i], plain, rtol=1e-12)
        np.testing.assert_allclose(full[i], plain_full, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(values[i], formula(plain_full, masks[i]), rtol=1e-9)


def test_hand_values() -> None:
    maps = torch.tensor([[[4.0, 1.0], [-2.0, 3.0]]], dtype=torch.float64)
    masks = torch.tensor([[[True, False], [True, False]]])
    expected = {
        "Energy": 1 - 4 / 8,
        "L1": (0 + 0.25 + 1 + 0.75) / 4,
        "PPCE": (0 + 100) / 2,
        "RRR": 0.25**2 + 0.75**2,
    }
    for key, loss in KEYS.items():
        assert loss(loss.prepare(maps), masks).item() == pytest.approx(expected[key]), key


def test_energy_of_a_uniform_map_is_the_share_of_the_image_outside_the_box() -> None:
    masks = torch.zeros(1, 6, 10, dtype=torch.bool)
    masks[0, 1:4, 2:7] = True
    assert Energy()(torch.ones(1, 6, 10), masks).item() == pytest.approx(1 - 15 / 60)


def test_energy_does_not_change_with_the_scale_of_a_map() -> None:
    generator = np.random.default_rng(0)
    maps = torch.from_numpy(generator.normal(size=(3, 6, 10)))
    masks = torch.from_numpy(generator.random((3, 6, 10)) < 0.4)
    torch.testing.assert_close(Energy()(1e6 * maps, masks), Energy()(maps, masks))


def test_tied_maxima_share_the_gradient_of_the_maximum() -> None:
    maps = torch.tensor([[[2.0, 2.0, 1.0]]], dtype=torch.float64, requires_grad=True)
    normalize(maps)[
        0, 0, 2
    ].backward()  # 1 / largest: derivative -1/4 by the largest, 1/2 by itself
    assert maps.grad is not None
    np.testing.assert_allclose(maps.grad[0, 0], [-0.125, -0.125, 0.5])


def test_normalize_reaches_one_and_keeps_signs_and_dead_maps() -> None:
    maps = torch.tensor([[[-4.0, 2.0]], [[0.0, 0.0]], [[1e-19, -1e-19]]], dtype=torch.float64)
    expected = [[[-1.0, 0.5]], [[0.0, 0.0]], [[1e-19, -1e-19]]]
    assert normalize(maps).tolist() == expected


def test_ppce_accepts_what_rounding_puts_above_one() -> None:
    maps = torch.full((1, 2, 2), 1.0000001, dtype=torch.float32)
    assert maps.max() > 1
    assert Ppce()(maps, torch.ones(1, 2, 2, dtype=torch.bool)).item() == 0


def test_only_rrr_star_depends_on_the_number_of_pixels() -> None:
    assert [loss.name for loss in KEYS.values() if loss.summed_over_pixels] == ["rrr_star"]
