"""Mosaics: which images they are made of, how they are drawn and put together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data_pipelines.grids import (
    cell_masks,
    common_images,
    compose,
    confident_images,
    draw_grids,
    require_classes,
)

CLASSES = 10


def case(images: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a fair model and labels; a few images have no single class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, images)
    logits = rng.normal(size=(images, CLASSES))
    logits[np.arange(images), labels] += 3
    labels[:5] = -1
    return logits, labels


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_confident_images_are_correct_confident_and_the_best_of_their_class(output: Any) -> None:
    logits, labels = case()
    chosen = confident_images(logits, labels, output=output, confidence=0.8, per_class=4)
    if output == "softmax":
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    else:
        p = 1 / (1 + np.exp(-logits))
    own = p[np.arange(len(p)), labels]
    eligible = (logits.argmax(1) == labels) & (own >= 0.8)
    for c in range(CLASSES):
        best = sorted(np.flatnonzero(eligible & (labels == c)), key=lambda i: -own[i])[:4]
        assert [i for i in chosen.tolist() if labels[i] == c] == best
    assert (np.diff(own[chosen]) <= 0).all()
    assert len(chosen) > 20


def test_probabilities_of_large_logits_do_not_overflow() -> None:
    logits = np.array([[5000.0, 0.0], [0.0, 5000.0]])
    for output in ("softmax", "sigmoid"):
        chosen = confident_images(logits, np.array([0, 0]), output=output)  # type: ignore[arg-type]
        assert chosen.tolist() == [0]


def test_common_images_are_correct_for_all_and_ordered_by_their_worst_rank() -> None:
    (first, labels), (second, _) = case(), case()
    rng = np.random.default_rng(1)
    second = 7 * (second + 0.5 * rng.normal(size=second.shape))  # its scale does not matter
    chosen = common_images([first, second], labels)
    correct = (first.argmax(1) == labels) & (second.argmax(1) == labels)
    assert sorted(chosen.tolist()) == np.flatnonzero(correct).tolist()
    ranks = []
    for logits in (first, second):
        others = np.where(np.eye(CLASSES, dtype=bool)[labels], -np.inf, logits)
        margin = (logits[np.arange(len(labels)), labels] - others.max(1))[chosen]
        ranks.append([(margin > m).sum() for m in margin])
    worst = np.max(ranks, axis=0)
    assert (np.diff(worst) >= 0).all()
    rescaled = common_images([first, second / 1000 + 3], labels)
    assert rescaled.tolist() == chosen.tolist()
    few = common_images([first, second], labels, per_class=2)
    assert [i for i in chosen.tolist() if i in set(few.tolist())] == few.tolist()
    assert np.bincount(labels[few]).max() == 2


def test_one_model_that_is_wrong_keeps_an_image_out() -> None:
    labels = np.array([0, 1, 1])
    right, wrong = np.eye(2)[labels], np.eye(2)[labels]
    wrong[1] = [1, 0]
    wrong[2] = [1, 1]  # a tie is not correct
    assert sorted(common_images([right], labels).tolist()) == [0, 1, 2]
    assert common_images([right, wrong], labels).tolist() == [0]
    with pytest.raises(ValueError, match="at least one model"):
        common_images([], labels)


def test_mosaics_hold_each_class_once_and_only_chosen_images() -> None:
    _, labels = case()
    rows = np.flatnonzero(labels >= 0)[::2]
    grids = draw_grids(rows, labels, side=3, count=60, seed=4)
    assert len(grids) == 60
    assert grids.rows.shape == (60, 9)
    np.testing.assert_array_equal(labels[grids.rows], grids.classes)
    assert np.isin(grids.rows, rows).all()
    assert all(len(set(one)) == 9 for one in grids.classes.tolist())
    share = np.bincount(grids.classes.ravel(), minlength=CLASSES) / grids.classes.size
    assert abs(share - 1 / CLASSES).max() < 0.03


def test_a_mosaic_depends_on_seed_and_number_alone() -> None:
    _, labels = case()
    rows = np.flatnonzero(labels >= 0)
    many = draw_grids(rows, labels, count=8, seed=4)
    few = draw_grids(rows[::-1], labels, count=3, seed=4)
    np.testing.assert_array_equal(few.rows, many.rows[:3])
    assert (draw_grids(rows, labels, count=3, seed=5).rows != few.rows).any()
    ids = [f"image{i}" for i in range(len(labels))]
    assert few.ids(ids) == many.ids(ids)[:3]
    assert len(set(many.ids(ids))) == 8


def test_too_few_classes_are_refused_in_one_line() -> None:
    _, labels = case()
    rows = np.flatnonzero((labels >= 0) & (labels < 8))
    message = "grid_pg: a mosaic of 3 x 3 needs 9 classes and the chosen images have 8; take fewer"
    with pytest.raises(ValueError, match=message) as refusal:
        draw_grids(rows, labels)
    assert "\n" not in str(refusal.value)
    assert draw_grids(rows, labels, side=2, count=1).rows.shape == (1, 4)
    with pytest.raises(ValueError, match="2 x 2 needs 4 classes and there are 3"):
        require_classes(3, 2)
    with pytest.raises(ValueError, match="have 0"):
        draw_grids([], labels)


def test_tiles_stand_row_by_row_and_masks_say_where() -> None:
    side, tiles = 3, np.empty((18, 2, 4, 5), np.uint8)
    tiles[:] = np.arange(18, dtype=np.uint8)[:, None, None, None]
    tiles[:, :, 0, 0] += 100  # top left of each tile
    mosaics = compose(tiles, side)
    assert mosaics.shape == (2, 2, 12, 15)
    masks = cell_masks(side, 12, 15)
    for mosaic in range(2):
        for cell in range(9):
            expected = tiles[9 * mosaic + cell, 0].ravel().tolist()
            assert mosaics[mosaic, 0][masks[cell]].tolist() == expected
    assert masks.sum(0).min() == masks.sum(0).max() == 1
    np.testing.assert_array_equal(mosaics[0, :, 4:8, 10:15], tiles[5])
    with pytest.raises(ValueError, match="do not fill mosaics of 3 x 3"):
        compose(tiles[:10], 3)


def test_logits_that_do_not_fit_the_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits \(4, 3\) and labels \(5,\)"):
        confident_images(np.zeros((4, 3)), np.zeros(5, np.int64))
