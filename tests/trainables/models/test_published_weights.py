"""Every published layout fills its backbone bit for bit; whatever does not fit is refused."""

from __future__ import annotations

import argparse
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.bcos_vit import SmallBcosViTc
from trainables.models.checkpoint_layout import LAYOUTS, PRETRAININGS, layouts_of
from trainables.models.network import Network
from trainables.models.published_weights import (
    classifier_of,
    fitting_pretrainings,
    load_backbone,
    match_in,
    match_of,
    pretraining_meant,
    shapes_of,
)
from trainables.models.small_resnet import SmallResNet
from trainables.models.timm_vit import SmallViT, ViTBase

State = dict[str, Tensor]
CLASSES = 5


@dataclass(frozen=True, kw_only=True)
class ShallowViT(ViTBase):
    """One narrow block of a ViT-B/16 on images of 32 px."""

    blocks: ClassVar[int] = 1
    shape: ClassVar[tuple[int, int]] = (12, 2)

    size_px: int = 32


RESNET, BCOS = SmallResNet(width=2), SmallBcosResNet(width=2)
VIT, BCOS_VIT, SHALLOW = SmallViT(stem=False), SmallBcosViTc(), ShallowViT()


@cache
def weights_of(network: Network) -> State:
    """Weights of the network with five classes, each tensor with values of its own."""
    generator = torch.Generator().manual_seed(3)
    state = network.build(CLASSES).module.state_dict()
    return {
        key: torch.rand(t.shape, generator=generator) if t.is_floating_point() else t + 7
        for key, t in state.items()
    }


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def bare(state: State) -> State:
    """Without the classifier."""
    return {k: t for k, t in state.items() if not k.startswith(("fc.", "head.", "0.linear_head."))}


def any_tensors(*names: str) -> State:
    return {name: torch.ones(2) for name in names}


def mmpretrain(state: State, beside: State) -> dict[str, Any]:
    return {
        "meta": {"epoch": 200, "cfg": "model = dict(...)", "dataset_meta": {"classes": ("a",)}},
        "state_dict": OrderedDict(under("backbone.", bare(state)) | beside),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.03}]},
    }


def mm_moco(state: State) -> dict[str, Any]:
    heads = any_tensors("neck.fc0.weight", "neck.fc2.bias", "queue", "queue_ptr")
    momentum = under("encoder_k.module.0.", bare(state)) | any_tensors("encoder_k.steps")
    return mmpretrain(state, heads | momentum)


def mm_byol(state: State) -> dict[str, Any]:
    heads = any_tensors("neck.fc0.weight", "head.predictor.fc0.weight", "target_net.steps")
    return mmpretrain(state, heads | under("target_net.module.0.", bare(state)))


def moco_v2(state: State) -> dict[str, Any]:
    query = under("module.encoder_q.", bare(state))
    heads = any_tensors("module.encoder_q.fc.0.weight", "module.encoder_q.fc.2.bias")
    key = under("module.encoder_k.", bare(state)) | any_tensors("module.queue", "module.queue_ptr")
    return {"epoch": 800, "arch": "resnet50", "state_dict": query | heads | key, "optimizer": {}}


def moco_v3(head: str) -> Callable[[State], dict[str, Any]]:
    def arranged(state: State) -> dict[str, Any]:
        base = under("module.base_encoder.", bare(state))
        heads = any_tensors(f"module.base_encoder.{head}.0.weight", "module.predictor.0.weight")
        momentum = under("module.momentum_encoder.", bare(state))
        return {"epoch": 300, "state_dict": base | heads | momentum, "scaler": {"scale": 1.0}}

    return arranged


def dino(state: State, *, parallel: bool = False) -> dict[str, Any]:
    """With NumPy's learning rates, as its training leaves them in the optimizer."""
    head = any_tensors("head.mlp.0.weight", "head.last_layer.weight_g")
    teacher = under("backbone.", bare(state)) | head
    other = {name: tensor + 1 for name, tensor in teacher.items()}
    groups = [{"lr": np.float64(0.002), "weight_decay": np.float64(0.4), "params": [0]}]
    return {
        "student": under("module.", other),
        "teacher": under("module.", teacher) if parallel else teacher,
        "optimizer": {"state": {}, "param_groups": groups},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_base", lr=0.0005),
        "dino_loss": any_tensors("center"),
    }


def without_teacher(state: State) -> dict[str, Any]:
    return {"student": under("module.", dino(state)["teacher"]), "epoch": 100}


PUBLISHED: dict[str, tuple[Network, str, Callable[[State], Any], int]] = {
    "torchvision": (RESNET, "supervised_ce", dict, 2),
    "torchvision's script": (RESNET, "supervised_ce", lambda s: {"model": s, "epoch": 9}, 2),
    "timm": (VIT, "supervised_ce", dict, 2),
    "b-cos zoo": (BCOS, "supervised_bce", dict, 1),
    "b-cos zoo, in a sequence": (BCOS, "supervised_bce", lambda s: under("0.", s), 1),
    "b-cos zoo, vit": (BCOS_VIT, "supervised_bce", dict, 2),
    "mmpretrain": (RESNET, "supervised_bce", lambda s: mmpretrain(
        s, any_tensors("head.fc.weight", "data_preprocessor.mean")), 2),
    "mmpretrain, b-cos": (BCOS, "supervised_bce", lambda s: mmpretrain(
        s, any_tensors("head.fc0.linear.weight", "head.bn0.weight")), 2),
    "mmpretrain moco": (RESNET, "moco_v2", mm_moco, 5 + len(bare(weights_of(RESNET)))),
    "mmpretrain moco, b-cos": (BCOS, "moco_v2", mm_moco, 5 + len(bare(weights_of(BCOS)))),
    "mmpretrain byol": (RESNET, "byol", mm_byol, 3 + len(bare(weights_of(RESNET)))),
    "mmpretrain byol, b-cos": (BCOS, "byol", mm_byol, 3 + len(bare(weights_of(BCOS)))),
    "moco v2": (RESNET, "moco_v2", moco_v2, 4 + len(bare(weights_of(RESNET)))),
    "moco v3": (RESNET, "moco_v3", moco_v3("fc"), 2 + len(bare(weights_of(RESNET)))),
    "moco v3, vit": (SHALLOW, "moco_v3", moco_v3("head"), 2 + len(bare(weights_of(SHALLOW)))),
    "dino": (VIT, "dino", dino, 2),
    "dino, resnet": (RESNET, "dino", lambda s: dino(s, parallel=True), 2),
    "dino, b-cos": (BCOS, "dino", lambda s: dino(s, parallel=True), 2),
    "dino, b-cos vit": (BCOS_VIT, "dino", dino, 2),
    "dino, b-cos vit alone": (BCOS_VIT, "dino", lambda s: {
        k.removeprefix("0."): t for k, t in bare(s).items()}, 0),
    "dino's student": (RESNET, "dino", without_teacher, 2),
    "dino, backbone alone": (RESNET, "dino", bare, 0),
    "dino, vit alone": (VIT, "dino", bare, 0),
}  # fmt: skip


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def features(network: Network, module: nn.Module) -> Tensor:
    """What the deepest named layer gives for an image of noise."""
    module.eval()
    side = 64 if not isinstance(network, ShallowViT) else 32
    pixels = torch.randint(0, 256, (1, 3, side, side), generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    last = network.depths["final"] if not isinstance(network, ShallowViT) else "norm"
    handle = module.get_submodule(last).register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        module(network.encode(pixels.to(torch.uint8)))
    handle.remove()
    return seen[0]


@cache
def expected_features(network: Network) -> Tensor:
    whole = network.build(CLASSES).module
    whole.load_state_dict(weights_of(network))
    return features(network, whole)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_gives_the_features_of_the_network_that_it_was_made_of(name, tmp_path):
    network, pretraining, arranged, dropped = PUBLISHED[name]
    state = weights_of(network)
    loaded = load_backbone(network, pretraining, saved(arranged(state), tmp_path / "w.pth"))
    filled = loaded.model.module.state_dict()
    assert all(torch.equal(filled[key], tensor) for key, tensor in bare(state).items())
    expected = expected_features(loaded.network)
    assert torch.equal(features(loaded.network, loaded.model.module), expected)
    match = loaded.match
    assert match.misfits == {}
    assert len(match.dropped) == dropped
    assert set(match.new) == {k for k in state if k.startswith(classifier_of(network))}
    assert f"{len(bare(state))} tensors taken; {dropped} dropped" in str(match)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_is_taken_for_nothing_else(name):
    network, pretraining, arranged, _ = PUBLISHED[name]
    same = ("supervised_ce", "supervised_bce") if "supervised" in pretraining else (pretraining,)
    assert fitting_pretrainings(network, arranged(weights_of(network))) == same


REAL: list[tuple[str, str, Callable[[State], Any]]] = [
    ("resnet50", "supervised_ce", dict), ("resnet50", "moco_v2", moco_v2),
    ("resnet50", "moco_v2", mm_moco), ("resnet50", "byol", mm_byol),
    ("resnet50", "moco_v3", moco_v3("fc")), ("resnet50", "dino", dino),
    ("resnet50", "dino", bare), ("bcos_resnet50", "supervised_bce", dict),
    ("bcos_resnet50", "moco_v2", mm_moco), ("bcos_resnet50", "byol", mm_byol),
    ("bcos_resnet50", "dino", dino), ("vit_base_patch16", "supervised_ce", dict),
    ("vit_base_patch16", "dino", dino), ("vit_base_patch16", "moco_v3", moco_v3("head")),
    ("bcos_vitc_s", "dino", dino), ("bcos_vitc_b", "supervised_bce", dict),
    ("bcos_vitc_b", "dino", dino),
]  # fmt: skip


@pytest.mark.parametrize(("name", "pretraining", "arranged"), REAL)
def test_the_papers_networks_fit_by_name_and_shape(name, pretraining, arranged):
    network = Network.named(name)
    content = arranged(dict(shapes_of(network)))
    matches = [match_in(network, one, content) for one in layouts_of(network, pretraining)]
    assert [match for match in matches if match and not match.misfits]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pretraining", "arranged"),
    [REAL[1], REAL[8], REAL[13]],
    ids=["resnet50", "bcos_resnet50", "vit_base_patch16"],
)
def test_the_papers_networks_are_filled(name, pretraining, arranged, tmp_path):
    network = Network.named(name)
    state = weights_of.__wrapped__(network)
    path = saved(arranged(state), tmp_path / "w.pth")
    loaded = load_backbone(name, pretraining, path)
    filled = loaded.model.module.state_dict()
    assert all(torch.equal(filled[key], tensor) for key, tensor in bare(state).items())


class TestTheFile:
    def test_of_weights_alone_is_read_whatever_they_lay_in(self, tmp_path):
        state = weights_of(RESNET)
        alone = {name: tensor.clone() for name, tensor in moco_v2(state)["state_dict"].items()}
        save_file(alone, tmp_path / "w.safetensors")
        filled = load_backbone(RESNET, "moco_v2", tmp_path / "w.safetensors").model.module
        assert torch.equal(filled.conv1.weight, state["conv1.weight"])
        torch.save(dino(state)["teacher"], tmp_path / "teacher.pth")
        assert load_backbone(RESNET, "dino", tmp_path / "teacher.pth").match.beside == ()

    def test_says_what_it_holds_beside_the_weights(self, tmp_path):
        match = match_of(RESNET, "dino", saved(dino(weights_of(RESNET)), tmp_path / "w.pth"))
        assert str(match) == (
            "DINO, full checkpoint: 72 tensors taken; 2 dropped: head (2); new: fc.weight, fc.bias"
            "; unread: student, optimizer, epoch, args, dino_loss"
        )

    def test_of_half_precision_fills_a_network_of_full(self, tmp_path):
        state = {k: t.half() for k, t in weights_of(RESNET).items() if t.is_floating_point()}
        path = saved(state, tmp_path / "w.pth")
        filled = load_backbone(RESNET, "supervised", path).model.module.state_dict()
        assert filled["conv1.weight"].dtype == torch.float32
        assert torch.equal(filled["conv1.weight"], state["conv1.weight"].float())

    def test_histories_of_mmpretrain_are_not_read(self, tmp_path, monkeypatch):
        class HistoryBuffer:
            def __init__(self) -> None:
                self.history = np.array([0.5, 0.25])
                self.statistics = OrderedDict(mean=HistoryBuffer.mean)

            def mean(self) -> float:
                raise AssertionError("called")

        HistoryBuffer.__module__ = "mmengine.logging.history_buffer"
        HistoryBuffer.__qualname__ = "HistoryBuffer"
        HistoryBuffer.mean.__module__ = HistoryBuffer.__module__
        HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
        made = types.ModuleType(HistoryBuffer.__module__)
        made.HistoryBuffer = HistoryBuffer
        with monkeypatch.context() as patch:
            for name in ("mmengine", "mmengine.logging", HistoryBuffer.__module__):
                patch.setitem(sys.modules, name, made)
            content = mm_moco(weights_of(RESNET))
            content["message_hub"] = {"log_scalars": {"train/loss": HistoryBuffer()}}
            path = saved(content, tmp_path / "epoch_200.pth")
        assert "message_hub" in match_of(RESNET, "moco_v2", path).beside


def refusal(
    content: Any, path: Path, network: Network = RESNET, pretraining: str = "moco_v2"
) -> str:
    """Why the file is refused, in a line."""
    with pytest.raises(ValueError, match=path.name) as caught:
        match_of(network, pretraining, saved(content, path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestRefused:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "w.pth"

    def test_every_tensor_is_named(self, path):
        content = moco_v2(weights_of(RESNET))
        state = content["state_dict"]
        state["module.encoder_q.layer5.weight"] = torch.ones(2)
        state["module.encoder_q.conv1.weight"] = torch.ones(2, 3)
        del state["module.encoder_q.bn1.bias"]
        assert refusal(content, path).endswith(
            "does not fit small_resnet as moco_v2 (as laid out by: mmpretrain, MoCo v2); it holds "
            "epoch, arch, state_dict, optimizer. By the nearest, MoCo v2, missing: bn1.bias; "
            "unknown: encoder_q.layer5.weight; other shapes: conv1.weight (2, 3) for (2, 3, 3, 3)"
        )

    def test_another_pretraining(self, path):
        told = refusal(mm_byol(weights_of(RESNET)), path)
        assert "it holds meta, state_dict, optimizer; it would fit as byol." in told
        assert "unknown: head.predictor" not in told  # a head is dropped in both
        assert "unknown: target_net.module.0.conv1.weight, " not in told.partition("unknown")[0]
        assert "target_net.steps" in told

    def test_another_network(self, path):
        told = refusal(mm_moco(weights_of(BCOS)), path)
        assert "missing: conv1.weight, " in told
        assert "unknown: backbone.conv1.linear.weight, " in told
        assert "would fit" not in told

    def test_a_name_outside_the_backbone_that_is_like_one_within(self, path):
        content = mm_moco(weights_of(RESNET))
        state = content["state_dict"]
        state["conv1.weight"] = state.pop("backbone.conv1.weight")
        assert "missing: conv1.weight; unknown: conv1.weight" in refusal(content, path)

    def test_a_backbone_without_the_classifier_that_supervision_leaves(self, path):
        told = refusal(bare(weights_of(RESNET)), path, pretraining="supervised_ce")
        assert "it would fit as dino" in told
        assert told.endswith("missing: a classifier (fc., head.)")

    def test_a_teacher_that_does_not_fit_though_the_student_does(self, path):
        content = dino(weights_of(RESNET))
        del content["teacher"]["backbone.conv1.weight"]
        assert refusal(content, path, pretraining="dino").endswith("missing: conv1.weight")

    def test_a_file_without_weights(self, path):
        told = refusal({"epoch": 3, "model": {"lr": 0.1}}, path, pretraining="dino")
        assert "no weights by name, also not under teacher, student, state_dict" in told
        assert told.endswith("it holds epoch, model")
        assert refusal([1, 2], path).endswith("it holds a list")

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "of before 2020"])
    def test_a_file_that_is_cut_off(self, zipped, path):
        content = moco_v2(weights_of(RESNET))
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        match_of(RESNET, "moco_v2", path)
        for kept in (len(whole) - 30, *range(0, len(whole), len(whole) // 12)):
            path.write_bytes(whole[:kept])
            with pytest.raises(ValueError, match=r"w\.pth: (neither|more than weights)"):
                match_of(RESNET, "moco_v2", path)

    def test_a_program_in_the_file(self, path, tmp_path):
        content = moco_v2(weights_of(RESNET)) | {"callback": Evil(tmp_path / "executed")}
        assert "more than weights" in refusal(content, path)
        assert not (tmp_path / "executed").exists()

    def test_a_torchscript_archive_until_its_weights_are_saved_as_it_says(self, tmp_path):
        from tests.trainables.models.test_clip_resnet import Narrow, Visual

        class Clip(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.visual = Visual(8, (2, 1, 2, 1))

            def forward(self, x: Tensor) -> Tensor:
                return self.visual.conv1(x)

        with pytest.warns(FutureWarning):
            torch.jit.trace(Clip().eval(), torch.zeros(1, 3, 32, 32)).save(tmp_path / "RN50.pt")
        with pytest.raises(ValueError, match="TorchScript archive, which is a program") as caught:
            match_of(Narrow(), "clip", tmp_path / "RN50.pt")
        said = str(caught.value).partition("trusted: ")[2]
        said = said.replace("FILE", repr(str(tmp_path / "RN50.pt")))
        said = said.replace("'weights.pth'", repr(str(tmp_path / "weights.pth")))
        with pytest.warns(FutureWarning):
            exec(said, {"torch": torch})
        assert not match_of(Narrow(), "clip", tmp_path / "weights.pth").misfits

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: no such checkpoint file"):
            load_backbone("resnet50", "auto", tmp_path / "nowhere.pth")

    def test_names_that_are_unknown_or_without_layout(self, path):
        with pytest.raises(ValueError, match=r"unknown network 'resnet51'; known: .*resnet50"):
            load_backbone("resnet51", "dino", path)
        with pytest.raises(ValueError, match=r"unknown pre-training 'mae'; known: .*moco_v2.*clip"):
            load_backbone("resnet50", "mae", path)
        with pytest.raises(ValueError, match=r"no layout of published clip weights of resnet50 .*"):
            load_backbone("resnet50", "clip", path)
        with pytest.raises(ValueError, match="of vgg16 is known; there are none of it at all"):
            load_backbone("vgg16", "dino", path)
        with pytest.raises(ValueError, match="no layout of published weights of vgg16 is known"):
            load_backbone("vgg16", "auto", path)
        with pytest.raises(ValueError, match="moco_v3 weights of vit_small_patch16"):  # 12 heads
            load_backbone("vit_small_patch16", "moco_v3", path)

    def test_auto_where_the_layout_leaves_it_open(self, path):
        saved({"state_dict": under("backbone.", bare(weights_of(RESNET)))}, path)
        with pytest.raises(ValueError, match="it is byol or moco_v2 of small_resnet; say"):
            load_backbone(RESNET, "auto", path)
        saved(any_tensors("a", "b"), path)
        with pytest.raises(ValueError, match=r"it is none of supervised_ce, .*; it holds a, b"):
            load_backbone(RESNET, "auto", path)


class Evil:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_weights_get_the_encoding_that_they_were_trained_with(tmp_path):
    path = saved(bare(weights_of(VIT)), tmp_path / "w.pth")
    loaded = load_backbone(VIT, "dino", path)
    black = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert loaded.network == SmallViT(stem=False, encoding="imagenet")
    assert torch.equal(loaded.model.encode(black), RESNET.encode(black))
    path = saved(weights_of(VIT), tmp_path / "w.pth")
    assert load_backbone(VIT, "supervised", path).network == VIT
    assert torch.equal(VIT.encode(black), torch.full((1, 3, 64, 64), -1.0))
    assert Network.named("deit_base").as_pretrained("moco_v3") == Network.named("deit_base")
    assert Network.named("resnet50").as_pretrained("dino") == Network.named("resnet50")


def test_supervision_is_by_cross_entropy_unless_the_network_is_a_b_cos_one(tmp_path):
    for network, meant in ((RESNET, "supervised_ce"), (BCOS, "supervised_bce")):
        path = saved(weights_of(network), tmp_path / "w.pth")
        for said in ("supervised", "auto"):
            assert pretraining_meant(network, said, path) == meant


def test_every_layout_of_the_table_is_tested():
    tested = {
        (match.layout.title, pretraining)
        for network, pretraining, arranged, _ in PUBLISHED.values()
        for layout in layouts_of(network, pretraining)
        if (match := match_in(network, layout, arranged(weights_of(network)))) and not match.misfits
    }
    known = {(layout.title, name) for layout in LAYOUTS for name in layout.pretrainings}
    supervised = {("torchvision, timm", "supervised_bce")}
    supervised |= {(title, "supervised_ce") for title, name in known if "bce" in name}
    assert {pair for pair in known - tested if pair[1] != "clip"} <= supervised
    assert set(PRETRAININGS) == {name for _, name in known}
