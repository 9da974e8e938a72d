"""Integrated gradients: the gradient's mean along a straight path from a baseline to the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainables.attribution.attribution import Attribution
from trainables.attribution.smooth_grad import Averages, Noise, Smoothed
from trainables.baselines import Baseline, Zero
from trainables.models.network import Model
from trainables.passes import Gradient, Need, Passes


@dataclass(frozen=True, kw_only=True)
class PathGradient:
    """(x - b) times the mean gradient on the path from b to x, over noisy x or the image alone.

    ``steps`` forwards and backwards for each noisy copy; the steps are summed slab by slab.
    """

    baseline: Baseline
    steps: int
    noise: Noise | None = None

    def compute(self, passes: Passes) -> Averages:
        """By channel; without noise the one value and its square."""
        batch = passes.batch
        start = self.baseline.images(batch)
        every = torch.arange(len(batch.images), device=start.device)
        mean = batch.images.new_zeros(len(batch.targets), *batch.images.shape[1:])
        square = torch.zeros_like(mean)
        samples = 1 if self.noise is None else self.noise.samples
        for sample in range(samples):
            end = batch.images
            if self.noise is not None:  # drawn once a sample, not once a step
                end = self.noise.copies(batch, every, torch.full_like(every, sample))
            way = end - start
            value = self.mean_gradient(passes, start, way).mul_(way[batch.image_index])
            mean += value / samples
            square += value**2 / samples
        return Averages(mean, square)

    def mean_gradient(self, passes: Passes, start: Tensor, way: Tensor) -> Tensor:
        """Gauss-Legendre mean of the gradient at the input on start + [0, 1] way, (N, C, H, W)."""
        nodes, weights = (values.to(way) for values in quadrature(self.steps))
        total = way.new_zeros(len(passes.batch.targets), *way.shape[1:])
        for slab in passes.slabs(self.steps):
            share = nodes[slab.sample].view(-1, 1, 1, 1)
            images = start[slab.image] + share * way[slab.image]
            child = passes.on(images, image_index=slab.index, of=slab.of)
            weight = weights[slab.sample[slab.index]].view(-1, 1, 1, 1)
            total.index_add_(0, slab.of, weight * child.get(Gradient(layer="input")))
        return total


@cache
def quadrature(steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre on [0, 1], (steps,) each, float64.

    Exact for polynomials up to degree 2 steps - 1; the weights sum to 1.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return torch.from_numpy((1 + nodes) / 2), torch.from_numpy(weights / 2)


def check_steps(owner: Attribution, steps: int) -> None:
    """ValueError where there is no step."""
    if steps < 1:
        raise ValueError(f"{type(owner).__name__}.steps = {steps}: at least one step is needed")


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Attribution):
    """Integral of the gradient from a baseline to the image, times their difference, by pixel.

    Complete: a map sums to the logit of the image minus that of the baseline, but for the error of
    the quadrature. On networks without biases and with a zero baseline it equals input_x_gradient.

    Source: Sundararajan et al., 2017, equation 1.

    Departs: Gauss-Legendre nodes, as captum's default and IDSDS, in place of a Riemann sum.
    """

    name: ClassVar[str] = "integrated_gradients"

    baseline: Baseline = field(default_factory=Zero)
    """Where the path starts. Zero in IDSDS; one uniform image for its IG-U."""
    steps: int = 50
    """Nodes of the quadrature. 50 in IDSDS and How to Probe, captum's default."""

    @property
    def cost(self) -> float:
        return 2.0 * self.steps

    def __post_init__(self) -> None:
        """Check the steps."""
        super().__post_init__()
        check_steps(self, self.steps)

    def needs(self, model: Model) -> tuple[Need, ...]:
        """Nothing of the image itself."""
        return ()

    def attribute(self, passes: Passes) -> Tensor:
        """Sum over channels, (N, H, W), signed."""
        return passes.get(PathGradient(baseline=self.baseline, steps=self.steps)).mean.sum(1)


@dataclass(frozen=True, kw_only=True)
class SmoothGradIntegratedGradients(Smoothed):
    """Integrated gradients of noisy copies, averaged by channel, summed over channels.

    The baseline is that of the clean image. Raw, absolute and squared maps share the passes.

    Source: IDSDS (Hesse et al., 2024), IG-SG and IG-SG-SQ: SmoothGrad (Smilkov et al., 2017) and
    SmoothGrad-squared (Hooker et al., 2019) on integrated gradients, as captum's NoiseTunnel.
    """

    name: ClassVar[str] = "smooth_grad_integrated_gradients"

    baseline: Baseline = field(default_factory=Zero)
    """Where the paths start. Zero in IDSDS."""
    steps: int = 50
    """Nodes of the quadrature for each copy. 50 in IDSDS."""

    @property
    def cost(self) -> float:
        return 2.0 * self.samples * self.steps

    def __post_init__(self) -> None:
        """Check the steps."""
        super().__post_init__()
        check_steps(self, self.steps)

    def averages(self, passes: Passes) -> Averages:
        return passes.get(PathGradient(baseline=self.baseline, steps=self.steps, noise=self.noise))
