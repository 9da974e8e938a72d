"""Probed networks: a probe in the place of a network's classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables.models.network import WHY_NOT, Model, Network, evaluating
from trainables.models.probe import Features, Probe, ProbeHead


@dataclass(frozen=True, kw_only=True)
class ProbedNetwork(Network):
    """A network whose classifier is a probe; depths and module paths stay those of the network.

    It has an explanation mode if the network has one. A B-cos probe on a conventional network has
    dynamic weights, too, but what they say does not reach the pixels.
    """

    name: ClassVar[str] = "probed"

    network: Network
    probe: Probe

    def __post_init__(self) -> None:
        """Check that there is something to probe.

        Raises:
            ValueError: the network names no features that a probe takes.
        """
        super().__post_init__()
        if not self.network.probed_at:
            raise ValueError(f"{self.network.name} cannot be probed: {WHY_NOT}")

    @property
    def depths(self) -> Mapping[str, str]:  # type: ignore[override]
        """Those of the network."""
        return self.network.depths

    @property
    def check_px(self) -> int:  # type: ignore[override]
        """That of the network."""
        return self.network.check_px

    def module(self, classes: int) -> nn.Module:
        """The network's module with a fresh head."""
        return self.build(classes).module

    def encode(self, images: Tensor) -> Tensor:
        """As the network has it."""
        return self.network.encode(images)

    def build(self, classes: int) -> Model:
        """The network and a fresh head; the caller seeds the generator that both are drawn from."""
        model = self.network.build(classes)
        head = self.probe.head(features_kind(model), classes)
        return probed(model, head)

    def head_of(self, module: nn.Module) -> ProbeHead:
        """The head within a module of this network."""
        head = module.get_submodule(self.network.head_at)
        if not isinstance(head, ProbeHead):
            raise TypeError(f"{self.key}: a {type(head).__name__} stands at the head's place")
        return head


def probed(model: Model, head: nn.Module) -> Model:
    """A built network with the head in its classifier's place; its module is changed.

    The head goes to where the module's parameters are, of their dtype.

    Raises:
        ValueError: the network cannot be probed.
    """
    network = _network_of(model)
    like = next(model.module.parameters())
    head.to(device=like.device, dtype=like.dtype)
    head.train(model.module.training)
    network.attach(model.module, head)
    return replace(model, network=None)


def features_kind(model: Model) -> Features:
    """What the model gives to a probe; a forward of one small image of zeros finds it.

    Raises:
        ValueError: the network cannot be probed.
    """
    network = _network_of(model)
    like = next(model.module.parameters())
    side = network.check_px
    pixels = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=like.device)
    features = features_of(model, model.encode(pixels).to(like.dtype))
    channels = features.shape[1 if network.probe_form == "map" else -1]
    return Features(channels, network.probe_form, bcos=model.explaining is not None)


def features_of(model: Model, images: Tensor) -> Tensor:
    """What a probe takes: (B, D, h, w), (B, D) or (B, T, D), without a graph.

    One forward in eval mode, whatever mode the model is in. What comes after the features does not
    run.

    Args:
        model: built by a network that can be probed.
        images: encoded images, (B, C, H, W).

    Raises:
        ValueError: the network cannot be probed.
    """
    path = _network_of(model).probed_at
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, out: Tensor) -> None:
        kept.append(out)
        raise _FoundError

    handle = model.module.get_submodule(path).register_forward_hook(keep)
    try:
        with evaluating(model.module), torch.no_grad():
            model.module(images)
    except _FoundError:
        return kept[0]
    finally:
        handle.remove()
    raise RuntimeError(f"{path!r} did not run in a forward of {type(model.module).__name__}")


class _FoundError(Exception):
    """The features are there: the rest of the forward is not wanted."""


def _network_of(model: Model) -> Network:
    network = model.network
    if network is None or not network.probed_at:
        who = type(model.module).__name__ if network is None else network.name
        raise ValueError(f"{who} cannot be probed: {WHY_NOT}")
    return network
