"""What a network is to this project: a module, a table of depths, and the way pixels enter."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from data_pipelines.configuration import Configuration

DEPTHS = ("input", "mid1", "mid2", "mid3", "final")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Form = Literal["map", "class_token", "tokens"]
"""How features lie that a probe takes: (B, D, h, w), (B, D) or (B, T, D)."""


def softmax(logits: Tensor) -> Tensor:
    """Probabilities of classes of which one is right; logits (..., K)."""
    return logits.softmax(-1)


def sigmoid(logits: Tensor) -> Tensor:
    """Probabilities of classes of which each is right or not by itself; logits (..., K)."""
    return logits.sigmoid()


class Probabilities(nn.Module):
    """What makes probabilities of logits, as a layer."""

    def __init__(self, of: Callable[[Tensor], Tensor]):
        super().__init__()
        self.of = of

    def forward(self, logits: Tensor) -> Tensor:
        return self.of(logits)


WHY_NOT = (
    "it names no features in front of a classifier that could be replaced (probed_at, head_at)"
)


@dataclass(frozen=True)
class Tokens:
    """How a vision transformer's tokens lie: the prefix first, then the grid row by row.

    Attributes:
        patch_px: side of a patch; the grid is (H / patch_px, W / patch_px).
        prefix: tokens before the grid, the class token first.
        blocks: module paths of the transformer blocks, first to last.
        attentions: module paths whose output is the attention after the softmax,
            (B, heads, T, T), rows being queries; one a block.
    """

    patch_px: int
    prefix: int
    blocks: tuple[str, ...]
    attentions: tuple[str, ...]

    def grid(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens (N, T, D) of images of size (H, W) as maps (N, D, h, w), without the prefix."""
        height, width = (side // self.patch_px for side in size)
        return tokens[:, self.prefix :].transpose(1, 2).unflatten(2, (height, width))


@dataclass(frozen=True, eq=False)
class Model:
    """A built network: what passes ask questions of.

    Attributes:
        module: maps encoded images (B, C, H, W) to logits (B, K).
        depths: module path of each named depth; the input has the empty path.
        encode: maps uint8 images (B, 3, H, W) to the float images that the module takes.
        explaining: a context in which a backward treats the dynamic weights of B-cos layers as
            constants; None where the network has none.
        tokens: how the tokens of a vision transformer lie; None for other networks.
        probabilities: maps logits (..., K) to the probabilities that the model means by them.
        answers: how many classifiers answer side by side: in a pack of P probes the logits are
            (B, P K), and class c of probe p has column p K + c.
        network: the configuration that built it, where one did.
    """

    module: nn.Module
    depths: Mapping[str, str]
    encode: Callable[[Tensor], Tensor]
    explaining: Callable[[], AbstractContextManager[None]] | None = None
    tokens: Tokens | None = None
    probabilities: Callable[[Tensor], Tensor] = softmax
    answers: int = 1
    network: Network | None = None

    def path_of(self, layer: str) -> str:
        """Module path of a depth (``final``) or of any module (``layer3.0.conv1``).

        The path of the input is empty.

        Raises:
            ValueError: neither a depth nor a module of this network.
        """
        if layer in self.depths:
            return self.depths[layer]
        if layer and layer in dict(self.module.named_modules()):
            return layer
        raise ValueError(
            f"unknown layer {layer!r}; known depths: {', '.join(self.depths)}; any module path "
            "is a layer too"
        )

    def with_probabilities(self) -> Model:
        """The model whose outputs are probabilities: attributions then explain those.

        Every layer keeps its depth name; module paths gain the prefix ``0.``. The parameters are
        shared.

        Source: IDSDS (Hesse et al., 2024), attribution after the softmax.
        """
        tokens = self.tokens and replace(
            self.tokens,
            blocks=tuple(f"0.{path}" for path in self.tokens.blocks),
            attentions=tuple(f"0.{path}" for path in self.tokens.attentions),
        )
        usual = self.probabilities is softmax
        last = nn.Softmax(dim=1) if usual else Probabilities(self.probabilities)
        module = nn.Sequential(self.module, last)
        module.training = self.module.training  # train() would set the parts' modes, too
        return replace(
            self,
            module=module,
            depths={depth: path and f"0.{path}" for depth, path in self.depths.items()},
            tokens=tokens,
            network=None,
        )

    def own_logits(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the classifier that each target belongs to, and its first column.

        Args:
            logits: one row a target, (N, ..., P K).
            targets: columns, (N,).

        Returns:
            (N, ..., K), and (N,): what is added to a class to make it a column.
        """
        if self.answers == 1:
            return logits, torch.zeros_like(targets)
        apart = logits.unflatten(-1, (self.answers, -1))
        which = targets // apart.shape[-1]
        index = which.view(-1, *[1] * (apart.ndim - 1)).expand(
            *apart.shape[:-2], 1, apart.shape[-1]
        )
        return apart.gather(-2, index).squeeze(-2), which * apart.shape[-1]


@dataclass(frozen=True, kw_only=True)
class Network(Configuration, family=True):
    """An architecture by name. A subclass says how to make its module and where its depths are."""

    depths: ClassVar[Mapping[str, str]]
    """Module path of each of input, mid1, mid2, mid3, final."""
    check_px: ClassVar[int] = 64
    """Side of the images with which shapes are checked, one that the network takes."""
    probed_at: ClassVar[str] = ""
    """Path of the module whose output a probe takes; empty if there is none."""
    probe_form: ClassVar[Form] = "map"
    """How that output lies."""
    head_at: ClassVar[str] = ""
    """Path at which a probe's head stands; every other path stays what it is."""
    bypassed: ClassVar[tuple[str, ...]] = ()
    """Paths of what is left of the classifier, which a probe makes idle."""

    @abstractmethod
    def module(self, classes: int) -> nn.Module:
        """A freshly initialized module with ``classes`` logits; the caller seeds the generator."""

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32: scaled to [0, 1], then ImageNet mean and deviation."""
        return standardized(images, IMAGENET_MEAN, IMAGENET_STD)

    def with_new_head(self) -> Self:
        """The network as it gets a head for other classes than it was pretrained on."""
        return self

    def as_pretrained(self, pretraining: str) -> Self:
        """The network as published weights of that pre-training expect it: their encoding."""
        return self

    def build(self, classes: int) -> Model:
        """The module with every in-place operation off, ready for passes.

        An in-place ReLU behind a kept feature would change it, and Grad-CAM would be silently
        wrong.
        """
        module = self.module(classes)
        for part in module.modules():
            if hasattr(part, "inplace"):
                part.inplace = False  # type: ignore[assignment]
        return Model(module, self.depths, self.encode, network=self)

    def attach(self, module: nn.Module, head: nn.Module) -> None:
        """Put a head, from the features at ``probed_at`` to logits, in the classifier's place.

        Raises:
            ValueError: the network has no features that a probe takes.
        """
        if not self.head_at:
            raise ValueError(f"{self.name} cannot be probed: {WHY_NOT}")
        for path in self.bypassed:
            module.set_submodule(path, nn.Identity())
        module.set_submodule(self.head_at, head)


def standardized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (B, 3, H, W) to float32: scaled to [0, 1], then (x - mean) / std of each color."""
    center, spread = (
        torch.tensor(values, device=images.device).view(3, 1, 1) for values in (mean, std)
    )
    return (images.float() / 255 - center) / spread


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode with frozen parameters, both restored at the end.

    No weight gradient is computed then.
    """
    modes = {part: part.training for part in module.modules()}
    trained = [p for p in module.parameters() if p.requires_grad]
    module.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
        for parameter in trained:
            parameter.requires_grad_(True)
