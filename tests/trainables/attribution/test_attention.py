"""Attention methods against the authors' arrays, plain matrices block by block, and identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainables.attribution.idsds_golden import arrays
from tests.trainables.attribution.vit_golden import IDSDS, METHODS, maps_of, passes_of
from tests.trainables.networks import pictures, tiny_bcos_model, tiny_model, tiny_vit
from trainables.attribution.attention import RawAttention, Rollout
from trainables.attribution.attention_gradient import Gae, ViTGradCam
from trainables.attribution.attribution import Attribution
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.transformer_attribution import TransformerAttribution
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.models.small_resnet import SmallResNet
from trainables.models.timm_vit import SmallViT
from trainables.passes import Passes

ALL = [RawAttention(), Rollout(), ViTGradCam(), Gae()]
each_method = pytest.mark.parametrize("method", ALL, ids=lambda method: method.key)
each_class = pytest.mark.parametrize("explained", ["pred", "second"])


def close(maps: Tensor, golden: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(maps.reshape(golden.shape), golden, rtol=0, atol=tolerance)


class TestAuthorsArrays:
    @pytest.mark.parametrize("start", [0, 1])
    def test_rollout_of_idsds(self, start):
        golden = arrays(IDSDS)
        maps = maps_of(Rollout(start_layer=start), IDSDS, golden["targets"])
        close(maps, golden[f"rollout.start{start}"], 1e-7)

    def test_grad_cam_of_idsds(self):
        golden = arrays(IDSDS)
        close(maps_of(ViTGradCam(), IDSDS, golden["targets"]), golden["attn_gradcam"], 1e-5)

    @pytest.mark.parametrize("start", [0, 1])
    def test_rollout(self, start):
        golden = arrays(METHODS)
        maps = maps_of(Rollout(start_layer=start), METHODS, golden["pred"])
        close(maps, golden[f"rollout_s{start}"], 1e-6)

    def test_raw_attention(self):
        golden = arrays(METHODS)
        close(maps_of(RawAttention(), METHODS, golden["pred"]), golden["attn_last_layer"], 1e-6)

    @each_class
    def test_gae(self, explained):
        golden = arrays(METHODS)
        close(maps_of(Gae(), METHODS, golden[explained]), golden[f"gae_{explained}"], 1e-5)

    @each_class
    def test_grad_cam_is_zero_where_the_code_divides_zero_by_zero(self, explained):
        golden = arrays(METHODS)
        expected = golden[f"gradcam_{explained}"]
        assert explained == "second" or expected.isnan().all((1, 2)).any()
        maps = maps_of(ViTGradCam(), METHODS, golden[explained])
        close(maps, expected.nan_to_num(0), 1e-4)

    def test_attention_and_its_gradient(self):
        golden = arrays(METHODS)
        passes = passes_of(METHODS, golden["pred"])
        paths = passes.model.tokens.attentions
        with evaluating(passes.model.module), passes:
            passes.expect(Gae().needs(passes.model))
            attention = torch.stack([passes.output(path)[0] for path in paths])
            gradient = torch.stack([passes.gradients()[path][0] for path in paths])
        close(attention, golden["attn"][0], 1e-3 * attention.abs().max())
        close(gradient, golden["attn_grad_pred"][0], 1e-3 * gradient.abs().max())

    @pytest.mark.parametrize(
        ("method", "name"), [(Rollout(), "up_rollout_s1"), (Gae(), "up_gae_pred")]
    )
    def test_at_image_size(self, method, name):
        golden = arrays(METHODS)
        passes = passes_of(METHODS, golden["pred"])
        with evaluating(passes.model.module), passes:
            full = method.at_image_size(method(passes), passes).flatten(1)
        low, high = full.amin(1, keepdim=True), full.amax(1, keepdim=True)
        close((full - low) / (high - low), golden[name], 1e-4)


def watched(model: Model, image: Tensor, target: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Plain torch: attention and its gradient of one image, (heads, T, T) each, block by block."""
    kept: list[Tensor] = []
    handles = [
        model.module.get_submodule(path).register_forward_hook(lambda _m, _i, out: kept.append(out))
        for path in model.tokens.attentions
    ]
    logit = model.module(image[None])[0, target]
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(logit, kept)
    return [(a[0].detach().numpy(), g[0].numpy()) for a, g in zip(kept, gradients, strict=True)]


def slow_rollout(blocks: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """All rows, by the definition."""
    tokens = blocks[0][0].shape[1]
    rolled = np.eye(tokens)
    for attention, _ in blocks:
        mixed = np.zeros((tokens, tokens))
        for head in attention:
            mixed += head / len(attention)
        mixed += np.eye(tokens)
        for row in range(tokens):
            mixed[row] /= mixed[row].sum()
        rolled = mixed @ rolled
    return rolled


def slow_gae(blocks: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """All rows, by the definition."""
    tokens = blocks[0][0].shape[1]
    relevance = np.eye(tokens)
    for attention, gradient in blocks:
        spread = np.zeros((tokens, tokens))
        for a, g in zip(attention, gradient, strict=True):
            spread += np.where(a * g > 0, a * g, 0) / len(attention)
        relevance = relevance + spread @ relevance
    return relevance


def tiny_maps(method: Attribution, **options: int) -> tuple[Model, Tensor, Tensor, Tensor]:
    """Model, images, targets and the method's maps."""
    model, images, targets = tiny_vit(**options), pictures(3), torch.tensor([3, 0, 2])
    with Passes(model, Batch.single(images, targets)) as passes:
        return model, images, targets, method(passes)


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("start", [0, 2])
def test_rollout_is_the_product_of_plain_matrices(start, registers):
    found = tiny_maps(Rollout(start_layer=start), reg_tokens=registers)
    for image, target, one in zip(*found[1:], strict=True):
        rolled = slow_rollout(watched(found[0], image, int(target))[start:])
        assert rolled.sum(1) == pytest.approx(1)
        expected = torch.from_numpy(rolled[0, 1 + registers :].reshape(3, 3))
        torch.testing.assert_close(one, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("registers", [0, 2])
def test_gae_is_the_recursion_of_plain_matrices(registers):
    found = tiny_maps(Gae(), reg_tokens=registers)
    for image, target, one in zip(*found[1:], strict=True):
        relevance = slow_gae(watched(found[0], image, int(target)))
        expected = torch.from_numpy(relevance[0, 1 + registers :].reshape(3, 3))
        torch.testing.assert_close(one, expected, rtol=1e-10, atol=1e-14)


def test_rollout_of_the_last_block_is_half_its_raw_attention():
    raw = tiny_maps(RawAttention())[-1]
    torch.testing.assert_close(tiny_maps(Rollout(start_layer=3))[-1], raw / 2)


def test_attention_alone_knows_no_class_and_the_gradient_does():
    images = pictures(1)
    batch = Batch(
        images=images,
        image_ids=["a"],
        image_index=torch.tensor([0, 0]),
        targets=torch.tensor([1, 3]),
    )
    with Passes(tiny_vit(), batch) as passes:
        passes.expect(need for method in ALL for need in method.needs(passes.model))
        same = [torch.equal(*method(passes)) for method in ALL]
    assert same == [True, True, False, False]


def test_all_methods_share_one_forward_and_one_backward():
    model, images = tiny_vit(), pictures(3)
    methods = [*ALL, TransformerAttribution(), TransformerAttribution(start_layer=0)]
    methods += [InputXGradient(layer="mid2")]
    with Passes(model, Batch.single(images, torch.tensor([0, 1, 2]))) as passes:
        passes.expect(need for method in methods for need in method.needs(model))
        together = [method(passes) for method in methods]
        assert passes.counts.forwards == 3
        assert passes.counts.backwards == {"final": 3, "mid3": 3, "mid2": 3, "mid1": 3}
    for method, maps in zip(methods, together, strict=True):
        with Passes(model, Batch.single(images, torch.tensor([0, 1, 2]))) as passes:
            torch.testing.assert_close(method(passes), maps, rtol=1e-12, atol=1e-15)


@each_method
def test_unsuited_networks_are_refused_with_the_reason(method):
    method.check(SmallViT())
    with pytest.raises(ValueError, match="the network has no tokens"):
        method.check(SmallResNet(width=2))
    with pytest.raises(ValueError, match="the network has no tokens"):
        method.suit(tiny_bcos_model())
    with pytest.raises(ValueError, match="no class token"):
        method.suit(tiny_vit(class_token=False, global_pool="avg"))
    with pytest.raises(ValueError, match="no class token"):
        method.suit(tiny_vit(class_token=False, global_pool="avg", reg_tokens=1))
    with pytest.raises(ValueError, match="read a 'avg' pooling of the tokens"):
        method.suit(tiny_vit(global_pool="avg"))
    fused = tiny_vit()
    fused.module.blocks[1].attn.fused_attn = True
    with pytest.raises(ValueError, match=r"'blocks.1.attn.attn_drop' is fused"):
        method.suit(fused)
    gated = tiny_vit()
    gated.module.blocks[0].attn.gate = torch.nn.Linear(8, 8)
    with pytest.raises(ValueError, match="gated"):
        method.suit(gated)


@each_method
def test_probabilities_are_explained_too(method):
    model = tiny_vit().with_probabilities()
    method.suit(model)
    with Passes(model, Batch.single(pictures(2), torch.tensor([0, 1]))) as passes:
        assert method(passes).shape == (2, 3, 3)


def test_a_start_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"Rollout.start_layer = -1; expected 0 or more"):
        Rollout(start_layer=-1)
    with pytest.raises(ValueError, match=r"start_layer = 4, but the network's blocks are 0 to 3"):
        Rollout(start_layer=4).check(SmallViT())
    assert Rollout(start_layer=0).key == "rollout_start0"


def test_a_model_without_tokens_is_refused_when_called():
    batch = Batch.single(pictures(1), torch.tensor([0]))
    with Passes(tiny_model(), batch) as passes, pytest.raises(ValueError, match="no tokens"):
        Gae()(passes)
