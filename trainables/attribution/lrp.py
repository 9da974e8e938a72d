"""Layer-wise relevance propagation: the logit handed back, layer by layer, in shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from trainables.arrangement import Arrangement
from trainables.attribution.attribution import Attribution
from trainables.attribution.canonization.canonized import Residual, canonized
from trainables.attribution.canonization.rules import refusal
from trainables.footprint import bytes_per_image
from trainables.models.bcos_layers import LogitLayer
from trainables.models.network import Model
from trainables.passes import Need, Passes

Composite = Literal["epsilon_gamma_box", "epsilon_plus_flat"]
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Relevance:
    """Relevance of every input value for each explanation's logit, (N, C, H, W).

    One forward of every image under zennit's hooks, one backward a round of targets. ``flat``
    shares evenly at every layer and sum, which conserves relevance whatever the weights and
    values are: it follows the network's form alone.
    """

    composite: Composite | Literal["flat"]
    gamma: float = 0.0
    epsilon: float = 1e-6
    residual: Residual = "sum"
    zero_bias: bool = False

    def compute(self, passes: Passes) -> Tensor:
        """Row n starts as the logit of target n of image n.

        Raises:
            ValueError: the network is in train mode.
        """
        if passes.training:
            raise ValueError("lrp explains networks in eval mode only; call module.eval() first")
        batch, module = passes.batch, passes.model.module
        if bytes_per_image(module, batch.images) is None:
            _ = passes.logits  # a plain forward, from which the slabs learn what an image costs
        relevance = batch.images.new_zeros(len(batch.targets), *batch.images.shape[1:])
        composite = self._zennit(passes)
        with canonized(module, self.residual), hooked(module, composite), torch.enable_grad():
            for slab in passes.slabs(1):
                images, targets = batch.images[slab.image], batch.targets[slab.of]
                relevance[slab.of] = _propagated(module, images, slab.index, targets)
        return relevance

    def _zennit(self, passes: Passes) -> Any:
        """The rules by kind of layer; the first convolution has its own."""
        from zennit import composites, layer, rules, types  # only here: few processes need it

        zero = ["bias"] if self.zero_bias else None
        # the constant in the logits is a bias; relevance starts as the sum that it is divided by
        own = rules.Pass() if self.zero_bias else rules.Epsilon(epsilon=TINY)
        constant = [(LogitLayer, own)]
        if self.composite == "flat":
            passing = (types.Activation, types.BatchNorm, LogitLayer)
            sharing = (types.AvgPool, layer.Sum)
            evenly = (types.Linear, *sharing)
            return composites.LayerMapComposite([(passing, rules.Pass()), (evenly, rules.Flat())])
        if self.composite == "epsilon_plus_flat":
            return composites.EpsilonPlusFlat(
                epsilon=self.epsilon, layer_map=constant, zero_params=zero
            )
        low, high = box(passes)
        return composites.EpsilonGammaBox(
            low,
            high,
            epsilon=self.epsilon,
            gamma=self.gamma,
            layer_map=constant,
            zero_params=zero,
        )


@dataclass(frozen=True, kw_only=True)
class Lrp(Attribution):
    """Relevance at the input, summed over channels, signed; it starts as the target's logit.

    ``epsilon_gamma_box``: the first convolution shares by the range of pixels (z-box), the others
    by gamma, linear layers by epsilon. ``epsilon_plus_flat``: the first layer shares evenly, other
    convolutions by positive contributions, linear layers by epsilon. Activations pass; average
    pools and residual sums share by value; batch norms are merged into the layer before.
    A B-cos layer in a probe shares as the linear layer of its unit weights does; its scale passes.
    A constant in the logits has the share of a bias.
    Networks of blocks without a canonical form are refused: relevance would double at every
    addition (spec of How to Probe, section 12.3).

    Source: Bach et al., 2015; Montavon et al., 2019; How to Probe (ICLR 2025), section 4, whose
    code takes ``epsilon_gamma_box`` of zennit.

    Departs: the authors' canonizer did not match their residual blocks, which doubles relevance;
    that is ``residual="duplicate"``. Where a probe has a constant in its logits, theirs takes no
    share, so that it can turn the sign of a map. Merged norms compute the norm exactly, where
    zennit 0.5 leaves a factor of 1 - 5e-6 a layer.
    """

    name: ClassVar[str] = "lrp"

    composite: Composite = "epsilon_gamma_box"
    """Which rule goes to which layer (zennit's names)."""
    gamma: float = 0.25
    """Favor of positive contributions in the gamma rule; zennit's default."""
    epsilon: float = 1e-6
    """Added to denominators of linear layers; zennit's default."""
    residual: Residual = "sum"
    """How a residual addition shares: by value, or not at all (as the authors' code ran)."""
    zero_bias: bool = field(default=False, metadata={"short": "zero_bias"})
    """Whether biases get no share, so that relevance is conserved wherever an input is active."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: gamma or epsilon is negative.
        """
        super().__post_init__()
        for name in ("gamma", "epsilon"):
            if getattr(self, name) < 0:
                raise ValueError(f"Lrp.{name} = {getattr(self, name)}: expected 0 or more")

    def suit(self, model: Model) -> None:
        if model.explaining is not None:
            raise ValueError("LRP has no rule for B-cos layers; take bcos, which explains them")
        if model.tokens is not None:
            raise ValueError(
                "LRP has no rule for attention; take transformer_attribution for transformers"
            )
        reason = refusal(model.module)
        if reason:
            raise ValueError(reason)

    def needs(self, model: Model) -> tuple[Need, ...]:
        """Nothing: the passes are its own, under other rules."""
        return ()

    @property
    def relevance(self) -> Relevance:
        """What is asked of the passes; equal for methods that differ in the tail only."""
        return Relevance(
            composite=self.composite,
            gamma=self.gamma if self.composite == "epsilon_gamma_box" else 0.0,
            epsilon=self.epsilon,
            residual=self.residual,
            zero_bias=self.zero_bias,
        )

    def attribute(self, passes: Passes) -> Tensor:
        """Sum over channels of the relevance, (N, H, W), signed."""
        return passes.get(self.relevance).sum(1)


def box(passes: Passes) -> tuple[Tensor, Tensor]:
    """Lowest and highest value that a pixel can take, by channel, (1, C, 1, 1) each."""
    images = passes.batch.images
    ends = torch.zeros(2, 3, *images.shape[2:], dtype=torch.uint8, device=images.device)
    ends[1] = 255
    encoded = passes.model.encode(ends).to(images)
    return encoded.amin((0, 2, 3), keepdim=True), encoded.amax((0, 2, 3), keepdim=True)


@contextmanager
def hooked(module: nn.Module, composite: Any) -> Iterator[None]:
    """The composite's hooks on the module, gone at the end, also if attaching them fails."""
    try:
        composite.register(module)
        yield
    finally:
        composite.remove()


def _propagated(module: nn.Module, images: Tensor, index: Tensor, targets: Tensor) -> Tensor:
    """Relevance (M, C, H, W) of the explanations whose images are images[index]."""
    arrangement = Arrangement.cheapest(index, len(images), ["input"])
    if arrangement.image is not None:
        images = images[arrangement.image]
    images = images.detach().requires_grad_()
    relevance = images.new_zeros(len(targets), *images.shape[1:])
    logits: Tensor = module(images) if arrangement.rounds else images.new_zeros(0)
    for turn in range(arrangement.rounds):
        chosen = (arrangement.turn == turn).nonzero().squeeze(1)
        rows = arrangement.row[chosen]
        start = torch.zeros_like(logits)
        start[rows, targets[chosen]] = logits.detach()[rows, targets[chosen]]
        again = turn + 1 < arrangement.rounds
        (handed,) = torch.autograd.grad(logits, images, start, retain_graph=again)
        relevance[chosen] = handed[rows]
    return relevance
