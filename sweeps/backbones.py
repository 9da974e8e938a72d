"""Published backbones, as flags name them."""

from __future__ import annotations

from collections.abc import Iterable

from trainables.backbone import PublishedBackbone
from trainables.models.checkpoint_layout import layouts_of
from trainables.models.network import Network
from trainables.models.pretrained import pretrained_of
from trainables.models.published_weights import MEANT_BY_NAME, pretraining_meant

EXPECTED = "expected NETWORK=PRETRAINING:FILE, as in resnet50=moco_v2:moco_v2_800ep.pth.tar"


def published_backbones(texts: Iterable[str], flag: str = "--backbones") -> list[PublishedBackbone]:
    """The backbones of a flag's values, each with its network's encoding for such weights.

    ``supervised`` and ``auto`` say a pre-training, too; see `pretraining_meant`. Whether the files
    fit is checked with the results that ask for them.

    Args:
        texts: NETWORK=PRETRAINING:FILE each.
        flag: that they are values of.

    Raises:
        ValueError: none of the kind, an unknown network or pre-training, a pre-training after which
            the network is not published, or the same twice; names the flag.
        FileNotFoundError: there is no such file; names the flag.
    """
    found: list[PublishedBackbone] = []
    for text in texts:
        try:
            backbone = published_backbone(text)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{flag} {text}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{flag} {text}: {error}") from None
        if any(backbone.label == other.label for other in found):
            raise ValueError(f"{flag} {text}: {backbone.label} has a file already")
        found.append(backbone)
    return found


def published_backbone(text: str) -> PublishedBackbone:
    """The backbone of one NETWORK=PRETRAINING:FILE.

    Raises:
        ValueError: as `published_backbones`.
        FileNotFoundError: there is no such file.
    """
    name, _, rest = text.partition("=")
    pretraining, _, file = rest.partition(":")
    if not (name and pretraining and file):
        raise ValueError(EXPECTED)
    network = Network.named(name)
    if pretraining not in MEANT_BY_NAME:
        layouts_of(network, pretraining)  # before a large file is read
    weights = pretrained_of(file)
    pretraining = pretraining_meant(network, pretraining, weights.path)
    return PublishedBackbone(
        network=network.as_pretrained(pretraining), pretrained_by=pretraining, weights=weights
    )


def accounts(backbones: Iterable[PublishedBackbone]) -> list[str]:
    """A line for each file: how it is laid out, what was taken from it and what was dropped."""
    return [f"{one.label} from {one.weights.path}: {one.account()}" for one in backbones]
