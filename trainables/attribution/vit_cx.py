"""ViT-CX: clusters of a transformer's channels as masks, scored by what they cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from trainables.attribution.attribution import Attribution, Explained
from trainables.models.network import Model
from trainables.noise import normal
from trainables.passes import Feature, Need, Passes, upsample


@dataclass(frozen=True, kw_only=True)
class ViTCX(Attribution):
    """Masks from clusters of similar channels, summed by the probability that each one causes.

    A mask M keeps the image where it is 1 and puts noise where it is 0. Its score is p(x M + e) -
    p(x + e) + p(x), with the noise e = std n (1 - M) and p the target's probability. The map is the
    mean over masks of score times mask, over the sum of all masks at the pixel. Made at image size.

    Masks act in the encoded space: what is masked becomes the encoding's zero, gray.

    Source: Xie et al., IJCAI 2023, with the constants of the authors' code.

    Departs: a constant channel is left out and a pixel in no mask is 0 (the code divides 0 by 0).
    The noise is a function of seed, image and mask; the code draws from one global stream.
    """

    name: ClassVar[str] = "vit_cx"

    layer: str = "final"
    """Depth or module path whose channels become masks: the last block's first norm, in the paper
    and here."""
    threshold: float = 0.1
    """Largest 1 - cosine between two channels of a cluster."""
    std: float = 0.1
    """Deviation of the noise, in the encoded space."""
    seed: int = 0

    @property
    def explains(self) -> Explained:
        return "probability"

    def suit(self, model: Model) -> None:
        """Refuse what is no transformer."""
        if model.tokens is None:
            raise ValueError("the network has no tokens; a vision transformer is needed")

    def needs(self, model: Model) -> tuple[Need, ...]:
        """The channels."""
        return (Feature(layer=self.layer),)

    def attribute(self, passes: Passes) -> Tensor:
        """Mean over i of s_i M_i / sum over j of M_j, (N, H, W)."""
        batch = passes.batch
        maps = batch.images.new_zeros(len(batch.targets), *batch.images.shape[2:])
        clusters = passes.get(ChannelClusters(layer=self.layer, threshold=self.threshold))
        probabilities = passes.model.probabilities(passes.logits)
        certain = probabilities[batch.image_index, batch.targets]
        for image, masks in clusters.items():
            of = (batch.image_index == image).nonzero().squeeze(1)
            one = passes.on(batch.images[[image]], image_index=torch.zeros_like(of), of=of)
            maps[of] = self._of_image(one, masks, certain[of])
        return maps

    def _of_image(self, passes: Passes, clusters: Tensor, certain: Tensor) -> Tensor:
        """Maps of one image, whose explanations the passes are about.

        Args:
            passes: about the image alone.
            clusters: sums of channels, (M, h, w).
            certain: probability of each target on the image itself.
        """
        batch = passes.batch
        image, targets, size = batch.images[0], batch.targets, _size(batch.images)
        total, cover = image.new_zeros(len(targets), *size), image.new_zeros(size)
        for slab in passes.slabs(len(clusters), graph=False):
            masks = stretched(upsample(clusters[slab.sample], size, "bilinear"))
            samples = slab.sample.tolist()
            names = [*batch.image_ids] * len(samples)
            noise = normal(batch.images, self.seed, names, samples, "vit_cx")
            noise = self.std * noise * (1 - masks[:, None])
            kept, noisy = (
                passes.model.probabilities(
                    passes.on(images, image_index=slab.index, of=slab.of).logits
                )
                for images in (image * masks[:, None] + noise, image + noise)
            )
            scores = (kept - noisy)[:, targets] + certain  # (copies, targets)
            total += torch.einsum("st,shw->thw", scores, masks)
            cover += masks.sum(0)
        return torch.where(cover > 0, total / cover, 0) / max(len(clusters), 1)


@dataclass(frozen=True, kw_only=True)
class ChannelClusters:
    """Clusters of each image's channels: complete linkage of 1 - cosine of the channels as masks.

    Masks are channels at image size, scaled to [0, 1]. The sum of a cluster's masks is again a map
    on the grid, up to a constant, because upsampling is linear: so it is kept on the grid.
    """

    layer: str
    threshold: float

    def compute(self, passes: Passes) -> dict[int, Tensor]:
        """By number of the image that is explained: (M, h, w), in order of their first channel."""
        feature, index = passes.feature(self.layer), passes.batch.image_index.tolist()
        size = _size(passes.batch.images)
        return {
            image: self._of_image(feature[index.index(image)], size) for image in sorted(set(index))
        }

    def _of_image(self, channels: Tensor, size: tuple[int, int]) -> Tensor:
        """Clusters (M, h, w) of channels (D, h, w)."""
        channels = channels[channels.amax((1, 2)) > channels.amin((1, 2))]
        if len(channels) < 2:
            return channels
        masks = upsample(channels, size, "bilinear")
        lowest, spread = lowest_and_spread(masks)
        unit = functional.normalize(stretched(masks).flatten(1), dim=1)
        label = clustered(1 - unit @ unit.mT, self.threshold).to(channels.device)
        members = functional.one_hot(label).to(channels).mT
        return torch.einsum("md,dhw->mhw", members, (channels - lowest) / spread)


def clustered(distance: Tensor, threshold: float) -> Tensor:
    """Cluster of each of D things, (D,), by complete linkage up to a distance.

    Clusters are numbered by their first member.

    Args:
        distance: (D, D), D at least 2.
        threshold: largest distance within a cluster.
    """
    import numpy as np
    from sklearn.cluster import AgglomerativeClustering  # only here: it takes seconds

    clustering = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=threshold
    )
    label = clustering.fit_predict(distance.double().numpy(force=True))
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return torch.from_numpy(first.argsort().argsort()[number])


def lowest_and_spread(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Least value of each mask (M, H, W) and the largest minus it, 1 where that is 0."""
    lowest, highest = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
    return lowest, torch.where(highest > lowest, highest - lowest, 1)


def stretched(masks: Tensor) -> Tensor:
    """Masks (M, H, W) on [0, 1], zero where constant."""
    lowest, spread = lowest_and_spread(masks)
    return (masks - lowest) / spread


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
