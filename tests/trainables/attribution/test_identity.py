"""Identities hold where they must, and are broken where a method or a form is."""

from __future__ import annotations

import math
import operator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import trainables.attribution  # noqa: F401  registers
from tests.trainables.networks import hooks_of, pictures, tiny_bcos_model, tiny_model
from trainables.attribution.attribution import Attribution
from trainables.attribution.bcos import Bcos
from trainables.attribution.cam import GradCam, XGradCam
from trainables.attribution.canonization.form import FORMS
from trainables.attribution.gradient import InputXGradient, Saliency
from trainables.attribution.identity import Finding, Identity, check_identities, deviation
from trainables.attribution.integrated_gradients import IntegratedGradients
from trainables.attribution.lrp import Lrp
from trainables.baselines import Uniform, Zero
from trainables.batch import Batch
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.network import Model
from trainables.models.small_resnet import SmallResNet

BLOCK = "torchvision.models.resnet.BasicBlock"


def handful(images: Tensor | None = None) -> Batch:
    """Three images, the first of which is asked about twice."""
    images = pictures(3) if images is None else images
    return Batch(
        images=images,
        image_ids=["a", "b", "c"],
        image_index=torch.tensor([0, 1, 2, 0]),
        targets=torch.tensor([0, 1, 2, 3]),
    )


def small_resnet(dtype: torch.dtype = torch.float32) -> tuple[Model, Batch]:
    """A network of residual blocks and a batch of it."""
    torch.manual_seed(0)
    model = SmallResNet(width=4).build(4)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = model.encode(pixels)
    with torch.no_grad():
        model.module.train()(images)
    model.module.to(dtype).eval()
    return model, handful(images.to(dtype))


def one(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def scaled(monkeypatch: pytest.MonkeyPatch, cls: type[Attribution], by: float) -> None:
    """A method that hands out maps of the wrong size."""
    right = cls.attribute
    monkeypatch.setattr(cls, "attribute", lambda self, passes: by * right(self, passes))


class TestPathCompleteness:
    @pytest.mark.parametrize("baseline", [Zero(), Uniform()])
    def test_holds(self, baseline):
        method = IntegratedGradients(baseline=baseline)
        found = one(check_identities(tiny_model(), handful(), [method]))
        assert (found.identity, found.method, found.holds) == (
            "path_completeness", method.key, True,
        )  # fmt: skip
        assert 0 < found.error <= found.tolerance == 0.05
        assert "50 steps" in found.reason

    def test_more_steps_are_tried_before_a_method_is_blamed(self):
        found = one(check_identities(tiny_model(), handful(), [IntegratedGradients(steps=2)]))
        assert "8 steps" in found.reason or found.holds
        assert found.method == "integrated_gradients_steps2"

    def test_a_path_that_is_not_complete_is_found(self, monkeypatch):
        scaled(monkeypatch, IntegratedGradients, 0.9)
        found = one(check_identities(tiny_model(), handful(), [IntegratedGradients(steps=20)]))
        assert not found.holds
        assert 0.05 < found.error < 0.15
        assert "80 steps" in found.reason


class TestRelevanceConservation:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_holds(self, dtype):
        model, batch = small_resnet(dtype)
        methods = [Lrp(), Lrp(composite="epsilon_plus_flat"), Lrp(gamma=0.5, absolute=True)]
        findings = check_identities(model, batch, methods)
        assert [f.method for f in findings] == [m.key for m in methods]
        assert all(f.holds and f.identity == "relevance_conservation" for f in findings)
        assert max(f.error for f in findings) < 1e-4

    def test_duplicated_residuals_are_found(self):
        model, batch = small_resnet()
        found = one(check_identities(model, batch, [Lrp(residual="duplicate")]))
        assert not found.holds
        assert found.error == pytest.approx(2**4 - 1, rel=1e-3)

    def test_a_canonizer_that_misses_one_block_is_found(self, monkeypatch):
        model, batch = small_resnet()
        right, missed = FORMS[BLOCK], model.module.layer3[0]

        def misses(block, x, add):
            return right(block, x, operator.add if block is missed else add)

        monkeypatch.setitem(FORMS, BLOCK, misses)
        found = one(check_identities(model, batch, [Lrp()]))
        assert not found.holds
        assert found.error == pytest.approx(1, rel=1e-3)

    def test_a_form_that_computes_something_else_is_found(self, monkeypatch):
        model, batch = small_resnet()
        right = FORMS[BLOCK]
        monkeypatch.setitem(FORMS, BLOCK, lambda b, x, add: right(b, x, lambda s, y: add(s, 2 * y)))
        assert not one(check_identities(model, batch, [Lrp()])).holds


class TestContributionCompleteness:
    def test_holds(self):
        network = SmallBcosResNet(width=2)
        torch.manual_seed(0)
        model = network.build(4)
        images = model.encode(torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8))
        methods = [Bcos(), Bcos(layer="final")]
        for made, batch in ((model, handful(images)), (tiny_bcos_model(), handful())):
            findings = check_identities(made, batch, methods)
            assert [f.identity for f in findings] == ["contribution_completeness"] * 2
            assert all(f.holds for f in findings)
            assert max(f.error for f in findings) < 1e-4

    def test_dynamic_weights_that_are_differentiated_are_found(self, monkeypatch):
        model = replace(tiny_bcos_model(), explaining=torch.enable_grad)  # a mode of no effect
        assert not one(check_identities(model, handful(), [Bcos()])).holds


class TestPathIsProduct:
    def test_holds_without_biases(self):
        model = tiny_model(bias=False, norm=False)
        methods = [InputXGradient(), IntegratedGradients(steps=3)]
        findings = check_identities(model, handful(), methods)
        products = [f for f in findings if f.identity == "path_is_product"]
        assert [f.method for f in products] == [m.key for m in methods]
        assert max(f.error for f in products) < 1e-9
        assert all(f.holds for f in findings)

    def test_says_nothing_with_biases_or_of_another_start(self):
        methods = [InputXGradient(), InputXGradient(layer="final")]
        assert check_identities(tiny_model(), handful(), methods) == []
        model = tiny_model(bias=False, norm=False)
        method = IntegratedGradients(baseline=Uniform())
        assert one(check_identities(model, handful(), [method])).identity == "path_completeness"

    def test_a_wrong_product_is_found(self, monkeypatch):
        scaled(monkeypatch, InputXGradient, 1.01)
        model = tiny_model(bias=False, norm=False)
        assert not one(check_identities(model, handful(), [InputXGradient()])).holds

    def test_says_nothing_where_the_other_method_is_absent(self, monkeypatch):
        others = {k: v for k, v in Attribution.registered.items() if "integrated" not in k}
        monkeypatch.setattr(Attribution, "registered", others)
        model = tiny_model(bias=False, norm=False)
        assert check_identities(model, handful(), [InputXGradient()]) == []


class TestPooledLinearHead:
    @pytest.mark.parametrize("method", [GradCam(), GradCam(relu=False), XGradCam()])
    def test_holds_at_the_last_layer(self, method):
        found = one(check_identities(tiny_model(), handful(), [method]))
        assert (found.identity, found.method, found.holds) == (
            "pooled_linear_head", method.key, True,
        )  # fmt: skip
        assert found.error < 1e-9

    def test_says_nothing_before_another_layer(self):
        methods = [GradCam(layer="mid3"), XGradCam(layer="input"), GradCam(normalize=True)]
        assert check_identities(tiny_model(), handful(), methods) == []

    def test_wrong_weights_are_found(self, monkeypatch):
        scaled(monkeypatch, XGradCam, 1.01)
        findings = check_identities(tiny_model(), handful(), [GradCam(), XGradCam()])
        assert [f.holds for f in findings] == [True, False]


def test_a_method_without_identity_is_in_no_finding():
    assert check_identities(tiny_model(), handful(), [Saliency()]) == []
    assert check_identities(tiny_model(), handful(), []) == []


def test_the_methods_share_one_set_of_passes():
    model, images = tiny_model(bias=False, norm=False), []
    handle = model.module.register_forward_pre_hook(lambda _m, given: images.append(len(given[0])))
    batch = Batch.single(pictures(3), torch.tensor([0, 1, 2]))
    check_identities(model, batch, [GradCam(), XGradCam(), InputXGradient()])
    handle.remove()
    steps = 50 * 3
    assert sum(images) == 3 + 3 + 3 + steps  # images, zeros, halves, the path


def test_only_the_identities_asked_for_are_checked():
    model = tiny_model(bias=False, norm=False)
    only = [Identity.named("path_completeness", tolerance=1e-6)]
    found = one(check_identities(model, handful(), [IntegratedGradients(steps=4)], only))
    assert (found.identity, found.tolerance) == ("path_completeness", 1e-6)


def test_the_model_is_left_as_it_was():
    model = tiny_model(training=True)
    check_identities(model, handful(), [GradCam(), Lrp(), IntegratedGradients(steps=2)])
    assert all(part.training for part in model.module.modules())
    assert all(p.requires_grad and p.grad is None for p in model.module.parameters())
    assert hooks_of(model.module) == 0


def test_deviations():
    none, some = torch.zeros(2), torch.tensor([1.0, -4.0])
    assert deviation(some + 1, some) == 0.25
    assert deviation(none, none) == 0
    assert deviation(some, none) == math.inf
    assert deviation(none[:0], none[:0]) == 0
    assert math.isnan(deviation(some * math.nan, some))


@pytest.mark.parametrize("identity", sorted(Identity.registered))
def test_an_identity_says_where_it_is_from(identity):
    assert "Source:" in (Identity.registered[identity].__doc__ or "")
