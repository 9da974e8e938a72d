"""The study of network designs, killed: only the missing runs again, from finished weights."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
from mlflow.entities import Run

from data_pipelines.manifest import indexed
from sweeps.idsds_models import IdsdsModels
from tests.sweeps.launches import ROOT, Ended, Home, end_of, wait_until
from tests.sweeps.stories import workers_end
from trainables.checkpoint import sha256_of
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.network_comparison import NetworkComparison
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.result import Result
from trainables.training import weights_path

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 16
ASKED: dict[str, Any] = {
    "models": ("small_xresnet", "small_vgg"),
    "methods": ("input_x_gradient", "grad_cam"),
    "attribution_output": ("logit",),
    "finetuning_epochs": EPOCHS,
    # more than there are: all 24; by that cost classifiers are judged before they are fine-tuned
    "images": 240,
}


@dataclass(frozen=True)
class Story:
    """The driver is killed during fine-tuning; then the same command.

    Attributes:
        wanted: what the study asks for, by id.
        victims: fine-tunings that were under way, with the epochs of their checkpoints when the
            last worker was gone.
        complete: results that had left a summary by then.
        after_kill: runs then.
        seen: epochs in the checkpoints of the victims from then on.
        last: the same command, to its end.
        runs: in the end.
    """

    home: Home
    wanted: dict[str, Result]
    victims: dict[str, int]
    complete: set[str]
    after_kill: dict[str, Run]
    seen: dict[str, list[int]]
    last: Ended
    runs: dict[str, Run]

    def of(self, *kinds: type[Result]) -> list[Result]:
        """The wanted results of these kinds."""
        return [result for result in self.wanted.values() if isinstance(result, kinds)]

    def dependencies(self) -> list[tuple[Run, Run]]:
        """Each run with each that its result depends on."""
        return [
            (self.runs[result.result_id], self.runs[before.result_id])
            for result in self.wanted.values()
            for before in result.dependencies
        ]


def flags() -> list[str]:
    """What is asked, as people write it."""
    words = ["--smoke"]
    for name, value in ASKED.items():
        words.append(f"--{name.replace('_', '-')}")
        words += map(str, value) if isinstance(value, tuple) else [str(value)]
    return words


@pytest.fixture(scope="module")
def story(make_home) -> Story:
    home: Home = replace(make_home("designs"), script=ROOT / "sweeps" / "idsds_models.py")
    sweep = IdsdsModels(smoke=True, data_root=str(home.data_root), **ASKED).small()
    dataset, _ = indexed(sweep.data(), home.storage / "index")
    wanted = {result.result_id: result for result in sweep.asked(dataset)}

    def under_way() -> dict[str, int]:
        """Fine-tunings with an epoch and no summary, by id."""
        epochs, done = home.epochs(), home.summaries()
        tuned = [i for i, result in wanted.items() if isinstance(result, IdsdsFinetuning)]
        return {i: epochs[i] for i in tuned if i in epochs.keys() - done}

    def halfway() -> bool:
        """Fine-tuning is under way, and all methods have judged a network."""
        return bool(under_way()) and any(
            run.data.tags["kind"] == ProtocolEvaluation.name and run.info.status == "FINISHED"
            for run in home.runs().values()
        )

    with home.started(*flags()) as process:
        wait_until(halfway, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        workers_end(home)
    victims, complete, after_kill = under_way(), set(home.summaries()), home.runs()
    seen = {i: [epoch] for i, epoch in victims.items()}
    with home.started(*flags()) as process:
        while process.poll() is None:
            epochs = home.epochs()
            for i, history in seen.items():
                history.append(epochs.get(i, history[-1]))
            time.sleep(0.05)
        last = end_of(process)
    return Story(home, wanted, victims, complete, after_kill, seen, last, home.runs())


def test_the_driver_was_killed_halfway(story):
    """The premise: a network was judged, a fine-tuning was under way."""
    states = {i: run.info.status for i, run in story.after_kill.items()}
    assert states.keys() == story.wanted.keys()
    judged = {r.bundle for r in story.of(ProtocolEvaluation) if states[r.result_id] == "FINISHED"}
    assert judged
    assert story.victims
    assert {states[i] for i in story.victims} == {"RUNNING"}
    assert all(0 < epoch < EPOCHS for epoch in story.victims.values())
    assert not story.victims.keys() & story.complete


def test_exactly_the_missing_is_computed(story):
    assert (story.last.code, story.last.err) == (0, "")
    there = {i for i, run in story.after_kill.items() if run.info.status == "FINISHED"}
    count = f"{len(story.wanted)} results: {len(there)} are there, "
    assert count + f"{len(story.wanted) - len(there)} to compute in " in story.last.out
    for i in there:
        assert story.runs[i].data.tags["attempt"] == "1"
        assert story.runs[i].info.end_time == story.after_kill[i].info.end_time
    launch = story.home.launches()[0].info.run_id
    again = {i for i, run in story.runs.items() if run.data.tags["launch"] == launch}
    assert again == story.wanted.keys() - there


def test_the_study_is_complete_and_reported(story):
    assert story.runs.keys() == story.wanted.keys()
    assert {run.info.status for run in story.runs.values()} == {"FINISHED"}
    assert "I10" in story.last.out
    assert [run.info.status for run in story.home.launches()] == ["FINISHED", "KILLED"]


def test_a_killed_fine_tuning_goes_on_from_its_checkpoint(story):
    for i in story.victims:
        assert story.runs[i].data.tags["attempt"] == "2"
        assert story.seen[i] == sorted(story.seen[i])
        assert story.seen[i][-1] == EPOCHS


def test_no_epoch_is_told_twice(story):
    for result in story.of(IdsdsFinetuning):
        history = story.home.histories(story.runs[result.result_id])["train/loss"]
        assert sorted(step for step, _ in history) == list(range(1, EPOCHS + 1))


def test_nothing_begins_before_what_it_depends_on_has_ended(story):
    pairs = story.dependencies()
    kinds = {run.data.tags["kind"] for run, _ in pairs}
    assert kinds == {c.name for c in (IdsdsFinetuning, ProtocolEvaluation, NetworkComparison)}
    for run, before in pairs:
        label = f"{run.data.tags['label']} after {before.data.tags['label']}"
        assert int(run.data.tags["began"]) >= before.info.end_time, label


def test_what_was_judged_are_the_weights_that_the_training_finished_with(story):
    """Unchanged since before the evaluation began, and what the summary says."""
    summaries = story.home.summaries()
    for result in story.of(ProtocolEvaluation):
        assert isinstance(result, ProtocolEvaluation)
        summary = summaries[result.of.result_id]
        folder = story.home.storage / result.of.result_id
        path = weights_path(folder, summary["epoch"])
        assert summary["weights"][str(summary["epoch"])] == sha256_of(path)
        began = int(story.runs[result.result_id].data.tags["began"])
        for file in (path, folder / "result.json"):
            assert file.stat().st_mtime_ns // 1_000_000 <= began, (result.label, file.name)


def test_fine_tunings_ended_with_their_last_epoch(story):
    summaries = story.home.summaries()
    tuned = story.of(IdsdsFinetuning)
    assert len(tuned) == 2
    assert {summaries[result.result_id]["epoch"] for result in tuned} == {EPOCHS}
