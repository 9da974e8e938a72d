"""The counter against operations counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from trainables.flops import FlopCounter


def test_convolution_and_its_backward_as_counted_by_hand():
    layer = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    forward = 2 * 2 * 5 * 4 * 4 * 3 * 3 * 3  # 2 for multiply and add; B, D, h, w, C, 3, 3
    with FlopCounter() as flops:
        y = layer(x)
    assert flops.total == forward
    with FlopCounter() as flops:
        y.sum().backward()
    assert flops.total == 2 * forward  # by the input and by the weight


def test_frozen_weights_and_leaf_inputs_are_not_charged():
    layer = nn.Conv2d(3, 5, 3, padding=1)
    forward = 2 * 2 * 5 * 8 * 8 * 3 * 3 * 3
    with FlopCounter() as flops:
        layer(torch.randn(2, 3, 8, 8)).sum().backward()
    assert flops.total == 2 * forward  # no gradient by the input
    layer.requires_grad_(False)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    with FlopCounter() as flops:
        torch.autograd.grad(layer(x).sum(), x)
    assert flops.total == 2 * forward  # no gradient by the weight


def test_linear_layer_and_its_backward_as_counted_by_hand():
    layer = nn.Linear(7, 3)
    x = torch.randn(4, 7, requires_grad=True)
    forward = 2 * 4 * 7 * 3
    with FlopCounter() as flops:
        layer(x).sum().backward()
    assert flops.total == 3 * forward
    assert sum(flops.by_operation.values()) == flops.total


def test_what_has_no_formula_and_what_lies_outside_is_not_counted():
    layer = nn.Linear(7, 3)
    with FlopCounter() as flops:
        torch.randn(4, 7).relu().sum()
    layer(torch.randn(4, 7))
    assert flops.total == 0
