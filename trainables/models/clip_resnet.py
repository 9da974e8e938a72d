"""CLIP's ResNet-50 without its attention pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from trainables.models.network import Network, standardized

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class ClipResNet50(Network):
    """CLIP's image encoder of ResNet-50 size; its last maps are averaged, then classified.

    Three convolutions make its stem, and where a block strides, average pooling does.

    Source: Radford et al., ICML 2021; without the attention pool as in How to Probe (Gairola et
        al., ICLR 2025).
    """

    name: ClassVar[str] = "clip_resnet50"
    depths: ClassVar[Mapping[str, str]] = {
        "input": "", "mid1": "stages.0", "mid2": "stages.1", "mid3": "stages.2",
        "final": "stages.3",
    }  # fmt: skip
    probed_at: ClassVar[str] = "stages.3"
    head_at: ClassVar[str] = "head"

    def module(self, classes: int) -> nn.Module:
        """Timm's module of the same network."""
        import timm  # only here: it takes seconds

        return timm.create_model("resnet50_clip_gap", num_classes=classes)

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32: scaled to [0, 1], then CLIP's mean and deviation."""
        return standardized(images, MEAN, STD)
