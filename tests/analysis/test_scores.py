"""Scores of many results come together by network, protocol and explanation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.runs import Runs, load
from analysis.scores import evaluated, read_scores

Build = Callable[..., Runs]


@pytest.fixture
def build(make_runs: Build, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Runs by (start, method, protocol to {(image, target): score}), with their artifacts."""

    def made(
        *results: tuple[str, str, Mapping[str, Mapping[tuple[str, int], float]]],
        parameters: Mapping[int, Mapping[str, Any]] = MappingProxyType({}),
    ) -> Runs:
        rows: list[dict[str, Any]] = []
        tables: dict[str, pd.DataFrame] = {}
        for number, (start, method, protocols) in enumerate(results):
            result_id = f"result{number}"
            rows.append(
                {
                    "result_id": result_id,
                    "kind": "protocol_evaluation",
                    "label": f"{method} of net",
                    "start": start,
                    "split": "val",
                    "attribution.name": method,
                    "of.network.name": "small_resnet",
                    "of.start.network.name": "another",
                    "of.data.name": "digit_scenes",
                }
                | dict(parameters.get(number, {}))
            )
            table = pd.DataFrame(
                [
                    (image, target, method, protocol, score)
                    for protocol, cells in protocols.items()
                    for (image, target), score in cells.items()
                ],
                columns=["image_id", "target", "method_key", "protocol_key", "score"],
            )
            texts = ["image_id", "method_key", "protocol_key"]
            tables[result_id] = table.astype(dict.fromkeys(texts, "category"))
        monkeypatch.setattr(Runs, "table", lambda _, result_id, __: tables[result_id])
        return replace(
            make_runs(rows, []), directions={"epg": "max", "entropy": "min", "grid_pg": "max"}
        )

    return made


A, B, C = ("img1", 0), ("img1", 3), ("img2", 0)


def test_methods_stand_side_by_side_over_equal_explanations(build: Build) -> None:
    runs = build(
        ("s", "one", {"epg": {A: 0.1, B: 0.2, C: np.nan}}),
        ("s", "two", {"epg": {A: 0.3, B: 0.4, C: 0.5}}),
    )
    (scores,), notes = read_scores(runs, evaluated(runs))
    np.testing.assert_array_equal(scores.values, [[0.1, 0.3], [0.2, 0.4], [np.nan, 0.5]])
    assert scores.images.tolist() == [0, 0, 1]
    assert (scores.setting, scores.protocol, scores.higher_is_better) == ("net · val", "epg", True)
    assert notes == []


def test_other_orders_and_gaps_are_aligned_by_image_and_class(build: Build) -> None:
    runs = build(
        ("s", "one", {"epg": {A: 0.1, B: 0.2, C: 0.3}}),
        ("s", "two", {"epg": {C: 3.0, A: 1.0}}),
    )
    (scores,), notes = read_scores(runs, evaluated(runs))
    assert scores.values.tolist() == [[0.1, 1.0], [0.3, 3.0]]
    assert scores.images.tolist() == [0, 1]
    assert notes == [
        "epg of net · val: 1 explanations were not scored for all methods and are left out."
    ]


def test_images_bear_the_same_number_under_all_protocols(build: Build) -> None:
    runs = build(
        ("s", "one", {"entropy": {C: 5.0}, "epg": {A: 0.1, C: 0.2}}),
        ("s", "two", {"entropy": {C: 6.0}, "epg": {A: 0.3, C: 0.4}}),
    )
    (entropy, epg), _ = read_scores(runs, evaluated(runs))
    assert not entropy.higher_is_better
    assert entropy.images.tolist() == [epg.images[1]]


def test_networks_are_kept_apart_even_under_one_name(build: Build) -> None:
    runs = build(("s1", "one", {"epg": {A: 0.1}}), ("s2", "one", {"epg": {A: 0.2}}))
    rows = evaluated(runs)
    assert rows["setting"].tolist() == ["net (s1) · val", "net (s2) · val"]
    assert rows["network"].tolist() == ["small_resnet"] * 2
    assert rows["dataset"].tolist() == ["digit_scenes"] * 2
    scores, _ = read_scores(runs, rows)
    assert [one.values.tolist() for one in scores] == [[[0.1]], [[0.2]]]


def test_of_one_key_the_newest_result_counts(build: Build) -> None:
    runs = build(("s", "one", {"epg": {A: 0.1}}), ("s", "one", {"epg": {A: 0.2}}))
    (scores,), _ = read_scores(runs, evaluated(runs))
    assert scores.values.tolist() == [[0.2]]
    assert scores.methods["result_id"].tolist() == ["result1"]


GRIDS = {"kind": "grid_evaluation", "images": "own", "side": 2, "grids": 16, "split": "val"}
M = ("grid0000-ab", 4)


def test_mosaics_are_ranked_beside_the_images_of_their_network(build: Build) -> None:
    runs = build(
        ("s", "one", {"epg": {A: 0.1}}),
        ("s", "one", {"grid_pg": {M: 0.2}}),
        ("s", "two", {"grid_pg": {M: 0.3}}),
        parameters={0: {"images": 60}, 1: GRIDS, 2: GRIDS},
    )
    (epg, grids), notes = read_scores(runs, evaluated(runs))
    assert (epg.setting, grids.setting, notes) == ("net · val", "net · val", [])
    assert grids.values.tolist() == [[0.2, 0.3]]
    assert grids.images.tolist() != epg.images.tolist()


def test_methods_are_never_compared_on_other_mosaics(build: Build) -> None:
    common = GRIDS | {"images": "common", "grids": 8}
    runs = build(
        ("s", "one", {"epg": {A: 0.1}}),
        ("s", "one", {"grid_pg": {M: 0.2}}),
        ("s", "one", {"grid_pg": {M: 0.3}}),
        parameters={0: {"images": 60}, 1: GRIDS, 2: common},
    )
    assert evaluated(runs)["setting"].tolist() == [
        "net · val",
        "net · val · images own · grids 16",
        "net · val · images common · grids 8",
    ]


def test_what_is_left_out_is_said(build: Build) -> None:
    runs = build(("s", "one", {}), ("s", "two", {"mystery": {A: 1.0}}))
    scores, notes = read_scores(runs, evaluated(runs))
    assert scores == []
    assert notes == [
        "result0 of net · val has no scores and is left out.",
        "No run says whether more or less of mystery is better: it is not ranked.",
    ]


def test_keys_of_a_set_are_never_those_of_the_method(ranked_store) -> None:
    runs = load("idsds_methods", ranked_store.uri)
    scores, _ = read_scores(runs, evaluated(runs))
    assert [one.protocol for one in scores] == ["idsds", "ids", "entropy"]
    methods = scores[0].methods.set_index("method")
    assert len(methods) == 9
    assert methods.loc["grad_cam", "label"] == "grad_cam"
    as_run = methods.loc["grad_cam_idsds_as_run_normalize"]
    assert (as_run["label"], as_run["paper"]) == ("Grad-CAM *", "Grad-CAM")
    assert set(methods.index[methods["reference_line"]]) == {"uniform", "random"}
