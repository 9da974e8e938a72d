"""The report from end to end: files, text, and what ends in exit code 2."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import report
from analysis.address import Unavailable
from analysis.guidance_report import GuidanceFrames


@pytest.fixture(scope="module")
def written(store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    return {path.name: path for path in report.write("guidance_lambda", store.uri, folder)}


def ended(monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    """The exit code of the command."""
    monkeypatch.setattr(sys, "argv", ["report", *flags])
    try:
        report.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_report_is_markdown_tables_pictures_and_one_page(written: dict[str, Path]) -> None:
    assert {"report.html", "report.md", "runs.csv", "fronts.png"} <= written.keys()
    assert sorted({path.suffix for path in written.values()}) == [".csv", ".html", ".md", ".png"]
    assert all(path.stat().st_size for path in written.values())
    assert sum(name.startswith("maps_") for name in written) == 2


def test_markdown_links_only_pictures_that_are_there(written: dict[str, Path]) -> None:
    text = written["report.md"].read_text()
    linked = re.findall(r"\]\(([^)]+)\)", text)
    assert len(linked) == 3
    assert set(linked) <= written.keys()


def test_page_fetches_nothing(written: dict[str, Path]) -> None:
    page = written["report.html"].read_text()
    assert page.count("<img ") == 3
    assert all(
        source.startswith("data:image/png;base64,")
        for source in re.findall(r'<img src="([^"]*)"', page)
    )
    assert not re.findall(r"<(?:script|link|iframe)[^>]+(?:src|href)=", page)
    assert "default-src 'none'" in page
    assert page.count("plotly.js v") == 1
    assert '"showSendToCloud": false' in page


def test_tables_say_what_was_run_and_what_follows(written: dict[str, Path]) -> None:
    text = written["report.md"].read_text()
    assert "45 results, 44 of them finished" in text
    assert "lower the learning rate or lambda" in text
    assert "(R2): L1 leads IoU at the final layer. These runs: fails, " in text
    assert "(R1): Energy leads EPG. These runs:" in text
    assert "## What the paper says (R1-R13)" in text
    assert re.search(r"input layer.{0,40}: pass", text)


def test_tables_are_kept_whole_as_csv(written: dict[str, Path]) -> None:
    candidates = pd.read_csv(written["guidance_candidates.csv"])
    front = pd.read_csv(written["guidance_front.csv"])
    assert len(candidates) == 96
    assert 0 < len(front) < 96
    assert front["val_epg"].between(0, 1).all()
    findings = pd.read_csv(written["guidance_findings.csv"])
    assert findings["id"].tolist() == [f"R{i}" for i in range(1, 14)]
    assert set(findings["on_grid"]) == {"undecided"}  # the sample is on neither dataset
    comparisons = pd.read_csv(written["guidance_comparisons.csv"])
    assert {"R1", "R2", "R5", "R6", "R10", "R12", "R13"} == set(comparisons["finding"])


def test_text_fits_a_terminal(store) -> None:
    runs = report.finished_runs("guidance_lambda", store.uri)
    lines = report.as_text(runs, GuidanceFrames.of(runs)).splitlines()
    assert max(map(len, lines)) <= 100
    assert "IN SHORT" in lines
    assert any(line.startswith("baseline") for line in lines)


def test_some_results_make_a_report_of_their_own(store, tmp_path: Path) -> None:
    wanted = [f"energy-{weight:g}-final-0" for weight in (5e-4, 5e-3)]
    report.write("guidance_lambda", store.uri, tmp_path, [*wanted, "evaluation-baseline-final-0"])
    front = pd.read_csv(tmp_path / "guidance_front.csv")
    assert set(front["result_id"]) <= set(wanted)
    text = (tmp_path / "report.md").read_text()
    assert "Energy leads EPG. These runs: undecided, no comparison." in text
    assert "needs >= 2 seeds" in text


def test_runs_without_a_front_are_still_reported(store, tmp_path: Path) -> None:
    names = {p.name for p in report.write("guidance_lambda", store.uri, tmp_path, ["baseline-0"])}
    assert "fronts.png" not in names
    assert "No guided training has finished" in (tmp_path / "report.md").read_text()
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_command_prints_and_writes_the_same_files_again(
    store, written: dict[str, Path], tmp_path: Path, monkeypatch, capsys
) -> None:
    flags = ["--experiment", "guidance_lambda", "--tracking-uri", store.uri, "--out", str(tmp_path)]
    assert ended(monkeypatch, *flags) == 0
    printed = capsys.readouterr().out
    assert "PARETO-DOMINANT MODELS" in printed
    assert f"wrote {tmp_path / 'report.html'}" in printed
    for name, path in written.items():
        assert (tmp_path / name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("experiment", "flags", "said"),
    [
        ("nothing", ["--all"], "known: elsewhere, empty, guidance_lambda, running"),
        ("empty", ["--all"], "no finished results .none at all."),
        ("running", ["--all"], "no finished results .1 RUNNING."),
        ("guidance_lambda", ["--launch", "zzz"], "launch 'zzz' not found"),
        ("guidance_lambda", ["--launch", "a", "--all"], "exclude each other"),
    ],
)
def test_nothing_to_report_ends_with_two_and_one_line(
    store, monkeypatch, capsys, experiment: str, flags: list[str], said: str
) -> None:
    flags = ["--experiment", experiment, "--tracking-uri", store.uri, *flags]
    assert ended(monkeypatch, *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)


def test_missing_store_ends_with_two_and_is_not_made(tmp_path: Path, monkeypatch, capsys) -> None:
    path = tmp_path / "mlflow.db"
    assert ended(monkeypatch, "--experiment", "x", "--tracking-uri", f"sqlite:///{path}") == 2
    assert str(path) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_password_is_in_no_message() -> None:
    with pytest.raises(Unavailable) as error:
        report.write("x", "http://me:secret@127.0.0.1:9", Path("unused"))
    assert "secret" not in str(error.value)
