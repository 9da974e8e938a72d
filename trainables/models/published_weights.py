"""Published weights in a network: every tensor of the file accounted for, or the file refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables.models.bcos_network import BcosNetwork
from trainables.models.checkpoint_layout import (
    SUPERVISED,
    Layout,
    classifier_of,
    layouts_of,
    pretrainings_of,
)
from trainables.models.network import Model, Network
from trainables.models.weights_file import misfits, read, told

BEFORE_ALL = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
MEANT_BY_NAME = ("supervised", "auto")
"""What may be said instead of a pre-training: see `pretraining_meant`."""


@dataclass(frozen=True)
class Match:
    """What a file has for a network's backbone, if it is laid out in a certain way.

    Attributes:
        layout: the way.
        tensors: those of the backbone, by the network's names.
        dropped: names, in the file, of what is no part of the backbone.
        misfits: what does not fit, named, by the reason.
        new: names, in the network, of what the file does not say: its classifier.
        beside: what the file holds beside these weights.
    """

    layout: Layout
    tensors: Mapping[str, Tensor]
    dropped: tuple[str, ...]
    misfits: Mapping[str, list[str]]
    new: tuple[str, ...]
    beside: tuple[str, ...]

    def fill(self, module: nn.Module) -> None:
        """Give a module of the network the backbone's weights; its classifier stays."""
        module.load_state_dict(module.state_dict() | dict(self.tensors))

    def __str__(self) -> str:
        """A line that accounts for everything in the file."""
        parts = Counter(name.partition(".")[0] for name in self.dropped)
        counts = ", ".join(f"{part} ({count})" for part, count in parts.items())
        return (
            f"{self.layout.title}: {len(self.tensors)} tensors taken; {len(self.dropped)} dropped"
            + (f": {counts}" if counts else "")
            + (f"; new: {', '.join(self.new)}" if self.new else "")
            + (f"; unread: {', '.join(self.beside)}" if self.beside else "")
        )


@dataclass(frozen=True)
class LoadedBackbone:
    """A network with published weights.

    Attributes:
        network: the architecture, with the encoding of pixels that the weights expect.
        pretraining: what the weights have learned.
        model: the network, built; its classifier is freshly initialized.
        match: where every tensor of the file went.
    """

    network: Network
    pretraining: str
    model: Model
    match: Match


def load_backbone(
    architecture: str | Network, pretraining: str, path: str | Path, *, classes: int = 2
) -> LoadedBackbone:
    """Build a network with the weights of a published checkpoint.

    Args:
        architecture: a network or its name.
        pretraining: which one, ``supervised`` or ``auto``; see `pretraining_meant`.
        path: of the file.
        classes: of the classifier, which is new; the caller seeds the generator.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unknown network or pre-training, or the file does not fit; see `match_of`.
    """
    network = Network.named(architecture) if isinstance(architecture, str) else architecture
    pretraining = pretraining_meant(network, pretraining, path)
    network = network.as_pretrained(pretraining)
    match = match_of(network, pretraining, path)
    model = network.build(classes)
    match.fill(model.module)
    return LoadedBackbone(network, pretraining, model, match)


def match_of(network: Network, pretraining: str, path: str | Path) -> Match:
    """What a file has for a network, which fits.

    Nothing in the file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no layout of such weights of the network; or the file cannot be read,
            holds more than weights, or does not fit: every missing, unknown and misshapen tensor
            is named, with what the file holds and the pre-trainings whose files look like it.
    """
    layouts, content = layouts_of(network, pretraining), content_of(path)
    matches = [m for layout in layouts if (m := match_in(network, layout, content))]
    fitting = next((match for match in matches if not match.misfits), None)
    if fitting:
        return fitting
    others = " or ".join(fitting_pretrainings(network, content))
    remedy = f"; it would fit as {others}" if others else ""
    held = f"it holds {held_by(content)}{remedy}"
    if not matches:
        places = dict.fromkeys(place for layout in layouts for place in layout.containers)
        raise ValueError(
            f"{path} is no {pretraining} file of {network.name}: no weights by name, also not "
            f"under {', '.join(places)}; {held}"
        )
    nearest = min(matches, key=lambda match: sum(map(len, match.misfits.values())))
    titles = ", ".join(dict.fromkeys(layout.title for layout in layouts))
    raise ValueError(
        f"{path} does not fit {network.name} as {pretraining} (as laid out by: {titles}); {held}. "
        f"By the nearest, {nearest.layout.title}, {told(nearest.misfits)}"
    )


def pretraining_meant(network: Network, pretraining: str, path: str | Path) -> str:
    """A pre-training by its name, or the one that is meant.

    ``supervised`` is by cross-entropy, and by binary cross-entropy for B-cos networks, as published
    ones are. ``auto`` is the only one whose layout the file has.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: ``auto``, and the file fits none or several.
    """
    if pretraining == "supervised":
        return SUPERVISED[isinstance(network, BcosNetwork)]
    if pretraining != "auto":
        return pretraining
    known = ", ".join(pretrainings_of(network))
    if not known:
        raise ValueError(f"no layout of published weights of {network.name} is known")
    content = content_of(path)
    fits = {
        SUPERVISED[isinstance(network, BcosNetwork)] if name in SUPERVISED else name
        for name in fitting_pretrainings(network, content)
    }
    if len(fits) != 1:
        tried = " or ".join(sorted(fits)) or f"none of {known}"
        raise ValueError(
            f"{path}: by its layout it is {tried} of {network.name}; say which; it holds "
            f"{held_by(content)}"
        )
    return fits.pop()


def fitting_pretrainings(network: Network, content: Any) -> tuple[str, ...]:
    """Pre-trainings whose layout a file's content has, of this network."""
    return tuple(
        name
        for name in pretrainings_of(network)
        if any(
            (match := match_in(network, layout, content)) and not match.misfits
            for layout in layouts_of(network, name)
        )
    )


def match_in(network: Network, layout: Layout, content: Any) -> Match | None:
    """What a file has for the network, in that layout; None where it holds no weights so."""
    table = layout.table(content)
    if table is None:
        return None
    state, classifier = shapes_of(network), classifier_of(network)
    expected = {key: t for key, t in state.items() if not key.startswith(classifier)}
    found, dropped, unknown = dict[str, Tensor](), list[str](), list[str]()
    bare = without_what_is_before_all(table)
    for name, tensor in bare.items():
        ours = layout.name_of(name)
        if layout.drops(name) or (
            layout.classified and ours is not None and ours.startswith(classifier)
        ):
            dropped.append(name)
        elif ours is None or ours not in expected or ours in found:
            unknown.append(name)
        else:
            found[ours] = tensor
    named = misfits(found, expected, unknown)
    if layout.needed and not any(name.startswith(layout.needed) for name in bare):
        named.setdefault("missing", []).append(f"a classifier ({', '.join(layout.needed)})")
    return Match(
        layout=layout,
        tensors=found,
        dropped=tuple(dropped),
        misfits=named,
        new=tuple(key for key in state if key not in found and "num_batches" not in key),
        beside=tuple(
            str(key) for key, held in content.items() if table is not content and table is not held
        ),
    )


@cache
def shapes_of(network: Network) -> Mapping[str, Tensor]:
    """The network's tensors with two classes, on torch's device of shapes."""
    with torch.device("meta"):
        return network.build(2).module.state_dict()


def without_what_is_before_all(table: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names without ``module.`` and the like, where all names have it."""
    bare = dict(table)
    while prefix := next((p for p in BEFORE_ALL if all(name.startswith(p) for name in bare)), ""):
        bare = {name.removeprefix(prefix): tensor for name, tensor in bare.items()}
    return bare


def content_of(path: str | Path) -> Any:
    """What the file holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read without executing something, or at all.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    return read(path)


def held_by(content: Any) -> str:
    """What a file holds, in short: its keys, or the beginnings of its tensors' names."""
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    return ", ".join(dict.fromkeys(str(key).partition(".")[0] for key in content))
