"""A tiny grid, an MLflow store with its schema, and sweeps run as people run them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from data_pipelines.voc import Voc
from sweeps.guidance_lambda import GuidanceLambda
from sweeps.idsds_methods import IdsdsMethods
from sweeps.idsds_models import IdsdsModels
from sweeps.idsds_sweep import Variant
from tests.sweeps.launches import Ended, Home
from tests.sweeps.stories import (
    Clustered,
    Disturbed,
    Faulty,
    Interrupted,
    Streamed,
    Undisturbed,
    clustered,
    disturbed,
    faulty,
    interrupted,
    spread,
    streamed,
    undisturbed,
)
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.baselines import Zero
from trainables.models.user_network import network_of
from trainables.result import Result
from trainables.tracking import Tracking


@pytest.fixture(scope="session")
def make_grid() -> Callable[..., list[Result]]:
    """The results of a small guidance sweep on data that need not exist."""

    def results(**flags: Any) -> list[Result]:
        small: dict[str, Any] = {
            "losses": ("energy",),
            "layers": ("final",),
            "lambda_loc": (5e-3,),
            "models": ("small_resnet",),
        }
        sweep = GuidanceLambda(dataset="voc", data_root="nowhere", **small | flags)
        return list(sweep.results(Voc(root="nowhere", fingerprint="0123456789abcdef")))

    return results


@pytest.fixture(scope="session")
def grid(make_grid) -> list[Result]:
    """A baseline, the control, a guided training, and the evaluations of the first two."""
    return make_grid()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store that holds its schema and nothing else; making it takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_store, tmp_path) -> str:
    """Address of a store of the test's own."""
    return f"sqlite:///{copied(empty_store, tmp_path / 'mlflow.db')}"


@pytest.fixture
def tracking(store, tmp_path) -> Tracking:
    """A writer for the experiment "sweep"."""
    return Tracking(store, "sweep", tmp_path / "artifacts")


@pytest.fixture(scope="session")
def designs() -> list[Result]:
    """A classifier, two evaluations, it fine-tuned, two of that, and a comparison; all trials."""
    sweep = IdsdsModels(attribution_output=("logit",), images=12)
    variant = Variant(16, Zero(), 0)
    classifier = sweep.classifier(network_of("small_vgg"), sweep.data(), 0, None)
    tuned = sweep.finetuned(classifier, variant)
    methods = (InputXGradient(), GradCam())
    before, after = (list(sweep.evaluations(of, methods, [variant])) for of in (classifier, tuned))
    return [classifier, *before, tuned, *after, *sweep.comparisons(before, after)]


@pytest.fixture(scope="session")
def sample_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root that holds the generated samples of smoke runs, in both layouts."""
    root = tmp_path_factory.mktemp("data")
    for sweep in (GuidanceLambda, IdsdsMethods):
        sweep(smoke=True, data_root=str(root)).data().prepare()
    return root


@pytest.fixture
def sample_copy(sample_root, tmp_path) -> Path:
    """A copy of the sample, to damage."""
    return Path(shutil.copytree(sample_root, tmp_path / "copy"))


@pytest.fixture(scope="session")
def make_home(tmp_path_factory, sample_root, empty_store) -> Callable[[str], Home]:
    """A new data home, with a store that has its schema: making that takes seconds."""

    def make(name: str, data_root: Path = sample_root) -> Home:
        home = Home(tmp_path_factory.mktemp(name), data_root)
        copied(empty_store, home.folder / "mlflow.db")
        return home

    return make


@pytest.fixture(scope="session")
def stories(request, make_home, tmp_path_factory) -> Iterator[Callable[[str], Any]]:
    """Plays a story once.

    Those that the selected tests ask for go two at a time: one leaves a core idle. Of several
    workers of pytest each plays what its own tests ask for, when they do.
    """
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    asked = {name for item in request.session.items for name in item.fixturenames if alone}
    plays: dict[str, Callable[[Home], Any]] = {
        "undisturbed": undisturbed,
        "interrupted": interrupted,
        "streamed": streamed,
        "disturbed": disturbed,
        "faulty": partial(faulty, copy=tmp_path_factory.mktemp("damaged")),
        "spread": spread,
        "clustered": partial(clustered, copy=tmp_path_factory.mktemp("project")),
    }
    pool, started = ThreadPoolExecutor(2), dict[str, Future[Any]]()

    def story(name: str) -> Any:
        for wanted in [n for n in plays if n in asked | {name} and n not in started]:
            started[wanted] = pool.submit(plays[wanted], make_home(wanted))
        return started[name].result()

    yield story
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session", name="undisturbed")
def _undisturbed(stories) -> Undisturbed:
    return stories("undisturbed")


@pytest.fixture(scope="session", name="interrupted")
def _interrupted(stories) -> Interrupted:
    return stories("interrupted")


@pytest.fixture(scope="session", name="streamed")
def _streamed(stories) -> Streamed:
    return stories("streamed")


@pytest.fixture(scope="session", name="disturbed")
def _disturbed(stories) -> Disturbed:
    return stories("disturbed")


@pytest.fixture(scope="session", name="faulty")
def _faulty(stories) -> Faulty:
    return stories("faulty")


@pytest.fixture(scope="session", name="clustered")
def _clustered(stories) -> Clustered:
    return stories("clustered")


@pytest.fixture(scope="session", name="spread")
def _spread(stories) -> dict[str, Ended]:
    return stories("spread")


def copied(store: Path, path: Path) -> Path:
    """A copy of a SQLite store that may be open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(store)
    connection.execute("VACUUM INTO ?", (str(path),))
    connection.close()
    return path
