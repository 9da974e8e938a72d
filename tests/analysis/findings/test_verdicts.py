"""What comparisons say together, what a grid lacks, and all findings as frames."""

from __future__ import annotations

from itertools import product
from typing import Any

import pandas as pd
import pytest

from analysis.findings.evidence import Evidence
from analysis.findings.finding import Key, Verdict, at_least, every
from analysis.findings.guidance import FINDINGS, MapSaysTheSame, verdicts
from analysis.findings.losses import EnergyLeadsEpg
from analysis.findings.paper_grid import is_paired, keys, kind_of, needs
from analysis.findings_report import (
    comparisons_table,
    finding_sentences,
    findings_compact,
    findings_table,
    settings_table,
)
from analysis.tables import text

R10 = MapSaysTheSame()
POINTS = {"energy": [(0.81, 0.70, 0.30)], "l1": [(0.80, 0.60, 0.40)]}


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ("", "undecided"),
        ("holds", "holds"),
        ("holds holds", "holds"),
        ("holds undecided", "undecided"),
        ("undecided fails", "fails"),
    ],
)
def test_all_must_hold_and_one_may_fail(verdicts: str, together: str) -> None:
    assert every(verdicts.split()) == together


@pytest.mark.parametrize(
    ("holding", "failing", "undecided", "together"),
    [(8, 2, 0, "holds"), (8, 0, 2, "holds"), (7, 3, 0, "fails"), (7, 2, 1, "undecided")],
)
def test_share_is_decided_however_the_open_ones_turn_out(
    holding: int, failing: int, undecided: int, together: str
) -> None:
    counts = (("holds", holding), ("fails", failing), ("undecided", undecided))
    assert at_least(0.8, [v for v, n in counts for _ in range(n)]) == together
    assert at_least(0.8, []) == "undecided"


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        ("resnet50", "vanilla"),
        ("small_resnet", "vanilla"),
        ("xresnet50", "xdnn"),
        ("small_xresnet", "xdnn"),
        ("fixup_resnet50", "fixup_resnet50"),
        ("bcos_resnet50", "bcos"),
        ("small_bcos_resnet", "bcos"),
        ("vgg16", "vgg16"),
        ("user", "user"),
    ],
)
def test_networks_stand_for_the_papers_kinds(network: str, kind: str) -> None:
    assert kind_of(network) == kind


def test_each_kind_has_the_papers_method() -> None:
    assert is_paired("small_bcos_resnet", "bcos")
    assert not is_paired("small_bcos_resnet", "input_x_gradient")
    assert not is_paired("resnet50", "grad_cam")
    assert is_paired("user", "anything")
    assert not is_paired("user", "grad_cam")


def test_what_is_missing_is_said_in_few_words() -> None:
    expected = keys(["a", "b"], ["x", "y"], ["final"], ["1", "2"])
    assert needs(expected, expected) == ["all on a and b"]
    assert needs([k for k in expected if k.dataset == "b"], expected) == ["all on b"]
    assert needs([Key("a", "x", "final", w) for w in "12"], expected) == ["x at final on a"]
    assert needs([Key("b", "y", "final", "2")], expected) == ["2: y at final on b"]
    assert needs([], expected) == []
    assert needs([Key("", "", "", "R2")], R10.expected()) == ["R2"]


@pytest.mark.parametrize(
    "changes",
    [{"network": "resnet18"}, {"network": "small_resnet"}, {"variant": "epochs=8"}, {"lambdas": 2}],
)
def test_grid_counts_the_papers_trainings_alone(trainings: Any, changes: dict[str, Any]) -> None:
    own = {name: value for name, value in changes.items() if name != "lambdas"}
    for kept in (False, True):
        weights = range(1, 1 + (3 if kept else changes.get("lambdas", 3)))
        for (loss, points), weight in product(POINTS.items(), weights):
            where = {} if kept else own
            trainings.curve("vanilla", "final", loss, points, lambda_loc=weight, **where)
        found = trainings.judged(EnergyLeadsEpg())
        assert (found.on_runs, 36 - len(found.missing)) == ("holds", int(kept))
    # what is not the paper's cannot make its sentence fail
    if own:
        trainings.change({**own, "loss": "l1"}, val_epg=0.9, test_epg=0.9)
        found = trainings.judged(EnergyLeadsEpg())
        assert (found.on_runs, found.on_grid) == ("fails", "undecided")


def test_map_says_the_same_until_one_verdict_turns(trainings: Any) -> None:
    trainings.base("vanilla", "final")
    for loss, points in POINTS.items():
        trainings.curve("vanilla", "final", loss, points)
    found = trainings.judged(R10)
    said = {c.key.what: c.why for c in found.comparisons}
    assert said["R1"] == "F1: holds, mAP: holds"
    assert said.keys() == {"R1", "R2", "R5", "R6"}  # no runs for R3 and R4
    assert (found.on_runs, found.on_grid) == ("holds", "undecided")
    assert needs(found.missing, R10.expected()) == ["R1, R2, R3, R4, R5, R6"]
    trainings.change({"loss": "l1"}, val_map=0.9, test_map=0.9)
    found = trainings.judged(R10)
    assert {c.key.what: c.why for c in found.comparisons}["R1"] == "F1: holds, mAP: fails"
    assert found.on_runs == "fails"


def test_map_counts_tested_epochs_alone(trainings: Any) -> None:
    for loss, points in POINTS.items():
        trainings.curve("vanilla", "final", loss, points)
    trainings.curve("vanilla", "final", "l1", [(0.1, 0.1, 0.1)], lambda_loc=2.0)
    untested = {"test_map": float("nan"), "val_map": 0.99, "val_epg": 0.99}
    trainings.change({"lambda_loc": 2.0}, **untested)
    assert trainings.evidence().by_map.front["lambda_loc"].tolist() == [1.0, 1.0]


@pytest.fixture
def frames(trainings: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    for seed in (0, 1):
        trainings.base("vanilla", "final", seed=seed)
        for (loss, points), weight in product(POINTS.items(), (1.0, 2.0, 3.0)):
            trainings.curve("vanilla", "final", loss, points, seed=seed, lambda_loc=weight)
    return verdicts(trainings.evidence())


def test_every_finding_has_a_row(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    findings, comparisons = frames
    assert findings["id"].tolist() == [f"R{i}" for i in range(1, 14)]
    assert all(len(finding.claim) <= 34 and finding.source for finding in FINDINGS)
    first = findings.iloc[0]
    assert (first["on_runs"], first["on_grid"], first["seeds"]) == ("holds", "undecided", 2)
    assert first["needs"].split("; ")[:3] == [
        "all on coco2014",
        "vanilla at input on voc2007",
        "Energy over PPCE, Energy over RRR*: vanilla at final on voc2007",
    ]
    assert set(first["results"].split()) == {
        f"vanilla-final-{loss}-1-{seed}" for loss in POINTS for seed in (0, 1)
    }
    assert set(comparisons["accuracy"]) == {"F1", "mAP"}


def test_tables_fit_and_say_points(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    findings, comparisons = frames
    lines = text(findings_compact(findings)).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)
    table = findings_table(findings).set_index("id")
    assert table.loc["R1", ["these runs", "hold", "effect"]].tolist() == [
        "holds",
        "1 of 1",
        "10.0 (sd 0.0)",
    ]
    row = comparisons_table(comparisons).iloc[0]
    assert (row["value"], row["against"], row["effect"]) == ("70.0", "60.0", "10.0 ± 0.0")
    assert row["where"] == "voc2007 · resnet50 · input_x_gradient · final"


def test_each_setting_has_its_own_verdicts(trainings: Any) -> None:
    for kind, lead in (("vanilla", 0.0), ("xdnn", 0.2)):
        trainings.base(kind, "final").curve(kind, "final", "energy", POINTS["energy"])
        trainings.curve(kind, "final", "l1", [(0.80, 0.60 + lead, 0.40)])
    table = settings_table(verdicts(trainings.evidence())[1]).set_index("where")
    assert table["R1"].to_dict() == {
        "voc2007 · resnet50 · input_x_gradient · final": "holds (1 of 1)",
        "voc2007 · xresnet50 · input_x_gradient · final": "fails (0 of 1)",
    }
    assert table["R6"].tolist() == ["holds (1 of 1)"] * 2
    assert "R10" not in table


def test_sentences_are_three_lines(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    first, second, all_ = finding_sentences(frames[0])
    assert first == (
        "The paper says (R1): Energy leads EPG. These runs: holds, 1 of 1 comparisons hold. "
        "Its grid: undecided."
    )
    assert second.startswith("The paper says (R2): L1 leads IoU at the final layer.")
    assert "no runs for R3, R4, R7" in all_


def test_nothing_is_judged_more_often_than_it_must(
    trainings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = []
    verdict = EnergyLeadsEpg.verdict

    def counted(finding: EnergyLeadsEpg, evidence: Evidence) -> Verdict:
        judged.append(evidence.accuracy)
        return verdict(finding, evidence)

    monkeypatch.setattr(EnergyLeadsEpg, "verdict", counted)
    trainings.curve("vanilla", "final", "energy", POINTS["energy"])
    verdicts(trainings.evidence())
    assert judged == ["f1", "map"]


def test_every_metric_of_a_comparison_has_a_title(trainings: Any) -> None:
    trainings.base("vanilla", "final")
    for loss, points in POINTS.items():
        trainings.curve("vanilla", "final", loss, points, test_on_object_epg=0.5)
    table = comparisons_table(verdicts(trainings.evidence())[1])
    assert table.loc[table["finding"] == "R3", "metric"].tolist() == ["EPG on objects"] * 2


def test_no_runs_are_no_verdicts() -> None:
    findings, comparisons = verdicts(Evidence.of_waterbirds(pd.DataFrame()))
    assert set(findings["on_runs"]) == set(findings["on_grid"]) == {"undecided"}
    assert comparisons.empty
    assert len(findings_table(findings)) == 13
    assert comparisons_table(comparisons).empty
    assert settings_table(comparisons).empty
