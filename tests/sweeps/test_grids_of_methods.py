"""The grid pointing game in the sweep over methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from data_pipelines.digit_scenes import DigitScenes
from sweeps.idsds_methods import IdsdsMethods
from trainables.classifier_training import ClassifierTraining
from trainables.grid_evaluation import GridEvaluation
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.result import Result

DATA = DigitScenes(layout="imagenet")


def asked(**flags: Any) -> list[Result]:
    return list(IdsdsMethods(**{"methods": ("grad_cam", "uniform")} | flags).results(DATA))


def grids_of(results: Sequence[Result]) -> list[GridEvaluation]:
    return [result for result in results if isinstance(result, GridEvaluation)]


def kinds(results: Sequence[Result]) -> set[type[Result]]:
    return {type(result) for result in results}


@pytest.mark.parametrize("protocols", [("all",), ("epg", "grid_pg")])
def test_each_method_plays_on_the_network_as_it_was_trained(protocols):
    results = asked(protocols=protocols)
    grids = grids_of(results)
    assert [one.attribution.key for one in grids] == ["grad_cam", "uniform"]
    assert all(isinstance(one.of, ClassifierTraining) for one in grids)
    assert len({one.bundle for one in grids}) == 1
    assert {(one.side, one.grids, one.images) for one in grids} == {(2, 25, "own")}
    for one in grids:
        one.check()
    streamed = [one for one in results if isinstance(one, ProtocolEvaluation)]
    assert len(streamed) == 4
    assert len({one.result_id for one in results}) == len(results)
    assert not any(p.name == "grid_pg" for one in streamed for p in one.protocols)


def test_nothing_else_is_trained_for_it():
    assert kinds(asked(protocols=("grid_pg",))) == {ClassifierTraining, GridEvaluation}


def test_it_is_played_only_where_it_is_asked_for():
    others = {ClassifierTraining, IdsdsFinetuning, ProtocolEvaluation}
    assert kinds(asked(protocols=("epg",))) == others
    assert kinds(asked(smoke=True)) == others
    assert "left out" in "".join(IdsdsMethods(smoke=True).notes())


def test_flags_reach_it():
    (one,) = grids_of(asked(methods=("grad_cam",), grids=7, grid_side=3))
    assert (one.grids, one.side) == (7, 3)
    assert "7 mosaics of 3 x 3" in "".join(IdsdsMethods(grids=7, grid_side=3).notes())


def test_common_images_are_those_of_all_networks_of_a_seed():
    flags = {"models": ("small_resnet", "resnet18"), "seeds": (0, 1)}
    for one in grids_of(asked(grid_images="common", **flags)):
        one.check()
        assert {other.network.name for other in one.compared} == set(flags["models"])
        assert {other.seed for other in one.compared} == {one.of.seed}


def test_they_are_those_of_the_paper_on_imagenet():
    results = asked(dataset="imagenet", data_root="nowhere", methods=("grad_cam",))
    assert {(one.side, one.grids) for one in grids_of(results)} == {(3, 500)}
