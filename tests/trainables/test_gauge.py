"""Gauges: what the softmax does not see changes, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.trainables.attribution.relevance_nets import KnownNet, golden, golden_net
from tests.trainables.probing import other_backbone, probe_training
from trainables.gauge import AsTrained, Centered, Common, Exchanged, Gauge, Shifted, last_layer
from trainables.models.probe import BcosProbe, ConventionalProbe, Features, ProbeHead
from trainables.trial import seeded

CE, BCE = probe_training(), probe_training(objective="bce", seed=1)
FORMS: dict[str, tuple[int, ...]] = {
    "map": (5, 6, 3, 3),
    "class_token": (5, 6),
    "tokens": (5, 4, 6),
}
BY_FEATURE = torch.arange(1.0, 7.0)


def head_of(form: Any = "map", layers: Any = 1, seed: int = 0, *, bcos: bool = False) -> ProbeHead:
    """Four classes, six channels everywhere."""
    with seeded(seed):
        head = ConventionalProbe(layers=layers).head(Features(6, form, bcos), 4)
    return head.eval()


def features(form: str) -> Tensor:
    return torch.randn(FORMS[form], generator=torch.Generator().manual_seed(3))


def logits(head: nn.Module, form: str = "map") -> Tensor:
    with torch.no_grad():
        return head(features(form))


def changed(gauge: Gauge, form: str = "map", layers: int = 1, **kwargs: Any) -> tuple[Tensor, ...]:
    """Logits before and after."""
    head = head_of(form, layers, **kwargs)
    before = logits(head, form)
    others = tuple(head_of(form, layers, seed=1, **kwargs) for _ in gauge.dependencies)
    gauge.apply(head, others, BY_FEATURE)
    return before, logits(head, form)


@pytest.mark.parametrize("gauge", [Centered(), Exchanged(other=BCE), Shifted(alpha=-3.0)])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layers", [1, 3])
def test_no_softmax_sees_it(gauge, form, layers):
    before, after = changed(gauge, form, layers)
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after.softmax(1), before.softmax(1))
    label = torch.tensor([0, 1, 2, 3, 0])
    ce = [functional.cross_entropy(z, label) for z in (before, after)]
    torch.testing.assert_close(*ce)
    wanted = functional.one_hot(label, 4).float()
    bce = [functional.binary_cross_entropy_with_logits(z, wanted) for z in (before, after)]
    assert not torch.allclose(*bce, rtol=1e-3)


@pytest.mark.parametrize("bcos", [False, True])
def test_centered_logits_sum_to_zero_whatever_the_features(bcos):
    _, after = changed(Centered(), bcos=bcos)
    torch.testing.assert_close(after.sum(1), torch.zeros(5), atol=1e-5, rtol=0)
    head = head_of(bcos=bcos)
    for _ in range(2):
        Centered().apply(head)
    torch.testing.assert_close(logits(head), after)


def test_exchanged_twice_is_as_trained():
    head, other = head_of(), head_of(seed=1)
    before, own = logits(head), head_of()
    Exchanged(other=BCE).apply(head, (other,))
    mine, theirs = Common.of(head), Common.of(other)
    torch.testing.assert_close(mine.weight, theirs.weight)
    torch.testing.assert_close(mine.bias, theirs.bias)
    Exchanged(other=BCE).apply(head, (own,))
    torch.testing.assert_close(logits(head), before)


def test_centered_probes_that_differed_in_the_gauge_alone_are_one():
    head, other = head_of(), head_of()
    Shifted(alpha=5.0).apply(other, (), BY_FEATURE)
    assert not torch.allclose(logits(head), logits(other), atol=1)
    for one in (head, other):
        Centered().apply(one)
    torch.testing.assert_close(logits(head), logits(other), atol=1e-5, rtol=1e-4)


def test_shifted_adds_the_scaled_feature_to_every_class():
    head, before = head_of(), head_of()
    Shifted(alpha=2.0).apply(head, (), BY_FEATURE)
    added = last_layer(head).weight - last_layer(before).weight
    expected = 2 * BY_FEATURE / BY_FEATURE.norm()
    torch.testing.assert_close(added.flatten(1), expected.expand(4, 6))
    torch.testing.assert_close(last_layer(head).bias, last_layer(before).bias)


def test_the_probe_of_the_papers_demonstration_is_the_other_in_its_gauge():
    """Golden A carries B's class mean and is B: maps and GridPG of both are in test_lrp.py."""
    arrays = golden("ce_shift")
    heads = []
    for which in ("A", "B"):
        state = arrays | {f"sd/fc.{k}": arrays[f"{k}_{which}"] for k in ("weight", "bias")}
        heads.append(golden_net(KnownNet, state).fc)
    a, b = heads
    with torch.no_grad():
        Exchanged(other=BCE).apply(a, (b,))
    torch.testing.assert_close(a.weight, b.weight, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(a.bias, b.bias, atol=1e-5, rtol=1e-5)
    assert float(arrays["ce_A"]) == pytest.approx(float(arrays["ce_B"]), abs=1e-5)
    assert float(arrays["bce_A"]) != pytest.approx(float(arrays["bce_B"]), rel=0.1)


def test_as_trained_touches_nothing():
    for head in (head_of(), BcosProbe().head(Features(6, "map", bcos=True), 4)):
        before = {name: value.clone() for name, value in head.state_dict().items()}
        AsTrained().apply(head)
        assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


class TestRefusals:
    """Said before anything runs, or where a head cannot take it."""

    @pytest.mark.parametrize("layers", [1, 2])
    def test_a_bcos_layer_has_no_gauge(self, layers):
        of = probe_training(probe=BcosProbe(layers=layers))
        AsTrained().check(of)
        for gauge in (Centered(), Shifted(alpha=1.0), Exchanged(other=CE)):
            with pytest.raises(ValueError, match="rows of length 1 and no common vector"):
                gauge.check(of)
        with pytest.raises(ValueError, match="B-cos layer"):
            Centered().apply(of.probe.head(Features(6, "map", bcos=False), 4))

    def test_what_works_is_not_refused(self):
        for gauge in (Centered(), Shifted(alpha=1.0), Exchanged(other=BCE)):
            gauge.check(CE)

    def test_hidden_features_are_not_exchanged(self):
        deep = probe_training(probe=ConventionalProbe(layers=2))
        with pytest.raises(ValueError, match="has 2 layers"):
            Exchanged(other=deep).check(CE)

    def test_features_of_other_backbones_are_not_exchanged(self):
        with pytest.raises(ValueError, match="have other backbones"):
            Exchanged(other=probe_training(backbone=other_backbone())).check(CE)

    def test_no_direction(self):
        with pytest.raises(ValueError, match="mean feature is zero"):
            Shifted(alpha=1.0).apply(head_of(), (), torch.zeros(6))

    def test_layers_of_other_widths(self):
        wide = ConventionalProbe().head(Features(7, "map", bcos=False), 4)
        with pytest.raises(ValueError, match="7 weights a class cannot be added to 6"):
            Exchanged(other=BCE).apply(head_of(), (wide,))

    def test_a_head_without_layers(self):
        with pytest.raises(ValueError, match="no convolution or linear layer"):
            last_layer(nn.Identity())


def test_whom_it_reads():
    assert Exchanged(other=BCE).dependencies == (BCE,)
    assert Centered().dependencies == ()
