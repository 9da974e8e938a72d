"""A training on two workers: what one process computes, though a worker is killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
import ray
import torch

from tests.trainables.conftest import Bench
from tests.trainables.scenes import BASELINE, GUIDED, squares
from trainables.models.fixup_resnet import SmallFixupResNet
from trainables.source import source_fingerprint
from trainables.trial import Event
from trainables.worker_group import WorkerGroup

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

START = replace(BASELINE, network=SmallFixupResNet(width=4), epochs=1)
ONE = replace(GUIDED, start=START, epochs=2)
TWO = replace(ONE, workers=2)
DIVERGING = replace(TWO, learning_rate=1e30)


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    """A Ray that has two CPUs: the session's, if there is one."""
    started = not ray.is_initialized()
    if started:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    if started:
        ray.shutdown()


def group(bench: Bench) -> WorkerGroup:
    return WorkerGroup(2, 0, bench.storage, bench.feeds, source_fingerprint())


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Bench:
    """One process."""
    splits = {"train": squares(39, 0), "val": squares(16, 1), "test": squares(16, 2)}
    bench = Bench(tmp_path_factory.mktemp("alone"), splits)
    assert bench.run(ONE), bench.events[-1]
    return bench


@pytest.fixture(scope="module")
def together(alone, tmp_path_factory) -> Bench:
    """Two workers, undisturbed."""
    bench = alone.beside(tmp_path_factory.mktemp("together"), START, TWO.reference)
    group(bench).run_bundle([TWO], bench.events.append)
    return bench


def test_two_workers_train_as_one_does(alone, together):
    assert [e["event"] for e in together.events] == [
        e["event"] for e in alone.events if e["result_id"] == ONE.result_id
    ]
    (first, _), (second, _) = (bench.history(r)[:2] for bench, r in ((alone, ONE), (together, TWO)))
    for name in ("train/loss", "val/f1", "val/epg"):
        assert second[1][name] == pytest.approx(first[1][name], rel=1e-3, abs=1e-6)
    theirs = together.weights(TWO, 1)
    for name, tensor in alone.weights(ONE, 1).items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_killed_worker_ends_the_trial_which_goes_on_from_its_checkpoint(
    alone, together, tmp_path
):
    bench = alone.beside(tmp_path / "killed", START, TWO.reference)

    def kill(event: Event) -> None:
        bench.events.append(event)
        if event.get("step") == 1:
            (running,) = bench.told(TWO, "running")
            os.kill(running["pid"], signal.SIGKILL)

    with pytest.raises(RuntimeError, match="a worker of the trial died"):
        group(bench).run_bundle([TWO], kill)
    assert [step for step, _ in bench.history(TWO)] == [1]
    assert not bench.told(TWO, "failed")

    bench.events.clear()
    group(bench).run_bundle([TWO], bench.events.append)
    assert bench.history(TWO) == together.history(TWO)
    assert bench.summary(TWO) == together.summary(TWO)


def test_a_result_that_fails_takes_along_only_what_depends_on_it(alone, tmp_path):
    bench = alone.beside(tmp_path / "failing", START, TWO.reference)
    after = replace(TWO.reference, of=DIVERGING)
    group(bench).run_bundle([DIVERGING, after], bench.events.append)
    assert "epoch 1, step " in bench.reason(DIVERGING)
    assert bench.reason(after) == f"not run: {DIVERGING.result_id} failed"
