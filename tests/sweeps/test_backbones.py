"""Published backbones as flags name them: every wrong form is refused in a line."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from sweeps.backbones import accounts, published_backbones
from trainables.backbone import PublishedBackbone
from trainables.models.network import Network
from trainables.models.pretrained import pretrained_of

RESNET, BCOS = Network.named("small_resnet"), Network.named("small_bcos_resnet")


@pytest.fixture
def files(tmp_path):
    """Weights of small networks, as MoCo v2, the B-cos zoo and DINO publish theirs."""
    resnet = RESNET.build(3).module.state_dict()
    moco = {f"module.encoder_q.{k}": t for k, t in resnet.items() if k[:2] != "fc"}
    dino = Network.named("small_vit").build(3).module.state_dict()
    torch.save({"epoch": 200, "state_dict": moco}, tmp_path / "moco:v2.pth.tar")
    torch.save(BCOS.build(3).module.state_dict(), tmp_path / "bcos.pth")
    torch.save({k: t for k, t in dino.items() if k[:4] != "head"}, tmp_path / "vit.pth")
    return tmp_path


def test_each_says_network_pretraining_and_file(files):
    found = published_backbones(
        [
            f"small_resnet=moco_v2:{files / 'moco:v2.pth.tar'}",
            f"small_bcos_resnet=supervised:{files / 'bcos.pth'}",
            f"small_vit=auto:{files / 'vit.pth'}",
        ]
    )
    assert [one.label for one in found] == [
        "small_resnet moco_v2",
        "small_bcos_resnet supervised_bce",
        "small_vit_imagenet dino",
    ]
    assert found[0] == PublishedBackbone(
        network=RESNET,
        pretrained_by="moco_v2",
        weights=pretrained_of(files / "moco:v2.pth.tar"),
    )
    for one in found:
        one.check()
    lines = accounts(found)
    assert lines[0].startswith(f"small_resnet moco_v2 from {files / 'moco:v2.pth.tar'}: MoCo v2: ")
    assert lines[0].endswith("0 dropped; new: fc.weight, fc.bias; unread: epoch")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet50", "expected NETWORK=PRETRAINING:FILE"),
        ("resnet50=moco_v2", "expected NETWORK=PRETRAINING:FILE"),
        ("resnet50=:w.pth", "expected NETWORK=PRETRAINING:FILE"),
        ("=moco_v2:w.pth", "expected NETWORK=PRETRAINING:FILE"),
        ("resnet51=moco_v2:w.pth", "unknown network 'resnet51'; known: .*resnet50"),
        ("resnet50=simclr:w.pth", "unknown pre-training 'simclr'; known: .*moco_v2"),
        ("resnet50=clip:w.pth", "no layout of published clip weights of resnet50 is known; of res"),
        ("vgg16=dino:w.pth", "no layout of published dino weights of vgg16.*none of it at all"),
    ],
)
def test_a_wrong_form_is_refused_with_the_flag_and_what_is_right(text, message):
    with pytest.raises(ValueError, match=rf"--backbones {re.escape(text)}: .*{message}") as caught:
        published_backbones([text])
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    for said in ("moco_v2", "auto"):
        with pytest.raises(
            FileNotFoundError, match=rf"resnet50={said}:no\.pth: .*no\.pth: no such"
        ):
            published_backbones([f"resnet50={said}:no.pth"])


def test_the_same_backbone_has_one_file(files):
    text = f"small_bcos_resnet=supervised:{files / 'bcos.pth'}"
    with pytest.raises(ValueError, match="small_bcos_resnet supervised_bce has a file already"):
        published_backbones([text, text.replace("supervised", "supervised_bce")])


def test_a_file_of_something_else_is_refused_before_anything_runs(files):
    (found,) = published_backbones([f"small_resnet=byol:{files / 'moco:v2.pth.tar'}"])
    with pytest.raises(ValueError, match=r"does not fit .* as byol.*would fit as moco_v2"):
        found.check()
    (found,) = published_backbones([f"small_bcos_resnet=supervised:{files / 'bcos.pth'}"])
    torch.save({}, files / "bcos.pth")
    with pytest.raises(ValueError, match="put the file back"):
        found.check()


def test_a_backbone_has_the_encoding_of_its_weights(files):
    weights = pretrained_of(files / "vit.pth")
    with pytest.raises(ValueError, match=r"dino weights expect the encoding of .*'imagenet'.*half"):
        PublishedBackbone(network=Network.named("small_vit"), pretrained_by="dino", weights=weights)


def test_a_backbone_is_built_with_the_weights_of_its_file(files):
    (found,) = published_backbones([f"small_resnet=moco_v2:{files / 'moco:v2.pth.tar'}"])
    module = found.build(SimpleNamespace(device=torch.device("cpu"))).module
    expected: dict[str, Tensor] = torch.load(files / "moco:v2.pth.tar", weights_only=True)
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(module.state_dict()[name.removeprefix("module.encoder_q.")], tensor)
