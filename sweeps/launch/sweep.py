"""What every sweep is: a question, its flags, and the results it asks for."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from platformdirs import user_data_path

from data_pipelines.configuration import import_file
from data_pipelines.dataset import Dataset
from trainables.result import Result

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
    """Folder that holds the dataset as published; the generated sample needs none."""
    gpus_per_trial: float = 0.0
    """GPUs of a trial: 0, a whole number, or 1/k to share one."""
    max_concurrent: int = 0
    """Trials at once; 0 for as many as fit."""
    seeds: tuple[int, ...] = ()
    """Every result once for each. Empty: the sweep's own, usually one."""
    resume: bool = True
    """Take what is finished and go on from checkpoints; --no-resume computes everything anew."""
    dry_run: bool = False
    """Print the results and what they will cost, and stop."""
    smoke: bool = False
    """The same on a tiny sample, in about a minute: tells whether it runs, not what is true."""
    plugins: tuple[Path, ...] = ()
    """Python files with your own attributions, losses, metrics, networks or datasets."""

    @abstractmethod
    def data(self) -> Dataset:
        """The dataset, not yet looked at."""

    @abstractmethod
    def results(self, data: Dataset) -> Iterator[Result]:
        """Everything the question needs, given the dataset with its fingerprint."""

    @abstractmethod
    def small(self) -> Self:
        """The smoke version of itself."""

    @abstractmethod
    def report(self, folder: Path, result_ids: list[str]) -> Findings:
        """What the finished runs say; files go to the folder."""

    def notes(self) -> list[str]:
        """Lines worth knowing before it starts, such as rescaled weights."""
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
