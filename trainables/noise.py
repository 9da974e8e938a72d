"""Noise that depends on a seed, an image and a sample number alone: never on the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(seed: int, image_id: str, sample: int, purpose: str) -> torch.Generator:
    """A generator on the host, the same on every machine for the same arguments.

    Args:
        seed: of the method.
        image_id: whose noise; the empty name where all images share it.
        sample: number of the draw.
        purpose: keeps the noise of different methods independent.
    """
    text = f"{purpose}\0{seed}\0{image_id}\0{sample}"
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def normal(
    like: Tensor, seed: int, image_ids: Sequence[str], samples: Sequence[int], purpose: str
) -> Tensor:
    """Standard normal noise, (S, C, H, W): row s is draw ``samples[s]`` of ``image_ids[s]``.

    Args:
        like: images (B, C, H, W), whose shape, dtype and device the rows take.
        seed: of the method.
        image_ids: an image a row.
        samples: a draw a row.
        purpose: as in `generator`.
    """
    rows = [
        torch.randn(like.shape[1:], generator=generator(seed, name, sample, purpose))
        for name, sample in zip(image_ids, samples, strict=True)
    ]
    drawn = torch.stack(rows) if rows else torch.zeros(0, *like.shape[1:])
    return drawn.to(like)
