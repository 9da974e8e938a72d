"""Micro F1, mAP and accuracy: the contract, the authors' arrays, plain loops, values by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from tests import reference
from tests.device_literals import device_literals
from trainables.metrics.classification import (
    F1,
    Accuracy,
    ClassificationMetric,
    MeanAveragePrecision,
    mad_softmax,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "guidance" / "metrics.npz"
METRICS = [cls() for _, cls in sorted(ClassificationMetric.registered.items())]
each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return dict(arrays)


def split(n: int = 60, k: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random logits with ties, random labels with every class present."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((n, k)) < 0.3).astype(np.uint8)
    labels[0] = 1
    return generator.integers(-5, 6, size=(n, k)) / 2, labels


@each_metric
def test_perfect_logits_score_best_and_beat_random_ones(metric: ClassificationMetric) -> None:
    best = metric.range[1] if metric.higher_is_better else metric.range[0]
    sign = 1 if metric.higher_is_better else -1
    for seed in range(10):
        logits, labels = split(seed=seed)
        assert metric(2.0 * labels - 1, labels) == best
        assert sign * metric(logits, labels) < sign * best
        assert metric.range[0] <= metric(logits, labels) <= metric.range[1]


@each_metric
def test_order_of_images_and_of_classes_does_not_matter(metric: ClassificationMetric) -> None:
    logits, labels = split()
    rows, columns = np.random.default_rng(1).permutation(60), [3, 0, 4, 2, 1]
    assert metric(logits[rows], labels[rows]) == pytest.approx(metric(logits, labels), rel=1e-12)
    permuted = metric(logits[:, columns], labels[:, columns])
    assert permuted == pytest.approx(metric(logits, labels), rel=1e-12)


@each_metric
def test_precision_and_type_of_the_inputs_do_not_matter(metric: ClassificationMetric) -> None:
    logits, labels = split()
    expected = metric(logits, labels)
    assert type(expected) is float
    assert metric(logits.astype(np.float32), labels.astype(bool)) == expected
    assert metric(logits, labels.astype(np.float32)) == expected


@each_metric
def test_one_image_and_one_class_can_be_scored(metric: ClassificationMetric) -> None:
    assert metric(np.array([[2.0]]), np.array([[1]])) == 1


@each_metric
def test_bad_input_is_refused(metric: ClassificationMetric) -> None:
    logits, labels = split()
    with pytest.raises(ValueError, match=r"\(60, 5\) and labels \(60, 4\)"):
        metric(logits, labels[:, :4])
    with pytest.raises(ValueError, match=r"\(60,\)"):
        metric(logits[:, 0], labels[:, 0])
    with pytest.raises(ValueError, match="not empty"):
        metric(logits[:0], labels[:0])
    with pytest.raises(ValueError, match="0 or 1, found 2"):
        metric(logits, labels * 2)
    logits[3, 2] = math.nan
    with pytest.raises(ValueError, match="1 logits are NaN"):
        metric(logits, labels)


@each_metric
def test_source_is_stated_and_no_device_is_named(metric: ClassificationMetric) -> None:
    assert "Source:" in (type(metric).__doc__ or "")
    assert device_literals(type(metric)) == []
    assert metric.key == metric.name


def test_f1_is_the_authors(golden: dict[str, np.ndarray]) -> None:
    logits, labels = golden["logits"], golden["labels"]
    assert logits[0, 0] == logits[1, 1] == 0  # exactly at the threshold: predicted
    assert F1()(logits, labels) == pytest.approx(golden["cls_thr_0p0"][3], abs=1e-6)
    assert F1()(logits - 0.5, labels) == pytest.approx(golden["cls_thr_0p5"][3], abs=1e-6)


@pytest.mark.parametrize(("key", "threshold"), [("cls_thr_0p0", 0.0), ("cls_thr_0p5", 0.5)])
def test_f1_and_its_kin_are_those_of_the_counts(
    golden: dict[str, np.ndarray], key: str, threshold: float
) -> None:
    predicted, labels = golden["logits"] >= threshold, golden["labels"] > 0
    hits, misses = (predicted & labels).sum(), (~predicted & labels).sum()
    alarms, silent = (predicted & ~labels).sum(), (~predicted & ~labels).sum()
    shares = [(hits + silent) / labels.size, hits / (hits + alarms), hits / (hits + misses)]
    f1 = F1()(golden["logits"] - threshold, golden["labels"])
    expected = [*shares, f1, hits, silent, alarms, misses]
    np.testing.assert_allclose(expected, golden[key], atol=1e-6)


def test_map_is_scikit_learns_over_the_classes_that_occur(golden: dict[str, np.ndarray]) -> None:
    logits, labels = golden["logits"], golden["labels"]
    assert labels[:, 5].sum() == 0
    expected = float(golden["map_macro_sklearn_defined_classes"])
    assert MeanAveragePrecision()(logits, labels) == pytest.approx(expected, abs=1e-9)
    for k in range(5):
        alone = MeanAveragePrecision()(logits[:, [k]], labels[:, [k]])
        assert alone == pytest.approx(golden["ap_each_sklearn"][k], abs=1e-9)
        assert alone == pytest.approx(golden["ap_each_torchmetrics_sigmoid"][k], abs=1e-5)
    pooled = MeanAveragePrecision()(logits[:, :5].reshape(-1, 1), labels[:, :5].reshape(-1, 1))
    assert pooled == pytest.approx(float(golden["map_micro_sklearn"]), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_f1_and_average_precision_are_scikit_learns(seed: int) -> None:
    logits, labels = split(n=200, seed=seed)
    random = np.random.default_rng(seed).normal(size=logits.shape)
    for scores in (logits, random):
        predicted = (scores >= 0).astype(int)
        assert F1()(scores, labels) == f1_score(labels.ravel(), predicted.ravel())
        each = [average_precision_score(labels[:, k], scores[:, k]) for k in range(5)]
        assert MeanAveragePrecision()(scores, labels) == pytest.approx(np.mean(each), rel=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_plain_loops(seed: int) -> None:
    logits, labels = split(seed=seed)
    assert F1()(logits, labels) == pytest.approx(reference.micro_f1(logits, labels), rel=1e-12)
    each = [reference.average_precision(logits[:, k], labels[:, k]) for k in range(5)]
    expected = sum(each) / 5
    assert MeanAveragePrecision()(logits, labels) == pytest.approx(expected, rel=1e-12)


def test_f1_by_hand() -> None:
    logits = np.array([[1.0, -1.0], [0.0, 2.0], [-3.0, -0.1]])
    labels = np.array([[1, 1], [0, 1], [0, 0]])
    # 2 hits, 1 false alarm (a logit of exactly 0 predicts), 1 miss
    assert F1()(logits, labels) == pytest.approx(4 / 6)


def test_f1_of_one_class_does_not_count_the_absent_class() -> None:
    logits, labels = np.array([[1.0], [-1.0], [-1.0]]), np.array([[1], [1], [0]])
    assert F1()(logits, labels) == pytest.approx(2 / 3)


def test_scores_without_any_positive_are_undefined() -> None:
    labels = np.zeros((3, 2))
    assert math.isnan(F1()(np.full((3, 2), -1.0), labels))
    assert F1()(np.full((3, 2), 1.0), labels) == 0
    assert math.isnan(MeanAveragePrecision()(np.full((3, 2), 1.0), labels))
    assert math.isnan(Accuracy()(np.full((3, 2), 1.0), labels))


def test_accuracy_of_one_class_an_image_is_top_1() -> None:
    generator = np.random.default_rng(0)
    logits, classes = generator.normal(size=(200, 7)), generator.integers(7, size=200)
    labels = np.eye(7)[classes]
    hits = [int(np.argmax(row) == target) for row, target in zip(logits, classes, strict=True)]
    assert Accuracy()(logits, labels) == pytest.approx(sum(hits) / 200)


def test_accuracy_by_hand() -> None:
    logits = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [3.0, 3.0, 3.0], [9.0, 0.0, 0.0]])
    labels = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    # a hit; one of two that tie; two of three that tie; no class: left out
    assert Accuracy()(logits, labels) == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)


def test_a_network_that_does_not_look_has_the_accuracy_of_chance() -> None:
    assert Accuracy()(np.zeros((5, 10)), np.eye(10)[:5]) == pytest.approx(0.1)


def test_mad_softmax_is_the_mean_absolute_difference() -> None:
    assert mad_softmax(np.array([0.5, 1.0, 0.0]), np.array([0.25, 0.5, 0.0])) == 0.25
    generator = np.random.default_rng(1)
    one, other = generator.random(50), generator.random(50)
    assert mad_softmax(one, one) == 0
    assert mad_softmax(one, other) == pytest.approx(mad_softmax(other, one), rel=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0.5], [0.5, 0.5], r"\(1,\) and \(2,\)"),
        ([], [], "not empty"),
        ([[0.5]], [[0.5]], r"\(1, 1\)"),
        ([0.5], [1.5], r"must lie in \[0, 1\]"),
        ([math.nan], [0.5], r"must lie in \[0, 1\]"),
    ],
)
def test_what_is_no_probability_is_refused(first: list, second: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mad_softmax(np.array(first), np.array(second))
