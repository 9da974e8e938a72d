"""The network of metrics_cnn in tests/golden/explainer_and_vit/README.md, in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.trainables.attribution.idsds_golden import arrays
from trainables.models.network import IMAGENET_MEAN, IMAGENET_STD, Model

FILE = "explainer_and_vit/metrics_cnn"
STATISTICS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "half": ((0.5,) * 3, (0.5,) * 3)}


def normalize(images01: Tensor, norm: str) -> Tensor:
    """Pixels in [0, 1] to what the network takes."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in STATISTICS[norm])
    return (images01 - mean) / std


def normalized(norm: str) -> Tensor:
    """The twelve images, encoded."""
    return normalize(arrays(FILE)["images01"], norm)


def model_of(norm: str) -> Model:
    """The network behind that normalization."""
    module = nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    ).double().eval()  # fmt: skip
    module.load_state_dict({k[2:]: t for k, t in arrays(FILE).items() if k.startswith("w/")})
    return Model(module, {"input": ""}, lambda pixels: normalize(pixels.double() / 255, norm))


def classes_of(norm: str, which: str) -> Tensor:
    """The class that the authors' code compared with, of each image."""
    return arrays(FILE)[f"classes_{norm}_{which}"]
