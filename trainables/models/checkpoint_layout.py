"""Layouts of published checkpoints: where the backbone is in a file, and what it is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from torch import Tensor

from trainables.models.bcos_resnet import BcosResNet
from trainables.models.bcos_vit import BcosViT
from trainables.models.clip_resnet import ClipResNet50
from trainables.models.network import Network
from trainables.models.small_resnet import SmallResNet
from trainables.models.timm_vit import DeiTBase, TimmViT, ViTBase
from trainables.models.torchvision_resnet import TorchvisionResNet

Kinds = tuple[type[Network], ...]
RESNETS: Kinds = (TorchvisionResNet, SmallResNet)
BCOS: Kinds = (BcosResNet, BcosViT)
SUPERVISED = ("supervised_ce", "supervised_bce")
"""A file does not say which loss its classifier was trained with."""

IN_SEQUENCE = {r"^(?=to_patch_embedding\.|transformer\.|linear_head\.)": "0."}
"""B-cos ViTs end in a logit layer, in a sequence; some files are without it."""
CLIP_STEM = {rf"^(conv|bn){k}\.": rf"stem.conv{k}.\1." for k in (1, 2, 3)}
CLIP_BLOCKS = {
    rf"^layer{stage + 1}\.(\d+)\.{theirs}": rf"stages.{stage}.\1.{ours}"
    for stage in range(4)
    for theirs, ours in {
        r"(conv|bn)1\.": r"conv1_1x1.\2.",
        r"(conv|bn)2\.": r"conv2_kxk.\2.",
        r"(conv|bn)3\.": r"conv3_1x1.\2.",
        r"downsample\.0\.": "shortcut.conv.conv.",
        r"downsample\.1\.": "shortcut.conv.bn.",
    }.items()
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the files of some pre-trainings are laid out.

    Names are those in the file without what stands before all of them (``module.``).

    Attributes:
        title: what such files are called in messages.
        pretrainings: what the weights may have learned.
        networks: whose backbones are published so.
        containers: where the weights lie, the best first; a file of weights alone is read, too.
        prefix: before every name of the backbone.
        dropped: a regular expression of how names begin that are no part of the backbone: heads,
            queues, other networks.
        needed: how one of the dropped names begins, at least; else it is another kind of file.
        classified: whether a classifier may stand on the backbone; it is dropped, too.
        renamed: regular expressions of names without the prefix, and what stands for the match in
            the network's names; the first that matches counts.
    """

    title: str
    pretrainings: tuple[str, ...]
    networks: Kinds
    containers: tuple[str, ...] = ("state_dict",)
    prefix: str = ""
    dropped: str = "(?!)"  # nothing
    needed: tuple[str, ...] = ()
    classified: bool = True
    renamed: Mapping[str, str] = field(default_factory=dict)

    def table(self, content: Any) -> Mapping[str, Tensor] | None:
        """The weights in a file's content; None where there are none."""
        if is_table(content):
            return content
        if not isinstance(content, Mapping):
            return None
        return next((content[c] for c in self.containers if is_table(content.get(c))), None)

    def drops(self, name: str) -> bool:
        """Whether a tensor of the file is of no part of the backbone; a classifier is."""
        return bool(re.match(self.dropped, name))

    def name_of(self, name: str) -> str | None:
        """How the network calls a tensor of the backbone; None for another's."""
        if not name.startswith(self.prefix):
            return None
        name = name.removeprefix(self.prefix)
        for pattern, ours in self.renamed.items():
            renamed, times = re.subn(pattern, ours, name)
            if times:
                return renamed
        return name


def is_table(content: Any) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether it is a table of tensors by name."""
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(value, Tensor) for value in content.values())
    )


def classifier_of(network: Network) -> tuple[str, ...]:
    """How the names begin of what a probe takes the place of."""
    return tuple(f"{path}." for path in (network.head_at, *network.bypassed))


LAYOUTS = (
    Layout(
        title="torchvision, timm",
        pretrainings=SUPERVISED,
        networks=(*RESNETS, TimmViT),
        containers=("state_dict", "model"),
        needed=("fc.", "head."),
    ),
    Layout(
        title="B-cos zoo",
        pretrainings=SUPERVISED,
        networks=BCOS,
        needed=("fc.", "0.linear_head.", "linear_head."),
        renamed=IN_SEQUENCE,
    ),
    Layout(
        title="B-cos zoo, in a sequence",
        pretrainings=SUPERVISED,
        networks=(BcosResNet,),
        prefix="0.",
        needed=("0.fc.",),
    ),
    Layout(
        title="mmpretrain",
        pretrainings=SUPERVISED,
        networks=(*RESNETS, BcosResNet),
        prefix="backbone.",
        dropped=r"head\.|data_preprocessor\.",
        needed=("head.fc",),
    ),
    Layout(
        title="mmpretrain",
        pretrainings=("moco_v2",),
        networks=(*RESNETS, BcosResNet),
        prefix="backbone.",
        dropped=r"neck\.|head\.(?!fc)|queue|encoder_k\.|data_preprocessor\.",
    ),
    Layout(
        title="mmpretrain",
        pretrainings=("byol",),
        networks=(*RESNETS, BcosResNet),
        prefix="backbone.",
        dropped=r"neck\.|head\.(?!fc)|target_net\.|data_preprocessor\.",
    ),
    Layout(
        title="MoCo v2",
        pretrainings=("moco_v2",),
        networks=RESNETS,
        prefix="encoder_q.",
        dropped=r"encoder_k\.|queue",
    ),
    Layout(
        title="MoCo v3",
        pretrainings=("moco_v3",),
        networks=(*RESNETS, ViTBase, DeiTBase),  # its smaller ones have other numbers of heads
        prefix="base_encoder.",
        dropped=r"momentum_encoder\.|predictor\.",
    ),
    Layout(
        title="DINO, full checkpoint",
        pretrainings=("dino",),
        networks=(*RESNETS, TimmViT, *BCOS),
        containers=("teacher", "student"),
        prefix="backbone.",
        dropped=r"head\.",
        renamed=IN_SEQUENCE,
    ),
    Layout(
        title="DINO, backbone alone",
        pretrainings=("dino",),
        networks=(*RESNETS, TimmViT, *BCOS),
        classified=False,
        renamed=IN_SEQUENCE,
    ),
    Layout(
        title="CLIP",
        pretrainings=("clip",),
        networks=(ClipResNet50,),
        prefix="visual.",
        dropped=r"visual\.attnpool\.|transformer\.|token_embedding\.|positional_embedding|ln_final\."
        "|text_projection|logit_scale|input_resolution|context_length|vocab_size",
        renamed={**CLIP_STEM, **CLIP_BLOCKS},
    ),
    Layout(
        title="CLIP, image encoder alone",
        pretrainings=("clip",),
        networks=(ClipResNet50,),
        dropped=r"attnpool\.|input_resolution",
        renamed={**CLIP_STEM, **CLIP_BLOCKS},
    ),
    Layout(title="CLIP, timm", pretrainings=("clip",), networks=(ClipResNet50,)),
)
"""Every published layout that is read.

Source: the checkpoints of torchvision, timm, B-cos v2, mmpretrain (which How to Probe trains with),
    MoCo v2, MoCo v3, DINO and CLIP.
"""
PRETRAININGS = tuple(dict.fromkeys(name for layout in LAYOUTS for name in layout.pretrainings))


def layouts_of(network: Network, pretraining: str) -> list[Layout]:
    """Layouts in which a network is published after that pre-training.

    Raises:
        ValueError: unknown pre-training, or one after which the network is not published.
    """
    if pretraining not in PRETRAININGS:
        raise ValueError(f"unknown pre-training {pretraining!r}; known: {', '.join(PRETRAININGS)}")
    found = [
        layout
        for layout in LAYOUTS
        if pretraining in layout.pretrainings and isinstance(network, layout.networks)
    ]
    if not found:
        known = pretrainings_of(network)
        raise ValueError(
            f"no layout of published {pretraining} weights of {network.name} is known; "
            + (f"of {network.name}: {', '.join(known)}" if known else "there are none of it at all")
        )
    return found


def pretrainings_of(network: Network) -> tuple[str, ...]:
    """Pre-trainings after which a network is published."""
    layouts = [layout for layout in LAYOUTS if isinstance(network, layout.networks)]
    return tuple(dict.fromkeys(name for layout in layouts for name in layout.pretrainings))
