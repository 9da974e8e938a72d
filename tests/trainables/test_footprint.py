"""What an image costs, against a count by hand."""

from __future__ import annotations

import gc

import torch
from torch import Tensor, nn

from trainables import footprint
from trainables.footprint import Footprint, bytes_per_image, measured_forward


class Known(nn.Module):
    """Operations whose results are easy to count."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2  # as many bytes as x
        z = y.view(len(x), -1)  # none: a view
        z.add_(1)  # none: in place
        return z.sum(1)  # one number an image


def test_new_results_are_counted_and_views_are_not():
    images = torch.zeros(5, 3, 4, 4)
    logits = measured_forward(Known(), images)
    assert torch.equal(logits, torch.full((5,), 48.0))
    module = Known()
    measured_forward(module, images)
    assert bytes_per_image(module, images) == 3 * 4 * 4 * 4 + 4


def test_every_result_of_an_operation_counts():
    values = torch.arange(6.0).view(2, 3)
    with Footprint() as seen:
        values.max(dim=1)  # values and indices
        values.T.relu()
    assert seen.bytes == 2 * (4 + 8) + 6 * 4


def test_a_graph_holds_at_most_what_was_counted():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    images, held = torch.zeros(2, 3, 8, 8), dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        measured_forward(module, images)
    given = {t.data_ptr() for t in (images, *module.parameters())}
    activations = sum(size for address, size in held.items() if address not in given)
    assert activations == 2 * 144 * 4  # what the ReLU made serves it and the linear layer
    cost = bytes_per_image(module, images)
    assert cost == 2 * 144 * 4 + 2 * 4  # convolution, ReLU, logits
    assert activations <= 2 * cost


def test_what_is_known_is_of_one_module_size_and_type():
    module, images = Known(), torch.zeros(2, 3, 4, 4)
    assert bytes_per_image(module, images) is None
    measured_forward(module, images)
    assert bytes_per_image(module, images) == bytes_per_image(module, images[:1])
    assert bytes_per_image(module, images.double()) is None
    assert bytes_per_image(module, images[:, :, :2]) is None
    assert bytes_per_image(Known(), images) is None


def test_a_module_that_is_gone_is_forgotten():
    module = Known()
    measured_forward(module, torch.zeros(1, 3, 4, 4))
    before = len(footprint._known)
    del module
    gc.collect()
    assert len(footprint._known) < before
