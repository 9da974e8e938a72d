"""Classification metrics of a whole split: micro F1, mean average precision, accuracy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data_pipelines.configuration import Configuration


@dataclass(frozen=True, kw_only=True)
class ClassificationMetric(Configuration, ABC, family=True):
    """Scores the logits of a split against its labels, one number for all; NaN where undefined."""

    higher_is_better: ClassVar[bool]
    range: ClassVar[tuple[float, float]]

    def __call__(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """The score.

        Args:
            logits: one an image and class, (N, K), float.
            labels: 1 where the class is in the image, else 0, (N, K), any number type or bool.

        Raises:
            ValueError: shapes differ or are not (N, K), there is no image, a logit is not finite,
                or a label is neither 0 nor 1.
        """
        logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
        if logits.ndim != 2 or logits.shape != labels.shape or logits.size == 0:
            raise ValueError(
                f"{self.key}: logits {logits.shape} and labels {labels.shape} must "
                "be equal, (N, K), and not empty"
            )
        if not np.isfinite(logits).all():
            raise ValueError(
                f"{self.key}: {int((~np.isfinite(logits)).sum())} logits are NaN or infinite"
            )
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"{self.key}: labels must be 0 or 1, found {labels[~np.isin(labels, (0, 1))][0]}"
            )
        return self.over_split(logits, labels.astype(np.int64))

    @abstractmethod
    def over_split(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """The equation: float64 (N, K) and int64 (N, K), already checked, to a number."""


@dataclass(frozen=True, kw_only=True)
class F1(ClassificationMetric):
    """Micro F1 over all images and classes; a class is predicted where its logit is at least 0.

    Undefined, NaN, where nothing is predicted and nothing is there.

    Source: Model Guidance (Rao et al., ICCV 2023), section 3.3; logit >= 0 is the authors' code's.
    """

    name: ClassVar[str] = "f1"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def over_split(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """2 TP / (2 TP + FP + FN)."""
        predicted = logits >= 0
        both = int(predicted.sum()) + int(labels.sum())
        return 2 * int(labels[predicted].sum()) / both if both else float("nan")


@dataclass(frozen=True, kw_only=True)
class MeanAveragePrecision(ClassificationMetric):
    """Mean over the classes of average precision; classes without a positive are left out.

    Undefined, NaN, where no class has a positive. Average precision is the step-wise sum, not
    interpolated.

    Source: Model Guidance (Rao et al., ICCV 2023), supplement B.1. Its code has no such metric, so
        the macro mean and the definition of average precision are scikit-learn's.
    """

    name: ClassVar[str] = "map"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def over_split(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Mean of the average precisions of the classes that occur."""
        occurring = labels.any(0)
        if not occurring.any():
            return float("nan")
        return float(average_precisions(logits[:, occurring], labels[:, occurring]).mean())


def average_precisions(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Step-wise average precision of each class, (K,): what scikit-learn gives one by one.

    Many probes are judged after every epoch, and K calls of it take longer than their heads.

    Args:
        logits: (N, K), float.
        labels: (N, K), int, each class at least once.
    """
    order = np.argsort(-logits, axis=0, kind="stable")
    scores = np.take_along_axis(logits, order, 0)
    hits = np.take_along_axis(labels, order, 0).cumsum(0)
    precision = hits / np.arange(1, len(hits) + 1)[:, None]
    # of images with equal logits only the last is a step
    steps = np.concatenate([scores[1:] != scores[:-1], np.ones((1, scores.shape[1]), dtype=bool)])
    reached = np.maximum.accumulate(np.where(steps, hits, 0), axis=0)
    gained = np.diff(reached, axis=0, prepend=0)
    found: np.ndarray = (gained * precision).sum(0) / hits[-1]
    return found


@dataclass(frozen=True, kw_only=True)
class Accuracy(ClassificationMetric):
    """Top-1 accuracy: share of the images whose largest logit belongs to a class that is there.

    Of equal largest logits each counts in part. Images without any class are left out; undefined,
    NaN, where no other is left.

    Source: Russakovsky et al., 2015 (ImageNet), for images of one class; with several classes any
        of them is a hit.
    """

    name: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def over_split(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Mean of the shares of the largest logits that belong to a present class."""
        logits, labels = logits[labels.any(1)], labels[labels.any(1)]
        largest = logits == logits.max(1, keepdims=True)
        each = (largest & (labels == 1)).sum(1) / largest.sum(1)
        return float(each.mean()) if len(each) else float("nan")


def mad_softmax(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference of two models' probabilities of the same targets, within [0, 1].

    Source: IDSDS (Hesse et al., 2024), section 4.1: how alike a network and its fine-tuned self
        are.

    Args:
        first: softmax probability of each image's target by one model, (N,).
        second: by the other, images in the same order, (N,).

    Raises:
        ValueError: shapes differ or are not (N,), there is no image, or a value lies outside
            [0, 1].
    """
    first, second = (np.asarray(p, dtype=np.float64) for p in (first, second))
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise ValueError(
            f"mad_softmax: probabilities {first.shape} and {second.shape} must be equal, (N,), "
            "and not empty"
        )
    if not all(((p >= 0) & (p <= 1)).all() for p in (first, second)):
        raise ValueError("mad_softmax: probabilities must lie in [0, 1]; give softmax outputs")
    return float(np.abs(first - second).mean())
