"""Maps from files: the right one for each image and target, or a refusal that says which."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.trainables.networks import pictures, tiny_model
from trainables.attribution.from_files import FromFiles
from trainables.batch import Batch
from trainables.models.small_resnet import SmallResNet
from trainables.passes import Passes

KEYS = [("val/cat 1", 0), ("val/cat 1", 3), ("dog", 2)]


@pytest.fixture
def maps() -> dict[tuple[str, int], Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(4, 5, generator=generator) for key in KEYS}


@pytest.fixture(params=["folder", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path, maps: dict[tuple[str, int], Tensor]):
    return stored(tmp_path, maps, request.param)


def stored(tmp_path: Path, maps: dict[tuple[str, int], Tensor], kind: str) -> Path:
    if kind == "file":
        save_file({f"{i}/{t}": m for (i, t), m in maps.items()}, tmp_path / "maps.safetensors")
        return tmp_path / "maps.safetensors"
    for (image_id, target), array in maps.items():
        file = tmp_path / "maps" / f"{image_id}_{target}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array.numpy())
    return tmp_path / "maps"


def read(method: FromFiles, index: list[int], targets: list[int]) -> Tensor:
    batch = Batch(
        images=pictures(2),
        image_ids=["dog", "val/cat 1"],
        image_index=torch.tensor(index, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
    )
    with Passes(tiny_model(), batch) as passes:
        found = method(passes)
    assert passes.counts.forwards == 0
    return found


def test_each_explanation_gets_its_map(path, maps):
    found = read(FromFiles(path=str(path)), [1, 0, 1], [3, 2, 0])
    assert found.dtype == torch.float64
    for row, key in zip(found, (KEYS[1], KEYS[2], KEYS[0]), strict=True):
        assert torch.equal(row, maps[key].double())
    assert read(FromFiles(path=str(path)), [], []).shape == (0, 12, 12)


def test_a_missing_map_is_refused_by_image_and_target(path):
    message = "no map of image 'dog' and target 1: expected the (key 'dog/1'|file dog_1.npy)"
    with pytest.raises(FileNotFoundError, match=message):
        read(FromFiles(path=str(path)), [1, 0], [0, 1])


def test_a_map_of_another_shape_is_refused(tmp_path, maps):
    message = r"image 'dog' and target 2 is \({}\); expected \(h, w\), the same for all"
    for wrong, shape in ((torch.zeros(2, 2), "2, 2"), (torch.zeros(1, 4, 5), "1, 4, 5")):
        path = stored(tmp_path, {**maps, KEYS[2]: wrong}, "folder")
        with pytest.raises(ValueError, match=message.format(shape)):
            read(FromFiles(path=str(path)), [1, 0], [0, 2])


def test_nothing_is_unpickled(tmp_path, maps):
    path = stored(tmp_path, maps, "folder")
    np.save(path / "dog_2.npy", np.array([[Path()]]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"dog_2\.npy holds no array of numbers"):
        read(FromFiles(path=str(path)), [0], [2])
    np.save(path / "dog_2.npy", np.array([["text"]]))
    with pytest.raises(ValueError, match=r"dog_2\.npy holds no array of numbers"):
        read(FromFiles(path=str(path)), [0], [2])


def test_the_content_is_the_identity_and_the_path_is_not(path, maps, tmp_path):
    method = FromFiles(path=str(path), label="theirs")
    (tmp_path / "elsewhere").mkdir()
    kind = "file" if path.suffix else "folder"
    copied = FromFiles(path=str(stored(tmp_path / "elsewhere", maps, kind)), label="theirs")
    assert copied.result_id == method.result_id
    assert method.key == f"from_files_theirs_{method.fingerprint}"
    assert replace(method, label="ours").result_id != method.result_id
    for changed in ({**maps, KEYS[0]: maps[KEYS[0]] + 1}, {**maps, ("dog", 1): maps[KEYS[2]] + 1}):
        stored(path.parent, changed, kind)
        assert FromFiles(path=str(path), label="theirs").result_id != method.result_id


def test_a_worker_reads_without_hashing_again_from_an_absolute_path(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    method = FromFiles(path=path.name)
    assert method.path == str(path)
    sent = pickle.dumps(method)
    monkeypatch.setattr("trainables.attribution.from_files.fingerprint_of", None)
    assert pickle.loads(sent) == method == replace(method)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.safetensors", "empty", "notes.txt"])
def test_a_path_without_maps_is_refused_at_once(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(FileNotFoundError, match=r"holds no maps: expected a folder of <image_id>_"):
        FromFiles(path=str(tmp_path / name))


def test_without_a_path_there_is_nothing_to_read():
    with pytest.raises(ValueError, match="from_files has no path: expected a folder of"):
        read(FromFiles(), [0], [2])
    with pytest.raises(ValueError, match="from_files has no path"):
        FromFiles().check(SmallResNet(width=2))
