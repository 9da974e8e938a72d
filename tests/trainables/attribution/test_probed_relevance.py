"""LRP through probes: against a plain version, sum by sum, and what it does to whole networks."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from tests.trainables.attribution.relevance_nets import every_target, model_of, relevance, settled
from trainables.attribution.canonization.canonized import canonized
from trainables.attribution.lrp import Lrp, Relevance, hooked
from trainables.models.bcos_layers import BcosConv2d, LogitLayer
from trainables.models.network import Model
from trainables.models.probe import BcosProbe, ConventionalProbe, Features, Probe, ProbeHead
from trainables.models.probed import ProbedNetwork
from trainables.models.small_resnet import SmallResNet
from trainables.models.torchvision_resnet import ResNet18
from trainables.passes import Passes
from trainables.trial import seeded

GAMMA, CLASSES, CHANNELS = 0.25, 4, 6
EVERY = [kind(layers=layers) for kind in (ConventionalProbe, BcosProbe) for layers in (1, 2, 3)]
each_probe = pytest.mark.parametrize("probe", EVERY, ids=lambda probe: probe.key)


def through_gamma(relevance: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The generalized gamma rule at one place: (O,) to (I,), by loops over outputs."""
    given = torch.zeros_like(x)
    for o, row in enumerate(weight):
        out = float(row @ x + bias[o])
        for_more, for_less = row.clamp(min=0), row.clamp(max=0)
        own, other = (for_more, for_less) if out > 0 else (for_less, for_more)
        shares = x.clamp(min=0) * (row + GAMMA * own) + x.clamp(max=0) * (row + GAMMA * other)
        extra = bias[o].clamp(min=0) if out > 0 else bias[o].clamp(max=0)
        total = shares.sum() + bias[o] + GAMMA * extra
        given += shares * relevance[o] / total
    return given


def plainly(head: ProbeHead, features: Tensor, target: int) -> Tensor:
    """Relevance at features (D, h, w) of one image, place by place."""
    places, inputs = features.flatten(1).T, []
    x = features[None]
    for name, part in head.named_children():
        if name in head.layers:
            inputs.append(x)
        if name == "pool":
            break
        x = part(x)
    maps = x[0].flatten(1)  # (K, places)
    given = torch.zeros_like(places)
    for place in range(len(places)):
        shares = torch.zeros(maps.shape[0], dtype=maps.dtype)
        shares[target] = maps[target, place] / len(places)  # of the mean, by value
        for name, taken in reversed(list(zip(head.layers, inputs, strict=True))):
            layer = head.get_submodule(name)
            rows = layer.linear.unit if isinstance(layer, BcosConv2d) else layer.weight
            rows, bias = rows.flatten(1), rows.new_zeros(len(rows))
            if isinstance(layer, nn.Conv2d):
                norm = head._modules.get(name.replace("fc", "bn"))
                bias = layer.bias
                if norm is not None:  # merged
                    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
                    rows = rows * scale[:, None]
                    bias = (bias - norm.running_mean) * scale + norm.bias
            shares = through_gamma(shares, taken[0].flatten(1)[:, place], rows, bias)
        given[place] = shares
    return given.T.view_as(features)


@each_probe
def test_the_head_takes_the_gamma_rule(probe):
    with seeded(1):
        stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), nn.ReLU())
        head = probe.head(Features(CHANNELS, "map", False), CLASSES)
    net = nn.Sequential(OrderedDict(stem=stem, head=head)).double()
    images = torch.randn(4, 3, 3, 2, generator=torch.Generator().manual_seed(0)).double()
    settled(net, images).requires_grad_(False)
    batch = every_target(images[:1], CLASSES)
    with Passes(model_of(net), batch) as passes:
        composite = Relevance(composite="epsilon_gamma_box", gamma=GAMMA)._zennit(passes)
    features = net.stem(images[:1])[0]
    expected = [plainly(head, features, target) for target in range(CLASSES)]
    kept: list[Tensor] = []
    handle = net.stem.register_forward_hook(lambda _m, _i, out: kept.append(out))
    with canonized(net), hooked(net, composite):
        logits = net(images[:1].clone().requires_grad_())
        for target in range(CLASSES):
            start = torch.zeros_like(logits)
            start[0, target] = logits[0, target].detach()
            (found,) = torch.autograd.grad(logits, kept[0], start, retain_graph=True)
            torch.testing.assert_close(found[0], expected[target], rtol=1e-3, atol=1e-6)
            if probe.name == "bcos":  # no bias that would take a share
                assert float(found.sum()) == pytest.approx(float(start.sum()), rel=1e-3)
    handle.remove()


def colored(n: int) -> Tensor:
    pixels = torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    return SmallResNet().encode(pixels.to(torch.uint8))


def probed_model(probe: Probe) -> Model:
    """A small network with a probe, in float64."""
    with seeded(3):
        model = ProbedNetwork(network=SmallResNet(width=4), probe=probe).build(CLASSES)
    settled(model.module, colored(6)).double()
    return model


@pytest.mark.parametrize("probe", [EVERY[2], *EVERY[3:]], ids=lambda probe: probe.key)
def test_evenly_shared_relevance_of_a_probed_network_is_the_logit(probe):
    model, batch = probed_model(probe), every_target(colored(2).double(), CLASSES)
    found = relevance(model.module, batch, "flat").sum((1, 2, 3))
    expected = model.module(batch.images).flatten().detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("probe", [EVERY[1], EVERY[4]], ids=lambda probe: probe.key)
@pytest.mark.parametrize("zero_bias", [False, True])
def test_a_constant_in_the_logits_takes_its_share_as_a_bias_does(probe, zero_bias):
    model, batch = probed_model(probe), every_target(colored(2).double(), CLASSES)
    without = relevance(model.module, batch, zero_bias=zero_bias)
    logits = model.module(batch.images).detach().flatten()
    constant = next(part for part in model.module.modules() if isinstance(part, LogitLayer))
    constant.bias = -1.3
    found = relevance(model.module, batch, zero_bias=zero_bias)
    times = (logits - 1.3) / logits if zero_bias else torch.ones_like(logits)
    torch.testing.assert_close(found, without * times[:, None, None, None], rtol=1e-3, atol=1e-9)


def test_networks_with_probes_suit_unless_they_are_of_bcos_layers():
    from trainables.models.bcos_resnet import SmallBcosResNet

    for probe in EVERY:
        network = ResNet18() if probe is EVERY[5] else SmallResNet()
        Lrp().check(ProbedNetwork(network=network, probe=probe))
    with pytest.raises(ValueError, match="no rule for B-cos layers"):
        Lrp().check(ProbedNetwork(network=SmallBcosResNet(), probe=ConventionalProbe()))
