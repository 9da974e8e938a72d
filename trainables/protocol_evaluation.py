"""Judge methods on a network by many protocols, over the images of a split."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

import trainables.attribution
import trainables.metrics  # noqa: F401  (each registers its classes)
from data_pipelines.configuration import outside_identity
from data_pipelines.dataset import Dataset
from trainables.attribution.after_softmax import AfterSoftmax
from trainables.attribution.attribution import Attribution
from trainables.conclusion import conclude_all
from trainables.deletion_protocol import check_deletion_protocol, deletions_known
from trainables.metrics.metric import Metric
from trainables.metrics.single_deletion import SingleDeletion
from trainables.models.network import Network
from trainables.parts import done_ids, parts_folder, write_part
from trainables.result import Result
from trainables.scorer import Scorer
from trainables.training import Training
from trainables.trial import Trial

ExplainedClass = Literal["ground_truth", "predicted"]
PROTOCOLS_COST = 20.0
"""Forwards of an image that protocols take, about: a set of 16 deletions serves most."""
PART_IMAGES = 16
"""Images of a part: what a batch holds in memory, and what a kill loses at most."""


@dataclass(frozen=True, kw_only=True)
class ProtocolEvaluation(Result):
    """Scores of a method's maps under protocols, one row for each (image, class).

    Evaluations of one network over the same images form a bundle: its images pass once, and what
    methods and protocols have in common is computed once.
    """

    name: ClassVar[str] = "protocol_evaluation"
    paper: ClassVar[str] = "IDSDS, NeurIPS 2024"
    together: ClassVar[bool] = True

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
    streamed: bool = outside_identity(default=True)
    """Whether a launch streams the images to actors on all CPUs; else a trial reads them itself,
    which is faster where networks are many and images few."""
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
        """The maps by themselves, a stand-in for the protocols; what is shared counts for each."""
        return (PROTOCOLS_COST + self.attribution.cost) * (self.images or images[self.split])

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
        self.compute_together([trial])

    @classmethod
    def compute_together(cls, trials: Sequence[Trial]) -> None:
        """A plain loop over the images; a launch may stream the same ones to actors instead."""
        bundle = {t.result: t for t in trials if isinstance(t.result, ProtocolEvaluation)}
        first, trial = next(iter(bundle.items()))
        images, parts = trial.images(first.split), parts_folder(trial.storage, first.bundle)
        result_ids = [result.result_id for result in bundle]
        wanted = first.chosen_ids([*images.image_ids.tolist(), *images.skipped])
        left = wanted - done_ids(parts, result_ids)
        damaged = {name: why for name, why in images.skipped.items() if name in left}
        if damaged:
            write_part(parts, result_ids, list(damaged), (), damaged, {})
        rows = np.flatnonzero(np.isin(images.image_ids, sorted(left)))
        cuts = [rows[start : start + PART_IMAGES] for start in range(0, len(rows), PART_IMAGES)]
        scorer = Scorer(tuple(bundle), trial, images)
        segmented = images.segmented.any()
        with images.expecting(cuts):
            for count, chosen in enumerate(cuts, 1):
                ids = images.image_ids[chosen].tolist()
                maps = [images.class_maps[i] for i in chosen.tolist()] if segmented else ()
                scorer(parts, ids, images.images(chosen), {}, maps)
                for one in trials:
                    one.progress(count / len(cuts), f"{count}/{len(cuts)} parts")
        conclude_all(bundle, parts, wanted)


def drawn_ids(image_ids: Collection[str], count: int, seed: int) -> set[str]:
    """Some of the images, or all of them for 0: a function of the seed and of the ids.

    Fewer images are among more.
    """
    ids = sorted(image_ids)
    if not count or count >= len(ids):
        return set(ids)
    order = np.random.default_rng(seed).permutation(len(ids))
    return {ids[i] for i in order[:count]}
