"""Weights from outside: a checkpoint file fills a network, or is refused with the reason."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
"""Names under which training scripts put the weights among other things."""
PREFIXES = ("module.", "model.", "_orig_mod.", "0.")
"""What DataParallel, wrapping modules, torch.compile and a sequence of the network and its last
layer (Model Guidance's B-cos networks) put before every name."""
INNER = "linear"
"""What B-cos layers hold. In IDSDS's fine-tuned networks they are convolutions themselves, and
``conv1.weight`` stands for ``conv1.linear.weight``."""
BESIDE_WEIGHTS = (
    "argparse.Namespace",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
)
"""What published checkpoints hold beside weights: flags; learning rates of NumPy, in optimizers
(DINO); histories of losses and what their functions are pickled with (mmpretrain)."""


UNREADABLE = (
    *(SafetensorError, zipfile.BadZipFile, struct.error, EOFError, OSError, RuntimeError),
    *(LookupError, AttributeError, TypeError, AssertionError),  # torch, of a damaged table
)
"""How reading fails on files that are cut off, damaged or something else."""


class Unread:
    """Stands for something beside the weights: nothing of it is imported, called or kept."""

    def __new__(cls, *_given: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_given: object) -> None:
        """What it was made of is not kept."""

    def __setstate__(self, _state: object) -> None:
        """Its state is not kept either."""


def load_network_weights(
    module: nn.Module, path: str | Path, *, head: Collection[str] = ()
) -> list[str]:
    """Fill the module from a file: safetensors, or what ``torch.save`` wrote.

    The module is changed only if everything fits; see `fitting_weights`.

    Args:
        module: what is filled.
        path: of the file.
        head: names of the classification head's tensors, which need not fit.

    Returns:
        Paths of the layers that make up the head, where it stayed as it is; otherwise none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no weights, holds more than weights, or does not fit.
    """
    found, new = fitting_weights(module, path, head=head)
    module.load_state_dict(module.state_dict() | found)
    return new


def fitting_weights(
    module: nn.Module, path: str | Path, *, head: Collection[str] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """What the file has for the module, by the module's names; and the layers that stay new.

    Nothing in the file is executed: torch files are read with ``weights_only``, and there is no
    other way; what is known to stand beside weights is left unread. The weights may lie under
    ``state_dict`` or the like; all their names may begin with ``module.`` or the like, and those of
    B-cos layers may be without ``linear``. Counts of batches (of batch norms) may be missing, as in
    files of before 2018. The head's layers stay new unless the file has all of them in the module's
    shapes; the file's own head is left aside then.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no weights, holds more than weights, or does not fit; every
            missing, unknown and misshapen tensor is named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    expected = module.state_dict()
    found = without_prefixes(weights_among(read(path), path), expected)
    found = with_inner(found, expected)
    new = sorted({layer_of(key) for key in head})
    if shapes_in(new, found) == shapes_in(new, expected):
        new = []
    found = {key: tensor for key, tensor in found.items() if layer_of(key) not in new}
    named = misfits(found, {k: t for k, t in expected.items() if layer_of(k) not in new})
    if named:
        raise ValueError(f"{path} does not fit {type(module).__name__}: {told(named)}")
    return found, new


def misfits(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], unknown: Collection[str] = ()
) -> dict[str, list[str]]:
    """Tensors that do not fit, by the reason, named; empty where everything fits.

    Args:
        found: by the network's names.
        expected: all that the network needs, by its names; counts of batches may be missing.
        unknown: names beside those found of which the network has no use.
    """
    missing = [
        key
        for key in expected
        if key not in found and key.rpartition(".")[2] != "num_batches_tracked"
    ]
    misshapen = [
        f"{key} {tuple(found[key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    reasons = {
        "missing": missing,
        "unknown": [*(key for key in found if key not in expected), *unknown],
        "other shapes": misshapen,
    }
    return {what: keys for what, keys in reasons.items() if keys}


def told(named: Mapping[str, Sequence[str]]) -> str:
    """Names by the reason, in a line."""
    return "; ".join(f"{what}: {', '.join(keys)}" for what, keys in named.items())


def shapes_in(layers: Collection[str], tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Shapes of the tensors that belong to these layers."""
    return {key: tensor.shape for key, tensor in tensors.items() if layer_of(key) in layers}


def layer_of(key: str) -> str:
    """Path of the layer that a tensor belongs to."""
    return key.rpartition(".")[0]


def read(path: Path) -> Any:
    """What the file holds, its tensors in memory.

    Raises:
        ValueError: it cannot be read without executing something, or at all.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if is_program(path):
            raise ValueError(
                f"{path}: a TorchScript archive, which is a program and is not run; save its "
                "weights once, where it can be trusted: torch.save(torch.jit.load(FILE, "
                "map_location='cpu').state_dict(), 'weights.pth')"
            )
        with torch.serialization.safe_globals([(Unread, name) for name in BESIDE_WEIGHTS]):
            return torch.load(path, map_location=in_memory, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: more than weights, which is not read from files "
            f"({str(error).splitlines()[0]}); save the network's state_dict alone, best as "
            "safetensors"
        ) from error
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: neither safetensors nor a torch file ({reason})") from error


def is_program(path: Path) -> bool:
    """Whether the file is a TorchScript archive, such as CLIP's networks are published in."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def in_memory(storage: Any, location: str) -> Any:
    """Leave a storage where reading put it, wherever it was saved."""
    return storage


def weights_among(content: Any, path: Path) -> Mapping[str, Tensor]:
    """The weights, taken out of what a training script stored around them.

    Raises:
        ValueError: there are none.
    """
    while isinstance(content, Mapping):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return content
        inside = next((w for w in WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if inside is None:
            break
        content = content[inside]
    held = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise ValueError(
        f"{path} holds no weights by name, also not under {', '.join(WRAPPERS)}; it holds {held}"
    )


def without_prefixes(found: Mapping[str, Tensor], expected: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights by the network's names, without what stands before all names in the file.

    What stands before all names of the network, and not in the file, is added instead.
    """
    named = dict(found)
    while named and not named.keys() & expected.keys():
        prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in named)), None)
        if prefix is None:
            added = next((p for p in PREFIXES if any(f"{p}{key}" in expected for key in named)), "")
            return {f"{added}{key}": tensor for key, tensor in named.items()}
        named = {key.removeprefix(prefix): tensor for key, tensor in named.items()}
    return named


def with_inner(found: Mapping[str, Tensor], expected: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights by the network's names, where the file leaves out what its layers hold."""
    inner = {key: f"{layer_of(key)}.{INNER}.{key.rpartition('.')[2]}" for key in found}
    left_out = {
        key
        for key, longer in inner.items()
        if key not in expected and longer in expected and longer not in found
    }
    return {inner[key] if key in left_out else key: tensor for key, tensor in found.items()}
