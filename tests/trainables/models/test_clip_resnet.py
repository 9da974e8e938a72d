"""CLIP's ResNet: the published network, said a second time, gives the same features."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from trainables.models.clip_resnet import MEAN, STD, ClipResNet50
from trainables.models.published_weights import load_backbone


class Block(nn.Module):
    """A bottleneck whose strides are average pools, on the branch and on the shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.pool = nn.AvgPool2d(stride)
        if stride > 1 or channels != 4 * width:
            named = {
                "-1": nn.AvgPool2d(stride),
                "0": nn.Conv2d(channels, 4 * width, 1, bias=False),
                "1": nn.BatchNorm2d(4 * width),
            }
            self.downsample = nn.Sequential(OrderedDict(named))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.pool(self.bn2(self.conv2(out)).relu())
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        return (self.bn3(self.conv3(out)) + shortcut).relu()


class Visual(nn.Module):
    """CLIP's image encoder up to its last maps, with the names of its published weights."""

    def __init__(self, width: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        sizes = [(3, width // 2, 2), (width // 2, width // 2, 1), (width // 2, width, 1)]
        for k, (a, b, stride) in enumerate(sizes, 1):
            setattr(self, f"conv{k}", nn.Conv2d(a, b, 3, stride, padding=1, bias=False))
            setattr(self, f"bn{k}", nn.BatchNorm2d(b))
        self.pool = nn.AvgPool2d(2)
        channels = width
        for k, times in enumerate(blocks):
            here, stages = width * 2**k, []
            for n in range(times):
                stages.append(Block(channels, here, 2 if k and not n else 1))
                channels = 4 * here
            setattr(self, f"layer{k + 1}", nn.Sequential(*stages))
        self.attnpool = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        for k in (1, 2, 3):
            x = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(x)).relu()
        x = self.pool(x)
        for k in (1, 2, 3, 4):
            x = getattr(self, f"layer{k}")(x)
        return x


@dataclass(frozen=True, kw_only=True)
class Narrow(ClipResNet50):
    """Two, one, two and one blocks of an eighth of the width."""

    def module(self, classes: int) -> nn.Module:
        from timm.models import byobnet

        blocks = tuple(
            byobnet.ByoBlockCfg(type="bottle", d=d, c=32 * 2**k, s=2 if k else 1, br=0.25)
            for k, d in enumerate((2, 1, 2, 1))
        )
        plan = byobnet.model_cfgs["resnet50_clip_gap"]
        return byobnet.ByobNet(replace(plan, blocks=blocks, stem_chs=(4, 4, 8)), classes)


def published() -> Visual:
    generator, visual = torch.Generator().manual_seed(0), Visual(8, (2, 1, 2, 1))
    for name, tensor in visual.state_dict().items():
        if tensor.is_floating_point():
            away = 0.5 if name.endswith("running_var") else -0.4
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + away)
    return visual.eval()


TOWER = {
    "positional_embedding": torch.zeros(7, 4), "text_projection": torch.zeros(4, 5),
    "logit_scale": torch.zeros(()), "input_resolution": torch.tensor(224),
    "context_length": torch.tensor(77), "vocab_size": torch.tensor(49408),
    "transformer.resblocks.0.ln_1.weight": torch.zeros(4), "ln_final.weight": torch.zeros(4),
    "token_embedding.weight": torch.zeros(9, 4),
}  # fmt: skip


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "image encoder"])
def test_published_weights_give_clip_s_features(whole, tmp_path):
    visual = published()
    state = dict(visual.state_dict())
    if whole:
        state = {f"visual.{name}": tensor for name, tensor in state.items()} | TOWER
    torch.save(state, tmp_path / "clip.pth")
    loaded = load_backbone(Narrow(), "clip", tmp_path / "clip.pth")
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(1))  # fmt: skip
    encoded = (images.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(
        3, 1, 1
    )
    module, seen = loaded.model.module.eval(), []
    module.get_submodule("stages.3").register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        expected = visual(encoded)
        module(loaded.model.encode(images))
    assert expected.std() > 0.1
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-5)
    assert len(loaded.match.dropped) == 2 + whole * len(TOWER)


def test_names_and_statistics_are_those_that_timm_gives_openai_s_weights():
    import timm
    from timm.models.byobnet import _convert_openai_clip

    network = ClipResNet50()
    with torch.device("meta"):
        ours = network.build(2).module
        theirs = Visual(64, (3, 4, 6, 3)).state_dict()
    renamed = _convert_openai_clip({f"visual.{k}": t for k, t in theirs.items()}, ours)
    assert {k: t.shape for k, t in renamed.items()} == {
        k: t.shape for k, t in ours.state_dict().items() if not k.startswith("head.")
    }
    said = timm.get_pretrained_cfg("resnet50_clip_gap.openai")
    assert (said.mean, said.std) == (MEAN, STD)


def test_what_a_probe_takes_is_what_its_place_is_given():
    class Kept(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.given = x
            return x.mean((2, 3))

    network, kept, seen = ClipResNet50(), Kept(), []
    with torch.device("meta"):
        module = network.build(2).module
        module.set_submodule(network.head_at, kept)
        module.get_submodule(network.probed_at).register_forward_hook(
            lambda _m, _i, out: seen.append(out)
        )
        out = module(torch.zeros(1, 3, 224, 224))
    assert kept.given is seen[0]
    assert seen[0].shape == (1, 2048, 7, 7)
    assert out.shape == (1, 2048)
