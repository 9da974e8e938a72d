"""Class activation maps against identities, captum, the golden maps and plain versions."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional

from tests.trainables.attribution.idsds_golden import (
    CAM_TOLERANCE,
    NETWORKS,
    arrays,
    full_size,
)
from tests.trainables.networks import PATHS, gradient_of, pictures, tiny_model
from trainables.attribution.attribution import Attribution
from trainables.attribution.cam import Cam, GradCam, LayerCam, XGradCam
from trainables.attribution.cam_pp import GradCamPP, SmoothGradCamPP
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.score_cam import ScoreCam
from trainables.batch import Batch
from trainables.models.network import DEPTHS, Model, Tokens, evaluating
from trainables.models.small_resnet import SmallResNet
from trainables.passes import Passes

TARGETS = torch.tensor([2, 0, 3, 1])


def test_grad_cam_before_pooling_and_a_linear_head_is_the_positive_part_of_input_x_gradient():
    model = tiny_model()
    with evaluating(model.module), Passes(model, Batch.single(pictures(4), TARGETS)) as passes:
        cam = GradCam(layer="final")(passes)
        gradient = InputXGradient(layer="final")(passes)
        assert passes.counts.backwards == {"final": 4}  # one gradient serves both
    torch.testing.assert_close(cam, gradient.relu(), rtol=1e-12, atol=1e-16)
    assert (gradient < 0).any()


def test_grad_cam_elsewhere_is_not():
    model = tiny_model()
    with evaluating(model.module), Passes(model, Batch.single(pictures(4), TARGETS)) as passes:
        passes.expect([*GradCam().needs(model), *InputXGradient(layer="mid1").needs(model)])
        cam, gradient = GradCam(layer="mid1")(passes), InputXGradient(layer="mid1")(passes)
    assert not torch.allclose(cam, gradient.relu(), rtol=0.1)


@pytest.mark.parametrize("layer", [depth for depth in DEPTHS if depth != "input"])
def test_grad_cam_agrees_with_captum(layer):
    model, images = tiny_model(), pictures(4)
    with Passes(model, Batch.single(images, TARGETS)) as passes:
        maps = GradCam(layer=layer)(passes)
    module = model.module.get_submodule(PATHS[layer])
    theirs = LayerGradCam(model.module, module).attribute(
        images, target=TARGETS, relu_attributions=True
    )
    torch.testing.assert_close(maps, theirs.detach().squeeze(1), rtol=1e-10, atol=1e-14)
    assert (maps >= 0).all()


def test_grad_cam_at_the_input_weights_the_color_channels():
    model, images = tiny_model(), pictures(4)
    with Passes(model, Batch.single(images, TARGETS)) as passes:
        maps = GradCam(layer="input")(passes)
    weights = gradient_of(model, images, TARGETS, "input").mean((2, 3))
    expected = torch.einsum("bc,bchw->bhw", weights, images).relu()
    torch.testing.assert_close(maps, expected, rtol=1e-10, atol=1e-14)


def maps_of(method: Attribution, model: Model, targets: Tensor = TARGETS) -> Tensor:
    batch = Batch.single(pictures(len(targets)), targets)
    with evaluating(model.module), Passes(model, batch) as passes:
        return method(passes)


def feature_of(model: Model, images: Tensor, layer: str) -> Tensor:
    """Plain torch: the layer's output."""
    kept: list[Tensor] = []
    module = model.module.get_submodule(model.path_of(layer))
    handle = module.register_forward_hook(lambda _module, _inputs, out: kept.append(out.detach()))
    model.module(images)
    handle.remove()
    return kept[0]


class TestGolden:
    """Maps of the IDSDS code: TorchCAM's, scaled to [0, 1] before the resize."""

    @pytest.mark.parametrize("network", NETWORKS)
    @pytest.mark.parametrize(
        ("cls", "name"), [(GradCam, "Grad-CAM"), (XGradCam, "XG-CAM"), (LayerCam, "Layer-CAM")]
    )
    def test_maps_of_idsds(self, cls, name, network):
        expected = arrays(f"idsds/{network}")[f"map.{name}"].squeeze(1)
        maps = full_size(cls(normalize=True), network)
        torch.testing.assert_close(maps, expected, rtol=0, atol=CAM_TOLERANCE)

    def test_a_class_without_positive_weights_has_a_dead_map(self):
        for cls in (GradCam, XGradCam, LayerCam):
            for normalize in (True, False):
                maps = full_size(cls(normalize=normalize), "tiny_gap")
                assert maps[4].abs().max() == 0  # target 9
                assert maps[:4].amax((1, 2)).min() > 0

    def test_the_signed_map_before_norm_and_residual_sum_of_how_to_probe(self):
        golden = arrays("probing/lrp_tiny")
        model = residual_model(golden)
        batch = Batch.single(golden["input_normalised"], torch.tensor([1, 1]))
        method = GradCam(layer="conv3", relu=False)
        with evaluating(model.module), Passes(model, batch) as passes:
            torch.testing.assert_close(passes.logits, golden["logits"], rtol=1e-4, atol=1e-5)
        with evaluating(model.module), Passes(model, batch) as passes:
            maps = method(passes)
            full = method.at_image_size(maps, passes)
        native, large = golden["gradcam_conv3_class1"], golden["gradcam_conv3_class1_up"]
        torch.testing.assert_close(maps, native.squeeze(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(full, large.squeeze(1), rtol=1e-4, atol=1e-5)
        assert (maps < 0).any()


class Residual(nn.Module):
    """The network of tests/golden/probing/README.md: one residual block and a 1x1 head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(8) for _ in range(3))
        self.fc = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 2)
        branch = self.bn3(self.conv3(self.bn2(self.conv2(x)).relu()))
        return self.fc((x + branch).relu()).mean((2, 3))


def residual_model(golden: dict[str, Tensor]) -> Model:
    module = Residual().double().eval()
    module.load_state_dict({k[3:]: t for k, t in golden.items() if k.startswith("sd/")})
    return Model(module, {"input": ""}, lambda images: images.double())


class TestIdentities:
    def test_one_gradient_serves_all_and_the_body_is_not_gone_back_through(self):
        model = tiny_model()
        cams = [GradCam(), XGradCam(), LayerCam(), GradCam(relu=False)]
        with evaluating(model.module), Passes(model, Batch.single(pictures(4), TARGETS)) as passes:
            for method in [*cams, InputXGradient(layer="final")]:
                method(passes)
            assert passes.counts.forwards == 4
            assert passes.counts.backwards == {"final": 4}

    def test_before_pooling_and_a_linear_head_grad_cam_is_xgrad_cam(self):
        grad, xgrad = (maps_of(cls(), tiny_model()) for cls in (GradCam, XGradCam))
        torch.testing.assert_close(grad, xgrad, rtol=1e-12, atol=1e-16)

    def test_elsewhere_it_is_not(self):
        grad, xgrad = (maps_of(cls(layer="mid1"), tiny_model()) for cls in (GradCam, XGradCam))
        assert not torch.allclose(grad, xgrad, rtol=0.1)

    def test_without_relu_the_positive_part_is_grad_cam(self):
        for layer in ("mid2", "final"):
            signed = maps_of(GradCam(layer=layer, relu=False), tiny_model())
            assert (signed < 0).any()
            assert torch.equal(signed.relu(), maps_of(GradCam(layer=layer), tiny_model()))

    def test_normalized_maps_go_from_0_to_1(self):
        model = tiny_model()
        plain = maps_of(GradCam(relu=False), model)
        scaled = maps_of(GradCam(relu=False, normalize=True), model)
        above = plain - plain.amin((1, 2), keepdim=True)
        highest = above.amax((1, 2), keepdim=True)
        assert highest.std() > 0
        torch.testing.assert_close(scaled * highest, above, rtol=1e-5, atol=1e-9)
        assert (scaled.amin((1, 2)) == 0).all()

    @pytest.mark.parametrize("layer", ["mid1", "mid3"])
    def test_xgrad_and_layer_cam_are_their_sums_term_by_term(self, layer):
        model, images = tiny_model(), pictures(4)
        gradient = gradient_of(model, images, TARGETS, layer)
        feature = feature_of(model, images, layer)
        xgrad, by_place = torch.zeros(2, *feature[:, 0].shape, dtype=torch.float64)
        for n in range(4):
            for g, f in zip(gradient[n], feature[n], strict=True):
                xgrad[n] += (g * f).sum() / f.sum() * f if f.any() else 0
                by_place[n] += g.clamp(min=0) * f
        for cls, sums in ((XGradCam, xgrad), (LayerCam, by_place)):
            maps = maps_of(cls(layer=layer), model)
            torch.testing.assert_close(maps, sums.clamp(min=0), rtol=1e-9, atol=1e-14)

    def test_dead_channels_and_a_dead_feature_give_zero(self):
        model = tiny_model()
        with torch.no_grad():
            for part in model.module.layer4[:2]:
                part.weight.zero_()
                part.bias.fill_(-1)
        for cls in (GradCam, XGradCam, LayerCam):
            for normalize in (True, False):
                assert maps_of(cls(normalize=normalize), model).abs().max() == 0


class TestSuit:
    @pytest.mark.parametrize(
        ("layer", "kind"), [("fc", "Linear"), ("avgpool", "AdaptiveAvgPool2d")]
    )
    def test_a_layer_without_a_map_is_refused_in_one_line(self, layer, kind):
        message = rf"^grad_cam needs a layer with a map; '{layer}' \({kind}\) gives one value"
        with pytest.raises(ValueError, match=message) as caught:
            GradCam(layer=layer).check(SmallResNet(width=2))
        assert "\n" not in str(caught.value)

    def test_real_models_are_asked_too(self):
        with pytest.raises(ValueError, match=r"'fc' \(Linear\) gives one value a channel"):
            LayerCam(layer="fc").suit(tiny_model())
        for layer in (*DEPTHS, "layer1.0"):
            XGradCam(layer=layer).suit(tiny_model())

    def test_the_family_itself_is_no_method(self):
        assert Cam not in Attribution.registered.values()


class Mixer(nn.Module):
    """A class token and 3x3 patches of 4 px; two blocks that mix tokens; the class token's head."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 4, stride=4)
        self.block1, self.block2 = (nn.Linear(5, 5) for _ in range(2))
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([torch.ones_like(tokens[:, :1]), tokens], 1)
        for block in (self.block1, self.block2):
            tokens = block(tokens + tokens.softmax(1).mul(tokens).sum(1, keepdim=True))
        return self.head(tokens[:, 0])


class TestTokens:
    """The grid of a transformer's tokens is a plane as good as any."""

    METHODS = (
        GradCam(layer="block1", relu=False),
        XGradCam(layer="block1"),
        LayerCam(layer="block1"),
        GradCamPP(layer="block1"),
        SmoothGradCamPP(layer="block1"),
        ScoreCam(layer="block1"),
    )

    def model(self) -> Model:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = Mixer().double().eval()
        tokens = Tokens(patch_px=4, prefix=1, blocks=("block1", "block2"), attentions=())
        return Model(module, {"input": ""}, lambda images: images.double(), tokens=tokens)

    @pytest.mark.parametrize("method", METHODS, ids=lambda method: method.key)
    def test_maps_are_finite_and_as_large_as_the_grid(self, method):
        method.suit(self.model())
        maps = maps_of(method, self.model())
        assert maps.shape == (4, 3, 3)
        assert torch.isfinite(maps).all()
        assert maps.abs().max() > 0

    def test_behind_the_last_block_only_the_class_token_counts(self):
        for cls in (GradCam, XGradCam, LayerCam, GradCamPP, SmoothGradCamPP):
            assert maps_of(cls(layer="block2"), self.model()).abs().max() == 0
