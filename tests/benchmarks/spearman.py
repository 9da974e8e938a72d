"""Batched Spearman against scipy's, image by image, on the same rows.

    python tests/benchmarks/spearman.py          # some ten seconds on one core

The rows are those of a single-deletion score over 10,000 images with 16 patches: sums over cells
and drops, some of them tied. Both run on one thread; the batched one takes batches of 64, as an
evaluation does, and all rows at once. What is printed is the median of the repeats.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from scipy.stats import ConstantInputWarning, spearmanr
from torch import Tensor

from trainables.metrics.rank_correlation import spearman

IMAGES, BATCH_SIZE, REPEATS = 10_000, 64, 7
GOAL = 100
"""Times scipy's speed."""


def main() -> None:
    """One line a number of patches."""
    torch.set_num_threads(1)
    print(f"Spearman of {IMAGES:,} images, seconds; in brackets times scipy (goal {GOAL})\n")
    print(f"{'patches':>7} {'scipy':>8} {'batches of 64':>20} {'all at once':>20} {'difference':>11}")
    for patches in (4, 16, 64):
        sums, drops = rows(patches)
        pairs = list(zip(sums.numpy(), drops.numpy(), strict=True))
        whole = seconds(lambda sums=sums, drops=drops: spearman(sums, drops))
        parts = seconds(lambda sums=sums, drops=drops: in_batches(sums, drops))
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConstantInputWarning)
            expected = np.array([spearmanr(*pair).statistic for pair in pairs])
        single = time.perf_counter() - started
        difference = np.nanmax(np.abs(spearman(sums, drops).numpy() - expected))
        print(
            f"{patches:>7} {single:>8.3f} {parts:>11.4f} ({single / parts:>5.0f}x) "
            f"{whole:>11.4f} ({single / whole:>5.0f}x) {difference:>11.1e}"
        )


def rows(patches: int) -> tuple[Tensor, Tensor]:
    """Correlated sums and drops, (IMAGES, patches); a tenth of the images have tied sums."""
    generator = np.random.default_rng(0)
    drops = generator.normal(size=(IMAGES, patches)).astype(np.float32)
    sums = drops + 2 * generator.normal(size=(IMAGES, patches))
    sums[::10] = np.maximum(sums[::10], 0)
    return torch.from_numpy(sums), torch.from_numpy(drops)


def in_batches(sums: Tensor, drops: Tensor) -> None:
    """As an evaluation asks."""
    for some_sums, some_drops in zip(sums.split(BATCH_SIZE), drops.split(BATCH_SIZE), strict=True):
        spearman(some_sums, some_drops)


def seconds(work: Callable[[], object]) -> float:
    """Median time of the repeats, after one that warms up."""
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


if __name__ == "__main__":
    main()
