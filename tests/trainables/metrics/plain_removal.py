"""Removal and what is read from it, pixel by pixel and image by image, in plain loops."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from trainables.models.network import Model


def removed(image: Tensor, values: Tensor, fill: Tensor, count: int, order: str) -> Tensor:
    """Image (C, H, W) whose first ``count`` pixels are the fill's; values (H, W)."""
    sign = 1 if order == "ascending" else -1
    flat = values.flatten().tolist()
    chosen = sorted(range(len(flat)), key=lambda i: (sign * flat[i], i))[:count]
    out = image.clone()
    for i in chosen:
        row, column = divmod(i, values.shape[1])
        out[:, row, column] = fill[:, row, column]
    return out


def probability(model: Model, image: Tensor, target: int) -> float:
    """Softmax probability of a class of one image (C, H, W)."""
    with torch.no_grad():
        return float(model.module(image[None]).softmax(1)[0, target])


def ranks_first(model: Model, image: Tensor, target: int) -> float:
    """1 where the class has the highest logit."""
    with torch.no_grad():
        return float(int(model.module(image[None]).argmax()) == target)


def trapezoid(values: list[float], width: float) -> float:
    """Area under equidistant values."""
    return sum(width * (a + b) / 2 for a, b in pairwise(values))
