"""Recipes by which probes are trained: the paper's, and what the authors' code has instead."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_ADAM = {"optimizer_name": "adam", "schedule": "cosine", "warmup_epochs": 5, "learning_rate": 1e-3}
_SGD = {"optimizer_name": "sgd", "schedule": "step", "momentum": 0.9, "learning_rate": 30.0}
_CROP = {"augmentation": "crop", "crop_scale": 0.08}

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": _ADAM | _CROP | {"epochs": 100, "batch_size": 256},
        "paper_multi_label": _ADAM
        | {"epochs": 50, "batch_size": 256, "augmentation": "crop", "crop_scale": 0.7},
        "code_cosine": _ADAM | _CROP | {"epochs": 100, "batch_size": 512},
        "code_step": _SGD
        | _CROP
        | {"epochs": 100, "batch_size": 512, "warmup_epochs": 0, "step_epochs": (60, 80)},
        "code_multi_label": _SGD
        | {
            "epochs": 50,
            "batch_size": 64,
            "warmup_epochs": 1,
            "warmup_start": 1e-7,
            "step_epochs": (6, 12, 18, 24, 30, 36, 42, 48),
            "augmentation": "crop",
            "crop_scale": 0.7,
        },
    }
)
"""Fields of `ProbeTraining` by recipe: ``ProbeTraining(**RECIPES["paper"], backbone=...)``.

``paper`` is for ImageNet and ``paper_multi_label`` for COCO and VOC; the text says Adam with a
cosine and a warm-up, the rate 1e-3 is that of the code. The code has two recipes for ImageNet:
``code_cosine``, for linear probes of a ResNet-50 and conventional ones of a B-cos ResNet-50, and
``code_step``, for all kinds and the only one of B-cos probes; its batches are 128 on each of four
GPUs. ``code_multi_label`` is its only one for COCO and VOC, where the rate is as good as zero after
some 20 epochs.

Source: How to Probe (Gairola et al., ICLR 2025), appendix, and the authors' code.
"""


def recipe(name: str) -> Mapping[str, Any]:
    """The recipe of that name; ValueError lists the known ones."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]
