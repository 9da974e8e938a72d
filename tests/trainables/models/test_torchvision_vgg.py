"""VGGs: depths at the max-poolings, the one without biases, and the authors' arrays."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trainables.models  # noqa: F401  registers
from tests.trainables.networks import losses_of
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.models.network import DEPTHS, Model, Network, evaluating
from trainables.models.torchvision_vgg import (
    CompactVgg,
    SmallVgg,
    SmallVggBn,
    SmallXVgg,
    Vgg16,
    XVgg16,
)
from trainables.passes import Passes

GOLDEN = Path(__file__).parents[2] / "golden" / "idsds" / "tiny_vgg.npz"
BY_NAME = [f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn")] + ["xvgg16"]


def meta(network: Network) -> Model:
    with torch.device("meta"):
        return network.build(1000)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_depths_are_outputs_of_max_poolings(name):
    model = meta(Network.named(name))
    features = model.module.features
    pools = [f"features.{k}" for k, part in enumerate(features) if isinstance(part, nn.MaxPool2d)]
    assert list(model.depths) == list(DEPTHS)
    assert [*model.depths.values()] == ["", *pools[1:4], "features"]
    assert pools[4] == f"features.{len(features) - 1}"


def test_the_one_without_biases_has_the_published_keys():
    state = meta(XVgg16()).module.state_dict()
    plain = meta(Vgg16()).module.state_dict()
    assert set(state) == {key for key in plain if key.endswith("weight")}
    assert {key for key in state if key.startswith("classifier")} == {
        f"classifier.{k}.weight" for k in (0, 3, 6)
    }
    assert all(state[key].shape == plain[key].shape for key in state)


@cache
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        arrays = {n: torch.from_numpy(file[n]) for n in file.files if not n.startswith("sd.")}
    return {k: t.double() if t.is_floating_point() else t for k, t in arrays.items()}


def test_the_authors_arrays_on_a_compact_vgg():
    """Class activation maps there are at the last max-pooling's output, scaled to [0, 1]."""
    arrays = golden()
    names = {"fc1": "classifier.0", "fc2": "classifier.2"}
    weights = {}
    for key, tensor in arrays.items():
        if key.startswith("w."):
            layer, _, kind = key[2:].rpartition(".")
            weights[f"{names.get(layer, layer)}.{kind}"] = tensor
    net = CompactVgg([[12], [24], [32]], pooled=2, hidden=24, classes=10).double()
    net.load_state_dict(weights)
    model = Model(net.eval(), {"input": "", "final": "features"}, lambda images: images)
    with (
        evaluating(net),
        Passes(model, Batch.single(arrays["images"], arrays["targets"])) as passes,
    ):
        passes.expect(GradCam().needs(model))
        products, logits = InputXGradient()(passes), passes.logits
        cams = GradCam()(passes)
        assert cams.shape == (6, 8, 8)
        cams = cams - cams.amin((1, 2), keepdim=True)
        cams = cams / (cams.amax((1, 2), keepdim=True) + 1e-8)
        cams = GradCam().at_image_size(cams, passes)
    torch.testing.assert_close(logits, arrays["logits"], rtol=0, atol=1e-5)
    expected = arrays["map.IxG"][:, 0]
    torch.testing.assert_close(products, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
    torch.testing.assert_close(cams, arrays["map.Grad-CAM"][:, 0], rtol=0, atol=2e-5)


def test_a_vgg_without_biases_is_homogeneous():
    """On the small one: the same kinds of layers."""
    torch.manual_seed(0)
    model = SmallXVgg(width=2).build(3)
    model.module.double()
    x, targets = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([1, 2])
    with evaluating(model.module), Passes(model, Batch.single(x, targets)) as passes:
        maps, logits = InputXGradient()(passes), passes.logits
    torch.testing.assert_close(maps.sum((1, 2)), logits.gather(1, targets[:, None])[:, 0])


@pytest.mark.parametrize("network", [SmallVgg(), SmallVggBn(), SmallXVgg()], ids=lambda n: n.name)
def test_final_maps_of_the_small_vggs_are_8_by_8_at_64_px(network):
    module, seen = network.build(10).module, []
    module.features.register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    module(torch.zeros(2, 3, 64, 64))
    assert seen == [(2, 64, 8, 8)]
    assert 120_000 < sum(p.numel() for p in module.parameters()) < 135_000


def test_the_small_vggs_differ_by_norms_and_biases_as_the_published_ones():
    plain, norm, x = (meta(n()).module.state_dict() for n in (SmallVgg, SmallVggBn, SmallXVgg))
    assert {key for key in x if key.endswith("bias")} == set()
    assert [*x] == [key for key in plain if key.endswith("weight")]
    assert sum("running_var" in key for key in norm) == 4
    assert [t.shape for k, t in norm.items() if k.endswith("weight") and t.ndim > 1] == [
        t.shape for t in x.values()
    ]


@pytest.mark.parametrize("network", [SmallVgg(width=2), SmallVggBn(width=2)])
def test_the_depths_of_the_small_vggs_follow_a_pooling_or_the_relu_of_a_stage(network):
    model = meta(network)
    kinds = [type(model.module.get_submodule(path)) for path in [*model.depths.values()][1:4]]
    assert kinds == [nn.MaxPool2d, nn.MaxPool2d, nn.ReLU]


@pytest.mark.parametrize("network", [SmallVggBn(width=4), SmallXVgg(width=4)], ids=lambda n: n.name)
def test_the_small_ones_learn(network):
    losses = losses_of(network)
    assert losses[-1] < 0.5 * losses[0]
