"""Probed networks: every network that can be probed, in its own forward."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import trainables.attribution
import trainables.models  # noqa: F401  register
from tests.trainables.networks import hooks_of, randomized
from tests.trainables.registered import example
from trainables.attribution.attribution import Attribution
from trainables.attribution.bcos import Bcos
from trainables.batch import Batch
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.bcos_vit import SmallBcosViTc
from trainables.models.fixup_resnet import SmallFixupResNet, SmallXResNet
from trainables.models.network import DEPTHS, Model, Network, evaluating
from trainables.models.probe import BcosProbe, ConventionalProbe
from trainables.models.probed import ProbedNetwork, features_kind, features_of, probed
from trainables.models.small_resnet import SmallResNet
from trainables.models.timm_vit import SmallViT
from trainables.models.torchvision_vgg import SmallVgg
from trainables.models.user_network import UserNetwork
from trainables.passes import Passes
from trainables.trial import seeded

SMALL = [
    SmallResNet(width=2), SmallBcosResNet(width=2), SmallFixupResNet(width=2),
    SmallXResNet(width=2), SmallVgg(width=2), SmallViT(), SmallBcosViTc(),
]  # fmt: skip
PROBES = [ConventionalProbe(), ConventionalProbe(layers=2, hidden=8), BcosProbe(layers=3, hidden=8)]
each_network = pytest.mark.parametrize("network", SMALL, ids=lambda network: network.name)
each_probe = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.key)


@cache
def backbone(network: Network) -> Model:
    """The network with random weights in float64, in eval mode."""
    model = network.build(3)
    randomized(model.module, 1).eval()
    return model


@cache
def images_for(network: Network) -> Tensor:
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    return backbone(network).encode(pixels.to(torch.uint8)).double()


@each_network
def test_features_cost_one_forward_and_nothing_behind_it(network):
    model, images = backbone(network), images_for(network)
    ran, handles = [], []
    for path, part in model.module.named_modules():
        handles.append(part.register_forward_hook(lambda _m, _i, _o, path=path: ran.append(path)))
    kept: list[Tensor] = []
    handles.append(
        model.module.get_submodule(network.probed_at).register_forward_hook(
            lambda _m, _i, out: kept.append(out)
        )
    )
    model.module(images)
    whole, ran[:] = list(ran), []
    try:
        model.module.train()
        found = features_of(model, images)
        assert all(part.training for part in model.module.modules())
    finally:
        model.module.eval()
        for handle in handles:
            handle.remove()
    assert torch.equal(found, kept[0].detach())
    assert ran[-1] == network.probed_at
    assert ran == whole[: len(ran)]
    assert not found.requires_grad
    assert hooks_of(model.module) == 0


@each_network
@each_probe
def test_the_head_answers_in_the_classifier_s_place(network, probe):
    plain, images = backbone(network), images_for(network)
    model = network.build(3)
    model.module.double().load_state_dict(plain.module.state_dict())
    head = randomized(probe.head(features_kind(model), 5), 3)
    found = probed(model, head)
    model.module.eval()
    expected = head(features_of(plain, images))
    torch.testing.assert_close(found.module(images), expected, rtol=0, atol=0)
    assert found.module(images).shape == (2, 5)
    kept = {k: v for k, v in found.module.state_dict().items() if not k.startswith(network.head_at)}
    assert kept
    assert all(torch.equal(v, plain.module.state_dict()[k]) for k, v in kept.items())
    assert found.depths == plain.depths


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.name)
def test_a_probed_network_is_a_network(network):
    whole = ProbedNetwork(network=network, probe=BcosProbe(layers=2, hidden=4))
    with torch.device("meta"):
        model = whole.build(7)
        pixels = torch.zeros(2, 3, whole.check_px, whole.check_px, dtype=torch.uint8)
        logits = model.module(model.encode(pixels))
    inner = network.build(7)
    assert logits.shape == (2, 7)
    assert tuple(whole.depths) == DEPTHS
    assert (model.depths, model.tokens) == (inner.depths, inner.tokens)
    assert (model.explaining is None) == (inner.explaining is None)
    assert whole.head_of(model.module).last is not None
    assert whole.key == f"probed_{network.key}_bcos_l2_hidden4"


@pytest.mark.slow
def test_large_networks_can_be_probed():
    names = [
        "resnet50", "wide_resnet50_2", "bcos_resnet50", "vit_base_patch16", "bcos_vitc_s",
        "fixup_resnet50", "xresnet50", "vgg16_bn",
    ]  # fmt: skip
    channels = (2048, 2048, 2048, 768, 384, 2048, 2048, 512)
    for name, expected in zip(names, channels, strict=True):
        with torch.device("meta"):
            assert features_kind(Network.named(name).build(2)).channels == expected


def test_every_network_can_be_probed_or_says_that_it_cannot():
    without = {
        name
        for name, cls in Network.registered.items()
        if not example(cls).probed_at and cls is not ProbedNetwork
    }
    assert without == {"bagnet9", "bagnet17", "bagnet33", "small_bagnet", "user"}
    with pytest.raises(ValueError, match="user cannot be probed: it names no features"):
        ProbedNetwork(network=UserNetwork(), probe=BcosProbe())
    model = UserNetwork().build(3)
    with pytest.raises(ValueError, match="cannot be probed"):
        features_of(model, torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="user cannot be probed"):
        UserNetwork().attach(model.module, nn.Identity())


@pytest.mark.parametrize("bcos", [SmallBcosResNet(width=4), SmallBcosViTc()], ids=lambda n: n.name)
@pytest.mark.parametrize(
    "probe", [*PROBES, BcosProbe(), ConventionalProbe(layers=3)], ids=lambda p: p.key
)
def test_contributions_add_up_to_the_logit_without_its_constant(bcos, probe):
    probe = replace(probe, logit_bias=-0.9)
    with seeded(4):
        model = ProbedNetwork(network=bcos, probe=probe).build(5)
    images = images_for(bcos)
    model.module.train()
    with torch.no_grad():
        model.module.double()(images)  # statistics of their own for all norms
    model.module.eval()
    every = torch.arange(5)
    batch = Batch(
        images=images,
        image_ids=["one", "two"],
        image_index=torch.arange(2).repeat_interleave(5),
        targets=every.repeat(2),
    )
    layers = ("mid1", "final") if model.tokens else ("input", "mid2", "final")  # positions count
    with evaluating(model.module), Passes(model, batch) as passes:
        methods = [Bcos(layer=layer) for layer in layers]
        passes.expect(need for method in methods for need in method.needs(model))
        for method in methods:
            total = method(passes).sum((1, 2)) - 0.9
            torch.testing.assert_close(total, passes.logits.flatten(), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("network", SMALL[:2] + SMALL[5:6], ids=lambda network: network.name)
def test_methods_suit_a_probed_network_that_suit_the_network(network):
    accepted = []
    for which in (network, ProbedNetwork(network=network, probe=PROBES[-1])):
        names = set()
        for name, cls in Attribution.registered.items():
            if name != "from_files":
                with suppress(ValueError):
                    example(cls).check(which)
                    names.add(name)
        accepted.append(names)
    assert accepted[0] == accepted[1]
    assert len(accepted[0]) > 12
