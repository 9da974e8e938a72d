"""An encoder: a network asked for its pooled features, with a head in its classifier's place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.models.network import Model, Network, evaluating


class Encoder(nn.Module):
    """A network whose features are read where they come out, and what is made of them.

    The network stays whole, and its state dict its own: the classifier takes no part, and learns
    nothing.

    Attributes:
        network: as built.
        head: makes an embedding (B, E) of features (B, D).
    """

    def __init__(self, model: Model, head: nn.Module | None = None):
        super().__init__()
        self.network = model.module
        self.head = nn.Identity() if head is None else head
        self._path = model.depths["final"]
        self._prefix = model.tokens.prefix if model.tokens else 0

    def features(self, images: Tensor) -> Tensor:
        """Encoded images (B, C, H, W) to the mean of their maps, or the class token, (B, D)."""
        kept: list[Tensor] = []
        handle = self.network.get_submodule(self._path).register_forward_hook(
            lambda _module, _inputs, output: kept.append(output)
        )
        try:
            self.network(images)
        finally:
            handle.remove()
        (features,) = kept
        if features.ndim == 4:
            return features.mean((2, 3))
        return features[:, 0] if self._prefix else features.mean(1)

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.head(self.features(images))
        return embedding


def channels_of(model: Model, network: Network) -> int:
    """How many features the network has, D."""
    side = network.check_px
    images = model.encode(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    with evaluating(model.module), torch.no_grad():
        return Encoder(model).features(images).shape[1]
