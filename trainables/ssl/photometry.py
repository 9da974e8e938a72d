"""Photometry: changes of color and sharpness, each image by its own amount, a batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LUMINANCE = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in a gray value; torchvision's."""


def gray(images: Tensor) -> Tensor:
    """Luminance of images (B, 3, H, W), (B, 1, H, W)."""
    weights = torch.tensor(LUMINANCE, dtype=images.dtype, device=images.device)
    return torch.einsum("bchw,c->bhw", images, weights).unsqueeze(1)


def brighten(images: Tensor, factors: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1], each times its factor (B,); cut off at 1."""
    return (images * _each(factors)).clamp_(0, 1)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Each image drawn by its factor (B,) away from its mean gray; 1 changes nothing."""
    return _away(images, gray(images).mean((1, 2, 3), keepdim=True), factors)


def saturate(images: Tensor, factors: Tensor) -> Tensor:
    """Each pixel drawn by its image's factor (B,) away from its own gray; 1 changes nothing."""
    return _away(images, gray(images), factors)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Hue turned by shares (B,) of a circle; saturation and value (HSV) stay.

    Args:
        images: (B, 3, H, W) in [0, 1].
        turns: in [-0.5, 0.5].
    """
    value, least = images.amax(1), images.amin(1)
    chroma = value - least
    red, green, blue = images.unbind(1)
    span = torch.where(chroma == 0, 1, chroma)
    sixth = torch.where(
        value == red,
        (green - blue) / span,
        torch.where(value == green, (blue - red) / span + 2, (red - green) / span + 4),
    )
    sixth = sixth + 6 * turns.view(-1, 1, 1)
    channels = []
    for start in (5.0, 3.0, 1.0):  # of red, green, blue on the circle of six
        place = (sixth + start).remainder_(6)
        slope = torch.minimum(place, 4 - place).clamp_(0, 1)
        channels.append(value - chroma * slope)
    return torch.stack(channels, 1)


def solarize(images: Tensor) -> Tensor:
    """Images in [0, 1] with all that is at least half bright inverted."""
    return torch.where(images >= 0.5, 1 - images, images)


def posterize(images: Tensor) -> Tensor:
    """Images in [0, 1] with one bit a channel: about half where they are at least that, else 0."""
    return (images >= 0.5).to(images) * (128 / 255)


def blur(images: Tensor, sigmas_px: Tensor, reach_px: int) -> Tensor:
    """Images (B, 3, H, W), each smoothed by a Gaussian of its own deviation (B,).

    Args:
        images: mirrored beyond their sides.
        sigmas_px: deviations.
        reach_px: pixels to each side that a kernel sees, less than the images have; not taken from
            the deviations, so that no image depends on those of another.
    """
    taps = torch.arange(-reach_px, reach_px + 1, dtype=images.dtype, device=images.device)
    kernels = torch.softmax(-(taps**2) / (2 * sigmas_px[:, None] ** 2), dim=1)
    for dim, sides in ((3, (1, 1, 0, 0)), (2, (0, 0, 1, 1))):
        padding = tuple(side * reach_px for side in sides)
        padded, length = functional.pad(images, padding, mode="reflect"), images.shape[dim]
        images = torch.zeros_like(images)
        for tap in range(2 * reach_px + 1):
            images.addcmul_(padded.narrow(dim, tap, length), _each(kernels[:, tap]))
    return images


def _away(images: Tensor, middle: Tensor, factors: Tensor) -> Tensor:
    return torch.lerp(middle, images, _each(factors)).clamp_(0, 1)


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
