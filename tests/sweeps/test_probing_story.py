"""The sweep on the losses of probes as people run it: once, and once more with another loss."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pytest
from mlflow.entities import Run

from tests.sweeps.launches import ROOT, Ended, Home

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

FLAGS = (
    *("--smoke", "--networks", "small_resnet", "--probes", "conventional"),
    *("--attributions", "grad_cam", "--no-references"),
)


@dataclass(frozen=True)
class Story:
    """Two losses, then a third beside them."""

    first: Ended
    runs: dict[str, Run]
    more: Ended
    runs_of_more: dict[str, Run]


@pytest.fixture(scope="module")
def story(make_home) -> Story:
    home: Home = replace(make_home("probing"), script=ROOT / "sweeps" / "probe_objective.py")
    first = home.run(*FLAGS, "--losses", "ce", "bce")
    runs = home.runs()
    more = home.run(*FLAGS, "--losses", "ce", "bce", "bce_uniform")
    return Story(first, runs, more, home.runs())


def kinds(runs: dict[str, Run]) -> Counter[str]:
    return Counter(run.data.tags["kind"] for run in runs.values())


def test_the_study_runs_from_backbone_to_findings(story):
    assert (story.first.code, story.first.err) == (0, "")
    assert "5 results: 0 are there, 5 to compute in 3 trials" in story.first.out
    assert "ACCURACY OF THE PROBES" in story.first.out
    assert "P10" in story.first.out
    assert kinds(story.runs) == {
        "classifier_training": 1,
        "probe_training": 2,
        "probe_evaluation": 2,
    }
    assert {run.info.status for run in story.runs.values()} == {"FINISHED"}


def test_a_loss_that_joins_trains_its_probe_alone(story):
    """The others are found as they were, and so is the backbone."""
    assert (story.more.code, story.more.err) == (0, "")
    assert "7 results: 5 are there, 2 to compute in 2 trials" in story.more.out
    for result_id, run in story.runs.items():
        assert story.runs_of_more[result_id].info.end_time == run.info.end_time
    new = {i: run for i, run in story.runs_of_more.items() if i not in story.runs}
    assert kinds(new) == {"probe_training": 1, "probe_evaluation": 1}
    assert {run.data.tags["loss"] for run in new.values()} == {"bce_uniform"}
