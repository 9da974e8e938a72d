"""Score-CAM: channels weighted by the score of the image behind each of them as a mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from trainables.attribution.answers import Answers, Score
from trainables.attribution.attribution import Explained
from trainables.attribution.cam import Cam
from trainables.baselines import Baseline, Zero
from trainables.models.network import Model
from trainables.passes import Feature, Need, Passes, Slab, upsample


@dataclass(frozen=True, kw_only=True)
class ScoreCam(Cam):
    """ReLU of the channels, weighted by the target's score where each lets the image through.

    A channel is upsampled and scaled to [0, 1]; the image times this mask goes through the model:
    one forward a channel and image, which serves all targets of the image.

    Source: Score-CAM (Wang et al., CVPRW 2020), algorithm 1.

    Departs: a constant channel has no scale; its mask is zero, as in TorchCAM and grad-cam (the
    authors' code leaves it out).
    """

    name: ClassVar[str] = "score_cam"

    channel_softmax: bool = True
    """Whether a softmax over the channels makes the weights sum to 1 (algorithm 1, TorchCAM,
    grad-cam). The authors' code weights by the scores themselves."""
    score: Score = "logit"
    """What the model says of the target: its logit (TorchCAM, grad-cam), its probability, after a
    softmax over the classes in the authors' code, or by itself (sigmoid)."""
    baseline: Baseline | None = field(default_factory=Zero)
    """Image whose score is subtracted: the increase of confidence; None subtracts nothing, as
    the authors' code. It drops out of the softmax over the channels, and is not run for it."""
    channels: int | None = None
    """How many channels are tried, those that vary most (Faster-ScoreCAM, in tf-keras-vis); None:
    all, as published."""

    @property
    def cost(self) -> float:
        return float(self.channels or 512)  # a final layer has about so many

    @property
    def explains(self) -> Explained:
        return "logit" if self.score == "logit" else "probability"

    def __post_init__(self) -> None:
        """Check the range."""
        super().__post_init__()
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"ScoreCam.channels = {self.channels}; expected None or 1 or more")

    def needs(self, model: Model) -> tuple[Need, ...]:
        """The channels; no gradient."""
        return (Feature(layer=self.layer),)

    def activation_map(self, passes: Passes) -> Tensor:
        """ReLU(sum over d of w_d F_d), w = softmax over d of the masked images' scores."""
        feature = passes.feature(self.layer)
        channel, masked = passes.get(MaskedAnswers(layer=self.layer, channels=self.channels))
        scores = masked.scores(self.score)
        if self.channel_softmax:
            weights = scores.softmax(1)
        elif self.baseline is None:
            weights = scores
        else:
            unmasked = passes.get(BaselineAnswers(baseline=self.baseline))
            weights = scores - unmasked.scores(self.score)
        tried = feature.take_along_dim(channel[:, :, None, None], dim=1)
        return (weights[:, :, None, None] * tried).sum(1).relu()


@dataclass(frozen=True, kw_only=True)
class MaskedAnswers:
    """The channels that serve as masks for each explanation, (N, D), and the `Answers` to them."""

    layer: str
    channels: int | None = None

    def compute(self, passes: Passes) -> tuple[Tensor, Answers]:
        """One forward a channel and image, reduced slab by slab to the targets' answers."""
        batch, feature = passes.batch, passes.feature(self.layer)
        size = (batch.images.shape[2], batch.images.shape[3])
        count = min(self.channels or feature.shape[1], feature.shape[1])
        varied = feature.flatten(2).std(2, correction=0)
        order = varied.argsort(dim=1, descending=True, stable=True)[:, :count].sort(1).values
        # an explanation of each image, to find its channels; copies are of explained images only
        number = torch.arange(len(feature), device=feature.device)
        row = torch.zeros(len(batch.images), dtype=torch.long, device=feature.device)
        row = row.scatter_reduce(0, batch.image_index, number, "amin", include_self=False)

        def behind_a_channel(slab: Slab) -> Tensor:
            which = row[slab.image]
            masks = upsample(feature[which, order[which, slab.sample]], size, "bilinear")
            masks = masks - masks.amin((1, 2), keepdim=True)
            highest = masks.amax((1, 2), keepdim=True)
            masks = torch.where(highest == 0, 0, masks / highest)
            return batch.images[slab.image] * masks[:, None]

        answers = Answers.of_copies(passes, count, behind_a_channel)
        return order[row[batch.image_index]], answers


@dataclass(frozen=True, kw_only=True)
class BaselineAnswers:
    """`Answers` for the baseline of each explanation's image, one column."""

    baseline: Baseline

    def compute(self, passes: Passes) -> Answers:
        """One forward an image."""
        batch = passes.batch
        each = torch.arange(len(batch.targets), device=batch.targets.device)
        child = passes.on(self.baseline.images(batch), image_index=batch.image_index, of=each)
        return Answers.of_images(child)
