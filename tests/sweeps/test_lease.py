"""One live launch per experiment; a dead one never blocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sweeps.launch.events import Events
from sweeps.launch.progress import Progress
from sweeps.launch.stages import wait_for
from trainables import lease
from trainables.lease import TAG, HeldError, Holder, Lease, computed_elsewhere, holder_of
from trainables.result import Result
from trainables.tracking import Tracking

IMAGES = {"train": 40, "val": 12, "test": 12}


@pytest.fixture
def writer(store, tmp_path) -> Callable[..., Tracking]:
    """One more launch's own connection to the store."""
    return lambda sweep="sweep": Tracking(store, sweep, tmp_path / "artifacts")


@pytest.fixture
def held(tracking) -> Iterator[Lease]:
    """The lease of "sweep", held by this process."""
    lease = Lease(tracking)
    lease.acquire()
    yield lease
    lease.release()


def leave(tracking: Tracking, **fields: object) -> Holder:
    """Write a lease as another launch would have."""
    holder = replace(Holder.me("other"), **fields)
    tracking.set_experiment_tag(TAG, json.dumps(asdict(holder)))
    return holder


def pid_of_the_dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_second_live_launch_is_refused_with_who_and_how_long(held, writer):
    with pytest.raises(HeldError, match=rf"process {os.getpid()} on .*retry in \d+ s"):
        Lease(writer()).acquire()


def test_a_refused_launch_leaves_the_lease_to_its_holder(held, writer):
    before = holder_of(writer())
    with pytest.raises(HeldError):
        Lease(writer()).acquire()
    assert holder_of(writer()) == before


def test_a_released_lease_is_free(tracking, writer):
    first = Lease(tracking)
    first.acquire()
    first.release()
    assert holder_of(tracking) is None
    second = Lease(writer())
    second.acquire()
    second.release()


def test_a_lease_of_another_experiment_does_not_matter(held, writer):
    other = Lease(writer("another_sweep"))
    other.acquire()
    other.release()


def test_a_lease_left_by_a_killed_process_of_this_host_is_free_at_once(tracking):
    left = leave(tracking, pid=pid_of_the_dead(), heartbeat=time.time())
    assert left.seconds_left == 0
    taken = Lease(tracking)
    taken.acquire()
    taken.release()


def test_a_zombie_is_dead(tracking):
    process = subprocess.Popen([sys.executable, "-c", ""])
    start = lease._process_start(process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert leave(tracking, pid=process.pid, process_start=start).seconds_left == 0
    finally:
        process.wait()


def test_a_process_that_inherited_the_number_of_a_dead_one_is_not_taken_for_it(tracking):
    assert leave(tracking, process_start="17").seconds_left == 0


def test_a_live_process_of_this_host_holds_while_its_heart_beats(tracking):
    assert leave(tracking, heartbeat=time.time()).seconds_left > 55


@pytest.mark.parametrize("field", ["host", "boot_id", "pid_namespace"])
def test_a_lease_of_another_host_or_container_is_stale_after_a_minute(tracking, field, monkeypatch):
    left = leave(tracking, **{field: "elsewhere"}, pid=pid_of_the_dead(), heartbeat=1000.0)
    monkeypatch.setattr(lease.time, "time", lambda: 1059.0)
    assert left.seconds_left == pytest.approx(1.0)
    with pytest.raises(HeldError, match=r"retry in 1 s"):
        Lease(tracking).acquire()
    monkeypatch.setattr(lease.time, "time", lambda: 1061.0)
    assert left.seconds_left == 0
    taken = Lease(tracking)
    taken.acquire()
    taken.release()


def test_of_several_launches_at_once_one_wins(writer):
    writers = [writer() for _ in range(4)]
    together = threading.Barrier(len(writers))

    def attempt(tracking: Tracking) -> Lease | None:
        lease = Lease(tracking)
        together.wait()
        try:
            lease.acquire()
        except HeldError:
            return None
        return lease

    with ThreadPoolExecutor(len(writers)) as pool:
        winners = [lease for lease in pool.map(attempt, writers) if lease is not None]
    assert len(winners) == 1
    winners[0].release()
    assert holder_of(writers[0]) is None


def test_the_heart_beats_while_the_lease_is_held(tracking, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    alive = Lease(tracking)
    alive.acquire()
    first = holder_of(tracking)
    deadline = time.monotonic() + 30
    while holder_of(tracking).heartbeat == first.heartbeat and time.monotonic() < deadline:
        time.sleep(0.05)
    assert holder_of(tracking).heartbeat > first.heartbeat
    alive.release()
    assert holder_of(tracking) is None


def test_a_launch_that_lost_its_lease_does_not_release_the_new_holders(tracking):
    late = Lease(tracking)
    late.acquire()
    new = leave(tracking, launch="new")
    late.release()
    assert holder_of(tracking) == new


@pytest.fixture
def shared(writer, grid) -> tuple[Tracking, Tracking, Result]:
    """A result that a launch of another experiment has taken on, seen by ours."""
    other, ours, result = writer("another_sweep"), writer(), grid[0]
    other.open_launch("another_sweep", {})
    other.schedule([result], {})
    ours.entries |= ours.statuses({result.result_id})
    return other, ours, result


def test_a_result_that_a_live_launch_of_another_experiment_computes_is_not_computed_here(shared):
    other, ours, result = shared
    known = ours.statuses({result.result_id})
    assert computed_elsewhere(ours, [result.result_id], known) == set()  # it holds no lease
    holder = Lease(other)
    holder.acquire()
    assert computed_elsewhere(ours, [result.result_id], known) == {result.result_id}
    other.failed(result.result_id, "why")
    assert computed_elsewhere(ours, [result.result_id], ours.statuses({result.result_id})) == set()
    holder.release()


@pytest.fixture
def events(shared, monkeypatch, tmp_path) -> Events:
    monkeypatch.setattr("sweeps.launch.stages.POLL_S", 0.05)
    _, ours, result = shared
    results = {result.result_id: result}
    return Events(ours, Progress(results, IMAGES), results, tmp_path)


def test_a_result_of_another_launch_is_waited_for(shared, events, tmp_path, capsys):
    other, ours, result = shared
    holder = Lease(other)
    holder.acquire()
    waiting = threading.Thread(target=wait_for, args=([result.result_id], ours, events))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    other.finished(result.result_id, 1.0, Path(tmp_path, "none"))
    waiting.join(30)
    holder.release()
    assert result.result_id in events.finished
    assert f"waiting for {result.label}" in capsys.readouterr().out


def test_a_result_whose_launch_dies_is_not_waited_for_for_ever(shared, events):
    other, ours, result = shared
    leave(other, pid=pid_of_the_dead())
    wait_for([result.result_id], ours, events)
    assert "run the command again" in events.failed[result.result_id]


def test_a_result_that_failed_elsewhere_has_failed_here(shared, events):
    other, ours, result = shared
    other.failed(result.result_id, "why")
    wait_for([result.result_id], ours, events)
    assert "FAILED" in events.failed[result.result_id]
