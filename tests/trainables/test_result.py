"""The identity of results: what is in an id, and what is not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from data_pipelines.configuration import Configuration
from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.voc import Voc
from tests.trainables.registered import example, registered_classes
from tests.trainables.scenes import BASELINE, CONTROL, GUIDED
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.attribution_evaluation import AttributionEvaluation
from trainables.losses.localization import L1, Energy
from trainables.models.small_resnet import SmallResNet
from trainables.models.torchvision_resnet import ResNet18
from trainables.published_classifier import PublishedClassifier
from trainables.published_finetuning import PublishedFinetuning
from trainables.result import Result, parameters

EXAMPLES = [example(cls) for cls in registered_classes()]
OF_CONTROL = AttributionEvaluation(of=CONTROL, attribution=GUIDED.attribution)
RESULTS = [BASELINE, CONTROL, GUIDED, GUIDED.reference, OF_CONTROL]


def test_all_registered_classes_have_distinct_ids():
    # a baseline image and a baseline map may bear one name: no field takes either
    ids = {(id(type(one).registered), one.result_id) for one in EXAMPLES}
    assert len(EXAMPLES) > 15
    assert len(ids) == len(EXAMPLES)


@pytest.mark.parametrize(
    "changed",
    [
        {"loss": L1()},
        {"attribution": GradCam(layer="final")},
        {"attribution": InputXGradient(layer="mid1")},
        {"lambda_loc": 1e-3},
        {"dilation": 0.1},
        {"annotated_fraction": 0.1},
        {"seed": 1},
        {"threads": 2},
        {"epochs": 4},
        {"batch_size": 16},
        {"learning_rate": 1e-3 * 2},
        {"start": replace(BASELINE, seed=1)},
        {"start": replace(BASELINE, network=SmallResNet(width=8))},
        {"start": replace(BASELINE, network=ResNet18())},
        {"start": replace(BASELINE, data=DigitScenes(fingerprint="0123456789abcdef"))},
        {"start": replace(BASELINE, image_size_px=32)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_changes_the_numbers_changes_the_id(changed):
    other = replace(GUIDED, **changed)
    assert other.result_id != GUIDED.result_id
    assert other != GUIDED


def test_guided_trainings_that_differ_only_in_the_class_of_their_loss_differ():
    results = [replace(GUIDED, loss=loss) for loss in (Energy(), L1())]
    assert len({r.result_id for r in results}) == len({r.label for r in results}) == 2


def test_paths_do_not_enter():
    moved = replace(BASELINE, data=DigitScenes(root="/somewhere/else"))
    assert moved.result_id == BASELINE.result_id
    assert replace(GUIDED, start=moved).result_id == GUIDED.result_id
    assert Voc(root="/a").result_id == Voc(root="/b").result_id
    assert "/somewhere/else" not in str(parameters(moved))


def test_equal_values_of_another_type_are_the_same_result():
    assert replace(GUIDED, dilation=0).result_id == GUIDED.result_id
    assert replace(GUIDED, annotated_fraction=1).result_id == GUIDED.result_id


def test_the_id_holds_what_it_depends_on():
    for other in (replace(BASELINE, epochs=4), replace(BASELINE, learning_rate=1e-4)):
        for result in (CONTROL, GUIDED):
            assert replace(result, start=other).result_id != result.result_id
        changed = AttributionEvaluation(of=other, attribution=GUIDED.attribution)
        assert changed.result_id != GUIDED.reference.result_id


@pytest.mark.parametrize(
    ("cls", "holders"),
    [
        (Energy, [GUIDED]),
        (InputXGradient, [GUIDED, GUIDED.reference, OF_CONTROL]),
        (SmallResNet, RESULTS),
        (DigitScenes, RESULTS),
        (type(BASELINE), RESULTS),
        (type(GUIDED), [CONTROL, GUIDED, OF_CONTROL]),
        (AttributionEvaluation, [GUIDED.reference, OF_CONTROL]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_raised_revision_changes_the_id_of_every_holder_and_no_other(cls, holders, monkeypatch):
    before = {result: result.result_id for result in RESULTS}
    monkeypatch.setattr(cls, "revision", cls.revision + 1)
    assert [r for r in RESULTS if r.result_id != before[r]] == [r for r in RESULTS if r in holders]


@pytest.mark.parametrize(
    "one", EXAMPLES, ids=lambda one: f"{type(one).__mro__[1].__name__}-{one.name}"
)
def test_a_raised_revision_changes_the_id_of_every_registered_class(one, monkeypatch):
    before = one.result_id
    monkeypatch.setattr(type(one), "revision", type(one).revision + 1)
    assert one.result_id != before


def test_ids_are_the_same_in_another_process():
    code = (
        "from tests.trainables.registered import *;"
        "from tests.trainables.scenes import *;"
        "print(GUIDED.result_id, *(example(c).result_id for c in registered_classes()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent.parent,
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [GUIDED.result_id, *(one.result_id for one in EXAMPLES)]


def test_parameters_name_every_field_of_the_identity():
    rows = parameters(GUIDED)
    assert rows["name"] == "guided_training"
    assert rows["loss.name"] == "energy"
    assert rows["lambda_loc"] == "0.005"
    assert rows["start.network.width"] == "4"
    assert rows["attribution.layer"] == "final"
    assert parameters(CONTROL)["loss"] == "none"
    assert not any("root" in key for key in rows)


def test_a_raised_revision_is_a_parameter(monkeypatch):
    monkeypatch.setattr(Energy, "revision", 2)
    assert parameters(GUIDED)["loss.revision"] == "2"


def test_labels_tell_results_apart():
    assert all(one.label != other.label for one, other in combinations(RESULTS, 2))


def test_every_result_says_what_it_is():
    for one in EXAMPLES:
        assert isinstance(one, Configuration)
        assert type(one).__doc__
        if isinstance(one, Result):
            assert one.paper
            assert one.cost({"train": 2, "val": 2, "test": 2}) > 0
            assert set(one.directions.values()) <= {"max", "min"}
            if not isinstance(
                one, PublishedClassifier | PublishedFinetuning
            ):  # an example's file is nowhere
                one.check()
