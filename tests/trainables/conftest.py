"""A bench for trials in this process: generated feeds, a storage folder, what the trials told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file
from torch import Tensor

from data_pipelines.image_set import ImageSet
from tests.trainables.scenes import BASELINE, GUIDED, Feed, squares
from trainables.result import Result
from trainables.trial import Event, feed_key, run_bundle, run_locally


@dataclass
class Bench:
    """Where trials run: their storage, their feeds, and their events as they were told."""

    storage: Path
    splits: dict[str, ImageSet]
    events: list[Event] = field(default_factory=list)

    @property
    def feeds(self) -> dict[Any, Feed]:
        return {feed_key(BASELINE, split): Feed(images) for split, images in self.splits.items()}

    def run(self, result: Result) -> bool:
        """The result and what it depends on."""
        return run_locally(result, self.storage, self.feeds, self.events.append)

    def run_with(self, emit: Callable[[Event], None], result: Result) -> bool:
        """The same, telling another listener."""
        return run_locally(result, self.storage, self.feeds, emit)

    def run_bundle(self, *bundle: Result) -> None:
        run_bundle(bundle, self.storage, self.feeds, self.events.append)

    def told(self, result: Result, event: str) -> list[Event]:
        """Events of one kind about a result, in order."""
        return [
            e for e in self.events if e["result_id"] == result.result_id and e["event"] == event
        ]

    def history(self, result: Result) -> list[tuple[int, dict[str, float]]]:
        """(step, metrics) of every report."""
        return [(e["step"], e["metrics"]) for e in self.told(result, "epoch")]

    def reason(self, result: Result) -> str:
        """Why the result failed."""
        (event,) = self.told(result, "failed")
        return str(event["reason"])

    def folder(self, result: Result) -> Path:
        return self.storage / result.result_id

    def summary(self, result: Result) -> dict[str, Any]:
        return json.loads((self.folder(result) / "result.json").read_text())

    def beside(self, storage: Path, *needed: Result) -> Bench:
        """A bench with its own storage, which holds what these results left."""
        for result in needed:
            shutil.copytree(self.folder(result), storage / result.result_id)
        return Bench(storage, self.splits)

    def rows(self, result: Result) -> pd.DataFrame:
        """The score of every (image, class, protocol)."""
        return pd.read_parquet(self.folder(result) / "artifacts" / "rows.parquet")

    def weights(self, result: Result, epoch: int = 0) -> dict[str, Tensor]:
        """Kept weights of an epoch; of the last by default."""
        names = sorted((self.folder(result) / "weights").iterdir())
        path = names[-1] if not epoch else names[0].with_name(f"epoch-{epoch:04d}.safetensors")
        return load_file(path)

    def kept_epochs(self, result: Result) -> Sequence[int]:
        """Epochs whose weights lie on disk."""
        files = sorted((self.folder(result) / "weights").iterdir())
        return [int(path.stem.removeprefix("epoch-")) for path in files]


@pytest.fixture(scope="session")
def splits() -> dict[str, ImageSet]:
    """40 training, 16 validation and 16 test images."""
    return {"train": squares(40, 0), "val": squares(16, 1), "test": squares(16, 2)}


@pytest.fixture(scope="session")
def trained(splits: dict[str, ImageSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage that holds the baseline and its evaluation at the final layer."""
    bench = Bench(tmp_path_factory.mktemp("trained"), splits)
    assert GUIDED.reference is not None
    assert bench.run(GUIDED.reference), bench.events
    return bench.storage


@pytest.fixture
def empty_bench(tmp_path: Path, splits: dict[str, ImageSet]) -> Bench:
    """Nothing has run yet."""
    return Bench(tmp_path / "storage", splits)


@pytest.fixture
def bench(empty_bench: Bench, trained: Path) -> Bench:
    """The baseline and its evaluation are there."""
    shutil.copytree(trained, empty_bench.storage)
    return empty_bench
