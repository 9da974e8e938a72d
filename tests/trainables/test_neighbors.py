"""Nearest neighbours: scikit-learn's, with DINO's weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from tests.trainables.scenes import BASELINE
from trainables.backbone import TrainedBackbone, UntrainedBackbone
from trainables.knn_evaluation import KnnEvaluation
from trainables.neighbors import knn_accuracy


def features(n, seed):
    """Three directions with noise."""
    random = np.random.default_rng(seed)
    classes = random.integers(3, size=n)
    return torch.from_numpy(np.eye(4)[classes] + 0.6 * random.normal(size=(n, 4))), np.eye(
        3, dtype=np.uint8
    )[classes]


def test_the_vote_is_scikit_learns_with_exponential_weights():
    (bank, bank_labels), (found, labels) = features(90, 0), features(40, 1)
    library = KNeighborsClassifier(
        7, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07)
    )
    library.fit(bank.numpy(), bank_labels.argmax(1))
    expected = library.score(found.numpy(), labels.argmax(1))
    assert 0.5 < expected < 1
    ours = knn_accuracy(bank, bank_labels, found, labels, neighbors=7)
    assert ours == pytest.approx(expected)


def test_images_without_a_class_take_no_part():
    (bank, bank_labels), (found, labels) = features(90, 0), features(40, 1)
    expected = knn_accuracy(bank, bank_labels, found, labels)
    nowhere = torch.zeros(5, 4, dtype=bank.dtype)
    empty = np.zeros((5, 3), dtype=np.uint8)
    wider = knn_accuracy(
        torch.cat([nowhere + found[:5], bank]),
        np.concatenate([empty, bank_labels]),
        torch.cat([found, nowhere + 1]),
        np.concatenate([labels, empty]),
    )
    assert wider == expected
    assert math.isnan(knn_accuracy(bank, bank_labels, nowhere, empty))


def test_a_bank_smaller_than_the_neighbors_votes_whole():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    labels = np.eye(2, dtype=np.uint8)
    assert knn_accuracy(bank, labels, bank, labels, neighbors=20) == 1


def test_any_backbone_is_judged(bench):
    untrained, trained = (
        KnnEvaluation(backbone=backbone, data=BASELINE.data, image_size_px=BASELINE.size_px)
        for backbone in (UntrainedBackbone(network=BASELINE.network), TrainedBackbone(of=BASELINE))
    )
    assert bench.run(untrained), bench.events[-1]
    assert bench.run(trained), bench.events[-1]
    ((_, before),) = bench.history(untrained)
    ((_, after),) = bench.history(trained)
    assert 0 <= before["val/knn_accuracy"] <= 1
    assert 0 <= after["val/knn_accuracy"] <= 1
    assert trained.tags == {"backbone": "small_resnet_width4", "pretraining": "supervised_bce"}
