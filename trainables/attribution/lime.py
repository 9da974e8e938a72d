"""LIME: a linear model of what the score owes to each segment of the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainables.attribution.answers import Answers, Score
from trainables.attribution.attribution import Attribution, Explained
from trainables.attribution.segmentation import Quickshift, Segmentation
from trainables.baselines import Baseline
from trainables.models.network import Model
from trainables.noise import generator
from trainables.passes import Need, Passes, Slab


@dataclass(frozen=True, eq=False)
class Switched:
    """Segments of each image, and which of them each sample shows.

    Attributes:
        segments: segment of each pixel, (B, H, W), int64.
        counts: segments of each image, B of them.
        shown: (B, samples, most segments), bool; past an image's own segments nothing is read.
    """

    segments: Tensor
    counts: list[int]
    shown: Tensor


@dataclass(frozen=True, kw_only=True)
class Switches:
    """Segments of the images and a draw for each sample; a request.

    The first sample shows everything. The others are drawn by seed and image id.
    """

    samples: int
    segmentation: Segmentation
    seed: int

    def compute(self, passes: Passes) -> Switched:
        """Each image by itself."""
        batch = passes.batch
        segments = torch.stack([self.segmentation(image) for image in batch.images])
        counts = [int(of_image.max()) + 1 for of_image in segments]
        shown = torch.ones(len(counts), self.samples, max(counts), dtype=torch.bool)
        for image, (name, count) in enumerate(zip(batch.image_ids, counts, strict=True)):
            source = generator(self.seed, name, 0, "lime")
            shape = (self.samples - 1, count)
            shown[image, 1:, :count] = torch.randint(0, 2, shape, generator=source).bool()
        device = batch.images.device
        return Switched(segments.to(device), counts, shown.to(device))


@dataclass(frozen=True, kw_only=True)
class SwitchedAnswers:
    """Answers for the images with the segments hidden that are not shown; a request."""

    switches: Switches
    baseline: Baseline | None

    def compute(self, passes: Passes) -> Answers:
        """One forward an image and sample."""
        images, switched = passes.batch.images, passes.get(self.switches)
        hidden = (
            segment_means(images, switched.segments)
            if self.baseline is None
            else self.baseline.images(passes.batch)
        )

        def perturb(slab: Slab) -> Tensor:
            shown = switched.shown[slab.image, slab.sample]
            pixels = shown.gather(1, switched.segments[slab.image].flatten(1))
            where = pixels.view(-1, 1, *images.shape[2:])
            return torch.where(where, images[slab.image], hidden[slab.image])

        return Answers.of_copies(passes, self.switches.samples, perturb)


@dataclass(frozen=True, kw_only=True)
class Lime(Attribution):
    """Coefficients of a weighted ridge regression of the score on which segments are shown.

    The samples are drawn and answered here, all targets of an image at once; captum's Lime weighs
    and fits them, in float32. A sample weighs exp(-d^2 / (2 width^2)), d being the cosine distance
    of its switches from all on.

    Source: Ribeiro et al., 2016, section 3; settings of the package lime 0.2.0.1, as used by How
    to Probe.

    Raises:
        ValueError: fewer than two samples, or a penalty or width that is not positive.
    """

    name: ClassVar[str] = "lime"
    revision: ClassVar[int] = 2  # the score that was called softmax is called probability

    samples: int = field(default=500, metadata={"short": "n"})
    """Images with segments hidden. 500 in How to Probe."""
    segmentation: Segmentation = field(default_factory=Quickshift)
    """What is shown or hidden together; a grid for small images."""
    baseline: Baseline | None = None
    """What stands where a segment is hidden; each segment's mean color by default, as in lime."""
    penalty: float = field(default=1.0, metadata={"short": "ridge"})
    """Of the squared coefficients; 1 in lime."""
    kernel_width: float = field(default=0.25, metadata={"short": "width"})
    """Of the weights; 0.25 in lime."""
    score: Score = "probability"
    """What the model says of the target: How to Probe takes the probability after a softmax for
    networks trained with cross entropy, and by itself (sigmoid) for those with binary cross
    entropy, which is the default for probes; or the logit."""
    seed: int = 0

    @property
    def cost(self) -> float:
        return float(self.samples)

    @property
    def explains(self) -> Explained:
        return "logit" if self.score == "logit" else "probability"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 2 or self.penalty <= 0 or self.kernel_width <= 0:
            raise ValueError(
                f"lime with {self.samples} samples, penalty {self.penalty:g} and kernel width "
                f"{self.kernel_width:g}: expected at least 2 samples, and the others above 0"
            )

    def needs(self, model: Model) -> tuple[Need, ...]:
        """Nothing: it asks about perturbed images only."""
        return ()

    def attribute(self, passes: Passes) -> Tensor:
        """The coefficient of each pixel's segment, (N, H, W), signed."""
        batch = passes.batch
        switches = Switches(samples=self.samples, segmentation=self.segmentation, seed=self.seed)
        switched = passes.get(switches)
        answers = passes.get(SwitchedAnswers(switches=switches, baseline=self.baseline))
        maps = batch.images.new_zeros(len(batch.targets), *batch.images.shape[2:])
        for n, (image, scores) in enumerate(
            zip(batch.image_index.tolist(), answers.scores(self.score), strict=True)
        ):
            shown = switched.shown[image, :, : switched.counts[image]]
            maps[n] = self.fit(shown, scores).to(maps)[switched.segments[image]]
        return maps

    def fit(self, shown: Tensor, scores: Tensor) -> Tensor:
        """The coefficient of each segment, from (samples, segments) and (samples,)."""
        from captum._utils.models.linear_model import SkLearnRidge
        from captum.attr import Lime as Fit
        from captum.attr._core.lime import get_exp_kernel_similarity_function

        rows = iter(shown.long().numpy(force=True))
        said = torch.from_numpy(scores.double().numpy(force=True))
        ones = torch.ones(1, shown.shape[1])
        fit = Fit(
            lambda _switches: said,
            interpretable_model=SkLearnRidge(alpha=self.penalty),
            similarity_func=get_exp_kernel_similarity_function("cosine", self.kernel_width),
            perturb_func=lambda _image, **_: torch.from_numpy(next(rows))[None],
        )
        with torch.random.fork_rng(devices=[]):  # captum's data loader draws a seed
            coefficients: Tensor = fit.attribute(
                ones,
                feature_mask=torch.arange(shown.shape[1])[None],
                n_samples=len(scores),
                perturbations_per_eval=len(scores),
                return_input_shape=False,
            )
        return coefficients.flatten()


def segment_means(images: Tensor, segments: Tensor) -> Tensor:
    """Each pixel's mean over its segment, by channel, (B, C, H, W)."""
    means = []
    for image, segment in zip(images.numpy(force=True), segments.numpy(force=True), strict=True):
        sizes = np.bincount(segment.ravel())
        sums = [np.bincount(segment.ravel(), weights=channel.ravel()) for channel in image]
        means.append((np.stack(sums) / sizes)[:, segment])
    return torch.from_numpy(np.stack(means)).to(images)
