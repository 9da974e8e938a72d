"""SmoothGrad: what the gradient says, averaged over noisy copies of the image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from trainables import noise
from trainables.attribution.attribution import Attribution
from trainables.attribution.gradient import Channels, saliency
from trainables.batch import Batch
from trainables.models.network import Model
from trainables.passes import Gradient, Need, Passes


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Gaussian noise on encoded images; for equal fields all methods see the same draws."""

    samples: int
    std: float
    relative: bool
    seed: int

    def copies(self, batch: Batch, image: Tensor, sample: Tensor) -> Tensor:
        """Noisy copies (S, C, H, W): copy s is draw ``sample[s]`` on image ``image[s]``."""
        images, ids = batch.images, [batch.image_ids[i] for i in image.tolist()]
        drawn = noise.normal(images, self.seed, ids, sample.tolist(), "smooth_grad")
        deviation = torch.full_like(images[:, :1, :1, :1], self.std)
        if self.relative:
            deviation *= images.amax((1, 2, 3), True) - images.amin((1, 2, 3), True)
        return images[image] + deviation[image] * drawn


@dataclass(frozen=True, eq=False)
class Averages:
    """Of a value over the noisy copies, by channel.

    Attributes:
        mean: its mean, (N, C, H, W).
        square: the mean of its square, (N, C, H, W).
    """

    mean: Tensor
    square: Tensor


@dataclass(frozen=True, kw_only=True)
class SmoothedGradient:
    """Averages of the gradient at the input and of input times gradient; one pass a copy."""

    noise: Noise

    def compute(self, passes: Passes) -> tuple[Averages, Averages]:
        """Of the gradient, and of the product."""
        batch = passes.batch
        shape = (len(batch.targets), *batch.images.shape[1:])
        sums = [batch.images.new_zeros(shape) for _ in range(4)]
        for slab in passes.slabs(self.noise.samples):
            images = self.noise.copies(batch, slab.image, slab.sample)
            child = passes.on(images, image_index=slab.index, of=slab.of)
            gradient = child.get(Gradient(layer="input"))
            product = images[slab.index] * gradient
            for total, term in zip(sums, (gradient, gradient**2, product, product**2), strict=True):
                total.index_add_(0, slab.of, term)
        gradient, gradient_sq, product, product_sq = (s / self.noise.samples for s in sums)
        return Averages(gradient, gradient_sq), Averages(product, product_sq)


@dataclass(frozen=True, kw_only=True)
class Smoothed(Attribution):
    """An attribution by channel, averaged over noisy copies of the image."""

    samples: int = field(default=50, metadata={"short": "n"})
    """Noisy copies an image. 50 in SmoothGrad, section 3.2; IDSDS ran 4."""
    std: float = 0.15
    """Deviation of the noise. 0.15 of the range is within the 10 to 20 % of SmoothGrad; IDSDS ran
    1.0, not relative."""
    relative: bool = True
    """Whether the deviation is a share of the image's range (largest minus smallest encoded
    value), or in units of the encoded space."""
    seed: int = 0
    """Of the noise; methods with the same samples, deviation and seed share it."""
    squared: bool = field(default=False, metadata={"short": "sq"})
    """Whether the squares are averaged: SmoothGrad-squared (Hooker et al., 2019)."""

    @property
    def cost(self) -> float:
        return 2.0 * self.samples

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.samples < 1 or self.std < 0:
            raise ValueError(
                f"{type(self).__name__}: samples = {self.samples}, std = {self.std}; at least one "
                "sample and a deviation of 0 or more are needed"
            )

    @property
    def noise(self) -> Noise:
        """What is added to the images."""
        return Noise(samples=self.samples, std=self.std, relative=self.relative, seed=self.seed)

    def needs(self, model: Model) -> tuple[Need, ...]:
        """Nothing of the image itself."""
        return ()

    @abstractmethod
    def averages(self, passes: Passes) -> Averages:
        """What is averaged, by channel."""

    def attribute(self, passes: Passes) -> Tensor:
        """Sum over channels of the mean, or of the mean square, (N, H, W)."""
        averages = self.averages(passes)
        return (averages.square if self.squared else averages.mean).sum(1)


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Smoothed):
    """Mean gradient of the target's logit over noisy copies, summed over channels.

    Source: SmoothGrad (Smilkov et al., 2017), section 3.
    """

    name: ClassVar[str] = "smooth_grad"

    def averages(self, passes: Passes) -> Averages:
        return passes.get(SmoothedGradient(noise=self.noise))[0]


@dataclass(frozen=True, kw_only=True)
class SmoothGradSaliency(SmoothGrad):
    """Saliency of the mean gradient over noisy copies.

    Source: SmoothGrad (Smilkov et al., 2017), section 3: the maps are averaged with their signs,
    as in the authors' code, and made absolute to be shown.
    """

    name: ClassVar[str] = "smooth_grad_saliency"

    channels: Channels = "max"
    """As in saliency."""

    def attribute(self, passes: Passes) -> Tensor:
        """Largest |mean g_d| over d, or |sum over d of mean g_d|, (N, H, W), not negative."""
        averages = self.averages(passes)
        return saliency(averages.square if self.squared else averages.mean, self.channels)


@dataclass(frozen=True, kw_only=True)
class SmoothGradInputXGradient(Smoothed):
    """Mean of noisy input times its gradient over noisy copies, summed over channels.

    Source: SmoothGrad (Smilkov et al., 2017), section 3, applied to input x gradient: IDSDS (Hesse
    et al., 2024), IxG-SG; the input is the noisy one, as in captum's NoiseTunnel.
    """

    name: ClassVar[str] = "smooth_grad_input_x_gradient"

    def averages(self, passes: Passes) -> Averages:
        return passes.get(SmoothedGradient(noise=self.noise))[1]
