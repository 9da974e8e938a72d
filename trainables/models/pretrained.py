"""Published weights to start from: a checkpoint file, known by what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from data_pipelines.configuration import Configuration, outside_identity
from trainables.checkpoint import sha256_of
from trainables.models.network import Network
from trainables.models.weights_file import fitting_weights, load_network_weights


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights(Configuration):
    """A checkpoint file of a published format: torchvision, timm, B-cos v2, X-DNN; safetensors.

    Everything but the classification head must fit the network. The head's weights are taken if
    they fit, too; otherwise the head is new and starts as torch initializes such a layer, whatever
    the network's own initialization is. `pretrained_of` makes one of a file.

    Source: Model Guidance (Rao et al., ICCV 2023), section 4 and D.1: networks pretrained on
        ImageNet, with a new head.
    """

    name: ClassVar[str] = "pretrained"

    sha256: str
    """Of the file, 64 hex digits: what the results depend on."""
    path: str = outside_identity(default="")
    """Where the file is, on every machine that trains."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(
                f"PretrainedWeights.sha256 = {self.sha256!r}: expected 64 hex digits; "
                "pretrained_of(path) computes them"
            )

    @property
    def key(self) -> str:
        """Short enough for tables."""
        return f"{self.name}_{self.sha256[:8]}"

    def check(self, network: Network, classes: int | None = None) -> None:
        """Refuse, before anything runs, a file that the network cannot start from.

        Args:
            network: to be filled.
            classes: how many its own head has; None where the head may be new.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is another file than the one that was asked for, or does not fit.
        """
        with torch.device("meta"):  # shapes alone
            module = network.build(classes or 2).module
        fitting_weights(module, self.file(), head=() if classes else head_of(network))

    def load(self, module: nn.Module, network: Network) -> None:
        """Fill the network's module, whose head was freshly initialized.

        The caller seeds the generator that a new head is drawn from.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is another file than the one that was asked for, or does not fit; every
                tensor that does not is named, and the module is not changed.
        """
        for path in load_network_weights(module, self.file(), head=head_of(network)):
            layer = module.get_submodule(path)
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.reset_parameters()

    def load_whole(self, module: nn.Module) -> None:
        """Fill a module, its head as well.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is another file than the one that was asked for, or does not fit.
        """
        load_network_weights(module, self.file())

    def file(self) -> Path:
        """The file, which is the one that was asked for.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is another one.
        """
        path = Path(self.path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file of pretrained weights")
        found = digest_of(path)
        if found != self.sha256:
            raise ValueError(
                f"{path}: sha256 is {found[:12]}..., expected {self.sha256[:12]}...; put the file "
                "back that the sweep was started with, or start a sweep with this one"
            )
        return path


def pretrained_of(path: str | Path) -> PretrainedWeights:
    """The weights in a file, by its contents.

    Raises:
        FileNotFoundError: there is no such file.
    """
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file of pretrained weights")
    return PretrainedWeights(sha256=digest_of(file), path=str(file))


@cache
def head_of(network: Network) -> frozenset[str]:
    """Names of the tensors whose shapes depend on the number of classes."""
    with torch.device("meta"):
        two, three = (network.build(classes).module.state_dict() for classes in (2, 3))
    return frozenset(key for key, tensor in two.items() if tensor.shape != three[key].shape)


def digest_of(path: Path) -> str:
    """Sha256 of a file as it is now; read once a process while it stays as it is."""
    stated = path.stat()
    return _digest(path, stated.st_mtime_ns, stated.st_size, stated.st_ino)


@cache
def _digest(path: Path, *_state: int) -> str:
    return sha256_of(path)
