"""What every attribution promises.

Parametrized over everything registered: a new class is tested before its author writes a test.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import trainables.attribution  # noqa: F401  registers
from tests.device_literals import device_literals
from tests.trainables.networks import (
    CLASSES,
    hooks_of,
    pictures,
    tiny_bcos_model,
    tiny_model,
    tiny_vit,
    tiny_windows,
)
from trainables.attribution.after_softmax import AfterSoftmax
from trainables.attribution.attribution import Attribution, without_weights
from trainables.attribution.cam import GradCam
from trainables.attribution.from_files import FromFiles
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.integrated_gradients import SmoothGradIntegratedGradients
from trainables.attribution.lime import Lime
from trainables.attribution.occlusion import Occlusion
from trainables.attribution.rise import Rise
from trainables.attribution.segmentation import Grid
from trainables.attribution.sets import choose
from trainables.batch import Batch
from trainables.models.bagnet import SmallBagNet
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.network import DEPTHS, Model, Network, evaluating
from trainables.models.small_resnet import SmallResNet
from trainables.models.timm_vit import SmallViT
from trainables.passes import Passes

GOLDEN = Path(__file__).parents[2] / "golden"
INDEX, TARGETS = [1, 0, 1, 2, 1], [0, 1, 2, 3, 3]
"""Five explanations of four images; the last image has none."""


class Kind(NamedTuple):
    """A kind of model on which methods are tested.

    Attributes:
        tiny: makes one in float64 for images of 12 px; takes ``training``.
        network: a registered network of the kind.
        layer: a module of that network whose output is maps.
    """

    tiny: Callable[..., Model]
    network: Network
    layer: str

    def suits(self, method: Attribution) -> bool:
        """Whether the method accepts the kind and finds its layers there."""
        model = evaluated(self)
        try:
            method.suit(model)
            for need in method.needs(model):
                model.path_of(need.layer)
        except ValueError:
            return False
        return True


@cache
def evaluated(kind: Kind) -> Model:
    """One for all: an explanation changes nothing."""
    return kind.tiny()


KINDS = {
    "cnn": Kind(tiny_model, SmallResNet(width=2), "layer3.0.conv1"),
    "bcos": Kind(tiny_bcos_model, SmallBcosResNet(width=2), "layer3.0.conv1"),
    "bagnet": Kind(tiny_windows, SmallBagNet(width=2), "layer3.0.conv1"),
    "vit": Kind(tiny_vit, SmallViT(), "blocks.2.attn"),
}
EXAMPLES: dict[str, Callable[[], Attribution]] = {
    "after_softmax": lambda: AfterSoftmax(of=InputXGradient()),
    "from_files": lambda: FromFiles(path=str(GOLDEN / "maps.safetensors")),
    "lime": lambda: Lime(samples=60, segmentation=Grid(cells=4)),
    "occlusion": lambda: Occlusion(window_px=4, stride_px=3),
    "rise": lambda: Rise(masks=80),
    "smooth_grad_integrated_gradients": lambda: SmoothGradIntegratedGradients(samples=2, steps=5),
}
"""Methods whose defaults do not suit images of 12 px, or a quick test."""


def at_every_depth(cls: type[Attribution]) -> Iterator[Attribution]:
    """The method as it is by default, and at each depth if it has a layer."""
    yield EXAMPLES.get(cls.name, cls)()
    if "layer" in {f.name for f in fields(cls)}:
        yield from (cls(layer=depth) for depth in DEPTHS if depth != cls().layer)


METHODS = [m for _, cls in sorted(Attribution.registered.items()) for m in at_every_depth(cls)]


def cases() -> Iterator[Any]:
    """Every method on every kind that suits it; at every depth on the first of these only."""
    at_depths = set[str]()
    for name, kind in KINDS.items():
        suited = [method for method in METHODS if kind.suits(method)]
        for method in suited:
            if method.name not in at_depths or method is first_of(method.name):
                yield pytest.param(method, kind, id=f"{method.key}-{name}")
        at_depths.update(method.name for method in suited)


def first_of(name: str) -> Attribution:
    """The method as it is by default."""
    return next(method for method in METHODS if method.name == name)


def batch_of(images: Tensor, index: list[int], targets: list[int]) -> Batch:
    ids = [f"image {i}" for i in range(len(images))]
    return Batch(
        images=images,
        image_ids=ids,
        image_index=torch.tensor(index),
        targets=torch.tensor(targets),
    )


def maps_of(method: Attribution, kind: Kind, batch: Batch, model: Model | None = None) -> Tensor:
    """Maps of the tiny network in eval mode, as an evaluation asks for them."""
    model = model or evaluated(kind)
    with evaluating(model.module), Passes(model, batch) as passes:
        return method(passes)


def maps_are_finite_and_one_an_explanation(method: Attribution, kind: Kind) -> None:
    maps = maps_of(method, kind, batch_of(pictures(4), INDEX, TARGETS))
    assert maps.shape[0] == len(INDEX)
    assert maps.ndim == 3
    assert maps.dtype == torch.float64
    assert not maps.requires_grad
    assert torch.isfinite(maps).all()
    assert maps.abs().sum() > 0


def maps_of_a_batch_equal_those_of_single_images(method: Attribution, kind: Kind) -> None:
    images = pictures(4)
    together = maps_of(method, kind, batch_of(images, INDEX, TARGETS))
    for n, (image, target) in enumerate(zip(INDEX, TARGETS, strict=True)):
        batch = Batch(
            images=images[[image]],
            image_ids=[f"image {image}"],
            image_index=torch.tensor([0]),
            targets=torch.tensor([target]),
        )
        torch.testing.assert_close(
            maps_of(method, kind, batch), together[[n]], rtol=1e-9, atol=1e-13
        )


def several_targets_of_an_image_equal_one_at_a_time(method: Attribution, kind: Kind) -> None:
    images = pictures(1)
    together = maps_of(method, kind, batch_of(images, [0] * CLASSES, list(range(CLASSES))))
    for target in range(CLASSES):
        alone = maps_of(method, kind, batch_of(images, [0], [target]))
        torch.testing.assert_close(alone, together[[target]], rtol=1e-9, atol=1e-13)


def an_explanation_changes_nothing(method: Attribution, kind: Kind) -> None:
    model, images = kind.tiny(), pictures(4)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    pixels = images.clone()
    random = torch.get_rng_state()
    with Passes(model, batch_of(images, INDEX, TARGETS)) as passes:
        method(passes)
    assert hooks_of(model.module) == 0
    assert not any(part.training for part in model.module.modules())
    assert all(p.grad is None and p.requires_grad for p in model.module.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())
    assert torch.equal(images, pixels)
    assert not images.requires_grad
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()


def full_size_maps_have_the_size_of_the_images(method: Attribution, kind: Kind) -> None:
    model = evaluated(kind)
    with evaluating(model.module), Passes(model, batch_of(pictures(4), INDEX, TARGETS)) as passes:
        maps = method(passes)
        full = method.at_image_size(maps, passes)
    assert full.shape == (len(INDEX), 12, 12)
    assert full.dtype == maps.dtype
    # interpolation stays within the range of the map
    assert full.min() >= maps.min() - 1e-12
    assert full.max() <= maps.max() + 1e-12


def a_second_call_gives_the_same_bits(method: Attribution, kind: Kind) -> None:
    batch = batch_of(pictures(4), INDEX, TARGETS)
    first, second = (maps_of(method, kind, batch, kind.tiny()) for _ in range(2))
    assert torch.equal(first, second)


def training_goes_through_the_maps_or_is_refused(method: Attribution, kind: Kind) -> None:
    model = kind.tiny(training=True)
    batch = batch_of(pictures(3), [0, 1, 2], [3, 1, 0])
    with Passes(model, batch, create_graph=True) as passes:
        if not method.differentiable:
            with pytest.raises(ValueError, match="not marked differentiable"):
                method(passes)
            return
        method(passes).square().sum().backward()
    gradient = next(model.module.get_submodule(model.depths["mid1"]).parameters()).grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def an_unknown_layer_is_refused_before_anything_runs(method: Attribution, kind: Kind) -> None:
    method.check(kind.network)
    if getattr(method, "layer", None) == getattr(type(method), "layer", ""):  # once a class
        type(method)(layer=kind.layer).check(kind.network)
        with pytest.raises(ValueError, match=r"unknown layer 'conv9'; known depths: input, mid1"):
            type(method)(layer="conv9").check(kind.network)


def a_single_pass_is_one_forward(method: Attribution, kind: Kind) -> None:
    model = evaluated(kind)
    with (
        evaluating(model.module),
        Passes(model, batch_of(pictures(3), [0, 1, 2], [3, 1, 0])) as passes,
    ):
        method(passes)
        if method.single_pass:
            assert passes.counts.forwards == 3


def the_method_says_what_it_is(method: Attribution, kind: Kind) -> None:
    assert type(method).__doc__
    assert "Source:" in type(method).__doc__
    assert device_literals(type(method)) == []


CONTRACT: list[Callable[[Attribution, Kind], None]] = [
    maps_are_finite_and_one_an_explanation,
    maps_of_a_batch_equal_those_of_single_images,
    several_targets_of_an_image_equal_one_at_a_time,
    an_explanation_changes_nothing,
    full_size_maps_have_the_size_of_the_images,
    a_second_call_gives_the_same_bits,
    training_goes_through_the_maps_or_is_refused,
    an_unknown_layer_is_refused_before_anything_runs,
    a_single_pass_is_one_forward,
    the_method_says_what_it_is,
]


@pytest.mark.parametrize(("method", "kind"), list(cases()))
@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
def test_contract(promise, method, kind):
    promise(method, kind)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.key)
def test_every_method_suits_some_kind(method):
    assert any(kind.suits(method) for kind in KINDS.values())


class TestBaseClass:
    """What no method need check by itself."""

    def broken(self, monkeypatch: pytest.MonkeyPatch, maps: Tensor) -> Attribution:
        method = GradCam()
        monkeypatch.setattr(type(method), "attribute", lambda self, passes: maps)
        return method

    def test_maps_of_a_wrong_shape_are_refused(self, monkeypatch):
        method = self.broken(monkeypatch, torch.zeros(5, 3, 4, 4))
        message = r"\(5, 3, 4, 4\) for 5 explanations of TinyNet, first image 'image 0'; expected"
        with pytest.raises(ValueError, match=message):
            maps_of(method, KINDS["cnn"], batch_of(pictures(4), INDEX, TARGETS))

    def test_too_few_maps_are_refused(self, monkeypatch):
        method = self.broken(monkeypatch, torch.zeros(4, 6, 6))
        with pytest.raises(ValueError, match=r"\(4, 6, 6\) for 5 explanations"):
            maps_of(method, KINDS["cnn"], batch_of(pictures(4), INDEX, TARGETS))

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_a_map_that_is_not_finite_is_refused_and_its_image_named(self, monkeypatch, value):
        maps = torch.zeros(5, 6, 6)
        maps[3, 1, 2] = value  # of image 2
        method = self.broken(monkeypatch, maps)
        with pytest.raises(
            ValueError, match=r"map of TinyNet that is not finite for image 'image 2'"
        ):
            maps_of(method, KINDS["cnn"], batch_of(pictures(4), INDEX, TARGETS))

    def test_an_unknown_method_is_refused_and_the_known_are_listed(self):
        with pytest.raises(ValueError, match=r"unknown attribution 'cam'; known: .*grad_cam"):
            Attribution.named("cam")

    def test_methods_are_checked_on_one_build_of_a_network_which_stays_as_it_is(self, monkeypatch):
        built, build = [], SmallResNet.build
        monkeypatch.setattr(
            SmallResNet, "build", lambda self, k: (built.append(self), build(self, k))[1]
        )
        network = SmallResNet(width=3)
        for method in (InputXGradient(), GradCam(), GradCam(layer="layer3.0.conv1")):
            method.check(network)
        with pytest.raises(ValueError, match=r"'fc' gives no maps \(its output is \(2, 2\)\)"):
            InputXGradient(layer="fc").check(network)
        assert built == [network]
        assert hooks_of(without_weights(network).module) == 0


ONE_FILE = '''"""A method that is a whole plug-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainables.attribution.attribution import Attribution
from trainables.models.network import Model
from trainables.passes import Gradient, Need, Passes


@dataclass(frozen=True, kw_only=True)
class GradientNorm(Attribution):
    """Length of the gradient over channels.

    Source: Simonyan et al., 2014, with the Euclidean norm.
    """

    name: ClassVar[str] = "gradient_norm"

    layer: str = "input"

    def needs(self, model: Model) -> tuple[Need, ...]:
        return (Gradient(layer=self.layer),)

    def attribute(self, passes: Passes) -> Tensor:
        return passes.get(Gradient(layer=self.layer)).norm(dim=1)
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Attribution]:
    """A user's file, imported as ``--plugins`` does."""
    monkeypatch.setattr(Attribution, "registered", dict(Attribution.registered))
    path = tmp_path / "my_attribution.py"
    path.write_text(ONE_FILE)
    spec = importlib.util.spec_from_file_location("my_attribution", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_attribution", module)
    spec.loader.exec_module(module)
    return Attribution.class_named("gradient_norm")


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
def test_a_method_in_one_new_file_keeps_the_contract(promise, plugin):
    for method in at_every_depth(plugin):
        promise(method, KINDS["cnn"])


def test_a_method_in_one_new_file_is_listed_and_among_all_at_once(plugin):
    with pytest.raises(ValueError, match=r"known: .*gradient_norm"):
        Attribution.named("no such method")
    assert plugin() in choose(["all"], SmallResNet(width=2)).methods


def test_a_method_in_one_new_file_is_usable_by_name_at_once(plugin):
    method = Attribution.named("gradient_norm", layer="mid2")
    assert type(method) is plugin
    assert method.key == "gradient_norm_mid2"
    images = pictures(2)
    maps = maps_of(method, KINDS["cnn"], batch_of(images, [0, 1], [1, 2]))
    assert (maps >= 0).all()
    assert maps.shape == (2, 6, 6)
