"""Rows of a forward: every explanation finds its image, and the cheaper way is taken."""

from __future__ import annotations

import pytest
import torch

from trainables.arrangement import BACKWARD_COST, Arrangement

INDEX = torch.tensor([2, 0, 2, 2, 4, 0])
"""Six explanations of five images; images 1 and 3 have none."""


def test_rounds_take_the_kth_target_of_every_image():
    arrangement = Arrangement.in_rounds(INDEX)
    assert arrangement.turn.tolist() == [0, 0, 1, 2, 0, 1]
    assert arrangement.rounds == 3
    rows = torch.arange(5)
    assert torch.equal(arrangement.of_explanations(rows), INDEX)
    assert torch.equal(arrangement.of_images(rows), rows)


def test_no_round_explains_an_image_twice():
    index = torch.randint(0, 7, (40,), generator=torch.Generator().manual_seed(0))
    arrangement = Arrangement.in_rounds(index)
    for turn in range(arrangement.rounds):
        images = index[arrangement.turn == turn]
        assert len(images.unique()) == len(images) > 0
    assert arrangement.rounds == int(index.bincount().max())


def test_repeated_rows_hold_the_explanations_and_then_the_silent_images():
    arrangement = Arrangement.repeated(INDEX, 5)
    assert arrangement.image is not None
    assert arrangement.image.tolist() == [2, 0, 2, 2, 4, 0, 1, 3]
    assert arrangement.rounds == 1
    assert torch.equal(arrangement.of_explanations(arrangement.image), INDEX)
    assert arrangement.of_images(arrangement.image).tolist() == [0, 1, 2, 3, 4]


def test_no_explanation_means_no_round():
    nothing = torch.empty(0, dtype=torch.long)
    arrangement = Arrangement.cheapest(nothing, 3, ["input"])
    assert arrangement.rounds == 0
    assert arrangement.of_images(torch.arange(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("layer", [*BACKWARD_COST, "layer3.0.conv1"])
@pytest.mark.parametrize("targets", [(1, 1, 1), (3,), (4, 1, 1, 1), (2, 2, 0), (9, 1, 1, 1, 1)])
def test_the_cheaper_arrangement_is_taken(layer, targets):
    index = torch.repeat_interleave(torch.arange(len(targets)), torch.tensor(targets))
    b = BACKWARD_COST.get(layer, 1.0)  # an unknown layer may lie as deep as the input
    rows = sum(max(t, 1) for t in targets)
    in_rounds, repeated = len(targets) * (1 + max(targets) * b), rows * (1 + b)
    arrangement = Arrangement.cheapest(index, len(targets), ["final", layer])
    assert (arrangement.image is not None) == (repeated < in_rounds)
