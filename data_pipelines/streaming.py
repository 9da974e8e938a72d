"""Streaming: Ray Data feeds; the resident one decodes a split once for a whole sweep."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from data_pipelines.class_map import is_wanted, pack_batch
from data_pipelines.dataset import Dataset
from data_pipelines.image_set import ImageSet, assemble
from data_pipelines.manifest import MAX_SKIPPED_FRACTION, Manifest
from data_pipelines.shards import ordered_execution, read_shards, write_shards
from data_pipelines.transforms import decode_batch

logger = logging.getLogger(__name__)

SEGMENTED = ("segmentation", "width", "height")
"""Columns of the shards that a class map is packed from."""
STORE_FRACTION = 0.5
"""Share of the object store that making one split may take; the rest is for the other splits."""


@dataclass(frozen=True, eq=False)
class ResidentSplit:
    """A decoded split in the object store: hand it to trials, and ``load`` it there."""

    annotations: ImageSet
    """The image set without its pixels."""
    blocks: tuple[ray.ObjectRef[Any], ...]
    """Decoded pixels, each (n, size_px, size_px, 3) uint8."""
    images_decoded: int
    """Files that Ray Data decoded for it, damaged ones included."""

    def load(self) -> ImageSet:
        """The image set, its pixels mapped read-only from shared memory without a copy.

        It runs no task, so nothing can starve where trials hold all CPUs.
        """
        return replace(self.annotations, blocks=ray.get(list(self.blocks)))


def resident(
    dataset: Dataset,
    manifest: Manifest,
    split: str,
    size_px: int,
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
) -> ResidentSplit:
    """Read and decode a split once by Ray Data and keep it in the object store.

    Missing shards are written first. Call it before trials start: a Data execution beside trials
    that hold all CPUs waits for ever.

    Args:
        dataset: with its files on disk.
        manifest: of the dataset.
        split: one of the manifest's.
        size_px: side that the images are resized to.
        max_skipped_fraction: share, rounded up to whole images, that may be damaged.

    Raises:
        ValueError: the decoded split does not fit the object store, or too many are damaged.
    """
    where, images = f"{dataset.name}/{split}", manifest.summary(split).images
    store_bytes = object_store_bytes()
    if not fits_object_store(where, images, size_px, store_bytes):
        raise ValueError(
            f"{where} at {size_px} px does not fit {STORE_FRACTION:.0%} of the object store of "
            f"{store_bytes / 2**20:.0f} MiB: take a smaller size, or start Ray with more "
            "object_store_memory"
        )
    write_shards(dataset, manifest, split)
    wanted = is_wanted(split)
    with ordered_execution():
        decoded = (
            read_shards(manifest, split)
            .select_columns(["image_id", "image", *(SEGMENTED if wanted else ())])
            .map_batches(
                partial(decode_columns, size_px=size_px, classes=len(manifest.classes)),
                batch_size=None,
                batch_format="numpy",
            )
            .materialize()
        )
        # Plain arrays, block by block in one order: a trial maps these without a copy.
        ids, errors, blocks = (
            decoded.to_numpy_refs(column=name) for name in ("image_id", "decode_error", "pixels")
        )
        decoded_ids = np.concatenate(ray.get(ids)).tolist()
        maps = decoded.to_numpy_refs(column="class_map") if wanted else []
        annotations = assemble(
            manifest,
            split,
            size_px,
            decoded_ids,
            np.concatenate(ray.get(errors)).tolist(),
            class_maps=np.concatenate(ray.get(maps)).tolist() if wanted else (),
            images_decoded=0,
            max_skipped_fraction=max_skipped_fraction,
        )
        ray.wait(blocks, num_returns=len(blocks), fetch_local=False)  # no task outlives this call
    return ResidentSplit(annotations, tuple(blocks), images_decoded=len(decoded_ids))


def decode_columns(batch: Any, size_px: int, classes: int) -> dict[str, NDArray[Any]]:
    """Decode images, and their class maps where the batch has the columns SEGMENTED.

    Args:
        batch: columns image_id and image at least.
        size_px: side of the result.
        classes: K, which class maps are checked by.

    Returns:
        Columns image_id, pixels, decode_error (empty where sound), and packed class_map.
    """
    pixels, errors = decode_batch(batch["image"].tolist(), size_px)
    columns = {"image_id": batch["image_id"], "pixels": pixels}
    if "segmentation" in batch:
        sides = list(zip(batch["width"].tolist(), batch["height"].tolist(), strict=True))
        maps, damage = pack_batch(batch["segmentation"].tolist(), sides, classes, size_px)
        errors = [error or of_map for error, of_map in zip(errors, damage, strict=True)]
        columns["class_map"] = np.array(maps, dtype=object)
    return columns | {"decode_error": np.array(errors, dtype=object)}


def object_store_bytes() -> int:
    """Of the node with the smallest store among those that work: each loads whole splits."""
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
    working = [node for node in nodes if node.get("CPU", 0) > 0]
    return int(min((node.get("object_store_memory", 0) for node in working), default=0))


def fits_object_store(where: str, images: int, size_px: int, store_bytes: int) -> bool:
    """Whether a decoded split may be resident; the arithmetic is logged.

    Args:
        where: dataset and split, for the log.
        images: of the split.
        size_px: side of the decoded images.
        store_bytes: see ``object_store_bytes``.
    """
    fits, arithmetic = store_arithmetic(where, images, size_px, store_bytes)
    logger.info("%s: %s", arithmetic, "resident feed" if fits else "no resident feed")
    return fits


def store_arithmetic(where: str, images: int, size_px: int, store_bytes: int) -> tuple[bool, str]:
    """Whether a decoded split fits, and why; arguments as ``fits_object_store``."""
    # Twice: Ray Data's blocks, and the plain arrays that are made of them.
    needed, allowed = 2 * images * size_px * size_px * 3, STORE_FRACTION * store_bytes
    fits = needed <= allowed
    return fits, (
        f"{where}: 2 x {images} images x {size_px} x {size_px} x 3 B = {needed / 2**20:.1f} MiB, "
        f"{'within' if fits else 'over'} {allowed / 2**20:.1f} MiB allowed"
    )
