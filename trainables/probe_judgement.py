"""What the evaluations of a trained probe have in common: whose maps, in which gauge, on what."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from data_pipelines.dataset import Dataset
from data_pipelines.grids import CONFIDENCE, PER_CLASS, common_images, confident_images
from data_pipelines.image_set import ImageSet
from trainables.attribution.attribution import Attribution
from trainables.gauge import AsTrained, Gauge
from trainables.judged_probes import Judged, JudgedProbes, split_logits
from trainables.judging import Pictures, judge
from trainables.metrics.metric import Metric
from trainables.models.network import Network
from trainables.probe_training import ProbeTraining
from trainables.result import Result
from trainables.trial import Trial

Images = Literal["all", "own", "common"]


@dataclass(frozen=True, kw_only=True)
class ProbeJudgement(Result):
    """Scores of a method's maps of a probed network under protocols.

    Those of all probes of one backbone and of all methods and gauges, on one choice of images,
    form a bundle: what they have in common is computed once. Whoever shares the work, a result is
    the same.
    """

    paper: ClassVar[str] = "How to Probe, ICLR 2025"
    together: ClassVar[bool] = True

    of: ProbeTraining
    """Whose maps are judged."""
    gauge: Gauge = field(default_factory=AsTrained)
    """What its classes have in common. It does not take part in the choice of images: in all gauges
    a probe is judged on the same ones."""
    attribution: Attribution
    images: Images
    compared: tuple[ProbeTraining, ...] = ()
    """The probes that choose common images, this one among them; none for its own."""
    confidence: float = CONFIDENCE
    """Least probability of an image that a probe chooses for itself; at 0 all that it classifies
    correctly. 0.95 in the paper's code. A probe on an untrained backbone may be sure of nothing, or
    right about one class only: it is judged on ``all``."""
    split: str = "val"

    @property
    @abstractmethod
    def protocols(self) -> tuple[Metric, ...]:
        """What the maps are judged by."""

    @property
    @abstractmethod
    def choice(self) -> tuple[object, ...]:
        """What else sets its images apart from those of other results."""

    @property
    def judged(self) -> Judged:
        """The probe in its gauge."""
        return Judged(self.of, self.gauge)

    @property
    def network(self) -> Network:
        """The network whose maps are judged."""
        return self.of.architecture

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
    def tags(self) -> dict[str, str]:
        return self.of.tags | {"gauge": self.gauge.key, "images": self.images}

    @property
    def choosing(self) -> tuple[ProbeTraining, ...]:
        """The probes that choose the images; none where all are taken."""
        return () if self.images == "all" else self.compared or (self.of,)

    @property
    def dependencies(self) -> tuple[Result, ...]:
        probes = dict.fromkeys((self.of, *self.compared, *self.gauge.dependencies))
        behind = dict.fromkeys(one for probe in probes for one in probe.dependencies)
        return (*probes, *behind)

    @property
    def bundle(self) -> str:
        """One backbone and one choice of images, or of how each probe chooses its own."""
        read = (self.of.backbone.result_id, self.dataset.result_id, self.size_px, self.split)
        compared = tuple(probe.result_id for probe in self.compared)
        chosen = (self.images, self.confidence, compared, self.seed, self.threads, *self.choice)
        digest = hashlib.sha256(repr((read, chosen)).encode()).hexdigest()[:16]
        return f"{self.name}-{digest}"

    @property
    def directions(self) -> dict[str, str]:
        own = {p.key: "max" if p.higher_is_better else "min" for p in self.protocols}
        return own | {"dead_map_fraction": "min"}

    def check(self) -> None:
        """Method and gauge suit the probe, and common images have probes that choose them."""
        if not 0 <= self.confidence < 1:
            raise ValueError(
                f"{self.label}: confidence = {self.confidence}: expected a number in [0, 1)"
            )
        self.check_compared()
        self.gauge.check(self.of)
        self.attribution.check(self.network)

    def check_compared(self) -> None:
        """Common images are chosen by named probes, all on the same images."""
        if (self.images == "common") != bool(self.compared) or (
            self.compared and self.of not in self.compared
        ):
            raise ValueError(
                f"{self.label}: images = {self.images!r}, {len(self.compared)} probes compared: "
                "name all of them for common images, this one among them, and none otherwise"
            )
        for other in self.compared:
            if (other.dataset, other.size_px) != (self.dataset, self.size_px):
                raise ValueError(
                    f"{other.label} and {self.of.label} have no common images: they were trained "
                    f"on {other.dataset.name} at {other.size_px} px and {self.dataset.name} at "
                    f"{self.size_px} px"
                )

    def chosen(
        self, trial: Trial, images: ImageSet, per_class: int = PER_CLASS
    ) -> NDArray[np.int64]:
        """Positions of the images that the choosing probes classify correctly, best first.

        Images of several classes or none are not among them. Where nobody chooses, all others are.
        """
        labels = np.where(images.labels.sum(1) == 1, images.labels.argmax(1), -1)
        if self.images == "all":
            return np.flatnonzero(labels >= 0)
        logits = split_logits(trial, self.choosing, self.split, images)
        if self.images == "common":
            return common_images(logits, labels, per_class=per_class)
        return confident_images(
            logits[0],
            labels,
            output=self.of.output,
            confidence=self.confidence,
            per_class=per_class,
        )

    @property
    def choosers(self) -> str:
        """Which images are chosen, for messages."""
        if self.images == "all":
            return "there is one class in them"
        if self.images == "common":
            return f"all {len(self.compared)} compared probes classify correctly"
        return f"the probe classifies correctly with a probability of {self.confidence:g} or more"

    @abstractmethod
    def pictures(self, trial: Trial, images: ImageSet, probes: JudgedProbes) -> Pictures:
        """What is explained: the same for all results of the bundle with these choosing probes.

        Raises:
            ValueError: the probes choose too few images; says how many.
        """

    def compute(self, trial: Trial) -> None:
        self.compute_together([trial])

    @classmethod
    def compute_together(cls, trials: Sequence[Trial]) -> None:
        """Results that are judged on the same images share every forward."""
        first, groups = trials[0], dict[tuple[ProbeTraining, ...], dict[ProbeJudgement, Trial]]()
        for trial in trials:
            if isinstance(trial.result, ProbeJudgement):
                groups.setdefault(trial.result.choosing, {})[trial.result] = trial
        results = [result for group in groups.values() for result in group]
        images = first.images(results[0].split)
        choosing = dict.fromkeys(probe for group in groups for probe in group)
        split_logits(first, tuple(choosing), results[0].split, images)  # all in one run
        probes = JudgedProbes(first, [result.judged for result in results], images)
        for group in groups.values():
            try:
                pictures = next(iter(group)).pictures(first, images, probes)
            except ValueError as error:
                for trial in group.values():
                    trial.fail(str(error))
            else:
                judge(group, probes, pictures)
