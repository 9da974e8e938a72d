"""Segmentation by a map against the authors' arrays, scikit-learn and values by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor

from trainables.metrics import segmentation
from trainables.metrics.metric import Metric
from trainables.metrics.pooled import PooledMetric
from trainables.metrics.segmentation import (
    AveragePrecision,
    MeanIou,
    PixelAccuracy,
    SegmentationF1,
    foreground,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "explainer_and_vit" / "segmentation.npz"
with np.load(GOLDEN, allow_pickle=False) as arrays:
    golden = dict(arrays)
MAPS = torch.from_numpy(golden["maps"])[:, 0]
SEGMENTS = torch.from_numpy(golden["labels"]).to(torch.int8)
ROWS = [("image0", 0), ("image1", 1), ("image2_with_ignore", 2), ("image3", 3)]


def passes_of(maps: Tensor, segments: Tensor | None) -> Any:
    images = torch.zeros(len(maps), 3, *maps.shape[1:])
    return SimpleNamespace(batch=SimpleNamespace(images=images, segments=segments))


def score(metric: Metric, maps: Tensor, segments: Tensor | None) -> np.ndarray:
    return metric(passes_of(maps, segments), maps).numpy()


def over_data(metric: Metric, maps: Tensor, segments: Tensor) -> float:
    scores, traces = metric.traced(passes_of(maps, segments), maps)
    return metric.reduce(scores.numpy(), None if traces is None else traces.float().numpy())


@pytest.mark.parametrize(("key", "row"), ROWS)
def test_each_image_counts_as_the_authors_do(key: str, row: int) -> None:
    expected = golden[key]
    passes = passes_of(MAPS[row : row + 1], SEGMENTS[row : row + 1])
    one = MAPS[row : row + 1]
    assert PixelAccuracy().parts(passes, one, None)[0].tolist() == expected[:2].tolist()
    assert MeanIou().parts(passes, one, None)[0].tolist() == expected[2:6].tolist()
    assert AveragePrecision()(passes, one).item() == pytest.approx(expected[6], abs=1e-6)
    if len(expected) > 7:
        f1 = SegmentationF1(by_row=True)(passes, one).item()
        assert f1 == pytest.approx(expected[7], abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "key"),
    [
        (PixelAccuracy(), "pixAcc"),
        (MeanIou(), "mIoU"),
        (AveragePrecision(), "mAP"),
        (SegmentationF1(by_row=True), "mF1"),
    ],
    ids=lambda value: getattr(value, "key", value),
)
def test_the_data_set_scores_as_the_authors_say(metric: Metric, key: str) -> None:
    used = golden["used"]
    assert over_data(metric, MAPS[used], SEGMENTS[used]) == pytest.approx(golden[key], abs=1e-6)


@pytest.mark.parametrize("metric", [PixelAccuracy(), MeanIou()], ids=lambda m: m.key)
def test_sums_over_the_data_set_are_not_the_mean_of_its_images(metric: PooledMetric) -> None:
    scores, traces = metric.traced(passes_of(MAPS, SEGMENTS), MAPS)
    assert traces is not None
    whole = metric.reduce(scores.numpy(), traces.numpy())
    assert abs(whole - float(scores.mean())) > 1e-4
    parts = [traces[i : i + 1].numpy() for i in (3, 1, 0, 2)]
    assert metric.reduce(scores.numpy(), np.concatenate(parts)) == whole
    with pytest.raises(ValueError, match="hand over what traced"):
        metric.reduce(scores.numpy())


def random_case(n: int = 6) -> tuple[Tensor, Tensor]:
    """Maps of few values, so that there are many ties; constant ones; undecided pixels."""
    generator = np.random.default_rng(5)
    maps = generator.integers(0, 6, (n, 7, 9)) / 5
    maps[0] = 0.1
    segments = generator.integers(-1, 2, (n, 7, 9))
    segments[1], segments[2] = 1, 0
    return torch.from_numpy(maps), torch.from_numpy(segments).to(torch.int8)


@pytest.mark.parametrize("slab_px", [1, 130, 2**21])
def test_average_precision_equals_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, slab_px: int
) -> None:
    monkeypatch.setattr(segmentation, "SLAB_PX", slab_px)
    maps, segments = random_case()
    for one, labels, ours in zip(
        maps.numpy(), segments.numpy(), score(AveragePrecision(), maps, segments), strict=True
    ):
        known, spread = labels >= 0, np.ptp(one)
        unit = (one - one.min()) / spread if spread else np.full(one.shape, 0.5)
        values = np.concatenate([1 - unit[known], unit[known]])
        truth = np.concatenate([labels[known] == 0, labels[known] == 1])
        assert ours == pytest.approx(average_precision_score(truth, values), rel=1e-9)


def test_f1_equals_scikit_learn() -> None:
    maps, segments = random_case()
    shown = foreground(maps).numpy()
    for i, ours in enumerate(score(SegmentationF1(), maps, segments)):
        known = segments[i].numpy() >= 0
        truth = segments[i].numpy()[known] == 1
        assert ours == pytest.approx(f1_score(truth, shown[i][known], zero_division=np.nan))


@pytest.mark.parametrize("level", [0.0, 0.1, -3.3, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_constant_map_marks_background_everywhere(level: float, dtype: torch.dtype) -> None:
    maps = torch.full((1, 37, 41), level, dtype=dtype)
    segments = torch.zeros(1, 37, 41, dtype=torch.int8)
    segments[0, :5] = 1
    assert not foreground(maps).any()
    share = 1 - 5 / 37
    assert over_data(PixelAccuracy(), maps, segments) == pytest.approx(share)
    assert over_data(MeanIou(), maps, segments) == pytest.approx(share / 2)
    assert score(AveragePrecision(), maps, segments)[0] == pytest.approx(0.5)


def test_a_perfect_map_scores_one() -> None:
    maps = (SEGMENTS == 1).double()
    for metric in (PixelAccuracy(), MeanIou(), AveragePrecision(), SegmentationF1()):
        assert over_data(metric, maps, SEGMENTS) == 1


def test_an_image_without_a_decided_pixel_is_undefined_and_adds_nothing() -> None:
    segments = SEGMENTS.clone()
    segments[1] = -1
    kept = [0, 2, 3]
    metrics = (
        PixelAccuracy(), MeanIou(), AveragePrecision(), SegmentationF1(),
        SegmentationF1(by_row=True),
    )  # fmt: skip
    for metric in metrics:
        np.testing.assert_array_equal(np.isnan(score(metric, MAPS, segments)), [0, 1, 0, 0])
        assert over_data(metric, MAPS, segments) == over_data(metric, MAPS[kept], segments[kept])


def test_scale_and_offset_of_a_map_do_not_matter() -> None:
    for metric in (PixelAccuracy(), MeanIou(), AveragePrecision(), SegmentationF1()):
        scaled = score(metric, 40 * MAPS.double() - 7, SEGMENTS)
        np.testing.assert_allclose(scaled, score(metric, MAPS.double(), SEGMENTS), rtol=1e-9)


def test_a_batch_without_segments_and_a_policy_without_a_place_are_refused() -> None:
    for metric in (PixelAccuracy(), AveragePrecision()):
        with pytest.raises(ValueError, match=f"{metric.key} needs segments"):
            score(metric, MAPS, None)
    with pytest.raises(ValueError, match=r"mean_iou\.undefined = 'zero'.*say drop"):
        MeanIou(undefined="zero")
