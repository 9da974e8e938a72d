"""Filters of maps against the authors' arrays and plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.metrics.localization import BoxIou, Epg
from trainables.metrics.smoothing import gaussian, smooth_gaussian, smooth_mean

GOLDEN = Path(__file__).parents[2] / "golden" / "probing" / "metrics.npz"


def maps(*size: int) -> torch.Tensor:
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_mean_is_the_authors() -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        for name in golden["names"]:
            raw = torch.from_numpy(golden[f"map/{name}"])[None]
            expected = golden[f"smoothed5/{name}"]
            np.testing.assert_allclose(smooth_mean(raw, 5)[0].relu(), expected, atol=1e-6)


def test_the_mean_counts_zeros_beyond_the_border() -> None:
    raw = maps(4, 6).numpy()
    padded = np.pad(raw, ((0, 0), (1, 1), (1, 1)))
    expected = sum(padded[:, i : i + 4, j : j + 6] for i in range(3) for j in range(3)) / 9
    np.testing.assert_allclose(smooth_mean(torch.from_numpy(raw), 3), expected, rtol=1e-12)


def test_the_gaussian_equals_the_full_kernel_on_the_mirrored_map() -> None:
    raw = maps(9, 7).numpy()
    offsets = np.arange(-2, 3)
    line = np.exp(-0.5 * (offsets / 1.25) ** 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    padded = np.pad(raw, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    expected = sum(
        kernel[i, j] * padded[:, i : i + 9, j : j + 7] for i in range(5) for j in range(5)
    )
    np.testing.assert_allclose(smooth_gaussian(torch.from_numpy(raw), 5), expected, rtol=1e-10)


def test_the_papers_gaussian_has_the_papers_deviation() -> None:
    weights = np.array(gaussian(129))
    assert weights.sum() == pytest.approx(1)
    assert weights[64 + 32] / weights[64] == pytest.approx(np.exp(-0.5 * (32 / 32.25) ** 2))


def test_keys_are_short_and_those_without_a_filter_unchanged() -> None:
    assert Epg().key == "epg"
    assert Epg(smooth_px=5).key == "epg_smooth5"
    assert Epg(smooth_px=129, smooth_kernel="gaussian").key == "epg_smooth129_gaussian"
    assert BoxIou(threshold=0.25, smooth_px=5).key == "box_iou_smooth5_t0.25"
    assert "smooth_px" not in Epg().canonical()


@pytest.mark.parametrize("side", [-5, 1, 4])
def test_a_side_without_a_middle_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match=rf"epg.smooth_px = {side}: .*odd"):
        Epg(smooth_px=side)


def test_a_gaussian_without_a_side_or_on_too_small_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="say smooth_px"):
        Epg(smooth_kernel="gaussian")
    with pytest.raises(ValueError, match=r"mirrors 64 px.*\(64, 64\) px are too small"):
        smooth_gaussian(torch.ones(1, 64, 64), 129)
