"""BYOL: predict what the teacher makes of the other view, without any other image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from trainables.ssl.heads import mlp
from trainables.ssl.method import Criterion, Embeddings, SslMethod
from trainables.ssl.view import View


class Agreement(Criterion):
    """Squared distance of prediction and target at length 1, 2 - 2 cos, both ways round."""

    def forward(self, outputs: Embeddings, targets: Embeddings, epoch: int) -> Tensor:
        cosines = [
            functional.cosine_similarity(outputs[a], targets[b], dim=1).mean()
            for a, b in ((0, 1), (1, 0))
        ]
        return 4 - 2 * (cosines[0] + cosines[1])


@dataclass(frozen=True, kw_only=True)
class Byol(SslMethod):
    """Bootstrap your own latent.

    Source: BYOL (Grill et al., NeurIPS 2020), equation 2 and appendix B.
    """

    name: ClassVar[str] = "byol"
    student_views: ClassVar[slice] = slice(0, 2)
    teacher_views: ClassVar[slice] = slice(0, 2)

    view: View = field(default_factory=lambda: View(crop_scale=(0.08, 1.0), saturation=0.2, blur=1))
    """The first."""
    other_view: View = field(
        default_factory=lambda: View(crop_scale=(0.08, 1.0), saturation=0.2, blur=0.1, solarize=0.2)
    )
    """The second."""
    momentum: float = 0.99
    """0.996 for 1000 epochs in the paper, 0.99 for 300; rises to 1."""
    hidden: int = 4096
    """Of both heads. 4096 in the paper."""
    channels: int = 256
    """Of both heads. 256 in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("hidden", self.hidden >= 1, "at least 1")
        self.require("channels", self.channels >= 1, "at least 1")

    @property
    def views(self) -> tuple[View, ...]:
        return (self.view, self.other_view)

    def projector(self, channels: int, *, bcos: bool) -> nn.Module:
        return mlp((channels, self.hidden, self.channels), bcos=bcos, norm=True)

    def predictor(self, *, bcos: bool) -> nn.Module:
        return mlp((self.channels, self.hidden, self.channels), bcos=bcos, norm=True)

    def criterion(self) -> Criterion:
        return Agreement()
