"""B-cos layers, norms and networks against arrays of the authors' code and the package ``bcos``."""

from __future__ import annotations

import math
from contextlib import ExitStack
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainables.networks import randomized
from trainables.models.bcos_layers import (
    BcosConv2d,
    BcosLinear,
    Dynamic,
    LogitLayer,
    explanation_mode,
    matmul,
    mul,
)
from trainables.models.bcos_norms import (
    BatchNormUncentered1d,
    BatchNormUncentered2d,
    LayerNorm,
    LayerNorm2d,
    PositionNorm2d,
)
from trainables.models.bcos_resnet import Residual, ResNet, SmallBcosResNet
from trainables.models.bcos_vit import SimpleViT, SmallBcosViTc
from trainables.models.network import Network

GOLDEN = Path(__file__).parents[2] / "golden"
PROBING = {"rtol": 1e-4, "atol": 1e-5}
GUIDANCE = {"rtol": 1e-6, "atol": 1e-9}


@cache
def golden(name: str) -> dict[str, Tensor]:
    """Arrays of a file; floating ones in float64."""
    arrays = np.load(GOLDEN / f"{name}.npz", allow_pickle=False)
    tensors = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}
    return {k: t.double() if t.is_floating_point() else t for k, t in tensors.items()}


def products(
    layer: nn.Module, x: Tensor, cotangent: Tensor, *, explained: bool
) -> tuple[Tensor, list[Tensor]]:
    """The output, and its cotangent times the Jacobian by x and by each parameter."""
    x = x.clone().requires_grad_()
    out = layer(x)
    with ExitStack() as stack:
        if explained:
            stack.enter_context(explanation_mode(layer))
        gradients = torch.autograd.grad(out, [x, *layer.parameters()], cotangent)
    return out.detach(), list(gradients)


def with_weight(layer: BcosConv2d | BcosLinear, weight: Tensor) -> nn.Module:
    layer.double().linear.weight.data = weight
    return layer


class TestLayersEqualThoseOfTheAuthors:
    @pytest.mark.parametrize("b", [1, 1.5, 2, 2.5])
    @pytest.mark.parametrize("max_out", [1, 2])
    def test_linear(self, b, max_out):
        arrays, key = golden("probing/bcos_layers"), f"lin_b{b}_m{max_out}_"
        layer = with_weight(BcosLinear(6, 4, b=b, max_out=max_out), arrays[key + "weight"])
        for explained in (0, 1):
            y, (gx, gw) = products(
                layer, arrays["lin_x"], arrays["lin_cot"], explained=bool(explained)
            )
            torch.testing.assert_close(y, arrays[key + "y"], **PROBING)
            torch.testing.assert_close(gx, arrays[f"{key}gx_expl{explained}"], **PROBING)
            torch.testing.assert_close(gw, arrays[f"{key}gw_expl{explained}"], **PROBING)

    @pytest.mark.parametrize("b", [1, 1.5, 2])
    @pytest.mark.parametrize(
        ("size", "stride", "padding", "groups", "max_out"),
        [(1, 1, 0, 1, 1), (1, 1, 0, 1, 2), (3, 2, 1, 1, 1), (3, 2, 1, 1, 2), (3, 1, 1, 2, 1)],
    )
    def test_convolution(self, b, size, stride, padding, groups, max_out):
        arrays = golden("probing/bcos_layers")
        key = f"conv_k{size}s{stride}p{padding}g{groups}_b{b}_m{max_out}_"
        layer = BcosConv2d(
            4, 6, size, stride=stride, padding=padding, groups=groups, b=b, max_out=max_out
        )
        with_weight(layer, arrays[key + "weight"])
        for explained in (0, 1):
            y, (gx, _) = products(
                layer, arrays["conv_x"], arrays[key + "cot"], explained=bool(explained)
            )
            torch.testing.assert_close(y, arrays[key + "y"], **PROBING)
            torch.testing.assert_close(gx, arrays[f"{key}gx_expl{explained}"], **PROBING)

    @pytest.mark.parametrize(
        ("variant", "options"),
        [
            ("b2", {}),
            ("b1p5", {"b": 1.5}),
            ("b1", {"b": 1}),
            ("b2_maxout2", {"max_out": 2}),
            ("b2_stride2_groups2", {"stride": 2, "groups": 2}),
            ("b2_unnormed", {}),
        ],
    )
    def test_convolution_of_model_guidance(self, variant, options):
        arrays = {
            k.removeprefix(f"{variant}/"): v for k, v in golden("guidance/bcos_modules").items()
            if k.startswith(f"{variant}/")
        }  # fmt: skip
        layer = with_weight(BcosConv2d(4, 6, 3, padding=1, **options), arrays["weight"])
        # their layer without unit weights is ours times the lengths of the weights
        length = (
            arrays["weight"].flatten(1).norm(dim=1)[:, None, None] if "unnormed" in variant else 1.0
        )
        for explained, key in ((False, "gx_full"), (True, "gx_explanation")):
            y, (gx, _) = products(layer, arrays["x"], arrays["gy"] * length, explained=explained)
            torch.testing.assert_close(y * length, arrays["y"], **GUIDANCE)
            torch.testing.assert_close(gx, arrays[key], **GUIDANCE)

    def test_linear_of_model_guidance(self):
        arrays = golden("guidance/bcos_modules")
        layer = with_weight(BcosLinear(7, 3), arrays["linear/weight"])
        torch.testing.assert_close(layer(arrays["linear/x"]), arrays["linear/y"], **GUIDANCE)

    def test_zero_gives_their_zero(self):
        arrays = golden("probing/bcos_layers")
        conv = with_weight(BcosConv2d(4, 2, 1), arrays["zero_in_conv_weight"])
        line = with_weight(BcosLinear(4, 2), arrays["zero_in_lin_weight"])
        zeros = torch.zeros(1, 4, 2, 2).double()
        assert torch.equal(conv(zeros).detach(), arrays["zero_in_conv_y"])
        assert torch.equal(line(zeros[:, :, 0, 0]).detach(), arrays["zero_in_lin_y"])

    def test_zero_gives_zero(self):
        pairs = ((BcosConv2d(4, 2), (1, 4, 2, 2)), (BcosLinear(4, 2), (1, 4)))
        for layer, shape in pairs:
            x = torch.zeros(shape, requires_grad=True)
            out = layer(x)
            (gradient,) = torch.autograd.grad(out.sum(), x)
            assert torch.equal(out, torch.zeros_like(out))
            assert torch.equal(gradient, torch.zeros_like(gradient))

    def test_grouped_maxout_is_each_group_by_itself(self):
        torch.manual_seed(0)
        both = BcosConv2d(4, 6, 3, padding=1, groups=2, max_out=2)
        x = torch.randn(2, 4, 5, 5)
        pieces = []
        for rows, channels in ((slice(0, 6), slice(0, 2)), (slice(6, 12), slice(2, 4))):
            one = BcosConv2d(2, 3, 3, padding=1, max_out=2)
            one.linear.weight.data = both.linear.weight.data[rows]
            pieces.append(one(x[:, channels]))
        torch.testing.assert_close(both(x), torch.cat(pieces, 1))


class TestBatchNormEqualsThatOfTheAuthors:
    def norm(self, *, bias: bool = False) -> BatchNormUncentered2d:
        arrays = golden("probing/bn_uncentered")
        norm = BatchNormUncentered2d(
            3, eps=float(arrays["eps"]), momentum=float(arrays["momentum"]), bias=bias
        ).double()
        norm.weight.data = arrays["weight"].clone()
        return norm

    def test_outputs_and_running_statistics(self):
        arrays, norm = golden("probing/bn_uncentered"), self.norm()
        for k in (1, 2):
            y = norm(arrays[f"x{k}"])
            torch.testing.assert_close(y.detach(), arrays[f"y{k}_train"], **PROBING)
            torch.testing.assert_close(norm.running_var, arrays[f"running_var_{k}"], **PROBING)
        assert norm.num_batches_tracked == 2
        assert torch.equal(norm.running_mean, torch.zeros(3).double())
        norm.eval()
        y, (gx, _) = products(norm, arrays["x3"], arrays["cot"], explained=True)
        torch.testing.assert_close(y, arrays["y3_eval"], **PROBING)
        torch.testing.assert_close(gx, arrays["gx3_eval"], **PROBING)

    @pytest.mark.parametrize("explained", [0, 1])
    def test_gradient_through_the_statistics(self, explained):
        arrays = golden("probing/bn_uncentered")
        _, (gx, _) = products(self.norm(), arrays["x1"], arrays["cot"], explained=bool(explained))
        torch.testing.assert_close(gx, arrays[f"gx_train_expl{explained}"], **PROBING)

    def test_with_a_bias(self):
        arrays, norm = golden("probing/bn_uncentered"), self.norm(bias=True).eval()
        norm.weight.data, norm.bias.data = arrays["bias_weight"], arrays["bias_bias"]
        norm.running_var.copy_(arrays["bias_running_var"])
        torch.testing.assert_close(norm(arrays["x3"]).detach(), arrays["bias_y3_eval"], **PROBING)

    def test_in_model_guidance(self):
        arrays = golden("guidance/bcos_modules")
        norm = BatchNormUncentered2d(4).double()
        norm.weight.data = arrays["bn/weight"]
        norm.running_var.copy_(arrays["bn/running_var_before"])
        y = norm.eval()(arrays["bn/x"]).detach()
        torch.testing.assert_close(y, arrays["bn/y_eval"], **GUIDANCE)
        norm.train()
        for explained, key in ((False, "gx_full_train"), (True, "gx_explanation_train")):
            norm.running_var.copy_(arrays["bn/running_var_before"])
            y, (gx, _) = products(norm, arrays["bn/x"], arrays["bn/gy"], explained=explained)
            torch.testing.assert_close(y, arrays["bn/y_train"], **GUIDANCE)
            torch.testing.assert_close(norm.running_var, arrays["bn/running_var_after"], **GUIDANCE)
            torch.testing.assert_close(gx, arrays[f"bn/{key}"], **GUIDANCE)

    def test_of_vectors_is_that_of_single_pixels(self):
        x = golden("probing/bn_uncentered")["x1"][:, :, 0, 0]
        vectors, maps = BatchNormUncentered1d(3).double(), BatchNormUncentered2d(3).double()
        assert torch.equal(vectors(x), maps(x[:, :, None, None])[:, :, 0, 0])
        assert torch.equal(vectors.running_var, maps.running_var)


class TestNorms:
    def test_centered_norms_are_those_of_torch(self):
        torch.manual_seed(0)
        x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
        weight = torch.randn(8, dtype=torch.float64)
        tokens = x.flatten(2).mT

        def ours(norm: nn.Module, x: Tensor) -> Tensor:
            norm.double().weight.data = weight
            return norm(x)

        layer = nn.functional.layer_norm(tokens, (8,), weight)
        torch.testing.assert_close(ours(LayerNorm(8), tokens), layer)
        position = ours(PositionNorm2d(8), x).flatten(2).mT
        torch.testing.assert_close(position, layer)
        torch.testing.assert_close(ours(LayerNorm2d(8), x), nn.functional.group_norm(x, 1, weight))

    @pytest.mark.parametrize("centered", [True, False])
    @pytest.mark.parametrize("kind", [LayerNorm, LayerNorm2d, PositionNorm2d])
    def test_in_an_explanation_the_deviation_is_a_constant(self, kind, centered):
        torch.manual_seed(0)
        x = torch.randn(2, 3, 3, 3, dtype=torch.float64)
        norm = kind(3, centered=centered).double()
        y, (gx, _) = products(norm, x, torch.ones_like(x), explained=True)
        # a linear map's product with its input is its output
        torch.testing.assert_close((gx * x).sum(), y.sum())
        _, (plain, _) = products(norm, x, y, explained=False)
        _, (gx, _) = products(norm, x, y, explained=True)
        assert not torch.allclose(plain, gx)


class TestExplanationMode:
    def both(self) -> tuple[Dynamic, Tensor, Tensor, Tensor]:
        layer = Dynamic()
        weight = torch.tensor([2.0, 3.0], requires_grad=True)
        x = torch.tensor([5.0, 7.0], requires_grad=True)
        return layer, weight, x, mul(weight, x, layer).sum()

    def test_is_read_by_the_backward_so_that_one_forward_serves_both(self):
        layer, weight, x, out = self.both()
        with explanation_mode(layer):
            explained = torch.autograd.grad(out, [weight, x], retain_graph=True, allow_unused=True)
        plain = torch.autograd.grad(out, [weight, x])
        assert explained[0] is None
        assert explained[1].tolist() == plain[1].tolist() == [2.0, 3.0]
        assert plain[0].tolist() == [5.0, 7.0]

    def test_ends_after_an_exception_and_each_with_its_own_block(self):
        module = nn.Sequential(BcosLinear(2, 2), BatchNormUncentered2d(2))
        with pytest.raises(OSError, match="within"), explanation_mode(module):
            raise OSError("within")
        assert [part.explained for part in module] == [0, 0]
        first, second = explanation_mode(module), explanation_mode(module[:1])
        first.__enter__()
        second.__enter__()
        assert [part.explained for part in module] == [2, 1]
        first.__exit__(None, None, None)  # they overlap, as those of two threads may
        assert [part.explained for part in module] == [1, 0]
        second.__exit__(None, None, None)
        assert [part.explained for part in module] == [0, 0]

    def test_belongs_to_one_module(self):
        module = nn.Sequential(BcosLinear(2, 2))
        other = deepcopy(module)
        with explanation_mode(module):
            assert [module[0].explained, other[0].explained] == [1, 0]

    @pytest.mark.parametrize("product", [mul, matmul])
    def test_products_have_exact_first_and_second_derivatives(self, product):
        layer = Dynamic()
        torch.manual_seed(0)
        weight = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
        x = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda w, x: product(w, x, layer), (weight, x))
        assert torch.autograd.gradgradcheck(lambda w, x: product(w, x, layer), (weight, x))

    @pytest.mark.parametrize("shapes", [((3, 1), (2, 3, 4)), ((2, 3, 4), (4,))])
    def test_products_broadcast(self, shapes):
        torch.manual_seed(0)
        weight, x = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
        assert torch.autograd.gradcheck(lambda w, x: mul(w, x, Dynamic()), (weight, x))


def rgb(n: int = 2, size: int = 32, seed: int = 0) -> Tensor:
    """Encoded pictures, (n, 6, size, size) in float64."""
    generator = torch.Generator().manual_seed(seed)
    color = torch.rand(n, 3, size, size, generator=generator, dtype=torch.float64)
    return torch.cat([color, 1 - color], 1)


class TestPackage:
    """The authors' package as an oracle."""

    @pytest.fixture(autouse=True)
    def _package(self):
        pytest.importorskip("bcos")
        pytest.importorskip("einops")

    def maps(self, module: nn.Module, x: Tensor, target: int, mode) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        with mode:
            logits = module(x)
            (gradient,) = torch.autograd.grad(logits[:, target].sum(), x)
        return logits.detach(), (gradient * x).sum(1).detach()

    def agree(self, ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
        from bcos.common import explanation_mode as their_mode

        randomized(theirs, 3)
        ours.double().load_state_dict(theirs.state_dict())
        for training in (False, True):
            ours.train(training), theirs.train(training)
            logits, maps = self.maps(ours, x, 1, explanation_mode(ours))
            expected = self.maps(theirs, x, 1, their_mode(theirs))
            torch.testing.assert_close(logits, expected[0], rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(maps, expected[1], rtol=1e-9, atol=1e-11)
        buffers = dict(theirs.named_buffers())
        for name, buffer in ours.named_buffers():
            torch.testing.assert_close(buffer, buffers[name])

    def test_logits_and_maps_of_a_resnet(self):
        from bcos.models.resnet import BasicBlock, BcosResNet
        from bcos.modules import norms

        theirs = BcosResNet(
            BasicBlock, [1, 2, 1, 1], num_classes=5, inplanes=4,
            norm_layer=norms.NoBias(norms.BatchNormUncentered2d),
        )  # fmt: skip
        last = LogitLayer(bias=-math.log(4))
        self.agree(ResNet(Residual, (1, 2, 1, 1), (4, 8, 16, 32), 5, last), theirs, rgb())

    @pytest.mark.filterwarnings("ignore:You are trying to use the entrypoints")
    @pytest.mark.parametrize(
        ("patch_px", "stem"), [(8, None), (1, [6, 12, 12, 24])], ids=["patches", "stem"]
    )
    def test_logits_and_maps_of_a_vit(self, patch_px, stem):
        from bcos.models.vit import SimpleViT as TheirViT
        from bcos.modules import BcosLinear as TheirLinear
        from bcos.modules import norms
        from bcos.modules.bcosconv2d import BcosConv2d as TheirConv2d
        from bcos.modules.common import BcosSequential
        from bcos.modules.logitlayer import LogitLayer as TheirLogitLayer

        sizes = {"num_classes": 5, "dim": 16, "depth": 2, "heads": 2, "mlp_dim": 24}
        vit = TheirViT(
            image_size=32 if stem is None else 8, patch_size=patch_px, conv_stem=stem, **sizes,
            linear_layer=TheirLinear, conv2d_layer=TheirConv2d, act_layer=nn.Identity,
            norm_layer=norms.NoBias(norms.DetachableLayerNorm),
            norm2d_layer=norms.NoBias(norms.DetachableGNLayerNorm2d),
        )  # fmt: skip
        theirs = BcosSequential(vit, TheirLogitLayer(logit_bias=-1.5))
        own = SimpleViT(
            patch_px=patch_px, width=16, depth=2, heads=2, hidden=24, classes=5, stem=stem or ()
        )
        self.agree(nn.Sequential(own, LogitLayer(bias=-1.5)), theirs, rgb())

    @pytest.mark.filterwarnings("ignore:You are trying to use the entrypoints")
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ("bcos_resnet18", "resnet18"),
            ("bcos_resnet34", "resnet34"),
            ("bcos_resnet50", "resnet50"),
            ("bcos_resnet101", "resnet101"),
            ("bcos_resnet152", "resnet152"),
            ("bcos_simple_vit_ti", "simple_vit_ti_patch16_224"),
            ("bcos_simple_vit_s", "simple_vit_s_patch16_224"),
            ("bcos_simple_vit_b", "simple_vit_b_patch16_224"),
            ("bcos_vitc_ti", "vitc_ti_patch1_14"),
            ("bcos_vitc_s", "vitc_s_patch1_14"),
            ("bcos_vitc_b", "vitc_b_patch1_14"),
        ],
    )
    def test_keys_and_shapes_are_those_of_the_zoo(self, ours, theirs):
        from bcos.models import pretrained

        with torch.device("meta"):
            own = Network.named(ours).build(1000).module
            module = getattr(pretrained, theirs)()

        def shapes(module: nn.Module) -> dict[str, torch.Size]:
            return {key: value.shape for key, value in module.state_dict().items()}

        assert shapes(own) == shapes(module)
        biases = [part.logit_bias for part in module.modules() if hasattr(part, "logit_bias")]
        assert biases == [pytest.approx(-6.9068, abs=1e-4)]
        assert next(p for p in own.modules() if isinstance(p, LogitLayer)).bias == biases[0]


class TestNetworks:
    def test_pixels_enter_as_color_and_its_complement(self):
        images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
        encoded = SmallBcosResNet().encode(images)
        assert encoded.dtype == torch.float32
        torch.testing.assert_close(encoded.flatten(), torch.tensor([0.0, 0.2, 1.0, 1.0, 0.8, 0.0]))

    def test_the_logit_bias_makes_every_class_improbable_or_is_what_one_says(self):
        network = SmallBcosResNet(width=2)
        assert network.build(20).module.logit_layer.bias == pytest.approx(-math.log(19))
        kept = SmallBcosResNet(width=2, logit_bias=-6.9068)
        assert kept.build(20).module.logit_layer.bias == -6.9068
        assert kept.key == "small_bcos_resnet_bias-6.9068_width2"
        assert network.build(1).module.logit_layer.bias == 0

    @pytest.mark.parametrize("network", [SmallBcosResNet(width=2), SmallBcosViTc()])
    def test_build_brings_the_explanation_mode_of_its_own_module(self, network):
        model = network.build(3)
        layers = [part for part in model.module.modules() if isinstance(part, Dynamic)]
        assert model.explaining is not None
        with model.explaining():
            assert {layer.explained for layer in layers} == {1}
        assert {layer.explained for layer in layers} == {0}

    def test_small_networks_give_8_by_8_at_64_px_and_are_small(self):
        for network, deepest in ((SmallBcosResNet(), (64, 8, 8)), (SmallBcosViTc(), (64, 64))):
            model, seen = network.build(10), []
            model.module.get_submodule(model.depths["final"]).register_forward_hook(
                lambda _m, _i, out, seen=seen: seen.append(out.shape[1:])
            )
            model.module(torch.zeros(1, 6, 64, 64))
            assert seen == [deepest]
            assert 140_000 < sum(p.numel() for p in model.module.parameters()) < 230_000

    def test_tokens_of_a_vit_lie_in_a_grid_and_its_attentions_are_of_the_values(self):
        model, seen = SmallBcosViTc().build(3), []
        tokens = model.tokens
        assert tokens is not None
        for path in tokens.attentions:
            model.module.get_submodule(path).register_forward_hook(
                lambda _m, _i, out: seen.append(out)
            )
        model.module(torch.rand(2, 6, 32, 48))
        assert [a.shape for a in seen] == [(2, 4, 24, 24)] * 4
        torch.testing.assert_close(seen[0].sum(-1), torch.ones(2, 4, 24))
        assert tokens.grid(torch.zeros(2, 24, 64), (32, 48)).shape == (2, 64, 4, 6)

    def test_a_small_network_learns_to_tell_colors(self):
        torch.manual_seed(0)
        model = SmallBcosResNet(width=4).build(3)
        labels = torch.arange(12) % 3
        pixels = 60 + 10 * torch.rand(12, 3, 16, 16)
        pixels[torch.arange(12), labels] += 120
        images, hot = model.encode(pixels), nn.functional.one_hot(labels, 3).float()
        optimizer, values = torch.optim.Adam(model.module.parameters(), 0.01), []
        for _ in range(25):
            loss = nn.functional.binary_cross_entropy_with_logits(model.module(images), hot)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
        assert values[-1] < 0.3 * values[0]
