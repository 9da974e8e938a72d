"""Packs: maps and logits of many probes from one model, and what a backward of one costs."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from tests.trainables.networks import hooks_of
from trainables.attribution.attribution import Attribution
from trainables.attribution.bcos import Bcos
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.guided_backprop import GuidedBackprop
from trainables.attribution.integrated_gradients import IntegratedGradients
from trainables.attribution.lime import Lime
from trainables.attribution.lrp import Lrp
from trainables.attribution.occlusion import Occlusion
from trainables.attribution.score_cam import ScoreCam
from trainables.attribution.segmentation import Grid
from trainables.attribution.transformer_attribution import TransformerAttribution
from trainables.attribution.vit_cx import ViTCX
from trainables.batch import Batch
from trainables.flops import FlopCounter
from trainables.metrics.confidence import Adp
from trainables.metrics.incremental_deletion import Ids
from trainables.metrics.metric import Metric
from trainables.metrics.perturbation_curves import Pos
from trainables.metrics.randomization import ClassSensitivity
from trainables.metrics.single_deletion import Sds
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.bcos_vit import SmallBcosViTc
from trainables.models.network import Model, Network, evaluating, sigmoid, softmax
from trainables.models.probe import BcosProbe, ConventionalProbe, Probe
from trainables.models.probe_pack import Pack, pack_model
from trainables.models.probed import features_kind, probed
from trainables.models.small_resnet import SmallResNet
from trainables.models.timm_vit import SmallViT
from trainables.passes import Passes
from trainables.trial import seeded

CLASSES, SIDE = 3, 32
PROBES: tuple[Probe, ...] = (
    ConventionalProbe(),
    BcosProbe(layers=2, hidden=5, logit_bias=-0.7),
    ConventionalProbe(layers=3, hidden=4),
)
OUTPUTS = ("softmax", "sigmoid", "sigmoid")
CNN, BCOS = SmallResNet(width=4), SmallBcosResNet(width=4)
VIT, BCOS_VIT = SmallViT(), SmallBcosViTc()
EVERYWHERE = (
    InputXGradient(),
    IntegratedGradients(steps=3),
    GradCam(),
    Lime(samples=12, segmentation=Grid(cells=2)),
    Occlusion(window_px=16, stride_px=16),
)
METHODS: dict[Network, tuple[Attribution, ...]] = {
    CNN: (*EVERYWHERE, GuidedBackprop(), Lrp(), ScoreCam(channels=3)),
    BCOS: (InputXGradient(), GuidedBackprop(), Bcos(), Bcos(layer="mid2")),
    VIT: (InputXGradient(), GradCam(), TransformerAttribution(), ViTCX(threshold=0.6)),
    BCOS_VIT: (InputXGradient(), GradCam(), Bcos()),
}
each_network = pytest.mark.parametrize(
    "network",
    [CNN, BCOS, *(pytest.param(vit, marks=pytest.mark.slow) for vit in (VIT, BCOS_VIT))],
    ids=lambda network: network.name,
)
METRICS: tuple[Metric, ...] = (
    Ids(points=3), Pos(points=3), Adp(reference_class="predicted"), ClassSensitivity(),
    Sds(patches=4, drop_output="probability"),
)  # fmt: skip


def fresh(network: Network) -> Model:
    """The network with the same random weights each time, in float64."""
    with seeded(1):
        model = network.build(2)
    model.module.double().eval()
    return model


def heads_of(network: Network) -> list[torch.nn.Module]:
    features = features_kind(fresh(network))
    with seeded(2):
        return [probe.head(features, CLASSES).double().eval() for probe in PROBES]


@cache
def separate(network: Network) -> list[Model]:
    """One model a probe."""
    means = {"softmax": softmax, "sigmoid": sigmoid}
    return [
        replace(probed(fresh(network), head), probabilities=means[output])
        for head, output in zip(heads_of(network), OUTPUTS, strict=True)
    ]


@cache
def pack_of(network: Network) -> Model:
    return pack_model(fresh(network), heads_of(network), CLASSES, OUTPUTS)


def batch_for(network: Network, targets: list[int], index: list[int] | None = None) -> Batch:
    """Explanations of two images."""
    pixels = torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    return Batch(
        images=network.encode(pixels.to(torch.uint8)).double(),
        image_ids=["one", "two"],
        image_index=torch.tensor(index or [0, 1] * (len(targets) // 2)),
        targets=torch.tensor(targets),
        labels=torch.tensor([2, 0]),
    )


def columns(targets: list[int]) -> list[int]:
    """The same classes of every probe, probe by probe."""
    return [p * CLASSES + c for p in range(len(PROBES)) for c in targets]


def maps_of(method: Attribution, model: Model, batch: Batch) -> Tensor:
    with evaluating(model.module), Passes(model, batch) as passes:
        return method(passes)


@each_network
class TestPack:
    """Against the same probes as models of their own."""

    def test_logits_and_probabilities(self, network):
        pack, batch = pack_of(network), batch_for(network, [0, 1])
        alone = separate(network)
        with torch.no_grad():
            logits = pack.module(batch.images)
            expected = [model.module(batch.images) for model in alone]
        assert torch.equal(logits, torch.cat(expected, 1))
        said = [m.probabilities(z) for m, z in zip(alone, expected, strict=True)]
        torch.testing.assert_close(pack.probabilities(logits), torch.cat(said, 1))

    def test_maps_of_every_method(self, network):
        pack, targets = pack_of(network), [0, 2, 1, 1]
        together = batch_for(network, columns(targets))
        for method in METHODS[network]:
            found = maps_of(method, pack, together).split(len(targets))
            for p, model in enumerate(separate(network)):
                expected = maps_of(method, model, batch_for(network, targets))
                atol = 1e-10 * float(expected.abs().max())
                torch.testing.assert_close(found[p], expected, rtol=1e-9, atol=atol, msg=method.key)
            assert any(float(part.abs().max()) > 0 for part in found), method.key
        assert hooks_of(pack.module) == 0

    def test_scores(self, network):
        if network is not CNN:
            return
        targets, method = [0, 2, 1, 1], InputXGradient()
        cases = [(model, targets) for model in separate(network)]
        for metric in METRICS:
            scores = []
            for model, wanted in [(pack_of(network), columns(targets)), *cases]:
                with evaluating(model.module), Passes(model, batch_for(network, wanted)) as passes:
                    passes.expect(method.needs(model))
                    maps = method.at_image_size(method(passes), passes)
                    scores.append(metric(passes, maps, method))
            torch.testing.assert_close(
                scores[0], torch.cat(scores[1:]), rtol=1e-9, atol=1e-12, equal_nan=True
            )
            assert torch.isfinite(scores[0]).any(), metric.key


def flops_of_a_backward(model: Model, batch: Batch, column: int) -> int:
    images = batch.images.clone().requires_grad_()
    with evaluating(model.module):
        logits = model.module(images)
        with FlopCounter() as counter:
            torch.autograd.grad(logits[:, column].sum(), images)
    return counter.total


@each_network
def test_a_backward_of_one_probe_runs_one_head(network):
    pack, batch = pack_of(network), batch_for(network, [0, 1])
    for p, model in enumerate(separate(network)):
        expected = flops_of_a_backward(model, batch, 1)
        assert flops_of_a_backward(pack, batch, p * CLASSES + 1) == expected


def test_a_forward_runs_the_backbone_once():
    costs = []
    with torch.no_grad():
        for network_model in (fresh(CNN), *separate(CNN), pack_of(CNN)):
            with FlopCounter() as counter:
                network_model.module(batch_for(CNN, [0, 1]).images)
            costs.append(counter.total)
    plain, *alone, together = costs
    linear = 2 * (2 * 16 * 2)  # the network's own classifier, of 16 channels and 2 classes
    backbone = plain - linear
    assert together == backbone + sum(cost - backbone for cost in alone)


def test_lrp_runs_the_rules_of_one_head_for_a_probe():
    costs = []
    for model, targets in ((separate(CNN)[0], [0, 1]), (pack_of(CNN), [0, 1])):
        with FlopCounter() as counter:
            maps_of(Lrp(), model, batch_for(CNN, targets))
        costs.append(counter.total)
    heads = Pack([deepcopy(head) for head in heads_of(CNN)], CLASSES)
    with torch.no_grad(), FlopCounter() as counter:
        heads(torch.zeros(2, 16, 4, 4, dtype=torch.float64))
    # the other heads' forwards; twice, as lrp looks at the costs first
    assert costs[0] < costs[1] < costs[0] + 2 * counter.total


@pytest.mark.parametrize("network", [CNN, BCOS], ids=lambda network: network.name)
def test_gradients_of_gradients_are_those_of_the_probe(network):
    found = []
    for one, column in ((pack_of(network), CLASSES + 1), (separate(network)[1], 1)):
        images = batch_for(network, [0, 1]).images.requires_grad_()
        with evaluating(one.module):
            logits = one.module(images)
            (first,) = torch.autograd.grad(logits[:, column].sum(), images, create_graph=True)
            found.append((first, torch.autograd.grad(first.square().sum(), images)[0]))
    for pack, alone in zip(*found, strict=True):
        torch.testing.assert_close(pack, alone, rtol=1e-9, atol=1e-14)
    assert float(found[0][1].abs().max()) > 0


def test_heads_that_are_trained_get_their_gradients():
    pack, images = pack_model(fresh(CNN), heads_of(CNN), CLASSES, OUTPUTS), batch_for(CNN, [0, 1])
    pack.module(images.images)[:, CLASSES + 1].sum().backward()
    heads = next(part for part in pack.module.modules() if isinstance(part, Pack)).heads
    assert any(float(p.grad.abs().max()) > 0 for p in heads[1].parameters())
    assert all(float(p.grad.abs().max()) == 0 for p in heads[0].parameters())


def test_explaining_probabilities_is_each_probe_s_own():
    pack = pack_of(CNN).with_probabilities()
    found = maps_of(InputXGradient(), pack, batch_for(CNN, columns([0, 2]))).split(2)
    for p, model in enumerate(separate(CNN)):
        expected = maps_of(InputXGradient(), model.with_probabilities(), batch_for(CNN, [0, 2]))
        torch.testing.assert_close(found[p], expected, rtol=1e-9, atol=1e-13)


def test_a_pack_needs_probes_and_an_output_for_each():
    with pytest.raises(ValueError, match="a pack of 0 probes with 0 outputs"):
        pack_model(fresh(CNN), [], 3, [])
    with pytest.raises(ValueError, match=r"a pack of 3 probes with 1 outputs: expected one output"):
        pack_model(fresh(CNN), heads_of(CNN), 3, ["softmax"])
    with pytest.raises(ValueError, match="cannot be probed"):
        pack_model(probed(fresh(CNN), heads_of(CNN)[0]), heads_of(CNN), 3, OUTPUTS)
