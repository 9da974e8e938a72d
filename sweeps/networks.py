"""Networks, and the files that they start from, as flags name them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from trainables.models.network import Network
from trainables.models.pretrained import PretrainedWeights, pretrained_of
from trainables.models.user_network import network_of


def named_network(flag: str, name: str, kinds: Mapping[str, Network]) -> Network:
    """A dataset's own network of a kind, or another with a new head, as in the paper.

    Args:
        flag: that names it.
        name: a kind, a network's name, or package.module:build.
        kinds: the dataset's own networks by their kinds.

    Raises:
        ValueError: unknown; names the flag.
    """
    for kind, network in kinds.items():
        if name in (kind, network.name):
            return network
    try:
        return network_of(name).with_new_head()
    except ValueError as error:
        raise ValueError(f"{flag}: {error}; or a kind: {', '.join(kinds)}") from None


def starting_files(
    weights: Iterable[str],
    kinds: Mapping[str, Network],
    asked: Collection[Network],
    flag: str = "--weights",
) -> dict[Network, PretrainedWeights]:
    """The files of a flag, --weights or another, by their networks.

    Args:
        weights: MODEL=FILE each.
        kinds: the dataset's own networks by their kinds.
        asked: the networks of the sweep.
        flag: that names them.

    Raises:
        ValueError: not MODEL=FILE, an unknown model, one that the sweep has not, or one that has a
            file already.
        FileNotFoundError: there is no such file.
    """
    found: dict[Network, PretrainedWeights] = {}
    for text in weights:
        name, _, file = text.partition("=")
        if not (name and file):
            raise ValueError(f"{flag} {text}: expected MODEL=FILE, as in bcos=weights.pth")
        network = named_network(flag, name, kinds)
        if network not in asked:
            known = ", ".join(other.name for other in asked)
            raise ValueError(f"{flag} {network.name}: not a network of this sweep ({known})")
        if network in found:
            raise ValueError(f"{flag} {text}: {network.name} has a file already")
        try:
            found[network] = pretrained_of(file)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{flag} {name}: {error}") from None
    return found
