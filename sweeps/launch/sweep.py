"""What every sweep is: a question, its flags, and the results it asks for."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from platformdirs import user_data_path

from data_pipelines.configuration import import_file
from data_pipelines.dataset import Dataset
from data_pipelines.manifest import Manifest
from trainables.result import Result
from trainables.training import in_every_training

HOME = user_data_path("attribution-sweeps")
"""Where everything lies that no flag places elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a sweep's runs say.

    Attributes:
        text: tables for the terminal.
        files: tables and figures, logged to the launch's run.
        kept: epochs, by result id, whose weights must be kept beside the best and the last.
    """

    text: str
    files: list[Path]
    kept: dict[str, set[int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Flags that all sweeps share."""

    question: ClassVar[str]
    """Name of the sweep and of its MLflow experiment: the file's."""

    address: str = ""
    """Ray to run on: empty starts a local one, ``auto`` joins the running cluster, HOST:PORT a
    given one."""
    tracking_uri: str = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{HOME / 'mlflow.db'}")
    """MLflow's store: sqlite:///FILE on one node, http(s)://HOST:PORT beyond."""
    storage_path: str = str(HOME / "storage")
    """Folder of checkpoints and weights; on several nodes all must see it."""
    data_root: str = ""
    """Folder or address that holds the dataset as published, or the shards it was converted to;
    the generated sample needs none."""
    gpus_per_trial: float = 0.0
    """GPUs of a trial: 0, a whole number, or 1/k to share one. More than one: as many workers, each
    with a GPU and its share of every batch (other results: batch statistics are a worker's)."""
    workers_per_trial: int = 0
    """Workers of a training without GPUs, each with its share of every batch; 0 for one."""
    max_concurrent: int = 0
    """Trials at once; 0 for as many as fit."""
    feed: Literal["auto", "resident", "streamed"] = "auto"
    """How trials get their images: decoded once for all, in memory (resident), or a stream for each
    trial (streamed). auto: resident where they fit."""
    shuffle: Literal["auto", "all", "windows"] = "auto"
    """What is shuffled in an epoch: all images, or windows of 2048, which can be streamed; part of
    the results' identity, as the feed is not. auto: windows with --feed streamed, else all."""
    seeds: tuple[int, ...] = ()
    """Every result once for each. Empty: the sweep's own, usually one."""
    resume: bool = True
    """Take what is finished and go on from checkpoints; --no-resume computes everything anew."""
    dry_run: bool = False
    """Print the results and what they will cost, and stop."""
    smoke: bool = False
    """A tiny grid of one epoch, unless flags name more: tells whether it runs, not what is true.
    Only the generated sample is cut small, for about a minute; published data keep all images."""
    plugins: tuple[Path, ...] = ()
    """Python files with your own attributions, losses, metrics, networks or datasets."""

    @abstractmethod
    def data(self) -> Dataset:
        """The dataset, not yet looked at."""

    @abstractmethod
    def results(self, data: Dataset) -> Iterator[Result]:
        """Everything the question needs, given the dataset with its fingerprint."""

    def check_data(self, manifest: Manifest) -> None:
        """Refuse flags that do not suit the data, once these are known.

        Raises:
            ValueError: names the flag.
        """

    @abstractmethod
    def small(self) -> Self:
        """The smoke version of itself."""

    @abstractmethod
    def report(self, folder: Path, result_ids: list[str]) -> Findings:
        """What the finished runs say; files go to the folder."""

    @property
    def workers(self) -> int:
        """Of a trial that trains."""
        return max(1, self.workers_per_trial, int(self.gpus_per_trial))

    def asked(self, data: Dataset) -> list[Result]:
        """The results, with trainings that the feed can serve and the workers share.

        Raises:
            ValueError: a stream is asked to shuffle all images.
        """
        values: dict[str, Any] = {"workers": self.workers} if self.workers > 1 else {}
        if self.shuffle != "auto":
            values["shuffle"] = self.shuffle
        elif self.feed == "streamed":
            values["shuffle"] = "windows"
        if self.feed == "streamed" and self.shuffle == "all":
            raise ValueError(
                "--feed streamed --shuffle all: a stream brings windows of neighbours; leave "
                "--shuffle out, or take --feed resident"
            )
        return [in_every_training(result, **values) for result in self.results(data)]

    def notes(self) -> list[str]:
        """Lines worth knowing before it starts, such as rescaled weights."""
        return []

    def savings(self, missing: Iterable[Result], images: Mapping[str, int]) -> list[str]:
        """Lines below the costs of a dry run: what sharing leaves out of them.

        Args:
            missing: what has to be computed.
            images: images by split.
        """
        return []


def import_plugins(files: tuple[Path, ...]) -> None:
    """Import a user's own files, so that their classes are registered.

    Raises:
        ValueError: a file is missing.
    """
    if files:
        from ray.cloudpickle import (
            register_pickle_by_value,  # only here: --help need not wait for Ray
        )
    for path in files:
        # workers get the classes themselves: they cannot import the file
        register_pickle_by_value(import_file(path))
