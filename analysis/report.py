"""Write what an experiment says: Markdown, CSV, PNG and one HTML page that fetches nothing.

python -m analysis.report --experiment guidance_lambda
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd
import tyro
from platformdirs import user_data_path

from analysis import designs, groups, neighbors, probing, scores, tables
from analysis.address import Unavailable, default_tracking_uri, redacted
from analysis.designs_report import DesignFrames
from analysis.document import Block, Heading, Paragraph, Picture, Table, as_markdown, as_page
from analysis.groups_report import GroupFrames
from analysis.guidance_report import GuidanceFrames
from analysis.pretraining_report import PretrainingFrames
from analysis.probing_report import ProbingFrames
from analysis.ranking_report import RankingFrames
from analysis.runs import Runs, launched, load
from analysis.sentences import SELF_CHECKS


class Frames(Protocol):
    """Everything that is computed from runs of one kind, and how it is shown."""

    def csvs(self) -> dict[str, pd.DataFrame]:
        """The frames by the names of their files."""
        ...

    def blocks(self, runs: Runs) -> list[Block]:
        """The sections of the report; none if there is nothing to show."""
        ...

    def terminal(self) -> str:
        """The tables for a terminal; empty if there are none."""
        ...

    def short_lines(self) -> list[str]:
        """What follows, a sentence each."""
        ...


@dataclass(frozen=True)
class Both:
    """Frames of two kinds, one below the other."""

    first: Frames
    then: Frames

    def csvs(self) -> dict[str, pd.DataFrame]:
        return self.first.csvs() | self.then.csvs()

    def blocks(self, runs: Runs) -> list[Block]:
        return [*self.first.blocks(runs), *self.then.blocks(runs)]

    def terminal(self) -> str:
        return "\n\n".join(filter(None, [self.first.terminal(), self.then.terminal()]))

    def short_lines(self) -> list[str]:
        return [*self.first.short_lines(), *self.then.short_lines()]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Tables, fronts and findings of an experiment, from its MLflow runs."""

    experiment: str
    """Name of the sweep, such as guidance_lambda."""
    tracking_uri: str = field(default_factory=default_tracking_uri)
    """Where MLflow keeps the runs: sqlite:///FILE, http(s)://HOST:PORT or a database."""
    out: Path | None = None
    """Folder to write to; unless given, one of the experiment's name in the user's data folder."""
    launch: str | None = None
    """Report what this launch asked for: its run id, or how that begins. The newest, if none."""
    all: bool = False
    """Report every result of the experiment, whichever launch asked for it."""

    def run(self) -> None:
        """Write the report, print its tables and where it lies."""
        if self.all and self.launch is not None:
            raise Unavailable("--all and --launch exclude each other: give one of them")
        ids = None if self.all else launched(self.experiment, self.tracking_uri, self.launch)
        runs = finished_runs(self.experiment, self.tracking_uri, ids)
        out = (
            self.out or user_data_path("attribution-sweeps") / "reports" / self.experiment
        ).resolve()
        frames = frames_of(runs)
        paths = write_files(runs, frames, out)
        print(as_text(runs, frames))
        print()
        print("\n".join(f"wrote {path}" for path in paths))


def write(
    experiment: str,
    tracking_uri: str,
    out_dir: Path,
    result_ids: Collection[str] | None = None,
) -> list[Path]:
    """Write the report of an experiment, or of some of its results.

    Args:
        experiment: name of the sweep.
        tracking_uri: MLflow's store.
        out_dir: folder for the files; made if absent, files of the same names are replaced.
        result_ids: the results that count; all of the experiment if None.

    Returns:
        The files: report.html, report.md, a CSV per frame, a PNG per figure.

    Raises:
        Unavailable: the store does not answer, the experiment is unknown, or nothing has finished.
    """
    runs = finished_runs(experiment, tracking_uri, result_ids)
    return write_files(runs, frames_of(runs), out_dir)


def frames_of(runs: Runs) -> Frames:
    """What the runs can be asked: probes, accuracies by group, rankings, fronts, or both."""
    kinds = set(runs.runs["kind"])
    if designs.COMPARISON in kinds:
        return DesignFrames.of(runs)
    if not kinds.isdisjoint(probing.KINDS):
        backbones = PretrainingFrames.of(runs)
        probes = ProbingFrames.of(runs)
        return probes if backbones.known.empty else Both(backbones, probes)
    if not kinds.isdisjoint(neighbors.KINDS):
        return PretrainingFrames.of(runs)
    if groups.TRAINING in kinds:
        return GroupFrames.of(runs)
    if kinds.isdisjoint(scores.KINDS):
        return GuidanceFrames.of(runs)
    ranking = RankingFrames.of(runs)
    return Both(GuidanceFrames.of(runs), ranking) if "guided_training" in kinds else ranking


def finished_runs(
    experiment: str, tracking_uri: str, result_ids: Collection[str] | None = None
) -> Runs:
    """The runs of an experiment, of which at least one has finished.

    Raises:
        Unavailable: as ``write``.
    """
    runs = load(experiment, tracking_uri, result_ids)
    if runs.finished.empty:
        counts = ", ".join(
            f"{n} {status}" for status, n in runs.runs["status"].value_counts().items()
        )
        raise Unavailable(
            f"experiment {experiment!r} at {redacted(tracking_uri)} has no finished results "
            f"({counts or 'none at all'}); launch the sweep again to go on"
        )
    return runs


def write_files(runs: Runs, frames: Frames, out_dir: Path) -> list[Path]:
    """Write all files of the report; the page last, so that it is there only if all is."""
    out_dir.mkdir(parents=True, exist_ok=True)
    title = f"{runs.experiment}: report"
    blocks: list[Block] = [*_what_was_run(runs, frames), *frames.blocks(runs)]
    pngs = {block.name: block.png() for block in blocks if isinstance(block, Picture)}
    contents = {f"{name}.png": png for name, png in pngs.items()}
    for name, frame in {"runs": runs.runs, **frames.csvs()}.items():
        contents[f"{name}.csv"] = frame.to_csv(index=False).encode()
    contents["report.md"] = as_markdown(title, blocks).encode()
    contents["report.html"] = as_page(title, blocks, pngs).encode()
    for name, content in contents.items():
        (out_dir / name).write_bytes(content)
    return [out_dir / name for name in reversed(contents)]


def as_text(runs: Runs, frames: Frames) -> str:
    """The report for a terminal; what matters most stands last, above the prompt."""
    parts = [frames.terminal(), "RESULTS\n" + tables.text(tables.counts_table(runs))]
    failures = tables.failures_table(runs)
    if len(failures):
        parts.append("NOT FINISHED\n" + tables.text(failures))
    checks = tables.self_checks_table(runs)
    if len(checks):
        parts.append("SELF-CHECKS\n" + tables.text(checks))
    lines = frames.short_lines()
    parts.append("\n".join(["IN SHORT", *(textwrap.fill(line, tables.WIDTH) for line in lines)]))
    return "\n\n".join(part for part in parts if part)


def _what_was_run(runs: Runs, frames: Frames) -> list[Block]:
    where = f"Experiment {runs.experiment} at {redacted(runs.tracking_uri)}"
    counts = f"{len(runs.runs)} results, {len(runs.finished)} of them finished"
    found: list[Block] = [
        Paragraph(
            f"{where}: {counts}; newest run {runs.runs['started'].max():%Y-%m-%d %H:%M} UTC."
        ),
        Heading("In short"),
        *(Paragraph(line) for line in frames.short_lines()),
        Heading("What was run"),
        Table(tables.counts_table(runs)),
    ]
    failures = tables.failures_table(runs)
    if len(failures):
        found += [Paragraph("Not finished, with the reason that was recorded:"), Table(failures)]
    checks = tables.self_checks_table(runs)
    if len(checks):
        found += [Heading("Self-checks"), Paragraph(SELF_CHECKS), Table(checks)]
    return found


def main() -> None:
    """Parse the flags and report; end with 2 and one line where there is nothing to report."""
    report = tyro.cli(Report, prog="python -m analysis.report", description=__doc__)
    try:
        report.run()
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
