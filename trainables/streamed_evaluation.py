"""Stream a split's images to actors that hold a model each, and score them."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from data_pipelines.class_map import is_wanted
from data_pipelines.dataset import Dataset
from data_pipelines.image_set import assemble
from data_pipelines.manifest import Manifest
from data_pipelines.shards import ordered_execution, read_shards, write_shards
from data_pipelines.streaming import SEGMENTED, decode_columns
from trainables.conclusion import conclude_all
from trainables.parts import done_ids, part_path, parts_folder
from trainables.protocol_evaluation import PART_IMAGES, ProtocolEvaluation
from trainables.scorer import Scorer
from trainables.source import source_fingerprint
from trainables.trial import Event, Trial, environment

READER_CPUS = 0.25
"""CPU share of a task that reads or decodes: two of them beside the actors of one node."""


class ScoringActor:
    """A Scorer in a process of its own; it takes a batch of pixels and tells what it did."""

    def __init__(
        self,
        bundle: Sequence[ProtocolEvaluation],
        storage: str,
        parts: str,
        manifest: Manifest,
        source: str,
    ) -> None:
        self.bundle, self.storage, self.parts = bundle, Path(storage), Path(parts)
        self.manifest, self.source = manifest, source

    @cached_property
    def scorer(self) -> Scorer:
        """Made by the first batch: an error here would have Ray start the actor again and again."""
        if source_fingerprint() != self.source:
            raise RuntimeError("this worker runs other code than the driver; run the command again")
        first = self.bundle[0]
        trial = Trial(first, self.storage, {}, lambda _: None)
        ids = self.manifest.image_ids(first.split)
        # every row as if it were sound: whether it is, its batch says
        annotations = assemble(
            self.manifest, first.split, first.size_px, ids, [""] * len(ids), images_decoded=0
        )
        return Scorer(self.bundle, trial, annotations)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Score a batch of columns image_id, pixels, decode_error, class_map (if wanted)."""
        errors = dict(zip(batch["image_id"].tolist(), batch["decode_error"].tolist(), strict=True))
        skipped = {image_id: error for image_id, error in errors.items() if error}
        pixels = np.ascontiguousarray(batch["pixels"].transpose(0, 3, 1, 2))
        result_ids = [result.result_id for result in self.bundle]
        forwards = 0
        if not part_path(self.parts, result_ids, list(errors)).exists():
            # else: left by an actor that died in a later batch of the same task
            with environment(self.bundle[0]):
                maps = batch["class_map"].tolist() if "class_map" in batch else ()
                forwards = self.scorer(self.parts, list(errors), pixels, skipped, maps)
        return {"images": np.array([len(errors)]), "forwards": np.array([forwards])}


def decode_wanted(
    batch: dict[str, np.ndarray], size_px: int, classes: int, wanted: frozenset[str]
) -> dict[str, Any]:
    """``decode_columns`` of the wanted images alone."""
    rows = [i for i, image_id in enumerate(batch["image_id"].tolist()) if image_id in wanted]
    return decode_columns({name: of_all[rows] for name, of_all in batch.items()}, size_px, classes)


def stream(
    bundle: Sequence[ProtocolEvaluation],
    storage: Path,
    dataset: Dataset,
    manifest: Manifest,
    emit: Callable[[Event], None],
    *,
    actors: int,
    cpus: float,
    gpus: float,
) -> None:
    """Compute a bundle of evaluations of one network over one choice of images.

    What an earlier call left is not scored again; failures are told, not raised.

    Args:
        bundle: results of one `bundle`.
        storage: folder of checkpoints, parts and artifacts.
        dataset: with its files.
        manifest: of the dataset.
        emit: takes what happens, as a trial's events.
        actors: how many hold a model; fewer where the images are too few for them.
        cpus: of each actor.
        gpus: of each actor.
    """
    first, started = bundle[0], time.monotonic()
    result_ids = [result.result_id for result in bundle]
    for result_id in result_ids:
        emit({"event": "running", "result_id": result_id, "pid": 0, "device": "actors"})
    trials = {result: Trial(result, storage, {}, emit) for result in bundle}
    wanted = first.chosen_ids(manifest.image_ids(first.split))
    parts = parts_folder(storage, first.bundle)
    segmented = "segments" in dataset.annotated and is_wanted(first.split)
    left = frozenset(wanted - done_ids(parts, result_ids))
    if left:
        write_shards(dataset, manifest, first.split)
        with ordered_execution():
            # Blocks of a part each, or one actor would have all of a small split. Ray rounds the
            # rows that fit up; names are small beside the pixels.
            pixels = 3 * first.size_px**2
            DataContext.get_current().target_max_block_size = PART_IMAGES * pixels
            batches = (
                read_shards(
                    manifest,
                    first.split,
                    columns=["image_id", "image", *(SEGMENTED if segmented else ())],
                    num_cpus=READER_CPUS,
                )
                .map_batches(
                    partial(
                        decode_wanted,
                        size_px=first.size_px,
                        classes=len(manifest.classes),
                        wanted=left,
                    ),
                    batch_size=4 * PART_IMAGES,
                    num_cpus=READER_CPUS,
                )
                .map_batches(
                    ScoringActor,
                    fn_constructor_kwargs={
                        "bundle": tuple(bundle),
                        "storage": str(storage),
                        "parts": str(parts),
                        "manifest": manifest,
                        "source": source_fingerprint(),
                    },
                    batch_size=PART_IMAGES,
                    compute=ActorPoolStrategy(size=max(1, min(actors, len(left) // PART_IMAGES))),
                    num_cpus=cpus,
                    num_gpus=gpus,
                )
                .iter_batches(batch_size=None)
            )
            scored = len(wanted) - len(left)
            told = iter(batches)
            while True:
                try:
                    batch = next(told, None)
                except RayError as error:  # an actor that fails or dies takes its bundle along
                    lost = str(error).strip().splitlines() or [type(error).__name__]
                    for trial in trials.values():
                        trial.fail(lost[-1], traceback.format_exc())
                    return
                if batch is None:
                    break
                scored += int(batch["images"].sum())
                share = scored / len(wanted)
                speed = (scored - len(wanted) + len(left)) / (time.monotonic() - started)
                text = f"{scored}/{len(wanted)} images, {speed:.1f} images/s"
                for trial in trials.values():
                    trial.progress(share, text)
    failed = conclude_all(trials, parts, wanted, manifest.max_skipped_fraction)
    seconds = time.monotonic() - started
    for result_id in result_ids:
        if result_id not in failed:
            emit({"event": "finished", "result_id": result_id, "seconds": seconds})
