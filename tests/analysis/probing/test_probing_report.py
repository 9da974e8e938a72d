"""The report on probes and on backbones from end to end: runs to files and text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import document, neighbors, report
from analysis.pretraining_report import PretrainingFrames
from analysis.probing_report import ProbingFrames
from analysis.probing_sentences import NOTHING
from analysis.report import Both, frames_of
from analysis.tables import WIDTH


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn with few dots: quick."""
    monkeypatch.setattr(document, "DPI", 20)


def pretrained(probes, method: str, knn: tuple[float, ...], seed: int = 0) -> None:
    """A pre-training with the accuracies of neighbours before it and after each epoch."""
    name = f"{method}-{seed}"
    data = {"data.name": "digit_scenes", "data.layout": "imagenet", "data.images_val": 200}
    what = {"kind": "ssl_training", "network.name": "small_resnet", "method.name": method}
    probes.rows.append({"result_id": name, "label": name, "seed": seed, **data, **what})
    probes.epochs.append((name, 0, {"val/knn_accuracy_untrained": knn[0]}))
    for epoch, value in enumerate(knn[1:], 1):
        probes.epochs.append((name, epoch, {"val/knn_accuracy": value}))


def neighbors_of(probes, pretraining: str, knn: float, seed: int = 0) -> None:
    """The evaluation of a backbone by its neighbours."""
    name = f"knn-{pretraining}-{seed}"
    data = {"data.name": "digit_scenes", "data.layout": "imagenet", "data.images_val": 200}
    tags = {"tag.backbone": "small_resnet", "tag.pretraining": pretraining}
    kind = {"kind": "knn_evaluation", "label": name}
    probes.rows.append({"result_id": name, "seed": seed, **kind, **data, **tags})
    probes.epochs.append((name, 0, {"val/knn_accuracy": knn}))


def test_everything_is_tables_pictures_and_one_page(probes, tmp_path: Path) -> None:
    pretrained(probes.whole(), "moco_v2", (0.2, 0.4, 0.6))
    runs = probes.runs()
    frames = frames_of(runs)
    assert isinstance(frames, Both)
    written = {path.name: path for path in report.write_files(runs, frames, tmp_path)}
    assert {f"probing_{name}.csv" for name in ("findings", "comparisons", "values")} < set(written)
    assert {"probing_losses.png", "probing_depth.png", "pretraining_neighbors.png"} < set(written)
    assert all(path.stat().st_size for path in written.values())
    linked = re.findall(r"\]\(([^)]+)\)", written["report.md"].read_text())
    assert set(linked) <= set(written)
    findings = pd.read_csv(written["probing_findings.csv"]).set_index("id")["verdict"]
    assert findings[["P1", "P4", "P6", "P10b", "P10c"]].tolist() == ["holds"] * 5
    assert findings[["P9", "P10a"]].tolist() == ["undecided"] * 2

    text = report.as_text(runs, frames)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "WHAT THE PAPER SAYS" in text
    assert "…" not in re.sub(r"(?s).*ACCURACY OF THE PROBES|RESULTS.*", "", text)
    assert "48 → 81  holds" in text  # the paper's number, then our verdict
    short = text[text.index("IN SHORT") :]
    assert "Controls: 20 of 20 probes" in " ".join(short.split())
    assert "no runs for P9, P10a" in " ".join(short.split())


def test_whole_networks_stand_below_their_probes(probes) -> None:
    probes.pair(ce=0.4, bce=0.6)
    base = {"data.name": "digit_scenes", "data.layout": "imagenet", "network.name": "small_resnet"}
    run = {"result_id": "base", "kind": "classifier_training", "objective": "ce", "seed": 0}
    probes.rows.append({**base, **run, "data.images_val": 200})
    probes.epochs.append(("base", 1, {"val/accuracy": 0.91, "val/f1": 0.5}))
    run |= {"result_id": "other", "objective": "bce"}
    probes.rows.append({**base, **run, "data.images_val": 200})
    probes.epochs.append(("other", 1, {"val/accuracy": 0.9, "val/f1": 0.5}))
    for of, score in (("base", 0.3), ("other", 0.5)):
        probes.mosaics(of, score, kind="grid_evaluation")
    frames = frames_of(probes.runs())
    (whole,) = frames.losses[frames.losses["pretraining"] == "end to end"].to_dict("records")
    assert (whole["verdict"], whole["decides"], whole["paired"]) == ("holds", False, True)
    text = frames.terminal()
    first, other = (line for line in text.splitlines() if line.startswith("end to end"))
    assert first.split()[:7] == ["end", "to", "end", "own", "classifier", "91.0", "90.0"]
    assert other.split()[3] == "lrp"


def test_what_does_not_exceed_its_control_is_marked(probes) -> None:
    frames = frames_of(probes.pair(ce=0.4, bce=0.6, accuracies=(0.25, 0.8)).runs())
    assert "25.0 *" in frames.terminal()
    assert frames.short_lines()[0].startswith("Controls: 1 of 2 probes")


def test_probes_alone_have_a_report_without_scores(probes) -> None:
    probes.controls().probe("bce")
    probes.probe("ce")
    frames = frames_of(probes.runs())
    assert isinstance(frames, ProbingFrames)
    assert "ACCURACY OF THE PROBES" in frames.terminal()
    assert "GRIDPG FROM CE TO BCE" not in frames.terminal()
    assert len(frames.blocks(probes.runs())) > 3


def test_scores_that_are_not_kept_leave_it_open(probes) -> None:
    probes.pair(ce=0.4, bce=0.6)
    probes.tables.clear()
    frames = frames_of(probes.runs())
    contrasts = frames.csvs()["probing_comparisons"].set_index("finding")
    assert contrasts.loc["P1", "verdict"] == "undecided"
    assert contrasts.loc["P1", "why"] == "no scores of CE to compare"


def test_nothing_finished_is_said(probes) -> None:
    probes.mosaics(probes.probe("ce", status="FAILED"), status="RUNNING")
    frames = frames_of(probes.runs())
    assert frames.terminal() == ""
    assert frames.blocks(probes.runs()) == []
    assert frames.short_lines() == [NOTHING]
    assert all(isinstance(frame, pd.DataFrame) for frame in frames.csvs().values())


def test_backbones_are_judged_by_their_neighbors(probes) -> None:
    pretrained(probes, "moco_v2", (0.2, 0.4, 0.6))
    pretrained(probes, "dino", (0.2, 0.25))
    neighbors_of(probes, "none", 0.18)
    neighbors_of(probes, "moco_v2", 0.61)
    neighbors_of(probes, "supervised_ce", 0.9)
    frames = frames_of(probes.runs())
    assert isinstance(frames, PretrainingFrames)
    found = frames.judged.set_index("pretraining")
    assert found["knn"].to_dict() == {
        "dino": 0.25,
        "moco_v2": 0.61,
        "none": 0.18,
        "supervised_ce": 0.9,
    }
    assert found.loc["moco_v2", ["epochs", "untrained"]].tolist() == [2, 0.18]
    assert found["exceeds"].to_dict() == {
        "dino": True,
        "moco_v2": True,
        "none": None,
        "supervised_ce": True,
    }
    (line,) = frames.short_lines()
    assert "moco_v2 61.0" in line
    assert "3 of 3" in line


def test_neighbors_without_an_evaluation_are_the_trainings_own(probes) -> None:
    pretrained(probes, "moco_v2", (0.2, 0.4, 0.24))
    (row,) = neighbors.judged(probes.runs()).to_dict("records")
    assert (row["knn"], row["untrained"], row["epochs"]) == (0.24, 0.2, 2)
    assert row["exceeds"] is False
    learned = neighbors.learning(probes.runs())
    assert learned[["epoch", "knn"]].to_numpy().tolist() == [[0, 0.2], [1, 0.4], [2, 0.24]]


def test_a_pretraining_that_failed_is_no_backbone(probes) -> None:
    pretrained(probes, "moco_v2", (0.2,))
    frames = frames_of(probes.runs())
    assert np.isnan(frames.judged["knn"]).all()
    assert frames.terminal() == ""
    assert frames.blocks(probes.runs()) == []
