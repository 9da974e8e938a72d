"""The line that says what is done, what runs, what failed, and how long it will take."""

from __future__ import annotations

import io
import sys

import pytest

from sweeps.launch.progress import Progress, minutes
from trainables.classifier_training import ClassifierTraining
from trainables.guided_training import GuidedTraining
from trainables.result import Result

IMAGES = {"train": 40, "val": 12, "test": 12}


class Terminal(io.StringIO):
    """Output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass when told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("sweeps.launch.progress.time", clock)
    return clock


@pytest.fixture
def trainings(grid) -> list[Result]:
    """The baseline, the control and a guided training."""
    return [r for r in grid if isinstance(r, ClassifierTraining | GuidedTraining)]


@pytest.fixture
def progress(trainings, clock) -> Progress:
    return Progress({r.result_id: r for r in trainings}, IMAGES)


def test_counts_of_done_running_and_failed_stand_in_the_line(progress, trainings):
    one, two, three = (r.result_id for r in trainings)
    progress.event(one, "finished", 1.0)
    progress.event(two, "running", 0.5)
    progress.event(three, "failed", 0.0, "loss is nan")
    assert progress.line("epoch 2").startswith("[1/3 done, 1 running, 1 failed, ")
    assert progress.line("epoch 2").endswith(" left] epoch 2")


def test_the_time_left_is_unknown_until_work_is_done(progress, trainings):
    assert progress.left() == "time unknown"
    progress.event(trainings[0].result_id, "running", 0.0)
    assert progress.left() == "time unknown"


def test_the_time_left_follows_the_work_and_not_the_number_of_results(clock, make_grid):
    """The baseline is 300 epochs, the control 50: half of the former is not a quarter of all."""
    baseline, control = (
        next(r for r in make_grid() if isinstance(r, kind))
        for kind in (ClassifierTraining, GuidedTraining)
    )
    progress = Progress({r.result_id: r for r in (baseline, control)}, IMAGES)
    progress.event(baseline.result_id, "running", 0.0)
    clock.now += 150.0
    progress.event(baseline.result_id, "running", 0.5)
    assert progress.left() == minutes(150.0 + 50.0)  # an epoch of either costs the same


def test_failed_results_take_no_time(progress, trainings, clock):
    one, two, three = (r.result_id for r in trainings)
    progress.event(one, "running", 0.0)
    clock.now += 60.0
    progress.event(one, "finished", 1.0)
    progress.event(two, "failed", 0.0, "why")
    progress.event(three, "failed", 0.0, "why")
    assert progress.left() == "0 s"


def test_a_terminal_shows_one_line_that_is_rewritten(clock, trainings, monkeypatch):
    monkeypatch.setattr(sys, "stdout", out := Terminal())
    progress = Progress({r.result_id: r for r in trainings}, IMAGES)
    for share in (0.0, 0.25, 0.5):
        progress.event(trainings[0].result_id, "running", share, "loss " + "0.1 " * 100)
    assert "\n" not in out.getvalue()
    shown = out.getvalue().split("\r\x1b[K")[1:]
    assert len(shown) == 3
    assert max(map(len, shown)) < 120
    progress.say("a line of its own")
    progress.end()
    assert out.getvalue().endswith("\r\x1b[Ka line of its own\n\n")


def test_other_output_gets_a_line_for_what_ends_and_few_beside(progress, trainings, clock, capsys):
    one, two, _ = (r.result_id for r in trainings)
    for share in range(10):
        progress.event(one, "running", share / 10)
    assert len(capsys.readouterr().out.splitlines()) == 1
    clock.now += 20.0
    progress.event(two, "running", 0.1)
    progress.event(one, "finished", 1.0)
    progress.end()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "1/3 done" in lines[-1]
    assert not [line for line in lines if "\x1b" in line or "\r" in line]


def test_a_failure_is_told_at_once_with_its_reason(progress, trainings, capsys):
    progress.event(trainings[0].result_id, "failed", 0.0, "loss is nan at epoch 2")
    assert f"failed: {trainings[0].label}: loss is nan at epoch 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_times_read_as_people_say_them(seconds, text):
    assert minutes(seconds) == text
