"""What a sweep asks for: the unit of identity, of resuming and of an MLflow run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from data_pipelines.configuration import Configuration, annotated_fields, is_identity
from data_pipelines.dataset import Dataset

if TYPE_CHECKING:
    from trainables.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Result(Configuration, family=True):
    """A complete, typed configuration that can be computed, identified by ``result_id``."""

    paper: ClassVar[str] = ""
    """Where the training or evaluation was published."""
    together: ClassVar[bool] = False
    """Whether the results of a bundle are computed side by side, from what they share."""

    seed: int = 0
    """Drives initialization, shuffling and draws; each from its own stream of (seed, epoch)."""
    threads: int = 1
    """Intra-operation threads, part of the identity: sums are rounded differently with another
    number."""

    def __post_init__(self) -> None:
        """Refuse what no generator and no machine takes."""
        super().__post_init__()
        if self.seed < 0 or self.threads < 1:
            raise ValueError(
                f"seed = {self.seed}, threads = {self.threads}: the seed must not be negative, "
                "threads must be at least 1"
            )

    @property
    @abstractmethod
    def label(self) -> str:
        """A short line for people: what sets this result apart."""

    @property
    @abstractmethod
    def dataset(self) -> Dataset:
        """The data it reads."""

    @property
    @abstractmethod
    def size_px(self) -> int:
        """Side of the square that images are resized to."""

    @property
    def dependencies(self) -> tuple[Result, ...]:
        """Results whose files this one reads."""
        return ()

    @property
    def bundle(self) -> str:
        """Results with one bundle id run in one trial, in the order of their dependencies."""
        return self.result_id

    @property
    def streamed(self) -> bool:
        """Whether a launch streams its images to actors; otherwise a trial reads them."""
        return False

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that a trial reads for it."""
        return ("train", "val", "test")

    @property
    def tags(self) -> dict[str, str]:
        """What tables group it by, in words that need no look at its parameters."""
        return {}

    @property
    def directions(self) -> dict[str, str]:
        """``max`` or ``min`` for each metric key that it logs, without the split."""
        return {}

    @abstractmethod
    def cost(self, images: dict[str, int]) -> float:
        """Work in forwards of one image, given the images by split; for progress and planning."""

    @abstractmethod
    def check(self) -> None:
        """Refuse, before anything runs, what cannot work.

        Raises:
            ValueError: names the value and what is allowed.
        """

    @abstractmethod
    def compute(self, trial: Trial) -> None:
        """Do the work, reporting through the trial."""

    @classmethod
    def compute_together(cls, trials: Sequence[Trial]) -> None:
        """Do the work of several results of a bundle at once, if the class is ``together``.

        Each reports through its own trial, or fails alone by ``trial.fail``; who shares the work
        changes no result. Global random numbers are those of the first: draw none of them.
        """
        raise NotImplementedError(f"{cls.__name__} computes its results one by one")


def parameters(configuration: Configuration) -> dict[str, str]:
    """Every field of the identity by dotted name (``start.network.name``), for MLflow."""
    rows = {"name": configuration.name}
    if configuration.revision != 1:
        rows["revision"] = str(configuration.revision)
    for f, _ in annotated_fields(type(configuration)):
        value = getattr(configuration, f.name)
        if is_identity(f):
            rows.update(_flat(f.name, value))
    return rows


def _flat(name: str, value: Any) -> dict[str, str]:
    if isinstance(value, Configuration):
        return {f"{name}.{key}": text for key, text in parameters(value).items()}
    if isinstance(value, tuple) and value and all(isinstance(v, Result) for v in value):
        return {name: " ".join(v.result_id for v in value)}  # each has a run that tells the rest
    if isinstance(value, tuple) and any(isinstance(v, Configuration) for v in value):
        return {
            key: text for i, v in enumerate(value) for key, text in _flat(f"{name}.{i}", v).items()
        }
    return {name: "none" if value is None else str(value)}
