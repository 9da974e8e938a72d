"""Probes against arrays of the authors' code, and in their other forms."""

from __future__ import annotations

import math
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainables.networks import randomized
from trainables.models.bcos_layers import explanation_mode
from trainables.models.probe import BcosProbe, ConventionalProbe, Features, Probe, ProbeHead

GOLDEN = Path(__file__).parents[2] / "golden" / "probing" / "probe_heads.npz"
NAMES = {
    **{f"std{n}_bias": (ConventionalProbe, n, False) for n in (1, 2, 3)},
    "std1_nobias": (ConventionalProbe, 1, True),
    **{f"std{n}_nobias_bnu": (ConventionalProbe, n, True) for n in (2, 3)},
    **{f"bcos{n}": (BcosProbe, n, False) for n in (1, 2, 3)},
    "bcos1_ce": (BcosProbe, 1, True),
    "ml_std3_bias": (ConventionalProbe, 3, False),
    **{f"ml_bcos{n}": (BcosProbe, n, True) for n in (1, 3)},
}
"""Kind, layers, and whether the backbone is B-cos; B-cos heads do not care for it."""


@cache
def golden() -> dict[str, Tensor]:
    """Floating arrays in float64."""
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        tensors = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}
    return {k: t.double() if t.is_floating_point() else t for k, t in tensors.items()}


def golden_head(name: str) -> ProbeHead:
    """The head with the arrays' weights, in float64 and eval mode."""
    kind, layers, bcos = NAMES[name]
    probe = kind(layers=layers, hidden=7, logit_bias=float(golden()[f"{name}/logit_bias"]))
    head = probe.head(Features(6, "map", bcos), 5)
    state = {
        key.removeprefix(f"{name}/sd/").replace("fc.", "fc0."): value
        for key, value in golden().items()
        if key.startswith(f"{name}/sd/")
    }
    head.double().load_state_dict(state)
    return head.eval()


def feature_gradient(head: nn.Module, features: Tensor, *, explained: bool) -> Tensor:
    features = features.clone().requires_grad_()
    with ExitStack() as stack:
        if explained:
            stack.enter_context(explanation_mode(head))
        (gradient,) = torch.autograd.grad(head(features)[:, 2].sum(), features)
    return gradient


def test_the_arrays_are_of_these_heads():
    assert {key.split("/")[0] for key in golden() if "/" in key} == set(NAMES)
    assert len(NAMES) == 13


@pytest.mark.parametrize("name", NAMES)
class TestGoldenHeads:
    """The authors' heads, float64 on weights of float32."""

    def close(self, found: Tensor, key: str) -> None:
        torch.testing.assert_close(found, golden()[key], rtol=1e-4, atol=1e-5)

    def test_logits(self, name):
        head, features = golden_head(name), golden()["feats"]
        self.close(head(features).detach(), f"{name}/logits_eval")
        self.close(head.train()(features).detach(), f"{name}/logits_train")

    @pytest.mark.parametrize("explained", [False, True])
    def test_gradients_at_the_features(self, name, explained):
        found = feature_gradient(golden_head(name), golden()["feats"], explained=explained)
        self.close(found, f"{name}/gfeat_eval{'_expl' * explained}")

    def test_running_statistics(self, name):
        state = golden_head(name).state_dict()
        head = golden_head(name).train()
        for key, value in state.items():
            if "running" in key or "tracked" in key:
                value.fill_(1 if key.endswith("var") else 0)
        head.load_state_dict(state)
        warm = golden()["feats_bn_warm"]
        for images in (warm, 2 * warm):
            head(images)
        for key, value in head.state_dict().items():
            if "running" in key or "tracked" in key:
                self.close(value, f"{name}/sd/{key}")


EVERY = [kind(layers=layers) for kind in (ConventionalProbe, BcosProbe) for layers in (1, 2, 3)]
each_probe = pytest.mark.parametrize("probe", EVERY, ids=lambda probe: probe.key)
each_origin = pytest.mark.parametrize("bcos", [False, True])


def head_of(probe: Probe, form: str, *, bcos: bool) -> ProbeHead:
    head = probe.head(Features(6, form, bcos), 5)
    return randomized(head, 1).eval()


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@each_probe
@each_origin
class TestForms:
    """One probe on maps, on class tokens and on tokens."""

    def test_a_class_token_is_a_map_of_one_place(self, probe, bcos):
        of_maps, of_tokens = (head_of(probe, form, bcos=bcos) for form in ("map", "class_token"))
        state = of_tokens.state_dict()
        of_tokens.load_state_dict(
            {k: v.reshape(state[k].shape) for k, v in of_maps.state_dict().items()}
        )
        x = drawn(4, 6)
        found, expected = of_tokens(x), of_maps(x[:, :, None, None])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # norms differ by 1e-6
        found, expected = of_tokens.train()(x), of_maps.train()(x[:, :, None, None])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    def test_tokens_are_normalized_then_probed_one_by_one(self, probe, bcos):
        head, x = head_of(probe, "tokens", bcos=True), drawn(3, 7, 6)
        alone = torch.stack([head(x[:, [t]]) for t in range(7)]).mean(0)
        torch.testing.assert_close(head(x), alone)
        assert next(iter(head._modules)) == "norm"

    def test_class_tokens_have_no_mean(self, probe, bcos):
        head = head_of(probe, "class_token", bcos=bcos)
        assert not {"pool", "norm", "flatten"} & head._modules.keys()

    def test_biases_are_there_on_conventional_features_only(self, probe, bcos):
        for form in ("map", "class_token", "tokens"):
            head = probe.head(Features(6, form, bcos or form == "tokens"), 5)
            has = {name for name, _ in head.named_parameters() if name.endswith("bias")}
            expected = not bcos and form != "tokens" and probe.name == "conventional"
            assert bool(has) == expected

    def test_parts_by_name(self, probe, bcos):
        head = head_of(probe, "map", bcos=bcos)
        between = ("bn", "relu") if probe.name == "conventional" else ("bn",)
        expected = [f"{part}{k}" for k in range(probe.layers) for part in ("fc", *between)][
            : -len(between)
        ]
        assert [name for name, _ in head.named_children()][:-3] == expected
        assert head.layers == tuple(f"fc{k}" for k in range(probe.layers))
        assert head.last is head._modules[f"fc{probe.layers - 1}"]


def test_parameters_in_the_paper_s_size():
    counts = []
    for layers in (1, 2, 3):
        with torch.device("meta"):
            head = ConventionalProbe(layers=layers).head(Features(2048, "map", False), 1000)
        counts.append(sum(p.numel() for p in head.parameters()) / 1e6)
    assert counts == pytest.approx([2.05, 6.25, 10.4], abs=0.06)


def test_layers_start_as_torch_starts_a_convolution():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for kind in (ConventionalProbe, BcosProbe):
            weight = next(kind().head(Features(400, "map", False), 300).parameters())
            assert float(weight.detach().abs().max()) == pytest.approx(1 / math.sqrt(400), rel=0.01)


@pytest.mark.parametrize(
    ("probe", "key"),
    [
        (ConventionalProbe(), "conventional"),
        (ConventionalProbe(layers=2), "conventional_l2"),
        (BcosProbe(layers=3, hidden=64), "bcos_l3_hidden64"),
        (BcosProbe(logit_bias=-2.5), "bcos_bias-2.5"),
    ],
)
def test_keys(probe, key):
    assert probe.key == key


def test_what_is_no_probe_is_refused():
    with pytest.raises(ValueError, match=r"BcosProbe.hidden = -1; expected channels, or 0"):
        BcosProbe(hidden=-1)
    with pytest.raises(ValueError, match=r"BcosProbe.layers = 4: expected one of 1, 2, 3"):
        BcosProbe(layers=4)
