"""Groups: birds and places, which of them a setting labels, and the accuracy in each group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_pipelines.image_set import ImageSet
from data_pipelines.waterbirds import BIRDS, GROUPS, PLACES, TIED
from trainables.metrics.classification import Accuracy
from trainables.trial import Trial

Setting = Literal["conventional", "reversed"]
"""Whether the label is the bird and the mask its box, or the label the place and the mask all but
the box."""
ACCURACIES = (
    *("accuracy", "accuracy_tied", "accuracy_worst"),
    *(f"accuracy_g{k}" for k in range(1, len(GROUPS) + 1)),
)
"""Keys of ``group_accuracies``."""


def labelled(images: ImageSet, setting: Setting) -> ImageSet:
    """The images with the labels of a setting, whatever labels they came with.

    The classes are both birds or both places; boxes bear the class of the label.

    Raises:
        ValueError: the images have no groups, or others than G1 to G4.
    """
    if images.groups is None or not np.isin(images.groups, range(len(GROUPS))).all():
        raise ValueError(
            f"the images have no groups, or others than 0 to 3 ({', '.join(GROUPS)}): take the "
            "dataset waterbirds, or digit_scenes with layout waterbirds"
        )
    classes = BIRDS if setting == "conventional" else PLACES
    indices = images.groups // 2 if setting == "conventional" else images.groups % 2
    labels = np.eye(len(classes), dtype=np.uint8)[indices]
    boxes = images.boxes.copy()
    boxes[:, 0] = np.repeat(indices, np.diff(images.box_offsets))
    return replace(images, classes=classes, labels=labels, boxes=boxes)


def group_accuracies(
    logits: NDArray[np.float64], labels: NDArray[np.uint8], groups: NDArray[np.int64]
) -> dict[str, float]:
    """Share of images whose larger logit is the label's: of all images and by group.

    ``accuracy_worst`` is the least over the groups that are there, ``accuracy_tied`` is taken over
    the images of G1 and G4. NaN where a group is absent.

    Source: Model Guidance (Rao et al., ICCV 2023), section 5.5, appendix C.
    Departs: the paper's "worst group" is always G3; here that is ``accuracy_g3``, and the worst is
        the true minimum (G2 for the paper's B-cos baseline).

    Args:
        logits: (N, 2).
        labels: one-hot, (N, 2).
        groups: 0 to 3 for G1 to G4, (N,).
    """

    def over(chosen: NDArray[np.bool_]) -> float:
        return Accuracy()(logits[chosen], labels[chosen]) if chosen.any() else float("nan")

    each = {f"accuracy_g{k + 1}": over(groups == k) for k in range(len(GROUPS))}
    return {
        "accuracy": over(np.ones(len(groups), dtype=bool)),
        "accuracy_tied": over(np.isin(groups, TIED)),
        **each,
        "accuracy_worst": float(np.nanmin(list(each.values()))),
    }


class SeenTrial(Trial):
    """A trial whose images are seen in another way: cut, or labelled anew."""

    def __init__(self, trial: Trial, see: Callable[[ImageSet], ImageSet]):
        vars(self).update(vars(trial))
        self._see = see

    def images(self, split: str) -> ImageSet:
        return self._see(super().images(split))
