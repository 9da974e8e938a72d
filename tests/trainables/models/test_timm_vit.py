"""Vision transformers: timm's modules with readable attention, tokens on their grid, depths."""

from __future__ import annotations

import pytest
import torch

from tests.trainables.networks import gradient_of, pictures, tiny_vit
from trainables.batch import Batch
from trainables.models.network import IMAGENET_MEAN, IMAGENET_STD, Model, Network
from trainables.models.timm_vit import DeiTTiny, SmallViT, ViTTiny
from trainables.passes import Passes


def small(seed: int = 0, **fields: int | bool) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SmallViT(**fields).build(5)
    model.module.double().eval()
    return model


@pytest.mark.parametrize(
    ("name", "timms", "millions"),
    [
        ("vit_tiny_patch16", "vit_tiny_patch16_224", 5.7),
        ("vit_small_patch16", "vit_small_patch16_224", 22.1),
        ("vit_base_patch16", "vit_base_patch16_224", 86.6),
        ("deit_tiny", "deit_tiny_patch16_224", 5.7),
        ("deit_small", "deit_small_patch16_224", 22.1),
        ("deit_base", "deit_base_patch16_224", 86.6),
    ],
)
def test_the_weights_of_timm_fit(name, timms, millions):
    import timm

    with torch.device("meta"):
        ours = Network.named(name).build(1000).module.state_dict()
        theirs = timm.create_model(timms, pretrained=False)
    assert {k: t.shape for k, t in ours.items()} == {
        k: t.shape for k, t in theirs.state_dict().items()
    }
    assert sum(t.numel() for t in ours.values()) / 1e6 == pytest.approx(millions, abs=0.05)
    cfg = theirs.pretrained_cfg
    white = Network.named(name).encode(torch.full((1, 3, 16, 16), 255, dtype=torch.uint8))
    expected = (1 - torch.tensor(cfg["mean"])) / torch.tensor(cfg["std"])
    torch.testing.assert_close(white[0, :, 0, 0], expected)


def test_pixels_enter_between_minus_one_and_one_or_by_the_statistics_of_imagenet():
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    assert ViTTiny().encode(images).unique().tolist() == [-1]
    black = [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    torch.testing.assert_close(DeiTTiny().encode(images)[0, :, 3, 5], torch.tensor(black))


def test_images_that_patches_do_not_fill_are_refused():
    with pytest.raises(ValueError, match=r"64 x 60 px; small_vit takes multiples of 8 px"):
        SmallViT().encode(torch.zeros(1, 3, 64, 60, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"SmallViT.size_px = 60; expected a multiple of .* 8"):
        SmallViT(size_px=60)
    with pytest.raises(ValueError, match=r"size_px = 0"):
        SmallViT(size_px=0)


def test_attention_is_computed_openly_in_these_blocks_alone():
    from timm.layers import use_fused_attn

    before = use_fused_attn()
    model = small()
    assert use_fused_attn() == before
    assert not any(block.attn.fused_attn for block in model.module.blocks)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    logits = model.module(images)
    for block in model.module.blocks:
        block.attn.fused_attn = True
    torch.testing.assert_close(model.module(images), logits, rtol=1e-10, atol=1e-12)


def test_other_sizes_pass_with_resampled_positions():
    model = small()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    module = model.module
    at_size = module(images)
    module.dynamic_img_size = False  # timm's own way, for the one size
    patches = module.patch_embed(images).flatten(1, 2)
    module.pos_drop.register_forward_hook(lambda _m, inputs, _o: added.append(inputs[0]))
    added: list[torch.Tensor] = []
    module.dynamic_img_size = True
    torch.testing.assert_close(module(images), at_size)
    positions = module.pos_embed
    torch.testing.assert_close(added[0][:, 1:], patches + positions[:, 1:])
    assert module(torch.randn(1, 3, 32, 48, dtype=torch.float64)).shape == (1, 5)
    with pytest.raises(RuntimeError, match="size mismatch"):
        small(size_px=128).module.load_state_dict(module.state_dict())


def test_the_stem_of_the_small_one_can_be_plain_patches():
    plain = small(stem=False).module
    assert isinstance(plain.patch_embed.proj, torch.nn.Conv2d)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert plain.patch_embed(images).shape == small().module.patch_embed(images).shape


def test_tokens_come_as_the_grid_of_their_patches():
    model = tiny_vit()
    images = pictures(2)
    with Passes(model, Batch.single(images, torch.tensor([0, 1]))) as passes:
        maps = passes.feature("norm_pre")
    patches = model.module.patch_embed.proj(images)
    positions = model.module.pos_embed[0, 1:].mT.unflatten(1, (3, 3))
    torch.testing.assert_close(maps, patches + positions)


def test_patch_tokens_reach_the_logit_at_final_and_not_behind_the_last_block():
    model = small()
    images, targets = torch.randn(1, 3, 64, 64, dtype=torch.float64), torch.tensor([2])
    at_final = gradient_of(model, images, targets, "final")
    behind = gradient_of(model, images, targets, "blocks.3")
    assert at_final[:, 1:].abs().min() > 0
    assert behind[:, 1:].abs().max() == 0
    assert behind[:, 0].abs().min() > 0


def test_the_small_one_is_small_and_learns_a_batch():
    model = small()
    model.module.train()
    assert sum(p.numel() for p in model.module.parameters()) < 250_000
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 64, 64, generator=generator, dtype=torch.float64)
    labels = torch.arange(8) % 5
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(model.module(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
