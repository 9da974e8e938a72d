"""Slabs: perturbed copies of a batch's images, as many at once as there is room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.arrangement import Arrangement


@dataclass(frozen=True, eq=False)
class Slab:
    """Some of the perturbed copies of a batch's images: S copies with M explanations.

    Attributes:
        sample: number of each copy among those of its image, (S,).
        image: the parent's image behind each copy, (S,).
        index: the copy that each explanation looks at, (M,).
        of: the parent's explanation behind each, (M,).
    """

    sample: Tensor
    image: Tensor
    index: Tensor
    of: Tensor


def slabs_within(
    room: Callable[[], int],
    samples: int,
    image_index: Tensor,
    images: Tensor,
    *,
    repeats: bool,
) -> Iterator[Slab]:
    """Copies 0 to ``samples`` - 1 of some images; each carries all explanations of its image.

    Args:
        room: how many rows a forward may have; asked before each slab.
        samples: copies of each image.
        image_index: the image of each explanation, (N,).
        images: the images that are copied, (I,), ascending; those that are explained among them.
        repeats: whether a forward may repeat copies for several targets, which takes rows, too.
    """
    device = images.device
    order = torch.argsort(image_index, stable=True)
    per_image = torch.bincount(image_index, minlength=int(images.max()) + 1 if len(images) else 0)
    first = per_image.cumsum(0) - per_image
    start, total = 0, samples * len(images)
    while start < total:
        most = room()
        size = min(most, total - start)
        while True:
            copies = torch.arange(start, start + size, device=device)
            image = images[copies % len(images)]
            times = per_image[image]
            index = torch.repeat_interleave(torch.arange(size, device=device), times)
            rows = most_rows(index, size) if repeats else size
            if rows <= most:
                break
            size = max(1, size * most // rows)
        within = torch.arange(len(index), device=device) - (times.cumsum(0) - times)[index]
        yield Slab(copies // len(images), image, index, order[first[image[index]] + within])
        start += size


def most_rows(image_index: Tensor, images: int) -> int:
    """Rows of a forward about these images where a backward goes down to the input."""
    if len(image_index) <= images:
        return images
    arrangement = Arrangement.cheapest(image_index, images, ["input"])
    return images if arrangement.image is None else len(arrangement.image)
