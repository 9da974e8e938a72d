"""A streamed set: annotations in memory; one Ray Data execution brings the pixels, as announced."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import ArrayLike, NDArray
from ray.data import DataContext, ExecutionResources, TaskPoolStrategy

from data_pipelines.class_map import is_wanted
from data_pipelines.dataset import Dataset
from data_pipelines.image_set import ImageSet, assemble
from data_pipelines.location import write_whole
from data_pipelines.manifest import MAX_SKIPPED_FRACTION, Manifest
from data_pipelines.order import WINDOWS
from data_pipelines.shard_rows import Shards
from data_pipelines.shards import ordered_execution, shard_firsts, shard_paths, write_shards
from data_pipelines.survey import class_maps, damaged_images
from data_pipelines.transforms import decode_batch

BLOCK_BYTES = 8 * 2**20
"""Decoded pixels that a task hands over at once: 55 images of 224 px."""
READ_AHEAD_BLOCKS = 8
"""Blocks, beyond two for each CPU, that may wait for the trial in the object store."""


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A split that each trial streams by itself: hand it to trials, and ``load`` it there."""

    annotations: ImageSet
    """The image set without its pixels."""
    shards: Shards
    cpus: int
    """CPUs that are left free for the Data execution of a trial."""
    images_decoded: int = 0
    """Files that were decoded to see whether they are sound; 0 where that was known."""

    def load(self) -> ImageSet:
        """A set of the caller's own: it holds one stream at a time."""
        known = {f.name: getattr(self.annotations, f.name) for f in fields(ImageSet)}
        return StreamedSet(**known, shards=self.shards, cpus=self.cpus)


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamedSet(ImageSet):
    """An image set whose pixels come batch by batch, in an order that is announced.

    ``rows`` are those of the manifest, ``blocks`` are none.
    """

    shards: Shards
    cpus: int = 1
    _streams: list[Stream] = field(default_factory=list)
    """The one that is open, if any."""

    @contextmanager
    def expecting(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[None]:
        """Stream these batches: one Ray Data execution, which ends with the context.

        Raises:
            ValueError: the order would read the shards over and over.
        """
        stream = Stream(self, [np.asarray(batch) for batch in batches if len(batch)])
        with ordered_execution(), closing(stream):
            self._streams.append(stream)
            try:
                yield
            finally:
                self._streams.remove(stream)

    def images(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """As announced; a few images beside (examples, checks) are read by themselves."""
        wanted = np.asarray(indices, dtype=np.int64)
        for stream in self._streams:
            if stream.advance(wanted):
                return stream.pictures(wanted)
        ids, images = self.shards.read(self.rows[wanted])
        pixels, errors = decode_batch(images, self.size_px)
        self.check(wanted, ids, errors)
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))

    def check(self, wanted: NDArray[np.int64], ids: Sequence[str], errors: Sequence[str]) -> None:
        """Refuse images that are not the wanted ones, or no longer sound.

        Raises:
            ValueError: names the image.
        """
        for index, image_id, error in zip(wanted.tolist(), ids, errors, strict=True):
            expected = str(self.image_ids[index])
            if image_id != expected or error:
                raise ValueError(
                    f"image {expected}: {error or f'its place in the shards holds {image_id}'}, "
                    "where it was sound before; remove the shards, of a conversion also its "
                    "manifest.json, and make them again"
                )


class Stream:
    """A Ray Data execution and what it has delivered of the batches it was asked for."""

    def __init__(self, images: StreamedSet, batches: Sequence[NDArray[np.int64]]) -> None:
        self.set, self.batches = images, list(batches)
        self.held: dict[int, int] = {}
        """Place of each image of the current batch."""
        self.pixels = np.empty((0, images.size_px, images.size_px, 3), dtype=np.uint8)
        self.next = 0
        self.delivered: Any = None
        self.rest: list[tuple[list[str], list[str], NDArray[np.uint8]]] = []

    def advance(self, wanted: NDArray[np.int64]) -> bool:
        """Whether the images are of the current batch, or of the next, which is then fetched."""
        asked = set(wanted.tolist())
        if asked <= self.held.keys():
            return True
        if self.next == len(self.batches) or not asked <= set(self.batches[self.next].tolist()):
            return False
        batch = self.batches[self.next]
        self.next += 1
        self.pixels = self.fetch(batch)
        self.held = {index: place for place, index in enumerate(batch.tolist())}
        return True

    def pictures(self, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A copy of pictures of the current batch, (B, 3, H, W)."""
        places = [self.held[index] for index in wanted.tolist()]
        return np.ascontiguousarray(self.pixels[places].transpose(0, 3, 1, 2))

    def fetch(self, batch: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The next images of the execution, which must be those of the batch."""
        if self.delivered is None:
            self.delivered = self.execute()
        ids: list[str] = []
        errors: list[str] = []
        parts: list[NDArray[np.uint8]] = []
        while len(ids) < len(batch):
            if not self.rest:
                block = next(self.delivered)
                columns = (block["image_id"].tolist(), block["decode_error"].tolist())
                self.rest.append((*columns, block["pixels"]))
            names, damage, pixels = self.rest.pop()
            count = len(batch) - len(ids)
            ids += names[:count]
            errors += damage[:count]
            parts.append(pixels[:count])
            if count < len(names):
                self.rest.append((names[count:], damage[count:], pixels[count:]))
        self.set.check(batch, ids, errors)
        return np.concatenate(parts)

    def execute(self) -> Any:
        """Read and decode window after window in tasks of one CPU each, in order, block by block.

        Memory, whatever the number of images: for each CPU the bytes of a window and two blocks,
        and the blocks that wait.
        """
        streamed = self.set
        windows = WINDOWS.of(streamed.rows[np.concatenate(self.batches)])
        context = DataContext.get_current()
        context.target_max_block_size = BLOCK_BYTES
        context.execution_options.resource_limits = ExecutionResources.for_limits(
            cpu=streamed.cpus,
            object_store_memory=(READ_AHEAD_BLOCKS + 2 * streamed.cpus) * BLOCK_BYTES,
        )
        items = [{"rows": window.tolist()} for window in windows]
        count = max(1, BLOCK_BYTES // (3 * streamed.size_px**2))
        read = partial(read_window, shards=streamed.shards, size_px=streamed.size_px, count=count)
        decoded = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            read,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            compute=TaskPoolStrategy(size=min(streamed.cpus, len(items))),
        )
        blocks: Any = decoded.iter_batches(batch_size=None, prefetch_batches=1)
        return iter(blocks)

    def close(self) -> None:
        """End the execution, also where batches are left."""
        if self.delivered is not None:
            self.delivered.close()
            self.delivered = None


def read_window(
    items: pa.Table, shards: Shards, size_px: int, count: int
) -> Iterator[dict[str, Any]]:
    """The task: a window's rows as blocks of image_id, pixels, decode_error, in their order.

    Args:
        items: one, with the ``rows`` of a window.
        shards: of the split.
        size_px: side of the decoded images.
        count: images of a block.
    """
    (rows,) = items["rows"].to_pylist()
    ids, images = shards.read(np.array(rows, dtype=np.int64))
    for start in range(0, len(ids), count):
        pixels, errors = decode_batch(images[start : start + count], size_px)
        yield {
            "image_id": np.array(ids[start : start + count], dtype=object),
            "pixels": pixels,
            "decode_error": np.array(errors, dtype=object),
        }
        images[start : start + count] = [b""] * len(errors)  # what was handed over is let go


def streamed(
    dataset: Dataset,
    manifest: Manifest,
    split: str,
    size_px: int,
    cpus: int = 1,
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
) -> StreamedSplit:
    """A split as a stream for each trial. Missing shards are written first.

    Which images are damaged must be known before an epoch can be ordered: the first call decodes
    each once, and leaves the list beside the shards.

    Args:
        dataset: with its files on disk.
        manifest: of the dataset.
        split: one of the manifest's.
        size_px: side that the images are resized to.
        cpus: that the Data execution of a trial may use.
        max_skipped_fraction: share, rounded up to whole images, that may be damaged.

    Raises:
        ValueError: too many images are damaged.
    """
    write_shards(dataset, manifest, split)
    paths = shard_paths(manifest, split)
    shards = Shards(tuple(map(str, paths)), tuple(shard_firsts(manifest, split)))
    ids = manifest.image_ids(split)
    known, damaged, decoded = manifest.directory / f"{split}.damaged.json", {}, 0
    if manifest.verified:
        damaged = manifest.summary(split).damaged
    elif known.exists():
        damaged = json.loads(known.read_text())
    else:
        damaged, decoded = damaged_images(shards, len(ids)), len(ids)
        write_whole(known, json.dumps(damaged).encode())
    errors = [damaged.get(image_id, "") for image_id in ids]
    maps: list[bytes] = []
    if is_wanted(split) and "segments" in dataset.annotated:
        maps, damage = class_maps(shards, len(manifest.classes), size_px)
        errors = [error or of_map for error, of_map in zip(errors, damage, strict=True)]
    annotations = assemble(
        manifest,
        split,
        size_px,
        ids,
        errors,
        class_maps=maps,
        images_decoded=0,
        max_skipped_fraction=max_skipped_fraction,
    )
    return StreamedSplit(annotations, shards, cpus, decoded)
