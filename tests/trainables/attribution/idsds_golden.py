"""The two networks of tests/golden/idsds/README.md with their arrays, in float64."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.attribution.attribution import Attribution
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.passes import Passes

GOLDEN = Path(__file__).parents[2] / "golden"
NETWORKS = ("tiny_gap", "tiny_vgg")
CAM_TOLERANCE = 2e-5


def convolutions(widths: list[int], **options: int | bool) -> list[nn.Conv2d]:
    return [nn.Conv2d(a, b, 3, padding=1, **options) for a, b in pairwise(widths)]


class TinyGap(nn.Module):
    """Strided convolution, norm, ReLU three times; spatial mean; linear head."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for conv in convolutions([3, 16, 32, 48], stride=2, bias=False):
            parts += [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]
        self.features, self.head = nn.Sequential(*parts), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class TinyVgg(nn.Module):
    """Convolution, ReLU, pooling three times; pooling to 2x2; two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for conv in convolutions([3, 12, 24, 32]):
            parts += [conv, nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*parts)
        self.fc1, self.fc2 = nn.Linear(128, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(self.features(x), 2)
        return self.fc2(self.fc1(pooled.flatten(1)).relu())


@cache
def arrays(path: str) -> dict[str, Tensor]:
    """All arrays of a file, floats as float64."""
    with np.load(GOLDEN / f"{path}.npz", allow_pickle=False) as file:
        loaded = {name: torch.from_numpy(file[name]) for name in file.files}
    return {name: t.double() if t.is_floating_point() else t for name, t in loaded.items()}


@cache
def network(name: str) -> Model:
    """The network with its weights; CAMs look at the output of ``features``."""
    module = (TinyGap if name == "tiny_gap" else TinyVgg)().double().eval()
    weights = {k[2:]: t for k, t in arrays(f"idsds/{name}").items() if k.startswith("w.")}
    module.load_state_dict(weights, strict=False)  # the count of batches is not among them
    depths = {"input": "", "final": "features"}
    return Model(module, depths, lambda images: images.double())


def full_size(method: Attribution, name: str, images: int = 6) -> Tensor:
    """The method's maps of the first images at image size, (images, 64, 64)."""
    golden = arrays(f"idsds/{name}")
    model = network(name)
    batch = Batch.single(golden["images"][:images], golden["targets"][:images])
    with evaluating(model.module), Passes(model, batch) as passes:
        return method.at_image_size(method(passes), passes)
