"""What all B-cos networks share: how pixels enter, the bias of the logits, the explanation mode."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from trainables.models.bcos_layers import LogitLayer, explanation_mode
from trainables.models.network import Model, Network

IMAGENET_LOGIT_BIAS = math.log(0.001 / 0.999)
"""-log(1000 - 1), about -6.9068: the constant of the networks pretrained on ImageNet."""


@dataclass(frozen=True, kw_only=True)
class BcosNetwork(Network):
    """A network of B-cos layers, without activations and biases: x -> W(x) x, plus a constant.

    Source: Boehle et al., CVPR 2022; B-cos v2 (Boehle et al., 2024).
    """

    logit_bias: float | None = field(default=None, metadata={"short": "bias"})
    """Constant in every logit. None is -log(K - 1) as in B-cos v2; Model Guidance keeps ImageNet's
    -6.9068 whatever K is."""

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 (B, 6, H, W): color in [0, 1], then 1 minus it.

        So a color has a direction, and black and white have the same length.
        """
        color = images.float() / 255
        return torch.cat([color, 1 - color], 1)

    def logit_layer(self, classes: int) -> LogitLayer:
        """The network's last layer."""
        default = -math.log(max(classes - 1, 1))
        return LogitLayer(bias=default if self.logit_bias is None else self.logit_bias)

    def with_new_head(self) -> Self:
        """The constant in the logits stays ImageNet's, unless another is stated.

        Source: Model Guidance (Rao et al., ICCV 2023), the authors' code.
        """
        return (
            self if self.logit_bias is not None else replace(self, logit_bias=IMAGENET_LOGIT_BIAS)
        )

    def build(self, classes: int) -> Model:
        model = super().build(classes)
        return replace(model, explaining=partial(explanation_mode, model.module))
