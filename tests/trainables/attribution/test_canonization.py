"""Canonical forms that really match, and come off again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import trainables.models  # noqa: F401  registers
from tests.trainables.attribution.relevance_nets import (
    KnownNet,
    PlainNet,
    encode,
    every_target,
    relevance,
    settled,
)
from tests.trainables.registered import example
from trainables.attribution.canonization.canonized import canonized
from trainables.attribution.canonization.form import FORMS, canonical_of, forward_name, passed
from trainables.attribution.canonization.norm import merged, merges
from trainables.attribution.canonization.rules import refusal
from trainables.attribution.lrp import Lrp
from trainables.models.fixup_resnet import SmallFixupResNet, SmallXResNet
from trainables.models.network import Network
from trainables.models.small_resnet import SmallResNet

REFUSED = {
    "bcos": "no rule for B-cos layers",
    "vit": "no rule for attention",
    "deit": "no rule for attention",
    "bagnet": "no rule for BagNet .*: it calls",
}
"""Networks that LRP does not suit, by a part of the name."""


def colors(n: int, px: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return encode(torch.randint(0, 256, (n, 3, px, px), generator=generator, dtype=torch.uint8))


def torchvision_resnet(block: str, **kwargs: Any) -> nn.Module:
    from torchvision.models import resnet

    return resnet.ResNet(getattr(resnet, block), [1, 1, 1, 1], num_classes=5, **kwargs)


def timm_resnet(block: str, **kwargs: Any) -> nn.Module:
    from timm.models import resnet

    return resnet.ResNet(
        getattr(resnet, block), [1, 2, 1, 1], num_classes=5, channels=(8, 8, 12, 12), **kwargs
    )


def clip_resnet() -> nn.Module:
    """The plan of timm's resnet50_clip_gap, narrow: three stem convolutions, pooled strides."""
    from dataclasses import replace

    from timm.models import byobnet

    blocks = tuple(
        byobnet.ByoBlockCfg(type="bottle", d=d, c=c, s=s, br=0.25)
        for d, c, s in ((2, 16, 1), (1, 32, 2), (1, 32, 2))
    )
    plan = replace(byobnet.model_cfgs["resnet50_clip_gap"], blocks=blocks, stem_chs=(4, 4, 8))
    return byobnet.ByobNet(plan, num_classes=5)


def vgg_bn() -> nn.Module:
    from torchvision.models import vgg

    with torch.device("meta"):  # the head is replaced, and large
        net = vgg.VGG(nn.Identity(), num_classes=5, init_weights=False)
    net.features = vgg.make_layers([4, "M", 8, "M", 8], batch_norm=True)
    net.avgpool, net.classifier = nn.AdaptiveAvgPool2d(2), nn.Sequential(nn.Linear(32, 5))
    return net


def fixup_resnet() -> nn.Module:
    net = SmallFixupResNet(width=4).module(5)
    for name, parameter in net.named_parameters():
        if parameter.numel() == 1:
            parameter.data.fill_(0.9 if name.endswith("scale") else 0.05)
    return awake(net)


def awake(net: nn.Module) -> nn.Module:
    """Layers that Fixup starts at zero, with random weights."""
    for parameter in net.parameters():
        if not parameter.any():
            parameter.data.normal_(0, 0.1)
    return net


NETS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {  # and merged norms, canonical blocks
    "torchvision BasicBlock": (lambda: torchvision_resnet("BasicBlock"), 12, 4),
    "torchvision Bottleneck": (lambda: torchvision_resnet("Bottleneck", width_per_group=4), 17, 4),
    "torchvision VGG": (vgg_bn, 3, 0),
    "small_resnet": (lambda: SmallResNet(width=4).build(5).module, 12, 4),
    "timm BasicBlock": (lambda: timm_resnet("BasicBlock"), 15, 5),
    "timm BasicBlock, anti-aliased": (
        lambda: timm_resnet("BasicBlock", aa_layer=nn.AvgPool2d),
        15,
        5,
    ),
    "timm Bottleneck": (lambda: timm_resnet("Bottleneck"), 20, 5),
    "timm ResNet-D": (
        lambda: timm_resnet(
            "Bottleneck", stem_type="deep", stem_width=8, avg_down=True, drop_path_rate=0.1
        ),
        22,
        5,
    ),
    "timm CLIP": (clip_resnet, 18, 4),
    "Fixup": (fixup_resnet, 0, 4),
    "X-DNN": (lambda: awake(SmallXResNet(width=4).module(5)), 0, 4),
}
each_net = pytest.mark.parametrize("name", NETS)


def made(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    net = settled(NETS[name][0](), colors(4))
    for part in net.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    return net.to(dtype)


@each_net
@pytest.mark.parametrize("residual", ["sum", "duplicate"])
def test_the_function_stays_and_everything_comes_back(name, residual):
    net, images = made(name), colors(2).double()
    state = {k: (id(v), v.clone()) for k, v in net.state_dict(keep_vars=True).items()}
    paths = [path for path, _ in net.named_modules()]
    with torch.no_grad():
        expected = net(images)
        with canonized(net, residual):
            torch.testing.assert_close(net(images), expected, atol=1e-12, rtol=1e-10)
        assert torch.equal(net(images), expected)
    now = net.state_dict(keep_vars=True)
    assert list(now) == list(state)
    assert all(id(now[k]) == i and torch.equal(now[k], v) for k, (i, v) in state.items())
    assert [path for path, _ in net.named_modules()] == paths
    assert not any("forward" in vars(part) for part in net.modules())


@each_net
def test_every_norm_is_merged_and_every_addition_is_a_layer(name):
    _, norms, blocks = NETS[name]
    net = made(name)
    before = list(merges(net))
    assert len(before) == norms
    assert len({id(norm) for _, norm in before}) == norms
    assert norms == sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    with canonized(net):
        sums = [path for path, _ in net.named_modules() if path.endswith(".canonical_sum")]
        assert len(sums) == blocks
    with canonized(net, "duplicate"):
        assert not any(path.endswith("canonical_sum") for path, _ in net.named_modules())


@each_net
def test_relevance_is_conserved_and_a_plain_sum_doubles_it_block_by_block(name):
    net, batch = made(name), every_target(colors(2).double(), 5)
    with torch.no_grad():
        expected = net(batch.images).flatten()
    found = relevance(net, batch, "flat").sum((1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    doubled = relevance(net, batch, "flat", residual="duplicate").sum((1, 2, 3))
    torch.testing.assert_close(doubled, 2.0 ** NETS[name][2] * expected, rtol=1e-4, atol=0)


@each_net
def test_relevance_with_biases_does_not_explode(name):
    net, batch = made(name), every_target(colors(2).double(), 5)
    with torch.no_grad():
        scale = float(net(batch.images).abs().max())
    found = relevance(net, batch).sum((1, 2, 3))
    assert float(found.abs().max()) < 3 * scale


@each_net
def test_known_networks_suit(name):
    assert refusal(made(name)) is None


class TestMerging:
    """A norm of eval mode is a scale and a shift."""

    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("bias", [True, False])
    def test_one_layer_computes_both(self, bias, affine):
        torch.manual_seed(0)
        linear, norm = nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, affine=affine)
        net = (
            settled(nn.Sequential(linear, norm), colors(4))
            if affine
            else nn.Sequential(linear, norm)
        )
        images = colors(2)
        net.train()(images)
        weight, shift = merged(*next(iter(merges(net.eval()))))
        found = functional.conv2d(images, weight, shift)
        torch.testing.assert_close(found, net(images), atol=1e-5, rtol=1e-5)

    def test_the_order_of_definition_does_not_matter(self):
        class Crossed(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
                self.norm2, self.norm1 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

            def forward(self, x):
                return self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())).mean((2, 3))

        net = Crossed().eval()
        assert list(merges(net)) == [(net.conv1, net.norm1), (net.conv2, net.norm2)]

    def test_a_norm_is_left_alone_where_its_scale_has_no_place(self):
        class Forked(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

            def forward(self, x):
                x = self.conv(x)
                return self.norm(x) + x

        statistics = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
        first = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1))
        active = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
        for net in (Forked(), statistics, first, active):
            assert list(merges(net)) == []

    def test_a_replaced_layer_is_seen(self):
        net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        assert len(list(merges(net))) == 1
        net[0] = nn.Identity()
        assert list(merges(net)) == []


class TestRefusal:
    """What has no rule is named, with the reason."""

    def test_a_subclass_that_keeps_the_forward_is_known(self):
        from torchvision.models.resnet import BasicBlock

        class Same(BasicBlock):
            pass

        class Other(BasicBlock):
            def forward(self, x):
                return super().forward(x) + x

        assert forward_name(Same(3, 3)) == "torchvision.models.resnet.BasicBlock"
        assert refusal(Same(3, 3)) is None
        assert "no rule for Other (the whole network)" in (refusal(Other(3, 3)) or "")

    @pytest.mark.parametrize(
        ("layer", "why"),
        [
            (nn.LayerNorm(4), "it calls layer_norm"),
            (nn.MultiheadAttention(4, 1), "no rule for MultiheadAttention"),
            (nn.Softmax(1), "it calls softmax"),
            (nn.GroupNorm(2, 4), "it calls group_norm"),
        ],
    )
    def test_layers_without_a_rule(self, layer, why):
        found = refusal(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ModuleDict({"odd": layer})["odd"]))
        assert why in (found or "")
        assert "(1)" in (found or "")

    def test_channel_attention(self):
        net = timm_resnet("Bottleneck", block_args={"attn_layer": "se"})
        assert "no rule for SEModule (layer1.0.se)" in (refusal(net) or "")

    def test_other_known_networks(self):
        from torchvision.models import densenet, vit_b_16

        with torch.device("meta"):
            dense = densenet.DenseNet(4, (1, 1), 4)
            assert "no rule for DenseNet" in (refusal(dense) or "")
            assert "no rule for VisionTransformer" in (refusal(vit_b_16()) or "")

    def test_a_forward_that_depends_on_values(self):
        class Odd(nn.Module):
            def forward(self, x):
                return x if x.sum() > 0 else -x

        assert "Odd (the whole network): its forward cannot be traced" in (refusal(Odd()) or "")

    def test_a_users_chain_of_layers_suits(self):
        class Chain(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()
                self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)

            def forward(self, x, pooled=True):
                x = functional.max_pool2d(self.relu(self.conv(x)), 2)
                return self.fc(self.pool(x).view(x.size(0), -1) if pooled else x)

        assert refusal(Chain()) is None

    @pytest.mark.parametrize("name", sorted(Network.registered))
    def test_our_networks_suit_without_weights_or_are_refused_with_the_reason(self, name):
        reason = next((why for part, why in REFUSED.items() if part in name), None)
        network = example(Network.registered[name])
        if reason is None:
            Lrp().check(network)
        else:
            with pytest.raises(ValueError, match=reason):
                Lrp().check(network)

    def test_published_timm_networks_suit(self):
        import timm

        with torch.device("meta"):
            for name in ("resnet18", "resnet50", "resnet50d", "resnet50_clip_gap"):
                assert refusal(timm.create_model(name, num_classes=5)) is None


def test_a_form_is_added_in_one_function():
    class Halved(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return x + self.conv(x) / 2

    net = nn.Sequential(Halved(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    assert "no rule for Halved (0): it calls" in (refusal(net) or "")

    @canonical_of(Halved)
    def halved(block, x, add):
        branch = block.conv(x)
        return add(x, passed(branch, branch / 2))

    try:
        assert refusal(net) is None
        net, batch = net.double().eval(), every_target(colors(1, 8).double(), 5)
        found = relevance(net, batch, "flat").sum((1, 2, 3))
        torch.testing.assert_close(found, net(batch.images).flatten().detach(), rtol=1e-4, atol=0)
    finally:
        FORMS.pop(forward_name(net[0]))


def test_an_unregistered_net_is_refused_and_its_registered_twin_is_not():
    assert refusal(PlainNet()) is not None
    assert refusal(KnownNet()) is None
