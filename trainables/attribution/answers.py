"""Answers: what a model says of each explanation's target when it sees perturbed copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from trainables.passes import Passes, Slab

Score = Literal["probability", "sigmoid", "logit"]
"""What the model says of a class: the probability that it means (`Model.probabilities`, after a
softmax unless it was trained to answer class by class), that of the logit by itself, the logit."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Two numbers a copy, from which every score follows: methods that differ in it share copies.

    Attributes:
        logits: of the explanation's target, (N, samples).
        probabilities: of the same, as the model means them, (N, samples).
    """

    logits: Tensor
    probabilities: Tensor

    def scores(self, score: Score) -> Tensor:
        """Probability of the target, or that of its logit by itself, or its logit; (N, samples)."""
        if score == "probability":
            return self.probabilities
        return self.logits.sigmoid() if score == "sigmoid" else self.logits

    @classmethod
    def of_images(cls, passes: Passes) -> Self:
        """The answers for the images as they are, (N, 1)."""
        index, targets = passes.batch.image_index, passes.batch.targets
        logits = passes.logits
        probabilities = passes.model.probabilities(logits)
        return cls(logits[index, targets, None], probabilities[index, targets, None])

    @classmethod
    def of_copies(cls, passes: Passes, samples: int, perturb: Callable[[Slab], Tensor]) -> Self:
        """One forward a copy, whatever the number of targets; no gradient is recorded.

        Args:
            passes: whose images are copied.
            samples: copies of each image.
            perturb: makes the images of a slab, (S, C, H, W).
        """
        batch = passes.batch
        logits = torch.zeros(
            len(batch.targets), samples, dtype=batch.images.dtype, device=batch.images.device
        )
        answers = cls(logits, torch.zeros_like(logits))
        for slab in passes.slabs(samples, graph=False):
            child = passes.on(perturb(slab), image_index=slab.index, of=slab.of)
            said, place = cls.of_images(child), (slab.of, slab.sample[slab.index])
            answers.logits[place] = said.logits[:, 0].to(logits)
            answers.probabilities[place] = said.probabilities[:, 0].to(logits)
        return answers
