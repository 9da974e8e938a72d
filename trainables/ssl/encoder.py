"""An encoder: a network asked for the features that probes take, pooled, and a head on them."""

from __future__ import annotations

from torch import Tensor, nn

from trainables.models.network import WHY_NOT, Model


class Encoder(nn.Module):
    """A network whose features are read where they come out, and what is made of them.

    The network stays whole, and its state dict its own: its classifier does not run and learns
    nothing.

    Attributes:
        network: as built.
        head: makes an embedding (B, E) of features (B, D).
    """

    def __init__(self, model: Model, head: nn.Module | None = None):
        """Read the features where a probe would.

        Raises:
            ValueError: the network has none.
        """
        super().__init__()
        if model.network is None or not model.network.probed_at:
            who = type(model.module).__name__ if model.network is None else model.network.name
            raise ValueError(f"{who} has no features to pool: {WHY_NOT}")
        self.network = model.module
        self.head = nn.Identity() if head is None else head
        self._path, self._form = model.network.probed_at, model.network.probe_form

    def features(self, images: Tensor) -> Tensor:
        """Encoded images (B, C, H, W) to the mean of maps or tokens, or the class token, (B, D)."""
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, out: Tensor) -> None:
            kept.append(out)
            raise _FoundError

        handle = self.network.get_submodule(self._path).register_forward_hook(keep)
        try:
            self.network(images)
        except _FoundError:
            (features,) = kept
        else:
            raise RuntimeError(f"{self._path!r} did not run in a forward")
        finally:
            handle.remove()
        if self._form == "class_token":
            return features
        return features.mean((2, 3)) if self._form == "map" else features.mean(1)

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.head(self.features(images))
        return embedding


class _FoundError(Exception):
    """The features are there: the rest of the forward is not wanted."""
