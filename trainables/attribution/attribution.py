"""The contract of every attribution method."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, Literal

import torch
from torch import Tensor

from data_pipelines.configuration import Configuration
from trainables.models.network import Model, Network
from trainables.passes import Interpolation, Need, Passes, upsample

Explained = Literal["logit", "probability", "image"]
"""What maps are about: a class's logit, its probability, or the image, whatever the class."""


@dataclass(frozen=True, kw_only=True)
class Attribution(Configuration, family=True):
    """Maps (model, image, target) to importance, one map an explanation.

    A subclass states its needs and its equation; shape and finiteness are checked here, once for
    all.
    """

    differentiable: ClassVar[bool] = False
    """Whether training may backpropagate through the maps."""
    single_pass: ClassVar[bool] = False
    """Whether a map costs about one forward and one backward, so that protocols may ask for maps
    of perturbed images again and again."""

    interpolation: Interpolation = "bilinear"
    """How a native map grows to the image's size."""
    absolute: bool = field(default=False, metadata={"short": "abs"})
    """Whether a map's absolute value counts; taken at the image's size."""
    of_set: str = ""
    """Named set that the method belongs to (`trainables/attribution/sets.py`); part of every key,
    so that published numbers are compared with maps made exactly as published."""

    @property
    def explains(self) -> Explained:
        """What the maps are about."""
        return "logit"

    @property
    def cost(self) -> float:
        """About how many forwards of an image a map costs by itself, a backward counted as one."""
        return 2.0

    def check(self, network: Network) -> None:
        """Refuse a network that the method does not suit; nothing is computed for it.

        Raises:
            ValueError: the reason, in one line.
        """
        check(self, network)

    def suit(self, model: Model) -> None:
        """Refuse a model whose kind the method does not suit; its weights may be without values.

        Raises:
            ValueError: the reason, in one line.
        """

    @abstractmethod
    def needs(self, model: Model) -> tuple[Need, ...]:
        """The features and gradients of the model that the method reads."""

    @abstractmethod
    def attribute(self, passes: Passes) -> Tensor:
        """Maps at the method's native resolution, (N, h, w), signed unless the method is not."""

    def __call__(self, passes: Passes) -> Tensor:
        """Maps (N, h, w), dtype of the images, checked.

        Raises:
            ValueError: the method cannot be differentiated and the passes train; a map has a wrong
                shape or
                holds a NaN: the message names method, model and image.
        """
        if passes.create_graph and not self.differentiable:
            raise ValueError(
                f"{self.key} cannot be trained through: it is not marked differentiable"
            )
        passes.expect(self.needs(passes.model))
        maps = self.attribute(passes)
        batch = passes.batch
        if maps.ndim != 3 or len(maps) != len(batch.targets):
            raise ValueError(
                f"{self.key} returned {tuple(maps.shape)} for {len(batch.targets)} "
                f"explanations of {type(passes.model.module).__name__}, first image "
                f"{batch.image_ids[0]!r}; expected (N, h, w)"
            )
        finite = torch.isfinite(maps.detach()).flatten(1).all(1)
        if not bool(finite.all()):
            image = batch.image_ids[int(batch.image_index[~finite][0])]
            raise ValueError(
                f"{self.key} returned a map of {type(passes.model.module).__name__} that is not "
                f"finite for image {image!r}"
            )
        return maps

    def at_image_size(self, maps: Tensor, passes: Passes) -> Tensor:
        """Native maps (N, h, w) at the images' size, (N, H, W), absolute if the method is."""
        height, width = passes.batch.images.shape[2:]
        maps = upsample(maps, (height, width), self.interpolation)
        return maps.abs() if self.absolute else maps


@cache
def check(method: Attribution, network: Network) -> None:
    """`Attribution.check`, once a process: sweeps ask it of every result."""
    model = without_weights(network)
    method.suit(model)
    layers = dict.fromkeys(need.layer for need in method.needs(model))
    others = [layer for layer in layers if layer not in model.depths]
    if not others:
        return
    shapes: dict[str, torch.Size] = {}
    hooks = [
        model.module.get_submodule(model.path_of(layer)).register_forward_hook(
            lambda _module, _inputs, out, layer=layer: shapes.update({layer: out.shape})
        )
        for layer in others
    ]
    try:
        with torch.no_grad(), torch.device("meta"):
            model.module(model.encode(torch.zeros(2, 3, network.check_px, network.check_px)))
    finally:
        for hook in hooks:
            hook.remove()
    for layer in others:
        dimensions = len(shapes.get(layer, ()))
        if dimensions != 4 and not (dimensions == 3 and model.tokens):
            raise ValueError(
                f"layer {layer!r} gives no maps (its output is "
                f"{tuple(shapes.get(layer, ())) or 'not used'}); expected (B, D, h, w)"
            )


@cache
def without_weights(network: Network) -> Model:
    """The network with two classes as shapes alone, for all methods that are checked."""
    with torch.device("meta"):
        return network.build(2)
