"""A small sample in every layout, VOC files to damage, and one local Ray for the session."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.manifest import Manifest, indexed
from data_pipelines.voc import Voc

GOLDEN = Path(__file__).parent.parent / "golden" / "guidance"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Arrays made by the reference code of Model Guidance."""
    return lambda name: dict(np.load(GOLDEN / f"{name}.npz", allow_pickle=False))


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> DigitScenes:
    """40 training, 12 validation and 12 test scenes in the VOC layout."""
    root = str(tmp_path_factory.mktemp("sample"))
    dataset = DigitScenes(root=root, images_train=40, images_val=12, images_test=12)
    dataset.prepare()
    return dataset


@pytest.fixture(scope="session")
def coco_sample(tmp_path_factory: pytest.TempPathFactory) -> DigitScenes:
    """The same scenes in the COCO layout."""
    root = str(tmp_path_factory.mktemp("coco_sample"))
    counts = {"images_train": 40, "images_val": 12, "images_test": 12}
    dataset = DigitScenes(root=root, layout="coco", **counts)
    dataset.prepare()
    return dataset


@pytest.fixture(scope="session")
def imagenet_sample(tmp_path_factory: pytest.TempPathFactory) -> DigitScenes:
    """60 training and 20 validation scenes in the ImageNet layout."""
    root = str(tmp_path_factory.mktemp("imagenet_sample"))
    dataset = DigitScenes(root=root, layout="imagenet", images_train=60, images_val=20)
    dataset.prepare()
    return dataset


@pytest.fixture(scope="session")
def indexed_sample(
    sample: DigitScenes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DigitScenes, Manifest]:
    """The sample with its fingerprint, and its manifest."""
    return indexed(sample, tmp_path_factory.mktemp("index"))


@pytest.fixture
def voc(sample: DigitScenes, tmp_path: Path) -> Voc:
    """A copy of the sample's VOC files that a test may damage."""
    shutil.copytree(sample.folder, tmp_path / "voc")
    return Voc(root=str(tmp_path / "voc"))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray of two CPUs that belongs to these tests alone."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False)
    yield
    ray.shutdown()
