"""What every dataset promises, held over all layouts that can be made here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.coco import Coco
from data_pipelines.dataset import Dataset, Record
from data_pipelines.imagenet import Imagenet
from data_pipelines.voc import Voc

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(params=["voc", "imagenet", "coco", "digit_scenes", "digit_scenes_imagenet"])
def dataset(request, sample, coco_sample, imagenet_sample) -> Dataset:
    """Each dataset on the sample's files."""
    return {
        "voc": Voc(root=str(sample.folder)),
        "imagenet": Imagenet(root=str(imagenet_sample.folder)),
        "coco": Coco(root=str(coco_sample.folder)),
        "digit_scenes": sample,
        "digit_scenes_imagenet": imagenet_sample,
    }[request.param]


def test_records_fit_the_schema(dataset):
    dataset.check_layout()
    classes = dataset.classes()
    assert len(set(classes)) == len(classes) == 10
    for split in dataset.splits():
        ids = set()
        for record in dataset.records(split):
            assert isinstance(record, Record)
            ids.add(record.image_id)
            assert record.path.is_absolute()
            assert record.path.exists()
            assert record.labels == tuple(sorted(set(record.labels)))
            assert set(record.labels) <= set(range(len(classes)))
            for class_index, xmin, ymin, xmax, ymax, _ in record.boxes:
                assert class_index in record.labels
                assert 0 <= xmin < xmax <= record.width
                assert 0 <= ymin < ymax <= record.height
        assert len(ids) == len(list(dataset.records(split)))


def test_reading_twice_yields_the_same(dataset):
    assert list(dataset.records("val")) == list(dataset.records("val"))


def test_files_are_listed_sorted_and_below_the_folder(dataset):
    files = list(dataset.files())
    assert files == sorted(files)
    assert all((dataset.folder / file).is_file() for file in files)
    images = {str(record.path.relative_to(dataset.folder)) for record in dataset.records("train")}
    assert images <= set(files)


def test_importing_the_package_names_every_dataset_and_imports_neither_ray_nor_torch():
    script = (
        "import sys, data_pipelines; from data_pipelines.dataset import Dataset;"
        "print(*sorted(Dataset.registered)); print({'ray', 'torch', 'sklearn'} & set(sys.modules))"
    )
    names, imported = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY
    ).stdout.splitlines()
    assert {"digit_scenes", "imagenet", "voc", "voc2007"} <= set(names.split())
    assert imported == "set()"


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown dataset 'mnist'; known: .*digit_scenes"):
        Dataset.named("mnist")
