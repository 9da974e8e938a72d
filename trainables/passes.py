"""Shared passes: what several methods ask a model about one batch is computed once, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from trainables.arrangement import Arrangement
from trainables.batch import Batch
from trainables.models.network import Model

Interpolation = Literal["bilinear", "nearest"]
Answer = TypeVar("Answer", covariant=True)


class Request(Protocol[Answer]):
    """A question about a batch, as a value: a frozen dataclass, remembered by class and fields."""

    def compute(self, passes: Passes) -> Answer:
        """The answer; asked for once per passes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """Gradient of each target's logit with respect to a layer's output, (N, D, h, w).

    Also what an attribution *needs*: all expected layers share one forward and one backward per
    round.
    """

    layer: str

    def compute(self, passes: Passes) -> Tensor:
        """Row n is d logit[image n, target n] / d feature of image n."""
        return passes.gradients[self.layer]


@dataclass
class Counts:
    """What really ran on the models of a tree of passes.

    Attributes:
        forwards: images that went through a whole model.
        backwards: images whose gradient arrived at a depth, by depth.
    """

    forwards: int = 0
    backwards: Counter[str] = field(default_factory=Counter)


class Passes:
    """One model, one batch: runs, counts, remembers, frees.

    A context: its hooks are gone at its end, also after an exception. State what gradients will be
    asked for
    with ``expect`` before the first answer; a wider need after the forward is an error, not a
    second forward.

    With ``create_graph`` the graph is kept for an outer backward. In training there is exactly one
    forward and
    each image has at most one explanation: with batch statistics a map depends on the whole batch,
    and the
    gradient is that of the sum over the batch (Model Guidance, section 3, and its code).

    Attributes:
        counts: image-forwards and image-backwards of the whole tree of passes.

    Raises:
        ValueError: training with several explanations of one image.
    """

    def __init__(
        self,
        model: Model,
        batch: Batch,
        *,
        create_graph: bool = False,
        parent: Passes | None = None,
    ):
        self.model, self.batch, self.create_graph = model, batch, create_graph
        self.counts: Counts = parent.counts if parent else Counts()
        self._root: Passes = parent._root if parent else self
        self._handles: dict[int, list[RemovableHandle]] = {}  # of the root: by model
        self._keep: Callable[[str, Tensor], None] | None = (
            None  # of the root: set while a forward runs
        )
        self._needed: list[str] = []
        self._arrangement: Arrangement | None = None
        self._logits: Tensor | None = None  # of the rows
        self._features: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] | None = None
        self._answers: dict[Any, Any] = {}
        self.training = create_graph or model.module.training
        if self.training and Arrangement.in_rounds(batch.image_index).rounds > 1:
            raise ValueError("in training each image has at most one explanation per step")

    def __enter__(self) -> Self:
        self._root._watch(self.model)
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in (h for handles in self._handles.values() for h in handles):
            handle.remove()
        self._handles.clear()
        self._features.clear()
        self._answers.clear()
        self._gradients = self._logits = None

    def expect(self, needs: Iterable[Gradient]) -> None:
        """Announce gradients; may be called until the forward has run.

        Raises:
            ValueError: an unknown layer.
            RuntimeError: the forward has run without one of these layers.
        """
        for need in needs:
            if need.layer in self._needed:
                continue
            self.model.path_of(need.layer)
            if self._arrangement is not None:
                raise RuntimeError(
                    f"the gradient at {need.layer!r} was not expected before the forward ran "
                    f"(expected: {', '.join(self._needed) or 'none'}); call expect() first"
                )
            self._needed.append(need.layer)

    def get(self, request: Request[Answer]) -> Answer:
        """The request's answer, computed the first time it is asked for."""
        if request not in self._answers:
            if isinstance(request, Gradient):
                self.expect([request])
            self._answers[request] = request.compute(self)
        answer: Answer = self._answers[request]
        return answer

    @property
    def logits(self) -> Tensor:
        """Logits of the images, (B, K); in training they carry the graph."""
        arrangement, logits = self._forward()
        return arrangement.of_images(logits if self.create_graph else logits.detach())

    def feature(self, layer: str) -> Tensor:
        """A layer's output for each explanation, (N, D, h, w); in training it carries the graph."""
        self.expect([Gradient(layer=layer)])
        arrangement, _ = self._forward()
        feature = self._features[layer]
        return arrangement.of_explanations(feature if self.create_graph else feature.detach())

    @property
    def gradients(self) -> dict[str, Tensor]:
        """Gradients of all expected layers, each (N, D, h, w)."""
        if self._gradients is None:
            arrangement, logits = self._forward()
            self._gradients = self._backward(arrangement, logits)
            if not self.create_graph:  # the graph is spent
                self._logits = logits.detach()
                self._features = {layer: f.detach() for layer, f in self._features.items()}
        return self._gradients

    def on(
        self, images: Tensor, *, image_index: Tensor, of: Tensor, model: Model | None = None
    ) -> Passes:
        """Passes about perturbed images, or about another model; what they run is counted here too.

        Args:
            images: encoded images, (B', C, H, W).
            image_index: the image of each of the child's explanations, (M,).
            of: the parent's explanation behind each of them, (M,): target, mask and image id
                follow from it.
            model: the model to ask; the parent's by default.
        """
        parent = self.batch
        ids = [""] * len(images)
        for child, image in zip(image_index.tolist(), parent.image_index[of].tolist(), strict=True):
            ids[child] = parent.image_ids[image]
        batch = Batch(
            images=images,
            image_ids=ids,
            image_index=image_index,
            targets=parent.targets[of],
            masks=None if parent.masks is None else parent.masks[of],
        )
        return Passes(model or self.model, batch, create_graph=self.create_graph, parent=self)

    def _forward(self) -> tuple[Arrangement, Tensor]:
        """The one forward; the features that were expected are kept on the way."""
        if self._arrangement is not None and self._logits is not None:
            return self._arrangement, self._logits
        if id(self.model.module) not in self._root._handles:
            raise RuntimeError(
                "passes answer only inside their `with` block: their hooks live there"
            )
        batch, versions = self.batch, dict[str, int]()
        arrangement = (
            Arrangement.in_rounds(batch.image_index)
            if self.training
            else Arrangement.cheapest(batch.image_index, len(batch.images), self._needed)
        )
        images = (
            batch.images.detach() if arrangement.image is None else batch.images[arrangement.image]
        )

        def keep(layer: str, feature: Tensor) -> None:
            if layer in self._needed:
                if not feature.requires_grad:
                    feature.requires_grad_()  # a leaf: nothing before it is recorded
                self._features[layer], versions[layer] = feature, feature._version

        other = [layer for layer in self._needed if layer not in self.model.depths]
        handles = [
            self.model.module.get_submodule(layer).register_forward_hook(
                lambda _module, _inputs, out, layer=layer: keep(layer, out)
            )
            for layer in other
        ]
        self._root._keep = keep
        try:
            with torch.set_grad_enabled(bool(self._needed) or self.create_graph):
                logits: Tensor = self.model.module(images)
        finally:
            self._root._keep = None
            for handle in handles:
                handle.remove()
        for layer, version in versions.items():
            if self._features[layer]._version != version:
                raise RuntimeError(
                    f"an in-place operation changed the kept feature {layer!r}; build the "
                    "network without any"
                )
        self._arrangement, self._logits = arrangement, logits
        return arrangement, logits

    def _backward(self, arrangement: Arrangement, logits: Tensor) -> dict[str, Tensor]:
        """One backward per round for all layers at once."""
        features = [self._features[layer] for layer in self._needed]
        if arrangement.rounds == 0:
            empty = {layer: f.new_zeros(0, *f.shape[1:]) for layer, f in self._features.items()}
            return empty
        pieces, order = [], []
        for turn in range(arrangement.rounds):
            chosen = (arrangement.turn == turn).nonzero().squeeze(1)
            rows = arrangement.row[chosen]
            retain = self.create_graph or turn + 1 < arrangement.rounds
            gradients = torch.autograd.grad(
                logits[rows, self.batch.targets[chosen]].sum(),
                features,
                retain_graph=retain,
                create_graph=self.create_graph,
            )
            if arrangement.rounds == 1:
                gradients = tuple(arrangement.of_explanations(g) for g in gradients)
                return dict(zip(self._needed, gradients, strict=True))
            pieces.append([g[rows] for g in gradients])
            order.append(chosen)
        back = torch.cat(order).argsort()
        return {
            layer: torch.cat([p[i] for p in pieces])[back] for i, layer in enumerate(self._needed)
        }

    def _watch(self, model: Model) -> None:
        """Count the passes of a model, whoever calls it; each hook first keeps, then counts."""
        if id(model.module) in self._handles:
            return

        def entered(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.counts.forwards += len(inputs[0])
            seen("input", inputs[0])

        def seen(depth: str, feature: Tensor) -> None:
            if self._keep is not None:
                self._keep(depth, feature)
            if feature.requires_grad:
                images, backwards = len(feature), self.counts.backwards
                feature.register_hook(lambda _gradient: backwards.update({depth: images}))

        handles = [model.module.register_forward_pre_hook(entered)]
        for depth, path in model.depths.items():
            if path:
                handles.append(
                    model.module.get_submodule(path).register_forward_hook(
                        lambda _module, _inputs, out, depth=depth: seen(depth, out)
                    )
                )
        self._handles[id(model.module)] = handles


def upsample(maps: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Maps (N, h, w) at the size (H, W): bilinear with align_corners False, or nearest."""
    if maps.shape[1:] == torch.Size(size):
        return maps
    if not len(maps):
        return maps.new_zeros(0, *size)
    corners = False if interpolation == "bilinear" else None
    return functional.interpolate(
        maps[:, None], size=size, mode=interpolation, align_corners=corners
    )[:, 0]
