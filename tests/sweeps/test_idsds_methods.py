"""The sweep over methods: what it asks for, and bad input in one line before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import pytest
import ray

from sweeps.idsds_methods import APART, IdsdsMethods
from sweeps.launch import computation, launch
from sweeps.launch.stages import shares
from tests.sweeps.launches import Ended
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.metrics.incremental_deletion import Ids
from trainables.metrics.metric import Metric
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.published_finetuning import PublishedFinetuning
from trainables.result import Result
from trainables.training import Training


@pytest.fixture
def command(monkeypatch, capsys, tmp_path, sample_root) -> Callable[..., Ended]:
    """Run flags in this process, where neither Ray nor a launch may start."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("bad input must be found before anything starts")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(computation, "run_launch", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    places = (
        *("--storage-path", str(tmp_path / "storage")),
        *("--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"),
        *("--data-root", str(sample_root)),
    )

    def run(*flags: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["idsds_methods.py", "--smoke", *places, *flags])
        with pytest.raises(SystemExit) as ended:
            launch(IdsdsMethods)
        return Ended(int(str(ended.value.code)), *capsys.readouterr())

    return run


def results(**flags) -> list[Result]:
    """What a smoke sweep asks for; no file is read."""
    sweep = IdsdsMethods(smoke=True, data_root="nowhere", **flags).small()
    return list(sweep.results(sweep.data()))


def evaluations(**flags) -> list[ProtocolEvaluation]:
    return [r for r in results(**flags) if isinstance(r, ProtocolEvaluation)]


def test_a_published_fine_tuned_network_is_judged_as_it_is(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"read later")
    file = (f"small_resnet={tmp_path / 'w.pth'}",)
    found = evaluations(weights=file, finetuned_weights=file, methods=("grad_cam",), patches=4)
    before, after = (evaluation.of for evaluation in found)
    assert isinstance(after, PublishedFinetuning)
    assert (after.start, after.patches) == (before, 4)
    with pytest.raises(ValueError, match=r"--finetuned-weights .*--weights small_resnet="):
        results(finetuned_weights=file)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--protocols", "pixel_accuracy"], ["pixel_accuracy", "needs segments", "digit_scenes"]),
        (["--protocols", "on_object_epg"], ["on_object_epg", "needs segments"]),
        (["--protocols", "map_similarity"], ["map_similarity", "second network"]),
        (["--protocols", "nope"], ["'nope'", "epg, gini"]),
        (["--protocols"], ["at least one protocol"]),
        (["--methods", "bcos"], ["bcos", "B-cos", "small_resnet"]),
        (["--methods", "rollout"], ["rollout", "small_resnet"]),
        (["--methods", "nope"], ["'nope'", "input_x_gradient"]),
        (["--methods"], ["at least one method"]),
        (["--models", "nope"], ["'nope'", "small_resnet"]),
        (["--dataset", "voc"], ["'voc'", "digit_scenes, imagenet"]),
        (["--dataset", "imagenet", "--data-root", ""], ["--data-root", "published"]),
        (["--images", "-1"], ["images", "-1", "not be negative"]),
        (["--epochs", "-1"], ["epochs", "-1", "positive"]),
        (["--finetuning-epochs", "-1"], ["epochs", "-1", "positive"]),
        (["--seeds", "-1"], ["seed", "-1", "not be negative"]),
    ],
    ids=lambda value: " ".join(value) if value[:1] and value[0].startswith("--") else "",
)
def test_bad_input_is_refused_in_one_line(command, flags, words):
    ended = command(*flags)
    assert ended.code == 2, ended
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_both_networks_are_judged_by_all_methods(command):
    asked = results(methods=("input_x_gradient", "grad_cam"))
    classifier, finetuned = (r for r in asked if isinstance(r, Training))
    assert isinstance(finetuned, IdsdsFinetuning)
    pairs = [(r.of, r.attribution.name) for r in asked if isinstance(r, ProtocolEvaluation)]
    names = ("input_x_gradient", "grad_cam")
    assert pairs == [(of, name) for of in (classifier, finetuned) for name in names]
    for result in asked:
        result.check()


@pytest.mark.parametrize("asked", ["sds", "idsds", "all"])
def test_the_deletion_score_goes_by_what_the_network_is(asked):
    of_classifier, of_finetuned = evaluations(methods=("gradient",), protocols=(asked,))
    assert of_classifier.protocols[0].key == "sds"
    assert of_finetuned.protocols[0].key == "idsds"


def test_all_is_every_protocol_that_the_images_allow():
    (evaluation, _) = evaluations(methods=("input_x_gradient",))
    names = [p.name for p in evaluation.protocols]
    for name, metric in Metric.registered.items():
        fits = set(metric.requires) <= {"boxes", "labels"}
        apart = name in APART
        assert (name in names) == (fits and not apart) or name == "sds", name
    assert len({p.key for p in evaluation.protocols}) == len(names)


def test_updated_maps_are_asked_of_single_pass_methods_alone():
    for evaluation in evaluations(methods=("input_x_gradient", "integrated_gradients")):
        updated = Ids(updated=True) in evaluation.protocols
        assert updated == (evaluation.attribution.name == "input_x_gradient")


def test_all_is_every_method_that_suits_the_network():
    names = {e.attribution.name for e in evaluations(protocols=("gini",))}
    assert {"input_x_gradient", "grad_cam", "rise", "uniform_map"} & names
    assert not {"bcos", "rollout", "bagnet"} & names


def test_a_dry_run_says_what_each_protocol_judges(command, tmp_path):
    ended = command("--dry-run", "--methods", "gradient", "rise", "--protocols", "sds", "gini")
    assert (ended.code, ended.err) == (0, "")
    assert "every protocol judges 12 validation images" in ended.out
    assert "rise: masks 200 on the sample" in ended.out
    assert "6 results" in ended.out
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("cpus", "threads", "actors"),
    [
        ([1.0], 1, 1),
        ([2.0], 1, 2),
        ([4.0], 1, 4),
        ([16.0], 1, 16),
        ([16.0], 4, 4),
        ([2.0, 2.0], 1, 4),
        ([16.0, 4.0], 1, 19),
        ([2.0], 2, 1),
        ([0.0, 1.0, 1.0], 1, 2),
    ],
)
def test_actors_fill_the_nodes_and_leave_room_for_readers(cpus, threads, actors):
    each, count = shares(cpus, threads)
    assert count == actors
    assert each * int((max(cpus) - 0.5) / each) <= max(cpus) - 0.5
