"""Which feed a sweep takes, and how many trials that leaves room for."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_pipelines.image_set import ImageSet, load_locally
from data_pipelines.manifest import indexed
from data_pipelines.voc import Voc
from sweeps.guidance_lambda import GuidanceLambda
from sweeps.launch.cluster import check_room, refuse_shuffled, room_for_streams
from sweeps.launch.plan import closure
from tests.sweeps.launches import Ended, Home, wait_until
from tests.sweeps.stories import GRID, workers_end
from trainables.result import Result
from trainables.trial import feed_key, run

DATA = Voc(root="nowhere", fingerprint="0123456789abcdef")


def sweep(**flags) -> GuidanceLambda:
    small = {"losses": ("energy",), "layers": ("final",), "lambda_loc": (5e-3,)}
    return GuidanceLambda(dataset="voc", data_root="nowhere", **small | flags)


def asked(**flags) -> list[Result]:
    return sweep(**flags).asked(DATA)


def ids(results: list[Result]) -> list[str]:
    return [result.result_id for result in results]


def test_the_feed_is_no_part_of_a_results_identity_but_the_shuffle_is():
    assert ids(asked(feed="resident")) == ids(asked()) == ids(list(sweep().results(DATA)))
    streamed = ids(asked(feed="streamed"))
    assert streamed == ids(asked(feed="resident", shuffle="windows"))
    assert not set(streamed) & set(ids(asked()))


def test_a_stream_cannot_shuffle_all_images():
    with pytest.raises(ValueError, match="--feed streamed --shuffle all"):
        asked(feed="streamed", shuffle="all")


def test_workers_are_part_of_a_results_identity():
    by_gpus = asked(gpus_per_trial=2.0)
    assert ids(by_gpus) == ids(asked(workers_per_trial=2))
    assert not set(ids(by_gpus)) & set(ids(asked()))
    assert ids(asked(gpus_per_trial=0.5)) == ids(asked(gpus_per_trial=1.0)) == ids(asked())


def test_a_stream_needs_a_cpu_beside_its_trial():
    assert room_for_streams(sweep(), 1, 2.0, 0.0) == (1, 1)
    assert room_for_streams(sweep(), 1, 9.0, 0.0) == (4, 1)
    assert room_for_streams(sweep(max_concurrent=2), 1, 9.0, 0.0) == (2, 3)
    assert room_for_streams(sweep(gpus_per_trial=0.5), 2, 16.0, 1.0) == (2, 6)
    assert room_for_streams(sweep(gpus_per_trial=4.0), 1, 32.0, 4.0) == (1, 7)


@pytest.mark.parametrize(
    ("flags", "cpus", "words"),
    [
        ({}, 1.0, r"1 trial\(s\) x \(1 \+ 1 for its Data execution\) CPU = 2 CPU.* are 1; .*"),
        ({"max_concurrent": 2}, 3.0, r"2 trial\(s\) x .* = 4 CPU, .* are 3; lower --max-conc.*"),
        ({"workers_per_trial": 2}, 3.0, r"2 workers x \(1 \+ 1 .* = 4 CPU"),
    ],
)
def test_what_would_wait_for_ever_is_refused_with_the_arithmetic_and_the_remedy(flags, cpus, words):
    with pytest.raises(ValueError, match=words):
        room_for_streams(sweep(**flags), 1, cpus, 0.0)
    with pytest.raises(ValueError, match=words):  # also before Ray starts
        check_room(sweep(feed="streamed", **flags), 1, cpus, 0.0)
    if flags != {"max_concurrent": 2}:
        check_room(sweep(**flags), 1, cpus, 0.0)  # resident: every CPU is a trial's


def test_workers_and_gpus_that_disagree_are_refused():
    with pytest.raises(ValueError, match="--workers-per-trial 3 --gpus-per-trial 2"):
        check_room(sweep(workers_per_trial=3, gpus_per_trial=2.0), 1, 8.0, 8.0)


def test_a_training_that_shuffles_everything_is_not_streamed():
    results = asked()
    streams = {feed_key(results[0], "train")}
    with pytest.raises(ValueError, match=r"over 5 MiB allowed: streamed feed; take --shuffle wind"):
        refuse_shuffled(results, streams, ["over 5 MiB allowed: streamed feed"])
    refuse_shuffled(asked(shuffle="windows"), streams, [])


@dataclass(frozen=True)
class Loaded:
    """A split in this process."""

    images: ImageSet

    def load(self) -> ImageSet:
        return self.images


@pytest.fixture(scope="module")
def resumed(make_home) -> tuple[Home, Ended]:
    """A sweep that streams, its driver killed in the middle of a training, and once more."""
    home: Home = make_home("streams")
    flags = (*GRID, "--feed", "streamed", "--baseline-epochs", "3", "--epochs", "1")
    with home.started(*flags) as process:
        wait_until(lambda: any(epoch >= 1 for epoch in home.epochs().values()), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        workers_end(home)
    assert not home.summaries()  # nothing was finished
    return home, home.run(*flags)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestAStreamedSweep:
    def test_it_ends_where_one_trial_and_its_stream_have_all_cpus(self, resumed):
        _, ended = resumed
        assert (ended.code, ended.err) == (0, ""), ended
        assert ended.out.count("streamed feed (--feed streamed)") == 3
        cpus = len(os.sched_getaffinity(0))
        assert f"for its Data execution) of {cpus} CPU" in ended.out
        for noise in ("ray::", "MapWorker", "Dataset", "Running", "INFO", "WARNING"):
            assert noise not in ended.out

    def test_it_equals_a_resident_one_with_the_same_shuffle_bit_for_bit(self, resumed, tmp_path):
        home, _ = resumed
        flags = {"losses": ("energy",), "layers": ("final",), "shuffle": "windows"}
        sweep = GuidanceLambda(
            smoke=True, data_root=str(home.data_root), baseline_epochs=3, epochs=1, **flags
        ).small()
        dataset, manifest = indexed(sweep.data(), tmp_path / "index")
        wanted = {r.result_id: r for r in closure(sweep.asked(dataset))}
        first = next(iter(wanted.values()))
        feeds = {
            feed_key(first, split): Loaded(load_locally(dataset, manifest, split, first.size_px))
            for split in dataset.splits()
        }
        storage: Path = tmp_path / "storage"
        for result in wanted.values():
            assert run(result, storage, feeds, lambda _: None)
        left = home.summaries()
        assert left.keys() == wanted.keys()
        for result_id, summary in left.items():
            assert json.loads((storage / result_id / "result.json").read_text()) == summary
