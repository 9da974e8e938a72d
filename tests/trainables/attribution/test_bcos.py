"""Contributions in B-cos networks against arrays of the authors' code, identities and differences.

The networks are those of tests/golden/*/README.md.
"""

from __future__ import annotations

import math
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trainables.losses  # noqa: F401  registers
from data_pipelines.boxes import box_mask
from tests.trainables.networks import pictures, randomized, tiny_bcos_model, tiny_model
from trainables.attribution.attribution import Attribution
from trainables.attribution.bcos import Bcos, rgba
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.guided_training import guided_step
from trainables.losses.loss import Loss
from trainables.models import bcos_layers, bcos_norms
from trainables.models.bcos_layers import BcosConv2d, Dynamic, LogitLayer, explanation_mode
from trainables.models.bcos_norms import BatchNormUncentered2d, PositionNorm2d
from trainables.models.bcos_resnet import Residual, ResNet
from trainables.models.bcos_vit import SmallBcosViTc, positions
from trainables.models.network import DEPTHS, Model, evaluating
from trainables.models.small_resnet import SmallResNet
from trainables.passes import Gradient, Passes

GOLDEN = Path(__file__).parents[2] / "golden"
PROBING = {"rtol": 1e-4, "atol": 1e-5}
LOSSES = {"Energy": "energy", "L1": "l1", "PPCE": "ppce", "RRR": "rrr_star"}
LAYERS = {"Input": "input", "Mid1": "mid1", "Final": "final"}
STAGES = {"input": "", "mid1": "layer1", "mid2": "layer2", "final": "layer3"}


@cache
def golden(name: str) -> dict[str, Tensor]:
    """Arrays of a file; floating ones in float64."""
    arrays = np.load(GOLDEN / f"{name}.npz", allow_pickle=False)
    tensors = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}
    return {k: t.double() if t.is_floating_point() else t for k, t in tensors.items()}


def with_inverse(color: Tensor) -> Tensor:
    return torch.cat([color, 1 - color], 1)


def loaded(module: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """The module in float64; nothing but unused buffers may be missing."""
    missing, unexpected = module.double().load_state_dict(weights, strict=False)
    assert unexpected == []
    assert all(key.endswith(("num_batches_tracked", "running_mean")) for key in missing)
    return module


def model_of(module: nn.Module, depths: dict[str, str], *, training: bool = False) -> Model:
    explaining = partial(explanation_mode, module)
    return Model(module.train(training), depths, with_inverse, explaining)


class TinyNet(nn.Module):
    """Two B-cos convolutions with norms, average pooling between them; classifier, mean."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.n1 = BcosConv2d(6, 8, 3, padding=1), BatchNormUncentered2d(8)
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.c2 = BcosConv2d(8, 12, 3, stride=2, padding=1, max_out=2)
        self.n2, self.fc = BatchNormUncentered2d(12), BcosConv2d(12, 5)
        self.logits = LogitLayer(temperature=0.1, bias=-math.log(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.n2(self.c2(self.pool(self.n1(self.c1(x)))))
        return self.logits(self.fc(x).mean((2, 3)))


def tiny_net() -> Model:
    arrays = golden("probing/bcos_tiny_net")
    weights = {k.removeprefix("sd/"): v for k, v in arrays.items() if k.startswith("sd/")}
    return model_of(loaded(TinyNet(), weights), {"input": "", "mid1": "n1", "final": "n2"})


def tiny_resnet() -> Model:
    """Three stages whose norm is that of each pixel, the default of the package."""
    arrays = golden("probing/bcos_tiny_resnet")
    weights = {k.removeprefix("sd/"): v for k, v in arrays.items() if k.startswith("sd/")}
    module = ResNet(
        Residual, (1, 1, 1), (4, 8, 16), 5, LogitLayer(temperature=0.1, bias=-math.log(4)),
        strides=(1, 2, 2), norm=PositionNorm2d,
    )  # fmt: skip
    return model_of(loaded(module, weights), STAGES)


class PoolsFirst(ResNet):
    """What the reference runs behind a layer: pooling before the first norm, not after it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.pool(self.conv1(x)))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.logit_layer(self.avgpool(self.fc(x)).flatten(1))


def guided_resnet(*, training: bool = False, kind: type[ResNet] = ResNet) -> Model:
    arrays = golden("guidance/attr_tiny_bcos")
    weights = {k.removeprefix("w/0."): v for k, v in arrays.items() if k.startswith("w/")}
    module = kind(
        Residual, (1, 1, 1), (4, 8, 16), 4, LogitLayer(bias=float(arrays["logit_bias"])),
        strides=(1, 2, 2),
    )  # fmt: skip
    return model_of(loaded(module, weights), STAGES, training=training)


def small_vit(*, training: bool = False) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallBcosViTc().build(4)
    randomized(model.module, 1)
    model.module.train(training)
    return model


def every_target(images: Tensor, classes: int) -> Batch:
    """All classes of all images, image by image."""
    n = len(images)
    return Batch(
        images=images,
        image_ids=[f"image {i}" for i in range(n)],
        image_index=torch.arange(n).repeat_interleave(classes),
        targets=torch.arange(classes).repeat(n),
    )


each_tiny = pytest.mark.parametrize(
    ("name", "make"),
    [("bcos_tiny_net", tiny_net), ("bcos_tiny_resnet", tiny_resnet)],
    ids=["net", "resnet"],
)


class TestMapsEqualThoseOfTheAuthors:
    @each_tiny
    def test_contributions_plain_gradients_and_colors(self, name, make):
        arrays, model = golden(f"probing/{name}"), make()
        images = with_inverse(arrays["image"])
        batch = every_target(images, 5)
        with evaluating(model.module), Passes(model, batch) as passes:
            passes.expect([*Bcos().needs(model), *InputXGradient().needs(model)])
            maps, plain = Bcos()(passes), InputXGradient()(passes)
            weights = passes.get(Gradient(layer="input", mode="explanation"))
            logits = passes.logits
            ordinary = passes.get(Gradient(layer="input"))[::5]
        torch.testing.assert_close(logits, arrays["logits"], **PROBING)
        rest = maps.sum((1, 2)).view_as(logits) + arrays["logit_bias"] - logits
        theirs = arrays["contrib_sum_plus_bias_minus_logit"]
        torch.testing.assert_close(rest, theirs, atol=1e-5, rtol=0)
        shape = arrays["dyn_weights"].shape
        torch.testing.assert_close(weights.view(shape), arrays["dyn_weights"], **PROBING)
        torch.testing.assert_close(maps.view_as(arrays["contrib"]), arrays["contrib"], **PROBING)
        torch.testing.assert_close(
            plain.view_as(arrays["contrib"]), arrays["ixg_no_expl_mode"], **PROBING
        )
        torch.testing.assert_close(ordinary, arrays["grad_no_expl_mode_class0"], **PROBING)
        colors = rgba(images[:1], weights[1:2], smooth_px=5)
        torch.testing.assert_close(colors[0], arrays["rgba_class1_img0"], **PROBING)

    def test_of_idsds(self):
        arrays = golden("idsds/bcos")
        weights = {
            (k.removesuffix("weight") + "linear.weight" if v.ndim == 4 else k)[2:]: v
            for k, v in arrays.items()
            if k.startswith("w.")
        }
        module = ResNet(
            Residual, (1, 1, 1), (8, 16, 32), 10, LogitLayer(bias=float(arrays["logit_bias"])),
            strides=(1, 2, 2), stem=(3, 1), pool=False,
        )  # fmt: skip
        model = model_of(loaded(module, weights), STAGES)
        batch = Batch.single(with_inverse(arrays["images"]), arrays["targets"])
        with evaluating(model.module), Passes(model, batch) as passes:
            maps, logits = Bcos()(passes), passes.logits
        torch.testing.assert_close(logits, arrays["logits"], rtol=0, atol=1e-5)
        theirs = arrays["map.Bcos"].squeeze(1)
        torch.testing.assert_close(maps, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
        explained = maps.sum((1, 2)) + arrays["logit_bias"]
        torch.testing.assert_close(explained, logits.gather(1, arrays["targets"][:, None])[:, 0])


def guided_batch() -> Batch:
    arrays = golden("guidance/attr_tiny_bcos")
    size = int(arrays["out_hw"][0])
    masks = [
        box_mask(boxes[:n].numpy(), size)
        for boxes, n in zip(arrays["boxes"], arrays["n_boxes"], strict=True)
    ]
    images = with_inverse(arrays["rgb"])
    return Batch.single(images, arrays["classes"], torch.from_numpy(np.stack(masks)))


def guided_gradient(
    model: Model, loss_name: str, layer: str = "input"
) -> tuple[Tensor, Tensor, Tensor]:
    """Raw maps, values of the images, and gradient of the values' sum by the first weights."""
    attribution, loss, batch = Bcos(layer=layer), Loss.named(LOSSES[loss_name]), guided_batch()
    with Passes(model, batch, create_graph=True) as passes:
        maps = attribution(passes)
        values = loss(attribution.at_image_size(loss.prepare(maps), passes), batch.masks)
        values.sum().backward()
    return maps.detach(), values.detach(), model.module.conv1.linear.weight.grad


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_guided_maps_equal_those_of_the_authors(mode, layer, loss):
    arrays, where = golden("guidance/attr_tiny_bcos"), f"{mode}/{layer}"
    # in eval mode the order is no matter: the norm is linear there
    kind = PoolsFirst if mode == "train" and layer != "Input" else ResNet
    model = guided_resnet(training=mode == "train", kind=kind)
    with torch.no_grad():
        logits = guided_resnet(training=mode == "train", kind=kind).module(guided_batch().images)
    maps, values, gradient = guided_gradient(model, loss, LAYERS[layer])
    exact, single = {"rtol": 1e-6, "atol": 1e-9}, {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(logits, arrays[f"{where}/logits"], **exact)
    torch.testing.assert_close(maps, arrays[f"{where}/BCos/attr"], **exact)
    torch.testing.assert_close(values, arrays[f"{where}/BCos/{loss}/values"], **exact)
    torch.testing.assert_close(gradient, arrays[f"{where}/BCos/{loss}/grad_first"], **single)


def test_the_order_of_the_authors_behind_a_layer_is_another_function_in_training():
    arrays = golden("guidance/attr_tiny_bcos")
    logits = guided_resnet(training=True).module(guided_batch().images)
    assert (logits - arrays["train/Final/logits"]).abs().max() > 0.1
    torch.testing.assert_close(arrays["train/Final/logits"], arrays["train/Mid1/logits"])


def test_the_gradient_by_every_parameter_and_the_weights_equal_those_of_the_authors():
    arrays, model, batch = golden("guidance/attr_tiny_bcos"), guided_resnet(), guided_batch()
    guided_gradient(model, "Energy")
    single = {"rtol": 1e-5, "atol": 1e-6}
    for name, parameter in model.module.named_parameters():
        expected = arrays[f"eval/Input/BCos/Energy/grad_all/0.{name}"]
        torch.testing.assert_close(parameter.grad, expected, **single)
    with evaluating(model.module), Passes(model, batch) as passes:
        passes.expect([*Bcos().needs(model), *InputXGradient().needs(model)])
        weights = passes.get(Gradient(layer="input", mode="explanation"))
        plain = InputXGradient()(passes)
    torch.testing.assert_close(weights, arrays["eval/Input/dynamic_weights"], **single)
    torch.testing.assert_close(plain, arrays["eval/Input/ordinary_IxG_not_BCos"], **single)


def cosine(a: Tensor, b: Tensor) -> float:
    return nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


@pytest.fixture
def detached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamic weights as constants of the forward: the maps are the same, their gradients not."""

    def product(weight: Tensor, x: Tensor, _layer: Dynamic) -> Tensor:
        return weight.detach() * x

    monkeypatch.setattr(bcos_layers, "mul", product)
    monkeypatch.setattr(bcos_norms, "mul", product)


class TestTheOuterGradientIsTheTrueOne:
    """Wrong second derivatives leave the maps as they are, so gradients are what is tested."""

    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize("make", [tiny_bcos_model, guided_resnet, small_vit])
    def test_it_is_the_finite_difference_of_what_is_minimized(self, make, training):
        model = make(training=training)
        images = pictures(3) if make is tiny_bcos_model else guided_images(3, 16)
        batch = Batch.single(images, torch.tensor([2, 0, 1]))
        parameters = list(model.module.parameters())

        def share_of_the_top() -> Tensor:
            with Passes(model, batch, create_graph=True) as passes:
                maps = Bcos()(passes).relu()
            return maps[:, : images.shape[2] // 2].sum() / maps.sum()

        gradients = torch.autograd.grad(share_of_the_top(), parameters, materialize_grads=True)
        generator = torch.Generator().manual_seed(0)
        directions = [
            torch.randn(p.shape, generator=generator, dtype=p.dtype) * p.abs().mean()
            for p in parameters
        ]
        slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        step, values = 1e-5, []
        for sign in (1, -2):  # forward, then from there back to the other side
            with torch.no_grad():
                for p, d in zip(parameters, directions, strict=True):
                    p += sign * step * d
            values.append(share_of_the_top().detach())
        difference = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-9)
        assert slope.abs() > 1e-4

    @each_tiny
    def test_the_package_takes_the_dynamic_weights_as_constants_there_too(
        self, name, make, request
    ):
        arrays = golden(f"probing/{name}")

        def share_of_the_top() -> tuple[Tensor, Tensor]:
            model = make()
            images = with_inverse(arrays["image"])
            batch = Batch.single(images, torch.tensor([2, 2]))
            with Passes(model, batch, create_graph=True) as passes:
                maps = Bcos()(passes).relu()
            share = maps[:, : images.shape[2] // 2].sum() / maps.sum()
            share.backward()
            return share.detach(), next(model.module.parameters()).grad

        share, gradient = share_of_the_top()
        request.getfixturevalue("detached")
        constant_share, constant = share_of_the_top()
        theirs = arrays["epgloss_grad_first_conv"]
        torch.testing.assert_close(share, arrays["epgloss_class2_tophalf"], **PROBING)
        torch.testing.assert_close(constant_share, share)
        torch.testing.assert_close(constant, theirs, rtol=1e-4, atol=1e-4)
        assert cosine(gradient, theirs) < 0.9

    def test_detached_weights_and_a_mode_left_on_give_other_gradients(self, request):
        arrays = golden("guidance/attr_tiny_bcos")
        right = arrays["eval/Input/BCos/Energy/grad_first"]
        left_on = guided_resnet()
        with explanation_mode(left_on.module):
            maps, _, gradient = guided_gradient(left_on, "Energy")
        torch.testing.assert_close(maps, arrays["eval/Input/BCos/attr"], rtol=1e-6, atol=1e-9)
        assert cosine(gradient, right) == pytest.approx(0.75, abs=0.01)
        request.getfixturevalue("detached")
        maps, _, gradient = guided_gradient(guided_resnet(), "Energy")
        torch.testing.assert_close(maps, arrays["eval/Input/BCos/attr"], rtol=1e-6, atol=1e-9)
        assert cosine(gradient, right) == pytest.approx(0.58, abs=0.01)


def guided_images(n: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return with_inverse(torch.rand(n, 3, size, size, generator=generator, dtype=torch.float64))


class TestCompleteness:
    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize("layer", DEPTHS)
    def test_the_map_adds_up_to_the_logit_without_its_bias(self, layer, training):
        model, targets = tiny_bcos_model(training=training), torch.tensor([3, 0, 2])
        with Passes(model, Batch.single(pictures(3), targets)) as passes:
            maps, logits = Bcos(layer=layer)(passes), passes.logits
        total = maps.sum((1, 2)) + model.module.logit_layer.bias
        torch.testing.assert_close(
            total, logits.gather(1, targets[:, None])[:, 0], rtol=1e-10, atol=1e-12
        )

    def test_the_plain_gradient_is_another_map(self):
        model, batch = tiny_bcos_model(), Batch.single(pictures(2), torch.tensor([3, 0]))
        with Passes(model, batch) as passes:
            passes.expect([*Bcos().needs(model), *InputXGradient().needs(model)])
            assert not torch.allclose(Bcos()(passes), InputXGradient()(passes), rtol=0.1)
            assert passes.counts.forwards == 2  # one forward serves both modes
            assert passes.counts.backwards["input"] == 4

    @pytest.mark.parametrize("layer", DEPTHS)
    def test_in_a_vision_transformer_it_does_except_for_the_position_code_at_the_input(self, layer):
        model, targets = small_vit(), torch.tensor([3, 0])
        method, embedding = Bcos(layer=layer), "0.to_patch_embedding"
        batch = Batch.single(guided_images(2, 32), targets)
        with evaluating(model.module), Passes(model, batch) as passes:
            passes.expect([*method.needs(model), Gradient(layer=embedding, mode="explanation")])
            total, logits = method(passes).sum((1, 2)) + model.module[1].bias, passes.logits
            weights = passes.get(Gradient(layer=embedding, mode="explanation"))  # (N, h, w, D)
        logits = logits.gather(1, targets[:, None])[:, 0]
        if layer == "input":
            assert not torch.allclose(total, logits, rtol=1e-3)
            total = total + (weights * positions(4, 4, 64)).sum((1, 2, 3))
        torch.testing.assert_close(total, logits, rtol=1e-6, atol=1e-6)  # the code is float32


class TestWhatSuits:
    def test_networks_without_dynamic_weights_are_refused_before_anything_runs(self):
        with pytest.raises(ValueError, match="bcos needs a network of B-cos layers"):
            Bcos().check(SmallResNet(width=2))
        with pytest.raises(ValueError, match="needs a network of B-cos layers"):
            Bcos().suit(tiny_model())
        Bcos(layer="0.transformer.encoder_1.ff").check(SmallBcosViTc())

    def test_the_mode_ends_after_an_explanation_and_after_a_failed_one(self, monkeypatch):
        model = tiny_bcos_model()
        layers = [part for part in model.module.modules() if isinstance(part, Dynamic)]
        batch = Batch.single(pictures(2), torch.tensor([3, 0]))
        with Passes(model, batch) as passes:
            Bcos()(passes)
        assert not any(layer.explained for layer in layers)
        seen = []

        def fails(*_arguments: object, **_options: object) -> None:
            seen.extend(layer.explained for layer in layers)
            raise RuntimeError("out of memory")

        monkeypatch.setattr(torch.autograd, "grad", fails)
        with pytest.raises(RuntimeError, match="out of memory"), Passes(model, batch) as passes:
            Bcos()(passes)
        assert seen == [1] * len(layers)
        assert not any(layer.explained for layer in layers)

    def test_a_step_of_guided_training_lowers_the_localization_loss(self):
        model, batch = guided_resnet(training=True), guided_batch()
        labels = nn.functional.one_hot(batch.targets, 4).double()
        everyone = torch.ones(2, dtype=torch.bool)
        optimizer = torch.optim.SGD(model.module.parameters(), lr=0.05)
        values = []
        for _ in range(12):
            optimizer.zero_grad()
            step = (model, batch, labels, everyone, Bcos(), Loss.named("energy"), 1.0)
            values.append(guided_step(*step)[1])
            optimizer.step()
        assert values[-1] < 0.9 * values[0]

    def test_is_usable_by_name(self):
        assert Attribution.named("bcos", layer="mid2").key == "bcos_mid2"
        assert Bcos.differentiable


class TestColors:
    def one(self, weights: list[float], image: list[float]) -> list[float]:
        w, x = (torch.tensor(v).view(1, 6, 1, 1).expand(1, 6, 3, 3) for v in (weights, image))
        colors = rgba(x, w, smooth_px=1)
        assert colors.shape == (1, 3, 3, 4)
        return [round(v, 4) for v in colors[0, 1, 1].tolist()]

    def test_weights_for_a_color_are_drawn_in_it(self):
        red, color = [1.0, -1, -1, -1, 1, 1], [1.0, 0, 0, 0, 1, 1]
        assert self.one(red, color) == [1, 0, 0, 1]
        assert self.one([2.0, 1, 0, 2, 3, 0], color) == [0.5, 0.25, 0, 1]

    def test_what_speaks_against_the_class_is_transparent_also_where_all_does(self):
        assert self.one([-1.0, -1, -1, -1, -1, -1], [1.0, 0, 0, 0, 1, 1])[3] == 0
        assert self.one([0.0] * 6, [1.0, 0, 0, 0, 1, 1]) == [0, 0, 0, 0]

    def test_each_image_has_its_own_scale(self):
        images, weights = guided_images(2, 9), torch.randn(2, 6, 9, 9).double()
        together = rgba(images, weights * torch.tensor([1.0, 50.0]).view(2, 1, 1, 1))
        torch.testing.assert_close(together[1:], rgba(images[1:], weights[1:]))

    def test_the_filter_has_a_middle(self):
        with pytest.raises(ValueError, match="smooth_px = 4: must be odd"):
            rgba(torch.ones(1, 6, 8, 8), torch.ones(1, 6, 8, 8), smooth_px=4)
