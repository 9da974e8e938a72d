"""``python -m data_pipelines.shards`` as a process: killed and run again, and against S3."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.location import location
from data_pipelines.manifest import Manifest, indexed
from data_pipelines.shards import shard_paths

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow]


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "data_pipelines.shards", *flags]


def convert(*flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*flags), cwd=ROOT, env=os.environ | variables,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """1300 scenes, 7 shards; its folder is also a VOC root."""
    root = str(tmp_path_factory.mktemp("source"))
    sample = DigitScenes(root=root, images_train=1280, images_val=10, images_test=10)
    sample.prepare()
    return sample


def test_a_killed_driver_leaves_nothing_broken_and_the_next_run_doubles_nothing(source, tmp_path):
    flags = ("--layout", "voc", "--source", str(source.folder), "--out", str(tmp_path))
    driver = subprocess.Popen(
        command(*flags), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    )
    done: list[Path] = []
    deadline = time.monotonic() + 120
    while len(done) < 2 and time.monotonic() < deadline:
        done = list(tmp_path.glob("voc-*/train.shards/*.parquet"))
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert len(done) >= 2
    assert not list(tmp_path.glob("voc-*/manifest.json"))
    time.sleep(2)  # its workers end
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("voc-*/*.shards/*.parquet")}
    for path in before:
        assert pq.read_table(path).num_rows > 0
    again = convert(*flags)
    assert again.returncode == 0, again.stderr
    (home,) = tmp_path.iterdir()
    manifest = Manifest.read(home)
    assert manifest is not None
    told = re.search(r"(\d+) of 7 shards to write", again.stdout)
    assert told is None or int(told[1]) == 7 - len(before)
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    assert f"fingerprint {indexed(source, tmp_path / 'index')[1].fingerprint}" in again.stdout
    for split, images in (("train", 1280), ("val", 10), ("test", 10)):
        paths = shard_paths(manifest, split)
        assert sorted(paths[0].parent.iterdir()) == paths
        ids = [i for path in paths for i in pq.read_table(path)["image_id"].to_pylist()]
        assert ids == list(manifest.image_ids(split))
        assert len(set(ids)) == images
    started = time.monotonic()
    nothing = convert(*flags)
    assert "nothing to do" in nothing.stdout
    assert time.monotonic() - started < 10  # a second, on a machine that does nothing else


@pytest.fixture(scope="module")
def s3():
    """An S3 on loopback with one bucket; the environment says where and who we are."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "hidden-word",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        location("s3://bucket").fs.mkdir("bucket")
        yield variables
    server.stop()


RESIDENT = """
import sys
import numpy as np, ray
from data_pipelines.image_set import load_locally
from data_pipelines.manifest import indexed
from data_pipelines.streamed_set import streamed
from data_pipelines.streaming import resident
from data_pipelines.voc import Voc

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
dataset, manifest = indexed(Voc(root="s3://bucket/shards"), sys.argv[2])
published, index = indexed(Voc(root=sys.argv[1]), sys.argv[2])
ours = resident(dataset, manifest, "val", 64).load()
theirs = load_locally(published, index, "val", 64)
everything = range(len(theirs))
stream = streamed(dataset, manifest, "val", 64).load()
batches = [np.arange(7), np.arange(7, 12)]
with stream.expecting(batches):
    streamed_pixels = np.concatenate([stream.images(batch) for batch in batches])
same = np.array_equal(ours.images(everything), theirs.images(everything))
same = same and np.array_equal(streamed_pixels, theirs.images(everything))
same = same and ours.class_maps == theirs.class_maps
print("same", len(ours), same and dataset.result_id == published.result_id)
"""


def test_from_s3_to_s3_and_into_the_resident_feed(sample, s3, tmp_path):
    location("s3://bucket").fs.put(str(sample.folder), "bucket/voc", recursive=True)
    flags = ("--layout", "voc", "--source", "s3://bucket/voc", "--out", "s3://bucket/shards")
    done = convert(*flags)
    assert done.returncode == 0, done.stderr
    assert "40 images" in done.stdout
    assert "nothing to do" in convert(*flags).stdout
    (path,) = location("s3://bucket/shards").glob("*/manifest.json")
    for said in (done.stdout, done.stderr, path.read_text()):
        assert "hidden-word" not in said
    read = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(sample.folder), str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "same 12 True" in read.stdout, read.stderr[-3000:]


def test_an_address_that_does_not_answer_is_bad_input(s3, source):
    done = convert("--layout", "voc", "--source", "s3://bucket/none", "--out", "s3://bucket/out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "s3://bucket/none/VOCdevkit/VOC2007/Annotations is missing" in done.stderr
    dead = convert(
        "--layout", "voc", "--source", str(source.folder), "--out", "s3://bucket/out",
        AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1",
    )  # fmt: skip
    assert (dead.returncode, dead.stderr.count("\n")) == (2, 1), dead.stderr
    assert dead.stderr.startswith("error: --out s3://bucket/out: ")
