"""Which deletion protocol fits a trained network: what it was fine-tuned for decides."""

from __future__ import annotations

from typing import Literal

import trainables.metrics  # noqa: F401  (registers the metrics)
from data_pipelines.patches import Patches
from trainables.baselines import Baseline, ColorAndInverse, Zero
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.metrics.metric import Undefined
from trainables.metrics.single_deletion import Idsds, Output, Sds, SingleDeletion
from trainables.models.bcos_network import BcosNetwork
from trainables.models.network import Network
from trainables.result import Result
from trainables.training import Training


def as_read_by(network: Network, baseline: Baseline) -> Baseline:
    """The baseline in the channels that a network reads; B-cos networks read the inverse, too."""
    return ColorAndInverse(of=baseline) if isinstance(network, BcosNetwork) else baseline


def deletion_protocol(
    training: Training,
    patches: Patches = 16,
    baseline: Baseline | None = None,
    *,
    name: Literal["sds", "idsds"] | None = None,
    drop_output: Output = "logit",
    undefined: Undefined = "drop",
) -> SingleDeletion:
    """The single-deletion protocol that a trained network may be judged by, under its right name.

    Args:
        training: what left the network.
        patches: cells of the grid.
        baseline: what stands where a cell is deleted; zero by default.
        name: the protocol that is asked for; None takes the one that fits.
        drop_output: of what the drop is taken.
        undefined: what undefined rows count as.

    Raises:
        ValueError: the protocol that is asked for does not fit; says what is missing.
    """
    image = as_read_by(training.architecture, Zero()) if baseline is None else baseline
    family: dict[str, type[SingleDeletion]] = {"sds": Sds, "idsds": Idsds}
    fits = "idsds" if knows(training, patches, image) else "sds"
    protocol = family[name or fits](
        patches=patches, baseline=image, drop_output=drop_output, undefined=undefined
    )
    check_deletion_protocol(protocol, training)
    return protocol


def check_deletion_protocol(protocol: SingleDeletion, training: Result) -> None:
    """Refuse ``idsds`` on a network that was not fine-tuned for it, and ``sds`` on one that was.

    Raises:
        ValueError: says what is missing.
    """
    fits = knows(training, protocol.patches, protocol.baseline)
    if isinstance(protocol, Idsds) and not fits:
        tuned = (
            f"it was fine-tuned with {training.patches} patches, {training.baseline_image.key}"
            if isinstance(training, IdsdsFinetuning)
            else "it was not fine-tuned"
        )
        raise ValueError(
            f"{protocol.key} needs a network fine-tuned by idsds_finetuning with "
            f"{protocol.patches} patches and the baseline {protocol.baseline.key}, but of "
            f"{training.label!r} {tuned}; fine-tune it so, or ask for sds"
        )
    if isinstance(protocol, Sds) and fits:
        raise ValueError(
            f"{protocol.key} on {training.label!r}, which was fine-tuned with this grid and "
            "baseline, is called idsds; ask for that"
        )


def deletions_known(training: Result) -> str:
    """Grid and baseline that a network was fine-tuned with, ``p16_zero``; empty where it was not.

    The baseline is that of the color, whatever the network reads beside it.
    """
    if not isinstance(training, IdsdsFinetuning):
        return ""
    image = training.baseline_image
    image = image.of if isinstance(image, ColorAndInverse) else image
    return f"p{training.patches}_{image.key}"


def knows(training: Result, patches: int, baseline: Baseline) -> bool:
    """Whether a training's network was fine-tuned with this grid and this baseline."""
    return (
        isinstance(training, IdsdsFinetuning)
        and training.patches == patches
        and training.baseline_image == baseline
    )
