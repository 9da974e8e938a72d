"""Maps of a few images, kept to be looked at: a file an image at first, one a method in the end."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from data_pipelines.boxes import boxes_of_class
from data_pipelines.image_set import ImageSet
from trainables.batch import Batch
from trainables.checkpoint import write_bytes


def chosen_examples(asked: Sequence[str], image_ids: Collection[str]) -> set[str]:
    """The images whose maps are kept: the first so many, or those of the given ids.

    Raises:
        ValueError: an id is not among the images.
    """
    if len(asked) == 1 and asked[0].isdigit():
        return set(sorted(image_ids)[: int(asked[0])])
    unknown = sorted(set(asked) - set(image_ids))
    if unknown:
        raise ValueError(
            f"--save-maps {unknown[0]}: no such image among the {len(image_ids)} that are judged; "
            "give a number, or ids such as " + ", ".join(sorted(image_ids)[:3])
        )
    return set(asked)


def keep_maps(
    folder: Path,
    keep: Collection[str],
    annotations: ImageSet,
    batch: Batch,
    pixels: np.ndarray,
    maps: Mapping[str, Tensor],
) -> None:
    """Leave the maps of a batch's first explanation of each image that is to be kept.

    Args:
        folder: where the files go.
        keep: ids of images.
        annotations: of the split.
        batch: what was explained.
        pixels: of the batch's images, (B, 3, H, W) uint8.
        maps: full-size maps by method key, each (N, H, W).
    """
    seen: set[str] = set()
    rows = {name: row for row, name in enumerate(annotations.image_ids.tolist())}
    for n, (i, target) in enumerate(
        zip(batch.image_index.tolist(), batch.targets.tolist(), strict=True)
    ):
        name = batch.image_ids[i]
        if name not in keep or name in seen:
            continue
        seen.add(name)
        start, end = annotations.box_offsets[rows[name] : rows[name] + 2]
        arrays = {f"map {key}": values[n].float().cpu().numpy() for key, values in maps.items()}
        buffer = io.BytesIO()
        np.savez(
            buffer,
            image_id=np.array(name),
            image=pixels[i].transpose(1, 2, 0),
            target=np.array(target),
            class_name=np.array(annotations.classes[target]),
            boxes=boxes_of_class(annotations.boxes[start:end], target),
            **arrays,  # type: ignore[arg-type]
        )
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        write_bytes(folder / f"{digest}.npz", buffer.getvalue())


def leave_examples(folder: Path, method_key: str, path: Path) -> None:
    """Put one method's kept maps together as ``examples.npz``; nothing where there are none."""
    found = []
    for file in sorted(folder.glob("*.npz")) if folder.is_dir() else []:
        with np.load(file, allow_pickle=False) as arrays:
            if f"map {method_key}" in arrays:
                found.append(dict(arrays))
    if not found:
        return
    found.sort(key=lambda one: str(one["image_id"]))
    boxes = [one["boxes"].reshape(-1, 4) for one in found]
    np.savez_compressed(
        path,
        image_ids=np.array([str(one["image_id"]) for one in found]),
        images=np.stack([one["image"] for one in found]),
        maps=np.stack([one[f"map {method_key}"] for one in found]),
        targets=np.array([int(one["target"]) for one in found]),
        class_names=np.array([str(one["class_name"]) for one in found]),
        boxes=np.concatenate(boxes),
        box_offsets=np.cumsum([0, *map(len, boxes)]),
    )
