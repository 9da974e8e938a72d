"""The grid pointing game: mosaics of a split's images ask a method where each class is."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipelines.dataset import Dataset
from data_pipelines.grids import (
    CONFIDENCE,
    Grids,
    cell_masks,
    common_images,
    compose,
    confident_images,
    draw_grids,
    require_classes,
)
from data_pipelines.image_set import ImageSet
from trainables.attribution.attribution import Attribution
from trainables.batch import Batch
from trainables.checkpoint import write_bytes
from trainables.conclusion import conclude
from trainables.evaluator import Evaluator
from trainables.metrics.grid_pg import GridPg
from trainables.models.network import Model, Network, evaluating
from trainables.parts import discard, done_ids, write_part
from trainables.passes import Passes
from trainables.protocol_evaluation import PART_IMAGES, PROTOCOLS_COST
from trainables.result import Result
from trainables.scoring import batches
from trainables.training import Training
from trainables.trial import Trial


@dataclass(frozen=True, kw_only=True)
class GridEvaluation(Result):
    """Scores of a method's maps of mosaics: a row for each cell, whose class is explained.

    Image k of ``rows.parquet`` is a mosaic of images that the network classifies correctly.
    Evaluations of one network over the same mosaics form a bundle; the split goes through the
    network once for all of them.

    Source: How to Probe (ICLR 2025), section 4, and its code: 500 mosaics of 3 x 3.
    """

    name: ClassVar[str] = "grid_evaluation"
    paper: ClassVar[str] = "How to Probe, ICLR 2025"

    of: Training
    """What is judged, at the epoch that it selected."""
    attribution: Attribution
    side: Literal[2, 3] = 3
    """Cells along a side of a mosaic. 3 in the paper, 2 as a variant of its code."""
    grids: int = 500
    """Mosaics. 500 in the paper."""
    images: Literal["own", "common"] = "own"
    """Which images: those that the network itself is surest of, as in the paper, or those that all
    of ``compared`` classify correctly, so that the networks are judged on equal mosaics."""
    compared: tuple[Training, ...] = ()
    """The networks that choose common images, this one among them; none for its own."""
    confidence: float = CONFIDENCE
    """Least probability of an image that the network chooses. 0.95 in the paper's code."""
    split: str = "val"

    @property
    def network(self) -> Network:
        """The network whose maps are judged."""
        return self.of.architecture

    @property
    def protocols(self) -> tuple[GridPg, ...]:
        """What the maps are judged by."""
        return (GridPg(side=self.side),)

    @property
    def label(self) -> str:
        which = "common " if self.images == "common" else ""
        return f"{self.attribution.key} on {which}{self.side}x{self.side} grids of {self.of.label}"

    @property
    def dataset(self) -> Dataset:
        return self.of.dataset

    @property
    def size_px(self) -> int:
        """Side of the images; that of a mosaic is ``side`` times as long."""
        return self.of.size_px

    @property
    def splits(self) -> tuple[str, ...]:
        return (self.split,)

    @property
    def choosing(self) -> tuple[Training, ...]:
        """The networks that choose the images."""
        return self.compared or (self.of,)

    @property
    def dependencies(self) -> tuple[Result, ...]:
        return tuple(dict.fromkeys((self.of, *self.compared)))

    @property
    def bundle(self) -> str:
        """One network and one choice of mosaics."""
        choice = "-".join(training.result_id for training in self.compared) or "own"
        return (
            f"grids-{self.of.result_id}-{self.split}-{self.side}-{self.grids}-{self.seed}-"
            f"{self.confidence}-{choice}"
        )

    @property
    def directions(self) -> dict[str, str]:
        return {p.key: "max" if p.higher_is_better else "min" for p in self.protocols}

    def cost(self, images: dict[str, int]) -> float:
        """The maps by themselves and a stand-in for the rest; what is shared counts for each."""
        return (PROTOCOLS_COST + self.attribution.cost) * self.grids * self.side**2

    def check(self) -> None:
        """The method suits the network, which takes mosaics; there are classes for their cells."""
        if self.grids < 1 or not 0 <= self.confidence < 1:
            raise ValueError(
                f"{self.label}: grids = {self.grids}, confidence = {self.confidence}: expected at "
                "least 1 mosaic and a confidence in [0, 1)"
            )
        self.check_compared()
        try:
            classes = len(self.dataset.classes())
        except OSError:
            classes = 0
        if classes:  # data that are not there are refused when they are indexed, with the remedy
            require_classes(classes, self.side, f"{self.dataset.name} has")
        self.attribution.check(self.network)
        check_takes(self.network, self.side * self.size_px)

    def check_compared(self) -> None:
        """Common images have networks that choose them, all on the same images."""
        if (self.images == "common") != bool(self.compared) or (
            self.compared and self.of not in self.compared
        ):
            raise ValueError(
                f"{self.label}: images = {self.images!r}, {len(self.compared)} networks compared: "
                "name all of them for common images, this one among them, and none for its own"
            )
        for other in self.compared:
            if (other.dataset, other.size_px) != (self.dataset, self.size_px):
                raise ValueError(
                    f"{other.label} and {self.of.label} have no common images: they were trained "
                    f"on {other.dataset.name} at {other.size_px} px and {self.dataset.name} at "
                    f"{self.size_px} px"
                )

    def compute(self, trial: Trial) -> None:
        images, parts = trial.images(self.split), trial.folder / "parts"
        grids = self.drawn(trial, images)
        names = grids.ids(images.image_ids.tolist())
        done = done_ids(parts, [self.result_id])
        left = [row for row, name in enumerate(names) if name not in done]
        model = self.of.model_at(trial, len(images.classes))
        evaluator = Evaluator(model, {self.attribution: self.protocols})
        for start in range(0, len(left), PART_IMAGES):
            part = left[start : start + PART_IMAGES]
            # one at a time: it has the pixels of several images and as many explanations
            scored = [
                evaluator(mosaics(model, images, grids, names, [row], trial.device)) for row in part
            ]
            failed = {key: why for one in scored for key, why in one.failed.items()}
            tables = [table for one in scored for table in one.rows]
            ids = [names[row] for row in part]
            write_part(parts, [self.result_id], ids, tables, {}, failed)
            if failed:
                break
        reason, _ = conclude(self, trial, parts, names)
        discard(parts)  # those of a method that failed too: it is tried again
        if reason:
            raise ValueError(reason)

    def drawn(self, trial: Trial, images: ImageSet) -> Grids:
        """The mosaics: a function of the seed and of the logits of the choosing networks."""
        logits = [split_logits(trial, one, self.split, images) for one in self.choosing]
        labels = np.where(images.labels.sum(1) == 1, images.labels.argmax(1), -1)
        if self.images == "common":
            rows = common_images(logits, labels)
        else:
            rows = confident_images(
                logits[0], labels, output=self.of.output, confidence=self.confidence
            )
        return draw_grids(rows, labels, side=self.side, count=self.grids, seed=self.seed)


@cache
def check_takes(network: Network, size_px: int) -> None:
    """Refuse a network that takes no images of that size; nothing is computed for it.

    Raises:
        ValueError: says what the network said.
    """
    with torch.device("meta"), torch.no_grad():  # shapes alone
        model = network.build(2)
        model.module.eval()
        try:
            model.module(model.encode(torch.zeros(2, 3, size_px, size_px)))
        except Exception as error:  # whatever a network's module raises
            raise ValueError(
                f"{network.key} takes no mosaics of {size_px} px: {error}; it needs a network "
                "whose input size is free"
            ) from None


def split_logits(
    trial: Trial, training: Training, split: str, images: ImageSet
) -> NDArray[np.float32]:
    """Logits of a trained network on a split, (M, K).

    They are kept beside the results under a name that holds the hash of the weights, so that
    all who draw mosaics from them, in whichever process, share one run through the split.
    """
    summary = trial.summary_of(training)
    weights = summary["weights"][str(summary["epoch"])][:16]
    path = trial.storage / "logits" / f"{training.result_id}-{split}-{weights}.npy"
    if not path.exists():
        model, parts = training.model_at(trial, len(images.classes)), []
        with evaluating(model.module):
            for batch in batches(model, images, trial.device, explained=False):
                with Passes(model, batch) as passes:
                    parts.append(passes.logits.float().cpu().numpy())
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(parts))
        write_bytes(path, buffer.getvalue())
    logits: NDArray[np.float32] = np.load(path)
    return logits


def mosaics(
    model: Model,
    images: ImageSet,
    grids: Grids,
    names: Sequence[str],
    chosen: Sequence[int],
    device: torch.device,
) -> Batch:
    """Some of the mosaics with an explanation of each cell's class, whose mask is the cell."""
    tiles = images.images(grids.rows[chosen].ravel())
    pixels = torch.from_numpy(compose(tiles, grids.side)).to(device)
    cells = torch.from_numpy(cell_masks(grids.side, *pixels.shape[2:])).to(device)
    return Batch(
        images=model.encode(pixels),
        image_ids=[names[row] for row in chosen],
        image_index=torch.arange(len(chosen), device=device).repeat_interleave(len(cells)),
        targets=torch.from_numpy(grids.classes[chosen].ravel()).to(device),
        masks=cells.repeat(len(chosen), 1, 1),
    )
