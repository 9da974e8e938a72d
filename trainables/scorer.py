"""Score a bundle of methods on images, and leave the scores as parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from data_pipelines import class_map
from data_pipelines.image_set import ImageSet
from trainables.batch import Batch
from trainables.evaluator import Evaluator
from trainables.example_maps import chosen_examples, keep_maps
from trainables.models.network import evaluating
from trainables.parts import write_part
from trainables.trial import Trial

if TYPE_CHECKING:
    from trainables.protocol_evaluation import ProtocolEvaluation


class Scorer:
    """Holds a bundle's model; scores images and leaves the parts."""

    def __init__(
        self, bundle: Sequence[ProtocolEvaluation], trial: Trial, annotations: ImageSet
    ) -> None:
        first = bundle[0]
        self.result_ids = [result.result_id for result in bundle]
        self.annotations, self.device = annotations, trial.device
        self.where = {name: row for row, name in enumerate(annotations.image_ids.tolist())}
        self.explained_class = first.explained_class
        ids = first.chosen_ids(annotations.image_ids.tolist())
        self.kept = chosen_examples(first.save_maps, ids)
        self.model = first.of.model_at(trial, len(annotations.classes))
        self.evaluator = Evaluator(self.model, {r.attribution: r.protocols for r in bundle})

    def __call__(
        self,
        parts: Path,
        image_ids: list[str],
        pixels: np.ndarray,
        skipped: dict[str, str],
        class_maps: Sequence[bytes] = (),
    ) -> int:
        """Score images and leave a part.

        Args:
            parts: folder of the parts.
            image_ids: B names.
            pixels: (B, 3, H, W), uint8.
            skipped: why an image could not be decoded, by name.
            class_maps: packed, B of them; () where none are wanted.

        Returns:
            The image-forwards.
        """
        sound = [i for i, name in enumerate(image_ids) if name not in skipped]
        if not sound:
            write_part(parts, self.result_ids, image_ids, (), skipped, {})
            return 0
        maps = [class_maps[i] for i in sound] if len(class_maps) else []
        batch = self.batch_of([image_ids[i] for i in sound], pixels[sound], maps)
        scored = self.evaluator(batch)
        keep_maps(
            *(parts / "maps", self.kept, self.annotations),
            *(batch, pixels[sound], scored.maps),
        )
        write_part(parts, self.result_ids, image_ids, scored.rows, skipped, scored.failed)
        return scored.forwards

    def batch_of(
        self, image_ids: list[str], pixels: np.ndarray, class_maps: Sequence[bytes] = ()
    ) -> Batch:
        """The images with their explanations, masks, labels and segments."""
        annotations = self.annotations
        rows = [self.where[name] for name in image_ids]
        images = self.model.encode(torch.from_numpy(pixels).to(self.device))
        positives = [annotations.positives(row) for row in rows]
        if self.explained_class == "predicted":
            with evaluating(self.model.module), torch.no_grad():
                explained = [[int(k)] for k in self.model.module(images).argmax(1).tolist()]
        else:
            explained = [p.tolist() for p in positives]
        index = [i for i, classes in enumerate(explained) for _ in classes]
        targets = [k for classes in explained for k in classes]
        masks = annotations.masks([rows[i] for i in index], targets) if index else None
        segments = None
        if class_maps and index:
            found = class_map.segments(class_maps, annotations.size_px, index, targets)
            segments = torch.from_numpy(found).to(self.device)
        single = all(len(p) == 1 for p in positives)
        return Batch(
            images=images,
            image_ids=image_ids,
            image_index=torch.tensor(index, dtype=torch.long, device=self.device),
            targets=torch.tensor(targets, dtype=torch.long, device=self.device),
            masks=None if masks is None else torch.from_numpy(masks).to(self.device),
            labels=torch.tensor([int(p[0]) for p in positives], device=self.device)
            if single
            else None,
            segments=segments,
        )
