"""LRP against golden arrays, zennit itself, and a plain version by matrices."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.trainables.attribution.relevance_nets import (
    COMPOSITES,
    KnownNet,
    PlainNet,
    SumNet,
    encode,
    every_target,
    golden,
    golden_net,
    model_of,
    relevance,
    settled,
)
from tests.trainables.networks import hooks_of
from trainables.attribution.canonization.canonized import canonized
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.lrp import Lrp, Relevance, box
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.passes import Passes

each_composite = pytest.mark.parametrize("short", COMPOSITES)
LRP_TINY, CE_SHIFT = golden("lrp_tiny"), golden("ce_shift")


def tiny_batch(dtype: torch.dtype = torch.float32) -> Batch:
    return every_target(torch.from_numpy(LRP_TINY["input_normalised"]).to(dtype), 4)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


class TestGoldenArrays:
    """Maps of zennit 0.5.1, with the authors' choice of rules."""

    @each_composite
    @pytest.mark.parametrize("head", ["convhead", "linhead"])
    @pytest.mark.parametrize("cls", [SumNet, KnownNet])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_every_class(self, cls, head, short, dtype):
        net = golden_net(cls, LRP_TINY, linear_head=head == "linhead").to(dtype)
        found = relevance(net, tiny_batch(dtype), COMPOSITES[short])
        assert found.dtype == dtype
        for c in range(4):
            expected = torch.from_numpy(LRP_TINY[f"{short}_{head}_class{c}"]).to(dtype)
            torch.testing.assert_close(found[c::4], expected, atol=1e-5, rtol=1e-4)
            assert relative(found[c::4], expected) < 1e-4  # the maps are small

    @each_composite
    @pytest.mark.parametrize(("cls", "residual"), [(PlainNet, "sum"), (KnownNet, "duplicate")])
    def test_a_plain_residual_duplicates(self, cls, residual, short):
        net = golden_net(cls, LRP_TINY)
        found = relevance(net, tiny_batch(), COMPOSITES[short], residual=residual)
        expected = torch.from_numpy(LRP_TINY[f"{short}_convhead_class1_plain_residual"])
        torch.testing.assert_close(found[1::4], expected, atol=1e-5, rtol=1e-4)
        assert relative(found[1::4], expected) < 1e-4
        assert relative(torch.from_numpy(LRP_TINY[f"{short}_convhead_class1"]), expected) > 0.2

    @pytest.mark.parametrize(
        ("key", "linear_head"), [("logits", False), ("logits_linear_head", True)]
    )
    def test_logits(self, key, linear_head):
        net = golden_net(KnownNet, LRP_TINY, linear_head=linear_head)
        found = net(torch.from_numpy(LRP_TINY["input_normalised"])).detach()
        torch.testing.assert_close(found, torch.from_numpy(LRP_TINY[key]), atol=1e-5, rtol=1e-4)

    def test_the_box_is_black_and_white(self):
        with Passes(model_of(SumNet().eval()), tiny_batch()) as passes:
            low, high = box(passes)
        for found, name in ((low, "low"), (high, "high")):
            expected = torch.from_numpy(LRP_TINY[name])
            torch.testing.assert_close(found.expand_as(expected), expected)


def grid_pg(maps: Tensor) -> Tensor:
    """Share of each 2x2 mosaic's positive, 5x5 smoothed map that is in its own cell, (B, 4)."""
    smooth = functional.avg_pool2d(maps, 5, stride=1, padding=2).relu()
    cells = smooth.unflatten(3, (2, -1)).unflatten(2, (2, -1)).sum((3, 5)).flatten(2)
    return torch.diagonal(cells, dim1=1, dim2=2) / (smooth.sum((2, 3)) + 1e-12)


class TestShift:
    """Fig. 4 of How to Probe in small: one softmax, two logits, two stories."""

    def probe(self, which: str) -> PlainNet:
        state = dict(CE_SHIFT)
        state["sd/fc.weight"], state["sd/fc.bias"] = (
            state[f"weight_{which}"],
            state[f"bias_{which}"],
        )
        return golden_net(KnownNet, state)

    def images(self) -> Tensor:
        mean, deviation = (
            torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        )
        return (torch.from_numpy(CE_SHIFT["grid_image"]) - mean) / deviation

    @each_composite
    @pytest.mark.parametrize("which", ["A", "B"])
    def test_maps_and_grid_pg(self, short, which):
        batch = every_target(self.images(), 4)
        maps = relevance(self.probe(which), batch, COMPOSITES[short]).sum(1).unflatten(0, (2, 4))
        expected = torch.from_numpy(CE_SHIFT[f"{short}_map_{which}"])
        scale = float(expected.abs().max())
        torch.testing.assert_close(maps / scale, expected / scale, atol=1e-4, rtol=0)
        share = torch.from_numpy(CE_SHIFT[f"{short}_gridpg_{which}"])
        torch.testing.assert_close(grid_pg(maps), share, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("which", ["A", "B"])
    def test_logits_and_input_x_gradient(self, which):
        batch = every_target(self.images(), 4)
        with Passes(model_of(self.probe(which)), batch) as passes:
            maps, logits = InputXGradient()(passes).unflatten(0, (2, 4)), passes.logits
        close = partial(torch.testing.assert_close, atol=1e-4, rtol=1e-4)
        close(logits, torch.from_numpy(CE_SHIFT[f"logits_{which}"]))
        expected = torch.from_numpy(CE_SHIFT[f"ixg_map_{which}"])
        close(maps / expected.abs().max(), expected / expected.abs().max())
        close(grid_pg(maps), torch.from_numpy(CE_SHIFT[f"ixg_gridpg_{which}"]))

    def test_b_is_a_with_one_vector_and_one_bias_for_all_classes(self):
        shifted = CE_SHIFT["weight_A"] + CE_SHIFT["shift_vector"]
        np.testing.assert_allclose(shifted, CE_SHIFT["weight_B"], atol=1e-6)
        biased = CE_SHIFT["bias_A"] + CE_SHIFT["bias_shift"]
        np.testing.assert_allclose(biased, CE_SHIFT["bias_B"], atol=1e-6)
        a, b = (self.probe(which)(self.images()).softmax(1) for which in ("A", "B"))
        assert float((a - b).detach().abs().max()) < 1e-5
        assert CE_SHIFT["softmax_maxdiff"] < 1e-5
        assert CE_SHIFT["ce_A"] == pytest.approx(CE_SHIFT["ce_B"], abs=1e-6)
        assert CE_SHIFT["bce_B"] > 1000 * CE_SHIFT["bce_A"]

    @each_composite
    def test_a_shift_that_the_softmax_does_not_see_ruins_grid_pg(self, short):
        scores = {}
        for which in ("A", "B"):
            net, batch = self.probe(which), every_target(self.images(), 4)
            scores[which] = grid_pg(
                relevance(net, batch, COMPOSITES[short]).sum(1).unflatten(0, (2, 4))
            ).mean()
        a, b = (self.probe(w)(self.images()).softmax(1) for w in ("A", "B"))
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        assert scores["A"] > 0.95
        assert scores["B"] < 0.30  # a quarter is chance


def dense(conv: nn.Conv2d, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The convolution with these weights, without bias, as a matrix (inputs, outputs)."""
    basis = torch.eye(int(np.prod(shape)), dtype=weight.dtype).view(-1, *shape)
    return functional.conv2d(basis, weight, stride=conv.stride, padding=conv.padding).flatten(1)


def shared(parts: Tensor, bias: Tensor, handed: Tensor) -> Tensor:
    """R_i = sum over j of parts_ij / (sum over i of parts_ij + bias_j) R_j."""
    total = parts.sum(0) + bias
    return (parts * (handed / (total + 1e-6 * torch.where(total < 0, -1.0, 1.0)))).sum(1)


def by_matrices(net: nn.Sequential, image: Tensor, target: int, short: str) -> Tensor:
    """Relevance of one image (C, H, W) of conv, ReLU, conv, ReLU, mean, flatten, linear."""
    first, second, head = net[0], net[2], net[6]
    with torch.no_grad():
        a = net[1](first(image[None]))
        b = net[3](second(a))
        features = net[5](net[4](b))[0]
        logit = net(image[None])[0, target]
        # epsilon rule in the head
        bottom = head.weight[target] @ features + head.bias[target]
        handed = features * head.weight[target] * logit / (bottom + 1e-6 * bottom.sign())
        # the mean shares by value
        handed = (b[0] / (b[0].mean((1, 2), keepdim=True) + 1e-6)) * handed.view(-1, 1, 1)
        handed = handed / b[0][0].numel()
        # the second convolution; its inputs are not negative, its dead outputs hand nothing
        w, bias = second.weight, second.bias
        if short == "egb":
            w, bias = w + 0.25 * w.clamp(min=0), bias + 0.25 * bias.clamp(min=0)
        else:
            w, bias = w.clamp(min=0), bias.clamp(min=0)
        wide = bias.repeat_interleave(b[0][0].numel())
        parts = a.flatten()[:, None] * dense(second, w, tuple(a.shape[1:]))
        handed = shared(parts, wide, handed.flatten())
        # the first convolution
        w, x, shape = first.weight, image.flatten()[:, None], tuple(image.shape)
        if short == "egb":
            low, high = (
                encode(torch.full(shape, v, dtype=torch.uint8)).to(image).flatten()[:, None]
                for v in (0, 255)
            )
            parts = x * dense(first, w, shape) - low * dense(first, w.clamp(min=0), shape)
            parts = parts - high * dense(first, w.clamp(max=0), shape)
        else:
            parts = dense(first, torch.ones_like(w), shape)
        return shared(parts, torch.zeros(()), handed).view(shape)


@each_composite
def test_equals_a_plain_version_by_matrices(short):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).double().eval()  # fmt: skip
    images = encode(torch.randint(0, 256, (2, 3, 7, 7), dtype=torch.uint8)).double()
    found = relevance(net, every_target(images, 3), COMPOSITES[short])
    for n in range(6):
        expected = by_matrices(net, images[n // 3], n % 3, short)
        torch.testing.assert_close(found[n], expected, atol=1e-10, rtol=1e-8)


def narrow_resnet(block: str = "BasicBlock", **kwargs) -> nn.Module:
    """Torchvision's ResNet with one narrow block a stage."""
    from torchvision.models import resnet

    torch.manual_seed(0)
    net = resnet.ResNet(getattr(resnet, block), [1, 1, 1, 1], num_classes=5, **kwargs)
    return settled(net, colors(4))


def colors(n: int, px: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return encode(torch.randint(0, 256, (n, 3, px, px), generator=generator, dtype=torch.uint8))


@each_composite
@pytest.mark.parametrize("block", ["BasicBlock", "Bottleneck"])
def test_equals_zennit_on_resnets_of_torchvision(block, short, monkeypatch):
    from zennit import attribution, composites, torchvision
    from zennit.canonizers import MergeBatchNorm

    net, images = narrow_resnet(block), colors(2)
    targets = torch.tensor([3, 1])
    low, high = (encode(torch.full((1, 3, 1, 1), v, dtype=torch.uint8)) for v in (0, 255))
    canonizers = [torchvision.ResNetCanonizer()]
    rules = {
        "egb": lambda: composites.EpsilonGammaBox(low, high, canonizers=canonizers),
        "epf": lambda: composites.EpsilonPlusFlat(canonizers=canonizers),
    }[short]()
    merge = MergeBatchNorm.merge_batch_norm

    def exact(modules, norm):  # zennit 0.5 forgets epsilon in the emptied norm
        merge(modules, norm)
        norm.eps = 0.0

    monkeypatch.setattr(MergeBatchNorm, "merge_batch_norm", staticmethod(exact))
    found = relevance(net, Batch.single(images, targets), COMPOSITES[short])

    def start(logits):
        return logits * functional.one_hot(targets, 5)

    _, expected = attribution.Gradient(net, rules)(images.clone(), start)
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, atol=2e-5, rtol=0)


class TestPasses:
    """What runs, and what is left behind."""

    def test_one_forward_an_image_and_one_backward_a_round(self):
        net, images = golden_net(KnownNet, LRP_TINY), tiny_batch().images
        method = Lrp()
        with evaluating(net), Passes(model_of(net), every_target(images, 4)) as passes:
            _ = passes.logits
            before = passes.counts.forwards
            method(passes)
            assert passes.counts.forwards - before == 2
            assert passes.counts.backwards == {"input": 8}
            Lrp(absolute=True)(passes)  # the same question
            assert passes.counts.forwards - before == 2

    def test_slabs_change_nothing(self):
        net, batch = golden_net(KnownNet, LRP_TINY).double(), tiny_batch(torch.float64)
        expected = relevance(net, batch)
        question = Lrp().relevance
        with evaluating(net), Passes(model_of(net), batch, budget_bytes=1) as passes:
            torch.testing.assert_close(passes.get(question), expected, atol=1e-13, rtol=1e-9)

    @pytest.mark.parametrize("breaks", [False, True])
    def test_everything_comes_back_also_after_an_exception(self, breaks):
        net, batch = narrow_resnet(), Batch.single(colors(2), torch.tensor([0, 1]))
        parts = {name: dict(vars(part)) for name, part in net.named_modules()}
        state = {name: (id(v), v.clone()) for name, v in net.state_dict(keep_vars=True).items()}
        with Passes(model_of(net), batch) as passes:
            Lrp()(passes)
        if breaks:

            def fail(*_):
                raise OSError("in the middle")

            handle = net.layer3.register_forward_hook(fail)
            with pytest.raises(OSError, match="middle"), Passes(model_of(net), batch) as passes:
                Lrp()(passes)
            handle.remove()
        assert hooks_of(net) == 0
        now = net.state_dict(keep_vars=True)
        assert list(now) == list(state)
        assert all(id(now[k]) == i and torch.equal(now[k], v) for k, (i, v) in state.items())
        assert {n: set(vars(p)) for n, p in net.named_modules()} == {
            n: set(p) for n, p in parts.items()
        }
        assert all(p.requires_grad and p.grad is None for p in net.parameters())
        assert torch.is_grad_enabled()

    def test_an_exception_in_the_backward_leaves_nothing(self, monkeypatch):
        from zennit.core import BasicHook

        net, batch = narrow_resnet(), Batch.single(colors(1), torch.tensor([0]))

        def fail(*_):
            raise OSError("in the middle")

        monkeypatch.setattr(BasicHook, "backward", fail)
        with pytest.raises(OSError, match="middle"), Passes(model_of(net), batch) as passes:
            Lrp()(passes)
        assert hooks_of(net) == 0
        assert not any("canonical" in name for name, _ in net.named_modules())

    def test_train_mode_is_refused(self):
        net = golden_net(KnownNet, LRP_TINY).train()
        batch = Batch.single(tiny_batch().images, torch.tensor([0, 1]))
        with (
            pytest.raises(ValueError, match=r"eval mode only; call module\.eval\(\)"),
            Passes(model_of(net), batch) as passes,
        ):
            Lrp()(passes)


class TestConservation:
    """What goes in at the logit comes out at the image."""

    def sums(self, net: nn.Module, **kwargs) -> tuple[Tensor, Tensor]:
        batch = every_target(colors(2), 5)
        found = relevance(net, batch, **kwargs).sum((1, 2, 3))
        with torch.no_grad():
            return found, net(batch.images).flatten()

    @each_composite
    @pytest.mark.parametrize("block", ["BasicBlock", "Bottleneck"])
    def test_relevance_without_biases_is_the_logit(self, block, short):
        found, expected = self.sums(
            narrow_resnet(block), composite=COMPOSITES[short], zero_bias=True
        )
        torch.testing.assert_close(found, expected, atol=0.02 * float(expected.abs().max()), rtol=0)

    @each_composite
    def test_on_a_fresh_resnet18_it_is_the_logit_to_a_thousandth(self, short):
        from torchvision.models import resnet18

        torch.manual_seed(0)
        net = resnet18(num_classes=5).train()
        with torch.no_grad():
            net(colors(4))
        found, expected = self.sums(net.eval(), composite=COMPOSITES[short], zero_bias=True)
        torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)

    def test_relevance_with_biases_is_about_the_logit(self):
        found, expected = self.sums(narrow_resnet(), composite="epsilon_plus_flat")
        assert (found.abs() < 3 * expected.abs().max()).all()

    @each_composite
    def test_duplicated_residuals_double_it_block_by_block(self, short):
        net = narrow_resnet()
        found, expected = self.sums(
            net, composite=COMPOSITES[short], zero_bias=True, residual="duplicate"
        )
        ratio = found / expected
        torch.testing.assert_close(ratio, torch.full_like(ratio, 2.0**4), atol=0.3, rtol=0)


class TestSuit:
    """Networks that it refuses, with the reason."""

    def test_bcos_networks(self):
        from contextlib import nullcontext

        model = Model(nn.Identity(), {"input": ""}, encode, explaining=nullcontext)
        with pytest.raises(ValueError, match="no rule for B-cos layers; take bcos"):
            Lrp().suit(model)

    def test_transformers(self):
        from trainables.models.network import Tokens

        tokens = Tokens(patch_px=4, prefix=1, blocks=(), attentions=())
        model = Model(nn.Identity(), {"input": ""}, encode, tokens=tokens)
        with pytest.raises(ValueError, match="no rule for attention; take transformer_attribution"):
            Lrp().suit(model)

    def test_unknown_blocks(self):
        with pytest.raises(
            ValueError, match=r"no rule for PlainNet \(the whole network\): it calls add"
        ):
            Lrp().suit(model_of(PlainNet()))
        Lrp().suit(model_of(KnownNet()))

    @pytest.mark.parametrize("field", ["gamma", "epsilon"])
    def test_negative_values(self, field):
        with pytest.raises(ValueError, match=rf"Lrp\.{field} = -1\.0: expected 0 or more"):
            Lrp(**{field: -1})


def test_methods_that_differ_in_the_tail_ask_the_same():
    assert Lrp(absolute=True).relevance == Lrp().relevance
    flat = Lrp(composite="epsilon_plus_flat")
    assert Lrp(composite="epsilon_plus_flat", gamma=0.5).relevance == flat.relevance
    assert isinstance(flat.relevance, Relevance)
    assert flat.key == "lrp_epsilon_plus_flat"
    assert Lrp(residual="duplicate", zero_bias=True).key == "lrp_duplicate_zero_bias"


def test_the_canonical_network_is_the_same_function():
    net, images = narrow_resnet("Bottleneck").double(), colors(2).double()
    with torch.no_grad():
        expected = net(images)
        with canonized(net):
            torch.testing.assert_close(net(images), expected, atol=1e-12, rtol=1e-12)
