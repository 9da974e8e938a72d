"""Batched Spearman against the authors' rows, scipy, and values by hand."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import ConstantInputWarning, rankdata, spearmanr
from torch import Tensor

from trainables.metrics.rank_correlation import centered_ranks, spearman
from trainables.metrics.single_deletion import Sds, cell_sums

GOLDEN = Path(__file__).parents[2] / "golden" / "idsds" / "spearman.npz"


def by_scipy(first: Tensor, second: Tensor) -> np.ndarray:
    """One call a row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        pairs = zip(first.numpy(), second.numpy(), strict=True)
        return np.array([spearmanr(a, b).statistic for a, b in pairs])


def rows(n: int, p: int, seed: int) -> tuple[Tensor, Tensor]:
    """Few different values on one side, real ones on the other; some rows of each are constant."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(-3, 4, (n, p), generator=generator).double()
    second = torch.randn(n, p, generator=generator)
    first[0], second[1] = 2.5, -1.0
    return first, second


def test_each_row_has_the_authors_correlation_and_they_keep_the_same_rows() -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        maps = torch.from_numpy(golden["maps"]).squeeze(1)
        sums = cell_sums(maps, 16)
        np.testing.assert_allclose(sums, golden["attr_cells"], rtol=1e-6)
        found = spearman(sums, torch.from_numpy(golden["drops"])).numpy()
        np.testing.assert_allclose(found, golden["rho"], rtol=0, atol=1e-12)
        assert np.array_equal(~np.isnan(found), golden["kept"])
        assert Sds().reduce(found) == pytest.approx(float(golden["mean_kept"]), abs=1e-12)


@pytest.mark.parametrize("p", [2, 3, 4, 16, 64])
def test_ties_and_constant_rows_are_scipys(p: int) -> None:
    first, second = rows(40, p, seed=p)
    found = spearman(first, second)
    assert found.dtype == torch.float64
    assert found[:2].isnan().all()
    np.testing.assert_allclose(found, by_scipy(first, second), rtol=0, atol=1e-12)
    np.testing.assert_allclose(spearman(second, first), found, rtol=0, atol=0)


def test_infinities_are_ranked_and_nans_leave_their_row_undefined() -> None:
    first, second = rows(6, 16, seed=1)
    first[2, :3], first[2, 3], second[2, 5] = math.inf, -math.inf, -math.inf
    first[3, 4], second[4, 0] = math.nan, math.nan
    first[5], second[5, :] = math.inf, math.nan
    found = spearman(first, second)
    assert found.isnan().tolist() == [True, True, False, True, True, True]
    assert found[2] == pytest.approx(by_scipy(first[[2]], second[[2]])[0], abs=1e-12)


def test_equal_and_opposite_orders_give_one_and_minus_one_exactly() -> None:
    first, _ = rows(50, 64, seed=3)
    first = first[1:]
    assert (spearman(first, first.exp()) == 1).all()
    assert (spearman(first, -first) == -1).all()


def test_negative_zero_ties_with_zero() -> None:
    first = torch.tensor([[0.0, -0.0, 1.0, 2.0]])
    assert centered_ranks(first).tolist() == [[-2, -2, 1, 3]]


def test_ranks_are_twice_scipys_mean_ranks_around_zero() -> None:
    first, _ = rows(20, 16, seed=2)
    np.testing.assert_array_equal(centered_ranks(first), 2 * rankdata(first, axis=1) - 17)
    assert (centered_ranks(first).sum(1) == 0).all()


def test_no_row_and_one_column() -> None:
    assert spearman(torch.zeros(0, 16), torch.zeros(0, 16)).shape == (0,)
    assert spearman(torch.ones(2, 1), torch.ones(2, 1)).isnan().all()


def test_sides_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4\) and \(2, 5\): expected \(N, P\) both"):
        spearman(torch.zeros(2, 4), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        spearman(torch.zeros(4), torch.zeros(4))
