"""Judge methods on a network by many protocols, over a split that streams by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import trainables.attribution
import trainables.metrics  # noqa: F401  (each registers its classes)
from data_pipelines import class_map
from data_pipelines.configuration import outside_identity
from data_pipelines.dataset import Dataset
from data_pipelines.image_set import ImageSet
from data_pipelines.manifest import MAX_SKIPPED_FRACTION, check_skipped
from trainables.attribution.after_softmax import AfterSoftmax
from trainables.attribution.attribution import Attribution
from trainables.batch import Batch
from trainables.evaluator import Evaluator
from trainables.example_maps import chosen_examples, keep_maps, leave_examples
from trainables.idsds_finetuning import check_deletion_protocol, deletions_known
from trainables.metrics.curve import CurveMetric
from trainables.metrics.metric import Metric
from trainables.metrics.single_deletion import SingleDeletion
from trainables.models.network import Network, evaluating
from trainables.parts import about as about_part
from trainables.parts import (
    discard,
    done_ids,
    gather,
    mean_curve,
    parts_of,
    traces_of,
    write_part,
)
from trainables.result import Result
from trainables.traces import leave_traces, traces_name
from trainables.training import Training
from trainables.trial import Trial

if TYPE_CHECKING:
    from trainables.grid_evaluation import GridEvaluation
    from trainables.probe_judgement import ProbeJudgement

ExplainedClass = Literal["ground_truth", "predicted"]
PART_IMAGES = 16
"""Images of a part: what a batch holds in memory, and what a kill loses at most."""


@dataclass(frozen=True, kw_only=True)
class ProtocolEvaluation(Result):
    """Scores of a method's maps under protocols, one row for each (image, class).

    Evaluations of one network over the same images form a bundle: its images stream by once, and
    what methods and protocols have in common is computed once.
    """

    name: ClassVar[str] = "protocol_evaluation"
    paper: ClassVar[str] = "IDSDS, NeurIPS 2024"
    streamed: ClassVar[bool] = True

    of: Training
    """What is judged, at the epoch that it selected."""
    attribution: Attribution
    protocols: tuple[Metric, ...]
    """What its maps are judged by."""
    split: str = "val"
    images: int = 0
    """Images of the split, drawn by seed; 0 for all of them."""
    explained_class: ExplainedClass = "ground_truth"
    """Whose logit is explained: every true class of an image, or the predicted one."""
    save_maps: tuple[str, ...] = outside_identity(default=("4",))
    """Images whose maps are kept to be looked at: how many, or which ids."""

    def __post_init__(self) -> None:
        """Check the number of images."""
        super().__post_init__()
        if self.images < 0:
            raise ValueError(f"images = {self.images}: must not be negative; 0 takes all")

    @property
    def network(self) -> Network:
        """The network whose maps are judged."""
        return self.of.architecture

    @property
    def label(self) -> str:
        return f"{self.attribution.key} of {self.of.label}"

    @property
    def tags(self) -> dict[str, str]:
        method, output = self.attribution, "logit"
        if isinstance(method, AfterSoftmax):
            method, output = method.of, "probability"
        return self.of.tags | {
            "network": self.network.key,
            "finetuned": deletions_known(self.of),
            "method": method.key,
            "output": output,
        }

    @property
    def dataset(self) -> Dataset:
        return self.of.dataset

    @property
    def size_px(self) -> int:
        return self.of.size_px

    @property
    def splits(self) -> tuple[str, ...]:
        return (self.split,)

    @property
    def dependencies(self) -> tuple[Result, ...]:
        return (self.of,)

    @property
    def bundle(self) -> str:
        """One network and one choice of images."""
        return f"{self.of.result_id}-{self.split}-{self.images}-{self.seed}-{self.explained_class}"

    @property
    def directions(self) -> dict[str, str]:
        return {p.key: "max" if p.higher_is_better else "min" for p in self.protocols}

    def cost(self, images: dict[str, int]) -> float:
        """A stand-in: methods differ by three orders of magnitude."""
        return 20.0 * (self.images or images[self.split])

    def check(self) -> None:
        """The method suits the network, and each protocol finds what it needs."""
        if not self.protocols:
            raise ValueError(f"{self.label}: needs at least one protocol")
        self.attribution.check(self.network)
        for protocol in self.protocols:
            if isinstance(protocol, SingleDeletion):
                check_deletion_protocol(protocol, self.of)

    def chosen_ids(self, image_ids: Sequence[str]) -> set[str]:
        """The images that are scored: a function of the seed and of the ids of the split."""
        return drawn_ids(image_ids, self.images, self.seed)

    def compute(self, trial: Trial) -> None:
        """The plain loop over a resident split; a launch streams the same images to actors."""
        images, parts = trial.images(self.split), trial.folder / "parts"
        wanted = self.chosen_ids([*images.image_ids.tolist(), *images.skipped])
        left = wanted - done_ids(parts, [self.result_id])
        rows = np.flatnonzero(np.isin(images.image_ids, sorted(left)))
        scorer = Scorer((self,), trial, images)
        damaged = {name: why for name, why in images.skipped.items() if name in left}
        if damaged:
            write_part(parts, scorer.result_ids, list(damaged), (), damaged, {})
        segmented = images.segmented.any()
        for start in range(0, len(rows), PART_IMAGES):
            chosen = rows[start : start + PART_IMAGES]
            ids = images.image_ids[chosen].tolist()
            maps = [images.class_maps[i] for i in chosen.tolist()] if segmented else ()
            scorer(parts, ids, images.images(chosen), {}, maps)
        failed, _ = conclude(self, trial, parts, wanted)
        discard(parts)  # those of a method that failed too: it is tried again
        if failed:
            raise ValueError(failed)


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


def drawn_ids(image_ids: Collection[str], count: int, seed: int) -> set[str]:
    """Some of the images, or all of them for 0: a function of the seed and of the ids.

    Fewer images are among more.
    """
    ids = sorted(image_ids)
    if not count or count >= len(ids):
        return set(ids)
    order = np.random.default_rng(seed).permutation(len(ids))
    return {ids[i] for i in order[:count]}


def conclude(
    result: ProtocolEvaluation | GridEvaluation | ProbeJudgement,
    trial: Trial,
    parts: Path,
    wanted: Collection[str],
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
    *,
    part_key: str = "",
    more: Callable[[pa.Table], Mapping[str, float]] = lambda _: {},
) -> tuple[str, str]:
    """Put a result's rows together, report means and leave rows and curves.

    Args:
        result: whose rows they are.
        trial: that it is told through.
        parts: folder of the parts.
        wanted: images that must be there.
        max_skipped_fraction: of damaged images among them.
        part_key: what the parts call the method, if not by its key.
        more: further metrics, from all rows of the result; those that belong to none of its
            protocols are not kept.

    Returns:
        Why the result failed, and the trace; empty where it did not.

    Raises:
        ValueError: too many of the images are damaged.
    """
    said = [about_part(path) for path in parts_of(parts)]
    said = [part for part in said if result.result_id in part.result_ids]
    key = part_key or result.attribution.key
    for part in said:
        if key in part.failed:
            return part.failed[key]
    missing = set(wanted) - {image_id for part in said for image_id in part.image_ids}
    if missing:
        reason = f"{len(missing)} images were not scored, first {min(missing)}"
        return f"{reason}; run the command again", ""
    skipped = {i: why for part in said for i, why in part.skipped.items() if i in wanted}
    check_skipped(result.label, len(wanted) - len(skipped), skipped, max_skipped_fraction)
    rows = gather(parts, result.result_id, key, wanted)
    metrics: dict[str, float] = {"images": float(len(wanted))}
    metrics["skipped_images"] = float(len(skipped))
    metrics |= more(rows)
    rows = rows.filter(np.isin(rows["protocol_key"], [p.key for p in result.protocols]))
    column = rows.schema.get_field_index("method_key")
    method_key = pa.array([result.attribution.key] * len(rows), pa.string())
    rows = rows.set_column(column, rows.schema.field(column), method_key)
    curves: dict[str, np.ndarray] = {}
    files: dict[str, str] = {}
    for protocol in result.protocols:
        mine = rows.filter(np.asarray(rows["protocol_key"]) == protocol.key)
        scores, traces = mine["score"].to_numpy(), traces_of(mine)
        metrics[f"{result.split}/{protocol.key}"] = protocol.reduce(scores, traces)
        metrics[f"{result.split}/{protocol.key}_defined_fraction"] = protocol.defined_fraction(
            scores
        )
        if isinstance(protocol, CurveMetric) and traces is not None:
            mean = mean_curve(traces)
            if len(mean):
                curves[protocol.key] = np.hstack([np.array(protocol.steps)[:, None], mean])
        if protocol.leaves_traces and traces is not None:
            files[traces_name(protocol)] = leave_traces(trial, protocol, mine, traces)
    pq.write_table(rows.drop(["trace"]), trial.artifacts / "rows.parquet")
    if curves:
        with (trial.artifacts / "curves.npz").open("wb") as file:
            np.savez(file, **curves)  # type: ignore[arg-type]
    leave_examples(parts / "maps", result.attribution.key, trial.artifacts / "examples.npz")
    trial.report(1, metrics)
    kept = {"files": files} if files else {}
    trial.finish({"images": len(wanted), "skipped": sorted(skipped), **kept})
    return "", ""
