"""Transformer attribution: relevance of the attention, times its gradient, down through the blocks.

Also called CheferLRP (IDSDS), CGW1 (How to Probe) and T-Attr.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.attribution.attention import (
    FromBlock,
    class_token,
    one_block_down,
    root_of,
    tokens_of,
)
from trainables.attribution.relevance_rules import (
    through_copies,
    through_linear,
    through_product,
    through_sum,
)
from trainables.models.bcos_layers import BcosLinear
from trainables.models.network import Model
from trainables.models.probe import ProbeHead
from trainables.models.probe_pack import Pack
from trainables.passes import Feature, Gradient, Need, Passes

KEPT = ("norm1", "attn.qkv", "drop_path1", "norm2", "mlp.norm", "drop_path2")
"""Parts of a block whose output the relevance needs; what lies between is computed from these."""
LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
PLAIN = {
    "attn.q_norm": "queries are normalized",
    "attn.k_norm": "keys are normalized",
    "attn.norm": "the attention's output is normalized",
    "mlp.norm": "the hidden layer is normalized",
}
"""Parts for which there is no rule unless they do nothing."""


@dataclass(frozen=True, kw_only=True)
class TransformerAttribution(FromBlock):
    """The class token's row of a product over blocks of relevance times gradient; not negative.

    Relevance starts as 1 at the target's logit and goes down to each attention matrix by rules of
    layer-wise relevance propagation (`relevance_rules`). A block's matrix is the mean over heads of
    the positive part of relevance times gradient, plus the identity; rows are not scaled.

    The rules are ill-conditioned: where a sum is nearly 0, its rounding decides. In float32 single
    maps differ from the exact ones by up to a tenth of their maximum, from block 0 on by a fifth
    (tests/golden), most by less than a thousandth; relevance in float64 on features in float32 is
    no better. A model in float64 gives exact maps.

    Source: Chefer et al., CVPR 2021, from block 0. The authors' evaluations and IDSDS (Hesse et
    al., 2024) run it from block 1: the default.

    Departs: relevances of the two summands of a residual are rescaled sample by sample; the code
    takes one image at a time.
    """

    name: ClassVar[str] = "transformer_attribution"

    def suit(self, model: Model) -> None:
        """Refuse a transformer with parts that there is no rule for."""
        super().suit(model)
        for reason in _without_rule(model):
            raise ValueError(f"no rule of relevance is known for this transformer: {reason}")

    def needs(self, model: Model) -> tuple[Need, ...]:
        """Features of all blocks and the gradients at their attentions."""
        return _needs(model)

    def class_row(self, passes: Passes) -> Tensor:
        """Row 0 of E_last ... E_start, with E = I + mean over h of ReLU(G_h R_h)."""
        return passes.get(ClassRows())[:, self.start_layer]


@dataclass(frozen=True)
class ClassRows:
    """The class row from every first block at once: one way down serves all start layers."""

    def compute(self, passes: Passes) -> Tensor:
        """Row 0 of E_last ... E_s for s = 0 to the last, (N, blocks, T)."""
        passes.expect(_needs(passes.model))
        gradients, rows = passes.gradients(), list[Tensor]()
        with torch.no_grad():
            for path, relevance in attention_relevances(passes):
                row = rows[-1] if rows else class_token(relevance)
                mixing = (gradients[path] * relevance).relu().mean(1)
                rows.append(one_block_down(row, mixing))
        return torch.stack(rows[::-1], dim=1)


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the transformer, as passes saw it.

    Attributes:
        passes: which expected all outputs that are asked for.
        path: of the module; empty for the whole model.
    """

    passes: Passes
    path: str

    def __truediv__(self, path: str) -> Part:
        """A part of this part."""
        return Part(self.passes, f"{self.path}.{path}" if self.path else path)

    @property
    def output(self) -> Tensor:
        """For each explanation, (N, T, ...)."""
        return self.passes.output(self.path)

    def relevance_of(self, x: Tensor, relevance: Tensor) -> Tensor:
        """Relevance of the input x of this linear layer, given that of its output."""
        layer = self.passes.model.module.get_submodule(self.path)
        return through_linear(relevance, x, cast(nn.Linear, layer))


def attention_relevances(passes: Passes) -> Iterator[tuple[str, Tensor]]:
    """Path and relevance (N, heads, T, T) of each attention, from the last block down.

    Norms, activations and the softmax hand on what they get. No graph is wanted: call it under
    no_grad.
    """
    tokens = tokens_of(passes.model)
    whole = Part(passes, root_of(tokens))
    final = (whole / "norm").output
    relevance = torch.zeros_like(final)
    taken = through_head(passes, f"{_prefix(passes.model)}head", final[:, 0])
    relevance[:, 0] = through_copies(final[:, 0], taken)
    entries = [whole / "norm_pre", *(Part(passes, path) for path in tokens.blocks)]
    for k in range(len(tokens.blocks) - 1, -1, -1):
        block, x = entries[k + 1], entries[k].output
        attended, weights = (block / "drop_path1").output, passes.output(tokens.attentions[k])
        # the block's second half: middle + fc2(act(fc1(norm2(middle))))
        middle = x + attended
        past, hidden = through_sum(relevance, middle, (block / "drop_path2").output)
        hidden = (block / "mlp.fc2").relevance_of((block / "mlp.norm").output, hidden)
        hidden = (block / "mlp.fc1").relevance_of((block / "norm2").output, hidden)
        # its first half: x + proj(A V), with A = softmax(Q K^T / sqrt(d)) and one product for Q K V
        past, mixed = through_sum(through_copies(middle, past, hidden), x, attended)
        products = (block / "attn.qkv").output.unflatten(2, (3, weights.shape[1], -1))
        queries, keys, values = products.permute(2, 0, 3, 1, 4)
        gathered = (weights @ values).transpose(1, 2).flatten(2)
        mixed = (block / "attn.proj").relevance_of(gathered, mixed)
        mixed = mixed.unflatten(2, (weights.shape[1], -1)).transpose(1, 2)
        to_weights, to_values = through_product(mixed, weights, values)
        yield tokens.attentions[k], to_weights
        if k:
            to_queries, to_keys = through_product(to_weights, queries, keys.mT)
            back = torch.stack([to_queries, to_keys.mT, to_values]).permute(1, 3, 0, 2, 4)
            taken = (block / "attn.qkv").relevance_of((block / "norm1").output, back.flatten(2))
            relevance = through_copies(x, past, taken)


def through_head(passes: Passes, path: str, x: Tensor) -> Tensor:
    """Relevance (N, D) of what the head takes, x (N, D), where each target's logit has 1.

    In a pack each target goes through its own probe. A B-cos layer shares as its linear one, whose
    rows it scales by what is not negative; norms, activations and the constant hand on.
    """
    heads, columns = heads_at(passes.model, path), passes.logits.shape[1]
    classes, relevance = columns // len(heads), torch.zeros_like(x)
    for p, head in enumerate(heads):
        of = (passes.batch.targets // classes == p).nonzero().squeeze(1)
        if len(of):
            shares = functional.one_hot(passes.batch.targets[of] % classes, classes).to(x)
            for layer, given in reversed(list(linear_steps(head, x[of]))):
                shares = through_linear(shares, given, layer)
            relevance[of] = shares
    return relevance


def linear_steps(head: nn.Linear | ProbeHead, x: Tensor) -> Iterator[tuple[nn.Linear, Tensor]]:
    """Each linear layer of a head, and what it takes when the head takes x (N, D)."""
    if isinstance(head, nn.Linear):
        yield head, x
        return
    for name, part in head.named_children():
        if name in head.layers:
            yield linear_of(part), x
        x = part(x)


def linear_of(part: nn.Module) -> nn.Linear:
    """What a layer with weights projects by.

    Raises:
        ValueError: it is no layer of vectors.
    """
    linear = part.linear if isinstance(part, BcosLinear) else part
    if not isinstance(linear, nn.Linear):
        raise ValueError(f"a {type(part).__name__} in the head is not a linear layer")
    return linear


def heads_at(model: Model, path: str) -> list[nn.Linear | ProbeHead]:
    """The head at a path, or the heads of the pack.

    Raises:
        ValueError: there is something else, for which there is no rule.
    """
    found = dict(model.module.named_modules()).get(path)
    known = list[nn.Linear | ProbeHead]()
    for head in found.heads if isinstance(found, Pack) else [found]:
        if isinstance(head, ProbeHead):
            for layer in head.layers:
                linear_of(head.get_submodule(layer))
        if not isinstance(head, ProbeHead) and type(head) is not nn.Linear:
            raise ValueError(f"{path!r} is not a linear layer")
        known.append(head)
    return known


def _prefix(model: Model) -> str:
    """What stands before the path of every part of the transformer."""
    root = root_of(tokens_of(model))
    return f"{root}." if root else ""


def _needs(model: Model) -> tuple[Need, ...]:
    tokens, root = tokens_of(model), _prefix(model)
    inner = [f"{block}.{part}" for block in tokens.blocks for part in KEPT]
    kept = [f"{root}norm_pre", *tokens.blocks[:-1], *inner, f"{root}norm"]
    return (
        *(Feature(layer=path) for path in kept),
        *(Gradient(layer=path) for path in tokens.attentions),
    )


def _without_rule(model: Model) -> Iterator[str]:
    """What hinders, in words: parts that are missing, or are there and have no rule."""
    tokens, root = tokens_of(model), _prefix(model)
    parts, nothing = dict(model.module.named_modules()), nn.Identity()
    try:
        heads_at(model, f"{root}head")
    except ValueError as reason:
        yield str(reason)
    for need in _needs(model):
        if need.layer not in parts:
            yield f"there is no {need.layer!r}"
    for path in (f"{block}.{part}" for block in tokens.blocks for part in LINEAR):
        if type(parts.get(path)) is not nn.Linear:
            yield f"{path!r} is not a linear layer"
    for block in tokens.blocks:
        for part, meaning in PLAIN.items():
            if not isinstance(parts.get(f"{block}.{part}", nothing), nn.Identity):
                yield f"{meaning} in {block!r}"
        if parts[f"{block}.mlp.fc1"].out_features != parts[f"{block}.mlp.fc2"].in_features:
            yield f"the hidden layer of {block!r} is gated"
    if not isinstance(parts.get(f"{root}fc_norm", nothing), nn.Identity):
        yield "there is a norm between class token and head"
