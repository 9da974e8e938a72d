"""What every localization loss promises.

Parametrized over everything registered: a new class is tested before its author writes a test.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import trainables.losses  # noqa: F401  registers
from tests.device_literals import device_literals
from trainables.losses.loss import Loss

LOSSES = [cls() for _, cls in sorted(Loss.registered.items())]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.key)


def value(loss: Loss, maps: Tensor, masks: Tensor) -> Tensor:
    """As training has it: prepared, upsampled to the masks' size, compared."""
    prepared = loss.prepare(maps).unsqueeze(1)
    size = masks.shape[1:]
    full = functional.interpolate(prepared, size, mode="bilinear", align_corners=False)
    return loss(full.squeeze(1), masks)


def signed_maps(n: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(n, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def box_masks(n: int, size: tuple[int, int]) -> Tensor:
    masks = torch.zeros(n, *size, dtype=torch.bool)
    for i in range(n):
        masks[i, 1 : 4 + i % 3, 2 + i % 2 : 7] = True
    return masks


def awkward_maps(dtype: torch.dtype) -> dict[str, Tensor]:
    noise = signed_maps(1, (6, 6))[0].to(dtype)
    one = torch.zeros(6, 6, dtype=dtype)
    one[2, 3] = 1
    tied = torch.zeros(6, 6, dtype=dtype)
    tied[1, 1] = tied[4, 4] = 2
    return {
        "zero": torch.zeros(6, 6, dtype=dtype),
        "negative zero": -torch.zeros(6, 6, dtype=dtype),
        "constant": torch.ones(6, 6, dtype=dtype),
        "negative": -torch.ones(6, 6, dtype=dtype),
        "one pixel": one,
        "one negative pixel": -one,
        "tied": tied,
        "smallest": torch.finfo(dtype).smallest_normal * one,
        "subnormal": 1e-45 * one,
        "1e-20": 1e-20 * noise,
        "1e-17": 1e-17 * noise,
        "1e-8": 1e-8 * noise,
        "noise": noise,
        "1e30": 1e30 * noise,
        "wide": torch.logspace(-38, 30, 36, dtype=torch.float64).to(dtype).view(6, 6),
    }


def awkward_masks(size: int) -> dict[str, Tensor]:
    pixel = torch.zeros(size, size, dtype=torch.bool)
    pixel[3, 3] = True
    box = torch.zeros(size, size, dtype=torch.bool)
    box[1:4, 2:5] = True
    empty = torch.zeros(size, size, dtype=torch.bool)
    return {"empty": empty, "full": ~empty, "pixel": pixel, "box": box}


@each_loss
def test_perfect_map_has_the_least_value(loss: Loss) -> None:
    masks = box_masks(6, (9, 11))
    perfect = value(loss, masks.double(), masks)
    assert (perfect >= 0).all()
    for seed in range(20):
        assert (value(loss, signed_maps(6, (9, 11), seed), masks) > perfect).all()
        assert (value(loss, signed_maps(6, (9, 11), seed).abs(), masks) > perfect).all()


@each_loss
def test_map_outside_the_mask_is_worse_than_inside(loss: Loss) -> None:
    masks = box_masks(3, (9, 11))
    inside = value(loss, masks.double(), masks)
    assert (value(loss, (~masks).double(), masks) > inside).all()


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [6, 25], ids=["input layer", "upsampled"])
def test_value_and_gradient_are_finite_for_every_map_and_mask(
    loss: Loss, dtype: torch.dtype, size: int
) -> None:
    for map_name, one_map in awkward_maps(dtype).items():
        for mask_name, mask in awkward_masks(size).items():
            maps = one_map.unsqueeze(0).clone().requires_grad_()
            result = value(loss, maps, mask.unsqueeze(0))
            (gradient,) = torch.autograd.grad(result.sum(), maps)
            what = f"{map_name} map, {mask_name} mask"
            assert torch.isfinite(result).all(), what
            assert torch.isfinite(gradient).all(), what
            assert (result >= 0).all(), what


@each_loss
def test_gradient_is_the_derivative(loss: Loss) -> None:
    maps, masks = signed_maps(3, (4, 5)).requires_grad_(), box_masks(3, (9, 11))
    assert torch.autograd.gradcheck(lambda m: value(loss, m, masks), (maps,), atol=1e-4)


@each_loss
def test_a_small_step_against_the_gradient_lowers_the_value(loss: Loss) -> None:
    maps, masks = signed_maps(5, (9, 11)).requires_grad_(), box_masks(5, (9, 11))
    before = value(loss, maps, masks)
    (gradient,) = torch.autograd.grad(before.sum(), maps)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    step = 1e-6 / gradient.flatten(1).abs().amax(1).view(-1, 1, 1)
    assert (value(loss, maps - step * gradient, masks) < before).all()


@each_loss
@pytest.mark.parametrize("mask", ["empty", "full", "pixel", "box"])
def test_a_nan_pixel_is_never_hidden(loss: Loss, mask: str) -> None:
    masks = awkward_masks(8)[mask].expand(2, -1, -1)
    for row, column in ((0, 0), (3, 3), (7, 7)):
        maps = signed_maps(2, (8, 8))
        maps[1, row, column] = torch.nan
        assert value(loss, maps, masks).isnan().tolist() == [False, True]


@each_loss
def test_batch_equals_its_singles(loss: Loss) -> None:
    maps, masks = signed_maps(5, (4, 5)), box_masks(5, (9, 11))
    singles = torch.cat([value(loss, maps[i : i + 1], masks[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(value(loss, maps, masks), singles, rtol=1e-12, atol=0)


@each_loss
def test_order_of_the_batch_does_not_matter(loss: Loss) -> None:
    maps, masks, order = signed_maps(5, (4, 5)), box_masks(5, (9, 11)), [3, 1, 4, 0, 2]
    permuted = value(loss, maps[order], masks[order])
    torch.testing.assert_close(permuted, value(loss, maps, masks)[order], rtol=1e-12, atol=0)


@each_loss
def test_a_batch_of_none_gives_none(loss: Loss) -> None:
    assert value(loss, signed_maps(0, (9, 11)), box_masks(0, (9, 11))).shape == (0,)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dtype_is_kept_and_inputs_are_not_changed(loss: Loss, dtype: torch.dtype) -> None:
    maps, masks = signed_maps(2, (9, 11)).to(dtype), box_masks(2, (9, 11))
    maps_before, masks_before = maps.clone(), masks.clone()
    assert value(loss, maps, masks).dtype == dtype
    assert torch.equal(maps, maps_before)
    assert torch.equal(masks, masks_before)


@each_loss
def test_maps_of_another_size_than_the_masks_are_refused(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"\(2, 4, 5\).*\(2, 9, 11\).*upsample"):
        loss(loss.prepare(signed_maps(2, (4, 5))), box_masks(2, (9, 11)))


@each_loss
def test_masks_that_are_not_boolean_are_refused(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"torch\.float64, expected torch\.bool"):
        loss(loss.prepare(signed_maps(2, (9, 11))), box_masks(2, (9, 11)).double())


@each_loss
def test_weights_are_positive_and_ascend(loss: Loss) -> None:
    assert len(loss.lambdas) == 3
    assert loss.lambdas[0] > 0
    assert list(loss.lambdas) == sorted(set(loss.lambdas))


@each_loss
def test_summed_over_pixels_says_how_the_value_grows(loss: Loss) -> None:
    maps, masks = signed_maps(3, (8, 8)).abs(), box_masks(3, (8, 8))
    tiled, tiled_masks = maps.repeat(1, 3, 3), masks.repeat(1, 3, 3)
    growth = value(loss, tiled, tiled_masks) / value(loss, maps, masks)
    expected = torch.full_like(growth, 9.0 if loss.summed_over_pixels else 1.0)
    torch.testing.assert_close(growth, expected)


@each_loss
def test_source_is_stated_and_no_device_is_named(loss: Loss) -> None:
    assert "Source:" in (type(loss).__doc__ or "")
    assert device_literals(type(loss)) == []


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'rrr'; known: energy, l1, ppce, rrr_star"):
        Loss.named("rrr")


def test_the_contract_itself_cannot_be_built() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Loss()  # type: ignore[abstract]
