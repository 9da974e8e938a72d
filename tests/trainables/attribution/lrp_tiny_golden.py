"""The residual network of tests/golden/probing/README.md, lrp_tiny, with its arrays in float64."""

from __future__ import annotations

from torch import Tensor, nn

from tests.trainables.attribution.idsds_golden import arrays
from trainables.models.network import Model


class LrpTiny(nn.Module):
    """Convolution and pooling, a residual block, a head of 1x1 convolutions before the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.bn3 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu, self.pool, self.fc = nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        branch = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))
        return self.fc(self.relu(x + branch)).mean((2, 3))


def lrp_tiny() -> tuple[Model, dict[str, Tensor]]:
    """The network in eval mode and all arrays of the file."""
    golden = arrays("probing/lrp_tiny")
    module = LrpTiny().double().eval()
    module.load_state_dict({k[3:]: t for k, t in golden.items() if k.startswith("sd/")})
    return Model(module, {"input": ""}, lambda images: images.double()), golden
