"""Losses of the methods against plain formulas, and what they remember."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests import reference
from trainables.ssl.byol import Byol
from trainables.ssl.dino import Dino
from trainables.ssl.moco_v2 import MocoV2, Queue
from trainables.ssl.moco_v3 import MocoV3


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_queue_tells_an_image_from_earlier_ones():
    queue, others = Queue(7, 4, 0.2), drawn(7, 4, seed=2)
    queue.keys = functional.normalize(others, dim=1)
    queries, keys = drawn(3, 4), drawn(3, 4, seed=1)
    found = queue({0: queries}, {1: keys}, 1)
    expected = reference.contrastive_loss(queries.numpy(), keys.numpy(), others.numpy(), 0.2)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_the_oldest_keys_leave_the_queue_first():
    queue = Queue(5, 4, 0.2).double()
    expected = list(queue.keys.clone())
    for batch in range(4):
        keys = drawn(3, 4, seed=batch)
        queue({0: drawn(3, 4, seed=9)}, {1: keys}, 1)
        expected = expected[3:] + list(functional.normalize(keys, dim=1))
        order = [(int(queue.position) + k) % 5 for k in range(5)]
        torch.testing.assert_close(queue.keys[order], torch.stack(expected))


def test_a_batch_that_the_queue_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"queue = 16: must hold .* batch_size = 32"):
        MocoV2(queue=16).check(32)


def test_bootstrapping_compares_each_view_with_the_other():
    outputs, targets = ([drawn(3, 5, seed=s), drawn(3, 5, seed=s + 1)] for s in (0, 2))
    found = Byol().criterion()(dict(enumerate(outputs)), dict(enumerate(targets)), 1)
    plain = [[x.numpy() for x in some] for some in (outputs, targets)]
    assert float(found) == pytest.approx(reference.bootstrap_loss(*plain), rel=1e-12)


def test_without_a_queue_an_image_is_told_from_its_batch():
    """MoCo's formula with the batch's other keys for the queue, both ways round, times 2 T."""
    outputs, targets = ([drawn(3, 5, seed=s), drawn(3, 5, seed=s + 1)] for s in (0, 2))
    found = MocoV3(temperature=0.3).criterion()(
        dict(enumerate(outputs)), dict(enumerate(targets)), 1
    )
    expected = 0.0
    for mine, other in ((0, 1), (1, 0)):
        for i in range(3):
            alone, others = [i], [k for k in range(3) if k != i]
            expected += (
                reference.contrastive_loss(
                    outputs[mine][alone].numpy(),
                    targets[other][alone].numpy(),
                    targets[other][others].numpy(),
                    0.3,
                )
                * 2
                * 0.3
                / 3
            )
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_distillation_compares_all_pairs_of_different_views():
    method = Dino(prototypes=6, first_temperature=0.04, teacher_temperature=0.07)
    criterion = method.criterion().double()
    criterion.center = drawn(6, seed=9)
    center = criterion.center.clone()
    outputs = [drawn(3, 6, seed=s) for s in range(4)]
    targets = [drawn(3, 6, seed=s + 10) for s in range(2)]
    found = criterion(dict(enumerate(outputs)), dict(enumerate(targets)), 1)
    plain = [[x.numpy() for x in some] for some in (outputs, targets)]
    expected = reference.distillation_loss(*plain, center.numpy(), 0.1, 0.04)
    assert float(found) == pytest.approx(expected, rel=1e-12)
    mean = np.concatenate(plain[1]).mean(0)
    np.testing.assert_allclose(criterion.center.numpy(), 0.9 * center.numpy() + 0.1 * mean)


def test_the_temperature_of_the_teacher_rises_and_stays():
    method = Dino(first_temperature=0.04, teacher_temperature=0.07, temperature_epochs=4)
    found = [method.teacher_temperature_at(epoch) for epoch in range(1, 7)]
    assert found == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
    constant = Dino(first_temperature=0.04, teacher_temperature=0.07, temperature_epochs=0)
    assert constant.teacher_temperature_at(1) == 0.07


def test_momenta_rise_to_one_but_for_moco():
    assert [Byol().momentum_at(x) for x in (0, 0.5, 1)] == pytest.approx([0.99, 0.995, 1])
    steps = [Dino().momentum_at(k / 10) for k in range(11)]
    expected = [1 - 0.004 * (math.cos(math.pi * k / 10) + 1) / 2 for k in range(11)]
    assert steps == pytest.approx(expected)
    assert {MocoV2().momentum_at(x) for x in (0, 0.5, 1)} == {0.999}


@pytest.mark.parametrize(
    ("method", "values"),
    [
        (MocoV2, {"temperature": 0.0}),
        (MocoV2, {"momentum": 1.1}),
        (Byol, {"hidden": 0}),
        (MocoV3, {"temperature": 0.0}),
        (Dino, {"center_momentum": 1.0}),
        (Dino, {"local_views": -1}),
    ],
)
def test_impossible_methods_are_refused(method, values):
    (name,) = values
    with pytest.raises(ValueError, match=f"{method.__name__}.{name} = "):
        method(**values)
