"""Shared passes: what several methods ask a model about one batch is computed once, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, Self, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from trainables.arrangement import Arrangement
from trainables.batch import Batch
from trainables.footprint import bytes_per_image, measured_forward
from trainables.models.network import Model
from trainables.slab import Slab, slabs_within

Interpolation = Literal["bilinear", "nearest"]
Mode = Literal["plain", "explanation"]
HOST_BUDGET_BYTES = 2**26
"""What the copies of one slab may take on the host: some 20 images of 64 px in a small network, one
of 224 px in ResNet-50. More is slower there: RISE took three times as long with a gigabyte."""
ACCELERATOR_BUDGET_BYTES = 2**32
"""The same on an accelerator, which larger slabs fill better: some 20 images in ResNet-50."""
Answer = TypeVar("Answer", covariant=True)


class Request(Protocol[Answer]):
    """A question about a batch, as a value: a frozen dataclass, remembered by class and fields."""

    def compute(self, passes: Passes) -> Answer:
        """The answer; asked for once per passes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A layer's output for each explanation, (N, D, h, w); a ViT's tokens come as their grid.

    In training it carries the graph. A *need*: what an attribution announces before the forward.
    """

    layer: str

    def compute(self, passes: Passes) -> Tensor:
        """Row n is the output for the image of explanation n."""
        return passes.as_maps(passes.output(self.layer))


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """Gradient of each target's logit with respect to a layer's output, (N, D, h, w).

    A *need*, too: all expected layers share one forward, and one backward per round and mode. In
    the mode ``explanation`` the dynamic weights of B-cos layers count as constants; it differs in
    the backward only.
    """

    layer: str
    mode: Mode = "plain"

    def compute(self, passes: Passes) -> Tensor:
        """Row n is d logit[image n, target n] / d feature of image n."""
        return passes.as_maps(passes.gradients(self.mode)[self.layer])


Need = Feature | Gradient


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
    asked for with ``expect`` before the first answer; a wider need after the forward is an error,
    not a second forward.

    With ``create_graph`` the graph is kept for an outer backward. In training there is exactly one
    forward and each image has at most one explanation: with batch statistics a map depends on the
    whole batch, and the gradient is that of the sum over the batch (Model Guidance, section 3, and
    its code).

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
        budget_bytes: int | None = None,
    ):
        self.model, self.batch, self.create_graph = model, batch, create_graph
        default = ACCELERATOR_BUDGET_BYTES if batch.images.is_cuda else HOST_BUDGET_BYTES
        self.budget_bytes: int = parent.budget_bytes if parent else budget_bytes or default
        self.counts: Counts = parent.counts if parent else Counts()
        self._root: Passes = parent._root if parent else self
        self._handles = WeakKeyDictionary[nn.Module, list[RemovableHandle]]()  # of the root
        self._keep: Callable[[str, Tensor], None] | None = (
            None  # of the root: set while a forward runs
        )
        self._kept: list[str] = []  # layers whose output is kept
        self._needed: dict[Mode, list[str]] = {}  # layers whose gradient is asked for
        self._arrangement: Arrangement | None = None
        self._logits: Tensor | None = None  # of the rows
        self._features: dict[str, Tensor] = {}
        self._gradients: dict[Mode, dict[str, Tensor]] = {}
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
        self._gradients.clear()
        self._logits = None

    def expect(self, needs: Iterable[Need]) -> None:
        """Announce features and gradients; may be called until the forward has run.

        Raises:
            ValueError: an unknown layer, or the explanation mode of a network that has none.
            RuntimeError: the forward has run without one of these layers.
        """
        for need in needs:
            mode = need.mode if isinstance(need, Gradient) else None
            known = self._kept if mode is None else self._needed.get(mode, [])
            if need.layer in known:
                continue
            self.model.path_of(need.layer)
            if mode == "explanation" and self.model.explaining is None:
                raise ValueError("only networks of B-cos layers have an explanation mode")
            ran = self._arrangement is not None
            if ran and (mode is not None or need.layer not in self._features):
                what = "output of" if mode is None else "gradient at"
                raise RuntimeError(
                    f"the {what} {need.layer!r} was not expected before the forward ran "
                    f"(expected: {', '.join(self._kept) or 'none'}); call expect() first"
                )
            if need.layer not in self._kept:
                self._kept.append(need.layer)
            if mode is not None:
                self._needed.setdefault(mode, []).append(need.layer)

    @property
    def expected(self) -> tuple[Need, ...]:
        """What has been announced so far: a child that is explained alike can announce it, too."""
        gradients = [
            Gradient(layer=k, mode=m) for m, layers in self._needed.items() for k in layers
        ]
        return (*(Feature(layer=layer) for layer in self._kept), *gradients)

    def get(self, request: Request[Answer]) -> Answer:
        """The request's answer, computed the first time it is asked for."""
        if request not in self._answers:
            if isinstance(request, Feature | Gradient):
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
        """`Feature` of the layer."""
        return self.get(Feature(layer=layer))

    @property
    def features(self) -> dict[str, Tensor]:
        """Outputs of all expected layers for each explanation, as the layers gave them."""
        self._forward()
        return {layer: self.output(layer) for layer in self._features}

    def output(self, layer: str) -> Tensor:
        """Output of one expected layer for each explanation, as the layer gave it."""
        arrangement, _ = self._forward()
        feature = self._features[layer]
        return arrangement.of_explanations(feature if self.create_graph else feature.detach())

    def gradients(self, mode: Mode = "plain") -> dict[str, Tensor]:
        """Gradients at all layers expected in a mode, as the layers' outputs lie, N rows each."""
        if mode not in self._gradients:
            arrangement, logits = self._forward()
            pending = set(self._needed) - set(self._gradients) - {mode}
            explaining = self.model.explaining if mode == "explanation" else None
            with explaining() if explaining else nullcontext():
                self._gradients[mode] = self._backward(
                    arrangement, logits, self._needed[mode], retain=bool(pending)
                )
            if not pending and not self.create_graph:  # the graph is spent
                self._logits = logits.detach()
                self._features = {layer: f.detach() for layer, f in self._features.items()}
        return self._gradients[mode]

    def as_maps(self, outputs: Tensor) -> Tensor:
        """Outputs of a layer as (N, D, h, w): the tokens (N, T, D) of a ViT as their grid."""
        if outputs.ndim == 3 and self.model.tokens is not None:
            height, width = self.batch.images.shape[2:]
            return self.model.tokens.grid(outputs, (height, width))
        return outputs

    def slabs(self, samples: int, *, graph: bool = True, explained: bool = True) -> Iterator[Slab]:
        """Copies 0 to ``samples`` - 1 of every image that is explained, within the byte budget.

        Without ``graph`` only forwards will be asked of the copies: they hold less, so there are
        more of them. Unless ``explained``, every image is copied, and no copy is explained.

        Each copy carries all explanations of its image. While it is unknown what an image costs,
        the first slab is a single copy, and its forward measures it; a sum over the slabs may then
        differ in its last bits from one over full slabs.
        """
        module, batch = self.model.module, self.batch

        def room() -> int:
            cost = bytes_per_image(module, batch.images, graph=graph)
            return 1 if cost is None else max(1, self.budget_bytes // cost)

        every = torch.arange(len(batch.images), device=batch.images.device)
        asked = batch.image_index if explained else batch.image_index[:0]
        copied = asked.unique() if explained else every
        return slabs_within(room, samples, asked, copied, repeats=graph)

    def on(
        self,
        images: Tensor,
        *,
        image_index: Tensor,
        of: Tensor,
        model: Model | None = None,
        targets: Tensor | None = None,
    ) -> Passes:
        """Passes about perturbed images, or about another model; what they run is counted here too.

        Args:
            images: encoded images, (B', C, H, W).
            image_index: the image of each of the child's explanations, (M,).
            of: the parent's explanation behind each of them, (M,): target, masks and image id
                follow from it.
            model: the model to ask; the parent's by default.
            targets: other classes to explain, (M,).
        """
        parent = self.batch
        ids = [""] * len(images)
        for child, image in zip(image_index.tolist(), parent.image_index[of].tolist(), strict=True):
            ids[child] = parent.image_ids[image]
        batch = Batch(
            images=images,
            image_ids=ids,
            image_index=image_index,
            targets=parent.targets[of] if targets is None else targets,
            masks=None if parent.masks is None else parent.masks[of],
            segments=None if parent.segments is None else parent.segments[of],
        )
        if model is not None:
            self._root._watch(model)
        return Passes(model or self.model, batch, create_graph=self.create_graph, parent=self)

    def _forward(self) -> tuple[Arrangement, Tensor]:
        """The one forward; the features that were expected are kept on the way."""
        if self._arrangement is not None and self._logits is not None:
            return self._arrangement, self._logits
        if self.model.module not in self._root._handles:
            raise RuntimeError(
                "passes answer only inside their `with` block: their hooks live there"
            )
        batch, versions = self.batch, dict[str, int]()
        arrangement = (
            Arrangement.in_rounds(batch.image_index)
            if self.training
            else Arrangement.cheapest(
                batch.image_index,
                len(batch.images),
                [layer for layers in self._needed.values() for layer in layers],
            )
        )
        images = (
            batch.images.detach() if arrangement.image is None else batch.images[arrangement.image]
        )

        def keep(layer: str, feature: Tensor) -> None:
            if layer in self._kept:
                if layer in differentiated and not feature.requires_grad:
                    feature.requires_grad_()  # a leaf: nothing before it is recorded
                self._features[layer], versions[layer] = feature, feature._version

        differentiated = {layer for layers in self._needed.values() for layer in layers}
        other = [layer for layer in self._kept if layer not in self.model.depths]
        handles = [
            self.model.module.get_submodule(layer).register_forward_hook(
                lambda _module, _inputs, out, layer=layer: keep(layer, out)
            )
            for layer in other
        ]
        self._root._keep = keep
        try:
            module = self.model.module
            known = self.training or bytes_per_image(module, images) is not None
            run = module if known else partial(measured_forward, module)
            with torch.set_grad_enabled(bool(self._needed) or self.create_graph):
                logits: Tensor = run(images)
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

    def _backward(
        self, arrangement: Arrangement, logits: Tensor, layers: list[str], *, retain: bool
    ) -> dict[str, Tensor]:
        """One backward per round for all layers at once; ``retain``: the graph is needed again."""
        features = [self._features[layer] for layer in layers]
        if arrangement.rounds == 0:
            return {k: f.new_zeros(0, *f.shape[1:]) for k, f in zip(layers, features, strict=True)}
        pieces, order = [], []
        for turn in range(arrangement.rounds):
            chosen = (arrangement.turn == turn).nonzero().squeeze(1)
            rows = arrangement.row[chosen]
            again = self.create_graph or retain or turn + 1 < arrangement.rounds
            gradients = torch.autograd.grad(
                logits[rows, self.batch.targets[chosen]].sum(),
                features,
                retain_graph=again,
                create_graph=self.create_graph,
            )
            if arrangement.rounds == 1:
                gradients = tuple(arrangement.of_explanations(g) for g in gradients)
                return dict(zip(layers, gradients, strict=True))
            pieces.append([g[rows] for g in gradients])
            order.append(chosen)
        back = torch.cat(order).argsort()
        return {layer: torch.cat([p[i] for p in pieces])[back] for i, layer in enumerate(layers)}

    def _watch(self, model: Model) -> None:
        """Count the passes of a model, whoever calls it; each hook first keeps, then counts."""
        if model.module in self._handles:
            return
        if any(part in self._handles for part in model.module.modules()):
            self._handles[model.module] = []  # a wrapper: what it holds is watched already
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
        self._handles[model.module] = handles


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
