"""Grad-CAM++ and its smoothed form: channels weighted by higher derivatives of the score."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from trainables.attribution.cam import Cam
from trainables.noise import normal
from trainables.passes import Gradient, Passes


@dataclass(frozen=True, kw_only=True)
class GradCamPP(Cam):
    """ReLU of the channels, weighted by positive gradients that share one object's score.

    With the score exp(logit) and a head that is linear near the feature, the p-th derivative is
    exp(logit) g^p: alpha takes the gradient's powers alone, and no further pass is needed.

    Source: Grad-CAM++ (Chattopadhay et al., WACV 2018), equation 19; with
    ``weights="torchcam"`` IDSDS (Hesse et al., 2024) as run.

    Departs: the positive factor exp(logit) of a whole map is left out; it overflows.
    """

    name: ClassVar[str] = "grad_cam_pp"
    single_pass: ClassVar[bool] = True

    weights: Literal["published", "torchcam"] = "published"
    """"torchcam": the sum of ReLU(g)^3, as TorchCAM 0.4 and 0.5 behave. Their division by alpha's
    denominator is applied to a copy and lost."""
    epsilon: float = field(default=0.0, metadata={"short": "eps"})
    """Added to alpha's denominator. 1e-6 in the package grad-cam, more than g^2 behind a global
    average pooling: there it rules the weights."""

    def activation_map(self, passes: Passes) -> Tensor:
        """ReLU(sum over d of w_d F_d), w_d = sum(alpha_d ReLU(g_d)).

        alpha = g^2 / (2 g^2 + sum(F_d) g^3 + epsilon), 0 where the denominator is 0.
        """
        gradient, feature = passes.get(Gradient(layer=self.layer)), passes.feature(self.layer)
        positive = gradient.relu()
        if self.weights == "torchcam":
            weighted = positive**3
        else:  # divided by g^2: its powers would underflow
            below = 2 + feature.sum((2, 3), keepdim=True) * positive
            if self.epsilon:
                below = below + self.epsilon / positive**2
            weighted = torch.where((positive == 0) | (below == 0), 0, positive / below)
        return (weighted.sum((2, 3), keepdim=True) * feature).sum(1).relu()


@dataclass(frozen=True, kw_only=True)
class SmoothGradCamPP(Cam):
    """Grad-CAM++ with the derivatives' powers averaged over noisy copies of the image.

    The weights come from the averages, the channels from the clean image. Without noise it equals
    grad_cam_pp. The noise depends on seed, image and sample number alone.

    Source: Smooth Grad-CAM++ (Omeiza et al., 2019); IDSDS (Hesse et al., 2024): 4
    samples, deviation 0.3 in the encoded space, as TorchCAM's defaults.

    Departs: alpha's numerator is the second derivative, as in Grad-CAM++ (and in TorchCAM, whose
    authors note that the paper prints the first); with the first it would not reduce to Grad-CAM++
    without noise. The samples' factors exp(logit) are left out, as in TorchCAM.
    """

    name: ClassVar[str] = "smooth_grad_cam_pp"

    samples: int = 4
    """Noisy copies an image. 4 in IDSDS and TorchCAM."""
    std: float = 0.3
    """Deviation of the noise in the encoded space. 0.3 in IDSDS and TorchCAM."""
    seed: int = 0
    last_sample: bool = False
    """Whether gradients and channels are those of the last noisy copy alone, and alpha's
    denominator sums F_d times the cubes place by place, plus 1e-8: TorchCAM, and IDSDS as run."""

    @property
    def cost(self) -> float:
        return 2.0 * self.samples

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.samples < 1 or self.std < 0:
            raise ValueError(
                f"SmoothGradCamPP: samples = {self.samples}, std = {self.std}; at least one "
                "sample and a deviation of 0 or more are needed"
            )

    def activation_map(self, passes: Passes) -> Tensor:
        """ReLU(sum over d of w_d F_d), w_d = sum(alpha_d ReLU(mean g_d)).

        alpha = mean g^2 / (2 mean g^2 + sum(F_d) mean g^3), 0 where the denominator is 0.
        """
        noisy = passes.get(
            NoisyGradients(layer=self.layer, samples=self.samples, std=self.std, seed=self.seed)
        )
        feature = passes.feature(self.layer)
        if self.last_sample:
            cubes = (noisy.third * feature).sum((2, 3), keepdim=True) + 1e-8
            gradient, feature = noisy.last_gradient, noisy.last_feature
        else:
            cubes = noisy.third * feature.sum((2, 3), keepdim=True)
            gradient = noisy.first
        below = 2 * noisy.second + cubes
        alpha = torch.where(below == 0, 0, noisy.second / below)
        weights = (alpha * gradient.relu()).sum((2, 3), keepdim=True)
        return (weights * feature).sum(1).relu()


@dataclass(frozen=True, eq=False)
class Moments:
    """Averages over noisy copies, and what the last copy gave; each (N, D, h, w).

    Attributes:
        first: mean gradient.
        second: mean square of the gradient.
        third: mean cube of the gradient.
        last_gradient: gradient of the last copy.
        last_feature: output of the layer for the last copy.
    """

    first: Tensor
    second: Tensor
    third: Tensor
    last_gradient: Tensor
    last_feature: Tensor


@dataclass(frozen=True, kw_only=True)
class NoisyGradients:
    """`Moments` of the gradient at a layer: a forward a copy, a backward down to the layer."""

    layer: str
    samples: int
    std: float
    seed: int

    def compute(self, passes: Passes) -> Moments:
        """Summed slab by slab; no copy is kept but the last of each image."""
        batch, clean = passes.batch, passes.feature(self.layer)
        first, second, third, last_gradient, last_feature = (
            torch.zeros_like(clean) for _ in range(5)
        )
        for slab in passes.slabs(self.samples):
            ids = [batch.image_ids[i] for i in slab.image.tolist()]
            noise = normal(batch.images, self.seed, ids, slab.sample.tolist(), "smooth_grad_cam_pp")
            child = passes.on(
                batch.images[slab.image] + self.std * noise, image_index=slab.index, of=slab.of
            )
            gradient = child.get(Gradient(layer=self.layer))
            for power, total in enumerate((first, second, third), start=1):
                total.index_add_(0, slab.of, gradient**power)
            last = slab.sample[slab.index] == self.samples - 1
            last_gradient[slab.of[last]] = gradient[last]
            last_feature[slab.of[last]] = child.feature(self.layer)[last]
        first, second, third = (total / self.samples for total in (first, second, third))
        return Moments(first, second, third, last_gradient, last_feature)
