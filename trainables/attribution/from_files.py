"""Maps that one already has, made elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from data_pipelines.configuration import outside_identity
from trainables.attribution.attribution import Attribution
from trainables.models.network import Model
from trainables.passes import Need, Passes

LAYOUT = "a folder of <image_id>_<target>.npy, or a .safetensors file with keys <image_id>/<target>"


@dataclass(frozen=True, kw_only=True)
class FromFiles(Attribution):
    """Maps from files, by image id and target: scored like any method's, whatever made them.

    Each is an array (h, w) of numbers; all maps of a batch have one size. Nothing is unpickled.
    The files are read once at construction, for the fingerprint.

    Source: none; the maps are the user's.

    Raises:
        FileNotFoundError: no such path, or no map in it; names the layout.
    """

    name: ClassVar[str] = "from_files"

    path: str = outside_identity(default="")
    """A folder of ``<image_id>_<target>.npy``, where an id may hold slashes, or one
    ``.safetensors`` file with keys ``<image_id>/<target>``."""
    label: str = ""
    """What made the maps, for keys and tables."""
    fingerprint: str = ""
    """Hash of the files' names and bytes; filled in at construction."""

    def __post_init__(self) -> None:
        """Make the path absolute, for workers that start elsewhere, and hash what lies there."""
        super().__post_init__()
        if self.path:
            object.__setattr__(self, "path", str(Path(self.path).absolute()))
            if not self.fingerprint:
                object.__setattr__(self, "fingerprint", fingerprint_of(Path(self.path)))

    def needs(self, model: Model) -> tuple[Need, ...]:
        """Nothing: no model is asked."""
        return ()

    def suit(self, model: Model) -> None:
        """Any model, once there is a path."""
        if not self.path:
            raise ValueError(f"from_files has no path: expected {LAYOUT}")

    def attribute(self, passes: Passes) -> Tensor:
        """The stored maps, (N, h, w).

        Raises:
            FileNotFoundError: a map is missing; names image id and target.
            ValueError: there is no path; a map is not (h, w), or not as large as the others.
        """
        self.suit(passes.model)
        batch = passes.batch
        asked = [
            (batch.image_ids[image], target)
            for image, target in zip(
                batch.image_index.tolist(), batch.targets.tolist(), strict=True
            )
        ]
        maps = read(Path(self.path), asked)
        for (image_id, target), found in zip(asked, maps, strict=True):
            if found.ndim != 2 or found.shape != maps[0].shape:
                raise ValueError(
                    f"{self.path}: the map of image {image_id!r} and target {target} is "
                    f"{tuple(found.shape)}; expected (h, w), the same for all maps of a batch"
                )
        return (
            torch.stack(maps).to(batch.images)
            if maps
            else batch.images.new_zeros(0, *batch.images.shape[2:])
        )


def read(path: Path, asked: list[tuple[str, int]]) -> list[Tensor]:
    """The map of each image id and target."""
    maps: list[Tensor] = []
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            known = set(file.keys())
            for image_id, target in asked:
                if (key := f"{image_id}/{target}") not in known:
                    raise missing(path, image_id, target, f"the key {key!r}")
                maps.append(file.get_tensor(key))
        return maps
    for image_id, target in asked:
        file = path / f"{image_id}_{target}.npy"
        if not file.is_file():
            raise missing(path, image_id, target, f"the file {file.relative_to(path)}")
        try:
            maps.append(torch.from_numpy(np.load(file, allow_pickle=False)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} holds no array of numbers: {error}") from None
    return maps


def missing(path: Path, image_id: str, target: int, expected: str) -> FileNotFoundError:
    """The error for a map that is not there."""
    return FileNotFoundError(
        f"{path} has no map of image {image_id!r} and target {target}: expected {expected}"
    )


def fingerprint_of(path: Path) -> str:
    """16 hex digits of the sha256 of all maps with their names."""
    if path.is_dir():
        files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*.npy"))
    else:
        files = [("", path)] if path.suffix == ".safetensors" and path.is_file() else []
    if not files:
        raise FileNotFoundError(f"{path} holds no maps: expected {LAYOUT}")
    digest = hashlib.sha256()
    for name, file in files:
        with file.open("rb") as stream:
            digest.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
