"""A user's own network by name: what is accepted, what is found, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests.trainables.networks import hooks_of
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.models.network import DEPTHS, Network, evaluating
from trainables.models.user_network import UserNetwork
from trainables.passes import Passes

THEIRS = """
import torch
from torch import nn

from trainables.models.network import Model

class Net(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.unused = nn.Conv2d(3, 3, 1)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, classes)

    def forward(self, x):
        return self.fc(self.pool(self.body(x)).flatten(1))

def build(classes):
    return Net(classes)

def without():
    return Net()

def keyword_only(*, width=4):
    return Net()

def with_depths(classes):
    net = Net(classes)
    net.depths = {"mid2": "body.0"}
    return net

def other_meaning(classes):
    net = Net(classes)
    net.depths = [2, 2, 6, 2]  # blocks, in many a network
    return net

def wrong_depth(classes):
    net = Net(classes)
    net.depths = {"mid9": "body.0"}
    return net

def wrong_path(classes):
    net = Net(classes)
    net.depths = {"mid1": "trunk"}
    return net

def whole_model(classes):
    return Model(Net(classes), {"input": "", "final": "body"}, lambda images: images.double())

def needs_32(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, classes))

def no_module(classes):
    return [1, 2]

def maps(classes):
    return nn.Conv2d(3, classes, 1)

def pairs(classes):
    class Pairs(nn.Module):
        def forward(self, x):
            return x, x
    return Pairs()

def deaf(classes):
    return Net(9)

def greedy(classes, width):
    return Net(classes)

number = 3
"""


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's on the path."""
    (tmp_path / "their_networks.py").write_text(THEIRS)
    (tmp_path / "their_broken.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("their_networks", "their_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def user(function: str, **values: object) -> UserNetwork:
    return UserNetwork(build_path=f"their_networks:{function}", **values)


def refused(network: UserNetwork, pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern) as caught:
        network.build(5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", ["build", "without", "keyword_only", "Net", "other_meaning"])
def test_a_module_comes_with_input_and_final_and_every_path_is_a_layer(function):
    model = user(function).build(5)
    assert dict(model.depths) == {"input": "", "final": "body"}
    assert model.path_of("body.3") == "body.3"
    assert not any(getattr(part, "inplace", False) for part in model.module.modules())
    assert hooks_of(model.module) == 0
    assert model.module.training
    assert all(p.requires_grad for p in model.module.parameters())
    assert int(model.module.body[4].num_batches_tracked) == 0
    assert model.module(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_it_is_explained_like_any_other():
    network = user("build")
    GradCam().check(network)
    GradCam(layer="body.3").check(network)
    with pytest.raises(ValueError, match="unknown layer 'mid1'; known depths: input, final; any"):
        GradCam(layer="mid1").check(network)
    model = network.build(5)
    batch = Batch.single(torch.randn(2, 3, 16, 16), torch.tensor([0, 4]))
    with evaluating(model.module), Passes(model, batch) as passes:
        assert GradCam()(passes).shape == (2, 4, 4)
    with evaluating(model.module), Passes(model, batch) as passes:
        assert InputXGradient(layer="body.0")(passes).shape == (2, 8, 8)


def test_depths_that_the_module_names_are_taken_and_final_is_found_beside():
    model = user("with_depths").build(5)
    assert list(model.depths.items()) == [("input", ""), ("mid2", "body.0"), ("final", "body")]


def test_a_model_is_taken_as_it_is():
    model = user("whole_model").build(5)
    assert model.encode(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).dtype == torch.float64
    assert not any(getattr(part, "inplace", False) for part in model.module.modules())
    assert user("whole_model").module(5).fc.out_features == 5


def test_a_network_without_maps_has_the_input_alone():
    assert dict(user("needs_32", check_px=32).build(5).depths) == {"input": ""}


def test_the_random_state_is_left_alone_by_the_search():
    module = user("build")
    state = torch.get_rng_state()
    expected = module.module(5)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    built = module.build(5)
    assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(built.module.fc.weight, expected.fc.weight)


def test_encodings():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert user("build", encoding="unit").encode(pixels)[0, 0, 0].tolist() == [0, 1]
    assert user("build", encoding="half").encode(pixels)[0, 0, 0].tolist() == [-1, 1]
    assert user("build").encode(pixels)[0, 0, 0, 0].item() == pytest.approx(-0.485 / 0.229)


def test_the_default_shows_a_function_with_all_depths():
    model = UserNetwork().build(4)
    assert tuple(model.depths) == DEPTHS
    assert Network.named("user") == UserNetwork()


@pytest.mark.parametrize("path", ["", "build", "a.b", "a:b:c", ":build", "a.b:", "a b:c", "a/b:c"])
def test_what_is_no_path_is_refused_before_anything_is_imported(path):
    with pytest.raises(ValueError, match=r"expected package\.module:build"):
        UserNetwork(build_path=path)


def test_where_it_cannot_be_found():
    refused(
        UserNetwork(build_path="nowhere_at_all.networks:build"),
        r"nowhere_at_all\.networks:build: cannot import .*No module named 'nowhere_at_all'.*PYTHON",
    )
    refused(UserNetwork(build_path="their_broken:build"), "No module named 'not_installed_any")
    refused(user("bild"), r"their_networks:bild: bild does not exist; their_networks has .*build")
    refused(user("number"), "number is no function")


def test_what_does_not_fit():
    refused(user("greedy"), r"expected build\(classes\) or build\(\)")
    refused(user("no_module"), r"returned a list; expected an nn\.Module or a .*Model")
    refused(user("maps"), r"gave \(1, 5, 64, 64\) for one image; expected logits \(1, 5\)")
    refused(user("pairs"), r"gave a tuple; expected logits")
    refused(user("deaf"), r"gave \(1, 9\) for one image; expected logits \(1, 5\)")
    refused(user("needs_32"), r"does not take encoded images \(1, 3, 64, 64\) .*set check_px")
    refused(user("wrong_depth"), r"depths 'mid9': 'body\.0' is no depth .*mid1, mid2, mid3, final")
    refused(user("wrong_path"), r"depths 'mid1': 'trunk' is no depth of this network")


def test_nothing_is_left_behind_after_an_error(monkeypatch):
    network = user("needs_32")
    made = network.module(5)
    monkeypatch.setattr(sys.modules["their_networks"], "needs_32", lambda classes: made)
    with pytest.raises(ValueError, match="set check_px"):
        network.build(5)
    assert hooks_of(made) == 0
    assert made.training
    assert all(p.requires_grad for p in made.parameters())
