"""The report on rankings from end to end: runs to files and text."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import document, report
from analysis.guidance_report import GuidanceFrames
from analysis.ranking_report import RankingFrames
from analysis.ranking_sentences import reading
from analysis.runs import Runs


@pytest.fixture(scope="module", autouse=True)
def coarse_pictures() -> Iterator[None]:
    """Pictures are drawn with few dots: quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "DPI", 20)
        yield


@pytest.fixture(scope="module")
def runs(ranked_store) -> Runs:
    return report.finished_runs("idsds_methods", ranked_store.uri)


@pytest.fixture(scope="module")
def frames(runs: Runs) -> RankingFrames:
    found = report.frames_of(runs)
    assert isinstance(found, RankingFrames)
    return found


@pytest.fixture(scope="module")
def written(
    runs: Runs, frames: RankingFrames, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    return {path.name: path for path in report.write_files(runs, frames, folder)}


def test_report_is_tables_pictures_and_one_page(written: dict[str, Path]) -> None:
    assert {"report.html", "report.md", "runs.csv", "ranking.csv"} <= written.keys()
    pictures = {name for name in written if name.endswith(".png")}
    assert {f"ranking_{p}.png" for p in ("idsds", "ids", "entropy")} | {"curves_ids.png"} < pictures
    assert sum(name.startswith("maps_") for name in pictures) == 2  # nine methods, eight abreast
    assert all(path.stat().st_size for path in written.values())


def test_markdown_links_only_pictures_that_are_there(written: dict[str, Path]) -> None:
    linked = re.findall(r"\]\(([^)]+)\)", written["report.md"].read_text())
    assert len(linked) == 6
    assert set(linked) <= written.keys()


def test_page_fetches_nothing(written: dict[str, Path]) -> None:
    page = written["report.html"].read_text()
    assert page.count("<img ") == 6
    assert not re.findall(r"<(?:script|link|iframe)[^>]+(?:src|href)=", page)


def test_every_method_stands_in_the_csv_under_its_key(written: dict[str, Path]) -> None:
    rows = pd.read_csv(written["ranking.csv"])
    assert len(rows) == 9 * 3
    idsds = rows[rows["protocol"] == "idsds"].set_index("method")
    assert idsds["explanations"].max() == 114  # six are undefined for grad_cam
    assert idsds.loc["grad_cam", "defined_fraction"] == pytest.approx(0.95)
    assert idsds.loc[["grad_cam", "xgrad_cam"], "rank"].tolist() == [1.5, 1.5]
    assert idsds.loc[["uniform", "random"], "rank"].isna().all()
    assert {"grad_cam", "grad_cam_idsds_as_run_normalize"} <= set(idsds.index)


def test_curves_come_back_by_method(written: dict[str, Path]) -> None:
    curves = pd.read_csv(written["ranking_curves.csv"])
    assert set(curves["protocol"]) == {"ids"}
    assert len(curves) == 9 * 4
    grad_cam = curves[curves["method"] == "grad_cam"]
    np.testing.assert_allclose(grad_cam["mean"], 0.8 - 0.3 * np.arange(4) / 4)


def test_text_fits_a_terminal_and_cuts_no_name(runs: Runs, frames: RankingFrames) -> None:
    text = report.as_text(runs, frames)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "Grad-CAM *" in text
    assert "uniform (reference)" in text
    assert "ValueError: lime needs" in text
    assert "idsds · baseline small_resnet seed 0 · val · higher is better · 114 expl" in text
    assert "entropy · baseline small_resnet seed 0 · val · lower is better · 120 expl" in text


def test_readings_name_leader_ties_and_references(frames: RankingFrames) -> None:
    ranking = next(r for r in frames.rankings if r.protocol == "idsds")
    assert re.fullmatch(
        r"grad_cam leads with 0\.\d+ \(95 %: 0\.\d+ to 0\.\d+\), not told apart from xgrad_cam; "
        r"6 of 7 methods beat the best reference line, random \(0\.\d+\)\.",
        reading(ranking),
    )
    assert frames.short_lines()[-1].startswith("Agreement of protocols: most ")


def test_papers_numbers_do_not_stand_beside_another_network(
    frames: RankingFrames, written: dict[str, Path]
) -> None:
    assert not frames.paper["comparable"].any()
    assert set(frames.paper["paper"]) == {"Grad-CAM", "RISE", "IG abs."}
    text = written["report.md"].read_text()
    assert "the paper's |" not in text
    assert "whether the order carries over" in text
    order = frames.paper_order.set_index("protocol")
    assert order.loc["idsds", "spearman"] == 1  # Grad-CAM, RISE, IG abs. in both


def test_command_reports_rankings(ranked_store, tmp_path: Path, monkeypatch, capsys) -> None:
    flags = ["--experiment", "idsds_methods", "--tracking-uri", ranked_store.uri]
    monkeypatch.setattr(sys, "argv", ["report", *flags, "--out", str(tmp_path)])
    report.main()
    printed = capsys.readouterr().out
    assert "RANKINGS" in printed
    assert "DO THE PROTOCOLS AGREE?" in printed
    assert f"wrote {tmp_path / 'report.html'}" in printed


def test_guidance_is_reported_as_before_and_both_together(store, ranked_store, make_runs) -> None:
    guidance = report.finished_runs("guidance_lambda", store.uri)
    assert isinstance(report.frames_of(guidance), GuidanceFrames)
    rows = [
        {"result_id": "a", "kind": "protocol_evaluation", "status": "FAILED"},
        {"result_id": "b", "kind": "guided_training", "loss.name": "none"},
    ]
    found = report.frames_of(make_runs(rows, []))
    assert len(found.short_lines()) == 2
    assert found.terminal() == ""
