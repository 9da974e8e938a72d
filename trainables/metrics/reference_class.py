"""The class whose score a protocol follows, which need not be the one that the map explains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

if TYPE_CHECKING:
    from trainables.passes import Passes

ReferenceClass = Literal["ground_truth", "predicted"]
"""The image's one true class, or the one that the model ranks first on the whole image."""


def reference_classes(passes: Passes, which: ReferenceClass) -> Tensor:
    """The class of each explanation's image, (N,), int64.

    Raises:
        ValueError: the true class is asked for and the batch does not know it.
    """
    batch = passes.batch
    if which == "predicted":
        logits = passes.logits[batch.image_index]
        own, first = passes.model.own_logits(logits, batch.targets)
        return own.argmax(1) + first
    if batch.labels is None:
        raise ValueError(
            "reference_class = 'ground_truth' needs one true class an image, and the batch has "
            "no labels; say 'predicted'"
        )
    labels = batch.labels[batch.image_index]
    if passes.model.answers == 1:
        return labels
    return labels + passes.model.own_logits(passes.logits[batch.image_index], batch.targets)[1]
