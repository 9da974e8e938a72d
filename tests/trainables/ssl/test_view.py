"""Views: given their draws they are fixed, and nobody's depends on another's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables.ssl.view import DRAWS, View

CPU = torch.device("cpu")
HEAVY = View(size_px=12, solarize=0.5, gray=0.5, posterize=0.2)
NOTHING = View(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, jitter=0, gray=0, blur=0)


@pytest.fixture
def pictures():
    return np.random.default_rng(1).integers(0, 256, (6, 3, 20, 20), dtype=np.uint8)


@pytest.fixture
def draws():
    return np.random.default_rng(2).random((6, DRAWS))


def test_a_view_does_not_depend_on_the_batch(pictures, draws):
    together = HEAVY.of(pictures, draws, CPU)
    assert together.shape == (6, 3, 12, 12)
    assert together.dtype == torch.uint8
    for i in range(6):
        alone = HEAVY.of(pictures[i : i + 1], draws[i : i + 1], CPU)[0]
        assert torch.equal(together[i], alone)


def test_the_same_draws_give_the_same_view_and_others_another(pictures, draws):
    one = HEAVY.of(pictures, draws, CPU)
    assert torch.equal(one, HEAVY.of(pictures, draws.copy(), CPU))
    assert not torch.equal(one, HEAVY.of(pictures, draws[::-1].copy(), CPU))


def test_a_view_without_changes_is_the_picture(pictures, draws):
    assert (NOTHING.of(pictures, draws, CPU).numpy() == pictures).all()


@pytest.mark.parametrize("chance", ["flip", "jitter", "gray", "blur", "solarize", "posterize"])
def test_chances_hold(chance, draws):
    """Of many equal pictures that share is changed."""
    many = np.random.default_rng(0).random((300, DRAWS))
    picture = np.random.default_rng(1).integers(0, 256, (1, 3, 8, 8), dtype=np.uint8)
    values = {"flip": 0, "jitter": 0, "gray": 0, "blur": 0, chance: 0.3}
    view = View(crop_scale=(1, 1), crop_ratio=(1, 1), **values)
    seen = view.of(np.repeat(picture, 300, 0), many, CPU).numpy()
    changed = (seen != picture).any((1, 2, 3)).mean()
    assert 0.2 < changed < 0.4


@pytest.mark.parametrize(
    "values",
    [
        {"flip": 1.5},
        {"jitter": -0.1},
        {"hue": 0.6},
        {"brightness": 1.2},
        {"crop_scale": (0.5, 1.2)},
        {"crop_scale": (0.5, 0.2)},
        {"blur_sigma_px": (0.0, 1.0)},
        {"size_px": -1},
    ],
)
def test_impossible_views_are_refused(values):
    (name,) = values
    with pytest.raises(ValueError, match=f"View.{name} = "):
        View(**values)
