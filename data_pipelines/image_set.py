"""An image set: one decoded split at one size, in plain numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_pipelines import class_map
from data_pipelines.boxes import box_mask, boxes_of_class, dilate_boxes, scale_boxes
from data_pipelines.dataset import Dataset
from data_pipelines.location import read_table
from data_pipelines.manifest import MAX_SKIPPED_FRACTION, Manifest, check_skipped
from data_pipelines.transforms import decode_batch


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """N images of one split, sorted by image_id, with K classes and M boxes; picklable."""

    classes: tuple[str, ...]
    """K names."""
    size_px: int
    image_ids: NDArray[np.str_]
    """(N,)"""
    labels: NDArray[np.uint8]
    """(N, K), 1 where the class is present; a row may be all 0."""
    boxes: NDArray[np.int32]
    """(M, 5) class, xmin, ymin, xmax, ymax in pixels of the resized image; those of image i:
    ``boxes[box_offsets[i]:box_offsets[i + 1]]``, in published order."""
    box_offsets: NDArray[np.int64]
    """(N + 1,)"""
    blocks: Sequence[NDArray[np.uint8]]
    """Decoded pixels, each (n, size_px, size_px, 3), read-only where they lie in shared memory."""
    rows: NDArray[np.int64]
    """(N,) row of each image in the blocks, counted through them; damaged images are left out."""
    class_maps: tuple[bytes, ...] = ()
    """Packed class map of each of the N images, empty where none is published; () on the training
    split, where no map is judged."""
    groups: NDArray[np.int64] | None = None
    """(N,) group of each image where the dataset has groups (Waterbirds: G1 is 0, G4 is 3)."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why an image could not be decoded, by image_id."""
    images_decoded: int = 0
    """Files decoded to make this object; 0 where the pixels came out of the object store."""

    def __len__(self) -> int:
        """N."""
        return len(self.image_ids)

    def images(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """A copy of the pictures, (B, 3, size_px, size_px) in [0, 255].

        Args:
            indices: (B,) positions in [0, N).
        """
        rows = self.rows[np.asarray(indices, dtype=np.int64)]
        ends = np.cumsum([len(block) for block in self.blocks])
        holders = np.searchsorted(ends, rows, side="right")
        pictures = np.empty((len(rows), 3, self.size_px, self.size_px), dtype=np.uint8)
        for holder in np.unique(holders):
            block, chosen = self.blocks[holder], holders == holder
            pictures[chosen] = block[rows[chosen] - (ends[holder] - len(block))].transpose(
                0, 3, 1, 2
            )
        return pictures

    def expecting(self, batches: Sequence[NDArray[np.int64]]) -> AbstractContextManager[None]:
        """Announce the batches that will be asked for, in their order.

        A resident set has them all; a streamed one brings them, and only so is it fast.
        """
        return nullcontext()

    def positives(self, index: int) -> NDArray[np.int64]:
        """Classes that are present in an image, ascending."""
        return np.flatnonzero(self.labels[index])

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every (image, positive class): image_index (P,) ascending, targets (P,)."""
        image_index, targets = np.nonzero(self.labels)
        return image_index, targets

    def mask(self, index: int, class_index: int, dilation: float = 0.0) -> NDArray[np.bool_]:
        """Union of an image's boxes of one class, (size_px, size_px); all False where it has none.

        Args:
            index: of the image.
            class_index: of the class.
            dilation: share of a box's sides that is added on each side before the union.
        """
        boxes = boxes_of_class(
            self.boxes[self.box_offsets[index] : self.box_offsets[index + 1]], class_index
        )
        return box_mask(dilate_boxes(boxes, dilation, self.size_px), self.size_px)

    def masks(
        self, image_index: ArrayLike, targets: ArrayLike, dilation: float = 0.0
    ) -> NDArray[np.bool_]:
        """``mask`` of N pairs, (N, size_px, size_px)."""
        pairs = list(zip(np.atleast_1d(image_index), np.atleast_1d(targets), strict=True))
        masks = np.zeros((len(pairs), self.size_px, self.size_px), dtype=bool)
        for position, (index, class_index) in enumerate(pairs):
            masks[position] = self.mask(int(index), int(class_index), dilation)
        return masks

    @property
    def segmented(self) -> NDArray[np.bool_]:
        """Which images have a class map, (N,)."""
        return np.array(list(map(bool, self.class_maps)) or [False] * len(self), dtype=bool)

    def segments(self, image_index: ArrayLike, targets: ArrayLike) -> NDArray[np.int8]:
        """Pixels of N pairs, (N, size_px, size_px): 1 on the class, 0 elsewhere, -1 undecided.

        An image without a class map is undecided everywhere.
        """
        packed = self.class_maps or [b""] * len(self)
        return class_map.segments(packed, self.size_px, image_index, targets)


def assemble(
    manifest: Manifest,
    split: str,
    size_px: int,
    decoded_ids: Sequence[str],
    errors: Sequence[str],
    blocks: Sequence[NDArray[np.uint8]] = (),
    class_maps: Sequence[bytes] = (),
    *,
    images_decoded: int,
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
) -> ImageSet:
    """Put annotations and decoded rows together, sorted by image_id, without damaged images.

    Both feeds end here.

    Args:
        manifest: whose annotations are taken.
        split: one of the manifest's.
        size_px: side of the decoded images.
        decoded_ids: image_id of each decoded row, in the order of the blocks, which may be any.
        errors: why a row could not be decoded, empty where it could.
        blocks: decoded pixels; may be put in later.
        class_maps: packed, of each decoded row; () where none are wanted.
        images_decoded: see ImageSet.
        max_skipped_fraction: share, rounded up to whole images, that may be damaged.

    Raises:
        ValueError: too many images are damaged (names the first), or the rows are not those of
            the manifest.
    """
    rows = manifest.table(split, ["image_id", "width", "height", "labels", "boxes", "group"])
    table = rows.to_pydict()
    order = np.argsort(np.array(decoded_ids, dtype=object), kind="stable")
    if [decoded_ids[row] for row in order] != table["image_id"]:
        raise ValueError(
            f"{manifest.directory}: the {len(decoded_ids)} decoded rows of {split} are not the "
            f"{len(rows)} of the manifest; remove the folder and index again"
        )
    failed = [errors[row] for row in order]
    skipped = {
        image_id: error for image_id, error in zip(table["image_id"], failed, strict=True) if error
    }
    kept = [position for position, error in enumerate(failed) if not error]
    fraction = max(max_skipped_fraction, manifest.max_skipped_fraction)
    check_skipped(f"{manifest.directory.name}/{split}", len(kept), skipped, fraction)
    labels = np.zeros((len(kept), len(manifest.classes)), dtype=np.uint8)
    boxes, offsets = [np.empty((0, 5), dtype=np.int32)], [0]
    for row, position in enumerate(kept):
        labels[row, table["labels"][position]] = 1
        published = np.array(table["boxes"][position], dtype=np.float64).reshape(-1, 6)
        corners = scale_boxes(
            published[:, 1:5], table["width"][position], table["height"][position], size_px
        )
        boxes.append(np.concatenate([published[:, :1].astype(np.int32), corners], axis=1))
        offsets.append(offsets[-1] + len(corners))
    groups = [table["group"][position] for position in kept]
    return ImageSet(
        classes=manifest.classes,
        size_px=size_px,
        image_ids=np.array([table["image_id"][position] for position in kept], dtype=np.str_),
        labels=labels,
        boxes=np.concatenate(boxes),
        box_offsets=np.array(offsets, dtype=np.int64),
        blocks=blocks,
        rows=order[kept],
        class_maps=tuple(class_maps[row] for row in order[kept]) if class_maps else (),
        groups=None if None in groups else np.array(groups, dtype=np.int64),
        skipped=skipped,
        images_decoded=images_decoded,
    )


def published_images(dataset: Dataset, manifest: Manifest, split: str) -> Iterator[bytes]:
    """The image files in the order of ids: as published, or out of a converted dataset's shards."""
    if manifest.converted:
        for path in manifest.converted_shards(split):
            yield from read_table(path, ["image"])["image"].to_pylist()
    else:
        for name in manifest.table(split, ["path"])["path"].to_pylist():
            yield (dataset.folder / name).read_bytes()


def published_maps(dataset: Dataset, manifest: Manifest, split: str) -> Iterator[bytes | None]:
    """The class maps as PNG in the order of ids, from where ``published_images`` has the images."""
    if manifest.converted:
        for path in manifest.converted_shards(split):
            yield from read_table(path, ["segmentation"])["segmentation"].to_pylist()
    else:
        for row in manifest.table(split, list(class_map.PUBLISHED)).to_pylist():
            yield class_map.published_png(dataset.folder, row)


def load_locally(
    dataset: Dataset,
    manifest: Manifest,
    split: str,
    size_px: int,
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
) -> ImageSet:
    """Read and decode a split without Ray; arguments as ``resident``."""
    table = manifest.table(split, ["image_id", "width", "height"])
    images = list(published_images(dataset, manifest, split))
    pixels, errors = decode_batch(images, size_px)
    maps: list[bytes] = []
    if class_map.is_wanted(split):
        pngs = list(published_maps(dataset, manifest, split))
        sides = list(zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True))
        maps, damage = class_map.pack_batch(pngs, sides, len(manifest.classes), size_px)
        errors = [error or of_map for error, of_map in zip(errors, damage, strict=True)]
    return assemble(
        manifest,
        split,
        size_px,
        table["image_id"].to_pylist(),
        errors,
        [pixels],
        maps,
        images_decoded=len(images),
        max_skipped_fraction=max_skipped_fraction,
    )
