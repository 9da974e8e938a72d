"""Packs of probes: what each learns is its own, whoever shares the features with it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainables.probe_pack_training as pack_training
from data_pipelines.image_set import ImageSet
from sweeps.launch.plan import make_plan
from tests.trainables.conftest import Bench
from tests.trainables.scenes import BASELINE, SIZE_PX, Feed, squares
from tests.trainables.test_training import Killed, interrupted_at, same
from trainables import frozen_features
from trainables.backbone import UntrainedBackbone
from trainables.frozen_features import FrozenBackbone
from trainables.models.bcos_layers import BcosConv2d
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.bcos_vit import SmallBcosViTc
from trainables.models.probe import BcosProbe, ConventionalProbe
from trainables.models.timm_vit import SmallViT
from trainables.probe_training import ProbeTraining
from trainables.team import Dismissed, Team
from trainables.trial import Trial, feed_key, run_bundle

LINEAR = ProbeTraining(
    backbone=UntrainedBackbone(network=BASELINE.network),
    probe=ConventionalProbe(),
    data=BASELINE.data,
    image_size_px=SIZE_PX,
    objective="bce",
    epochs=3,
    batch_size=8,
    learning_rate=1e-2,
    warmup_epochs=1,
    augmentation="crop",
)
DEEP = replace(LINEAR, probe=ConventionalProbe(layers=2, hidden=6), off_target="uniform")
BCOS = replace(LINEAR, probe=BcosProbe(layers=2, hidden=6), optimizer_name="sgd", learning_rate=0.1)
STEEP = replace(LINEAR, learning_rate=3e-2, schedule="constant")
SHORT = replace(LINEAR, epochs=2, off_target="uniform")
PACK = (LINEAR, DEEP, BCOS, STEEP, SHORT)


@dataclass
class ProbeBench(Bench):
    """Feeds of probes."""

    @property
    def feeds(self) -> dict[Any, Feed]:
        return {feed_key(LINEAR, split): Feed(images) for split, images in self.splits.items()}


@pytest.fixture(scope="module")
def small_splits() -> dict[str, ImageSet]:
    return {"train": squares(20, 0), "val": squares(10, 1), "test": squares(6, 2)}


@pytest.fixture
def bench(tmp_path, small_splits) -> ProbeBench:
    return ProbeBench(tmp_path / "storage", small_splits)


@pytest.fixture(scope="module")
def packed(small_splits, tmp_path_factory) -> ProbeBench:
    """All of the pack, trained together."""
    bench = ProbeBench(tmp_path_factory.mktemp("packed"), small_splits)
    bench.run_bundle(*PACK)
    assert {e["event"] for e in bench.events} == {"running", "epoch", "finished"}, bench.events[-1]
    return bench


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """Images of each forward of a backbone."""
    counted: list[int] = []
    call = FrozenBackbone.__call__

    def count(self, pictures):
        counted.append(len(pictures))
        return call(self, pictures)

    monkeypatch.setattr(FrozenBackbone, "__call__", count)
    return counted


@pytest.mark.parametrize("augmentation", ["crop", "none"])
def test_together_is_separate_bit_for_bit(augmentation, bench, tmp_path):
    asked = [replace(probe, augmentation=augmentation) for probe in PACK]
    bench.run_bundle(*asked)
    alone = ProbeBench(tmp_path / "alone", bench.splits)
    for probe in asked:
        assert alone.run(probe), alone.events[-1]
        assert same(alone.weights(probe), bench.weights(probe)), probe.label
        assert alone.history(probe) == bench.history(probe)


def test_fused_heads_learn_the_same_but_for_rounding(packed, bench, monkeypatch):
    monkeypatch.setattr(pack_training, "FUSED", True)
    bench.run_bundle(*PACK)
    fused = False
    for probe in PACK:
        one, other = packed.weights(probe), bench.weights(probe)
        fused |= not same(one, other)
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-5)
    assert fused  # else nothing is shown
    assert same(packed.weights(BCOS), bench.weights(BCOS))  # has no part in it


def test_the_composition_of_a_pack_changes_nothing(packed, bench):
    bench.run_bundle(SHORT, replace(LINEAR, learning_rate=1.0), DEEP)
    for probe in (SHORT, DEEP):
        assert same(packed.weights(probe), bench.weights(probe))
        assert packed.history(probe) == bench.history(probe)


def test_each_probe_leaves_its_head_alone(packed):
    for probe in PACK:
        assert packed.kept_epochs(probe) == [probe.epochs]
        assert packed.summary(probe)["epoch"] == probe.epochs
        assert packed.told(probe, "finished")
    head = packed.weights(LINEAR)
    assert {name: tuple(t.shape) for name, t in head.items()} == {
        "fc0.weight": (3, 16, 1, 1),
        "fc0.bias": (3,),
    }
    steps = [step for step, _ in packed.history(LINEAR)]
    assert steps == [1, 2, 3]
    metrics = packed.history(LINEAR)[-1][1]
    expected = {"f1", "map", "accuracy", "loss", "images"}
    for split in ("val", "test"):
        assert {key.split("/")[1] for key in metrics if key.startswith(split)} == expected
    assert not any(key.startswith("test") for key in packed.history(LINEAR)[0][1])


def test_probes_learn(bench):
    plain = {"augmentation": "none", "epochs": 12, "learning_rate": 0.1}
    probes = [replace(probe, **plain) for probe in (LINEAR, DEEP, BCOS)]
    bench.run_bundle(*probes)
    for probe in probes:
        losses = [metrics["train/loss"] for _, metrics in bench.history(probe)]
        assert losses[-1] < 0.98 * losses[0], probe.label


def test_a_restored_model_gives_the_logits_that_were_judged(packed):
    images = packed.splits["test"]
    for probe in (LINEAR, DEEP, BCOS):
        trial = Trial(probe, packed.storage, packed.feeds, packed.events.append)
        model = probe.model_at(trial, len(images.classes))
        model.module.eval()
        with torch.no_grad():
            logits = model.module(model.encode(torch.from_numpy(images.images(np.arange(6)))))
        torch.testing.assert_close(model.probabilities(logits), logits.sigmoid())
        loss = probe_loss(probe, logits, torch.from_numpy(images.labels).float())
        assert loss == pytest.approx(packed.history(probe)[-1][1]["test/loss"], abs=1e-5)


def probe_loss(probe, logits, labels):
    targets = labels.clamp(min=1 / 3) if probe.off_target == "uniform" else labels
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets).item()


def test_one_forward_an_image_and_epoch_whatever_the_number_of_probes(bench, forwards):
    bench.run_bundle(*PACK)
    train, val, test = (len(bench.splits[s]) for s in ("train", "val", "test"))
    ends = len({probe.epochs for probe in PACK})
    assert sum(forwards) == 3 * train + val + ends * test
    assert bench.summary(LINEAR)["backbone_forwards"] == sum(forwards)


def test_without_augmentation_each_image_goes_through_the_backbone_once(bench, forwards):
    probes = [replace(p, augmentation="none", epochs=3) for p in (LINEAR, DEEP)]
    bench.run_bundle(*probes)
    assert sum(forwards) == sum(map(len, bench.splits.values()))


def test_features_that_do_not_fit_are_made_anew(bench, forwards, monkeypatch):
    monkeypatch.setattr(frozen_features.SplitFeatures.keep, "__defaults__", (16 * 4 * 20,))
    asked = replace(LINEAR, augmentation="none")
    deep = replace(DEEP, augmentation="none")
    bench.run_bundle(asked, deep)
    wasted = 20 + 10  # the chunk that told how large they are
    assert sum(forwards) == wasted + 3 * (20 + 10) + 6
    many = list(forwards)
    assert many  # and the pooled ones were kept: alone, the linear probe needs no more
    forwards.clear()
    other = ProbeBench(bench.storage.parent / "alone", bench.splits)
    assert other.run(asked)
    assert sum(forwards) == 20 + 10 + 6
    assert same(other.weights(asked), bench.weights(asked))


@dataclass(frozen=True, kw_only=True, eq=False)
class Announced(ImageSet):
    """Brings batches only as they were announced, as a stream does."""

    waiting: list[list[int]] = field(default_factory=list)

    @contextmanager
    def expecting(self, batches):
        self.waiting[:] = [batch.tolist() for batch in batches]
        yield
        self.waiting.clear()

    def images(self, indices):
        assert self.waiting.pop(0) == list(indices)
        return super().images(indices)


@pytest.mark.parametrize("augmentation", ["crop", "none"])
def test_a_stream_serves_a_pack_as_well(augmentation, bench):
    asked = [replace(probe, augmentation=augmentation) for probe in (LINEAR, DEEP, SHORT)]
    bench.run_bundle(*asked)
    streams = {
        split: Announced(**{f.name: getattr(images, f.name) for f in fields(images)})
        for split, images in bench.splits.items()
    }
    streamed = ProbeBench(bench.storage.parent / "streamed", streams)
    streamed.run_bundle(*asked)
    for probe in asked:
        assert streamed.history(probe) == bench.history(probe)
    assert not any(stream.waiting for stream in streams.values())


def test_a_probe_that_diverges_fails_alone(packed, bench):
    wild = replace(LINEAR, optimizer_name="sgd", learning_rate=3e38, warmup_epochs=0)
    bench.run_bundle(LINEAR, wild, DEEP)
    told = (
        r"DivergedError: loss is (inf|nan) at epoch \d, step \d, learning rate [\d.]+e\+38; lower"
    )
    assert re.match(told, bench.reason(wild))
    assert not bench.told(wild, "finished")
    for probe in (LINEAR, DEEP):
        assert bench.told(probe, "finished")
        assert same(packed.weights(probe), bench.weights(probe))
    assert not bench.run(wild)  # by itself, too


def test_a_killed_pack_goes_on_with_all_its_probes(packed, bench):
    with pytest.raises(Killed):
        run_bundle_with(bench, interrupted_at(bench, DEEP, 2), PACK)
    assert [step for step, _ in bench.history(LINEAR)] == [1, 2]
    assert [step for step, _ in bench.history(BCOS)] == [1]  # one step behind
    bench.events.clear()
    bench.run_bundle(*PACK)
    for probe in PACK:
        assert same(packed.weights(probe), bench.weights(probe))
        assert bench.history(probe) == packed.history(probe)


def run_bundle_with(bench, emit, probes):
    run_bundle(probes, bench.storage, bench.feeds, emit)


def test_a_killed_pack_makes_no_finished_epoch_again(bench, forwards):
    with pytest.raises(Killed):
        run_bundle_with(bench, interrupted_at(bench, STEEP, 2), PACK)
    forwards.clear()
    bench.run_bundle(*PACK)
    # STEEP has its second epoch on disk, SHORT, which comes after it, does not: both train on
    assert sum(forwards) == (20 + 20) + 10 + (6 + 6)
    bench.events.clear()
    forwards.clear()
    bench.run_bundle(*PACK)  # finished: nothing but its history
    assert forwards == []


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.trainables.scenes import squares
from tests.trainables.test_probe_pack import DEEP, PACK, ProbeBench
from trainables.trial import run_bundle

def emit(event):
    if event["result_id"] == DEEP.result_id and event.get("step") == 2:
        os.kill(os.getpid(), signal.SIGKILL)

splits = {"train": squares(20, 0), "val": squares(10, 1), "test": squares(6, 2)}
run_bundle(PACK, Path(sys.argv[1]), ProbeBench(Path(sys.argv[1]), splits).feeds, emit)
"""


@pytest.mark.slow
def test_a_process_killed_with_its_pack_leaves_nothing_half_written(packed, bench):
    command = [sys.executable, "-c", KILLED, str(bench.storage)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (bench.folder(LINEAR) / "result.json").exists()
    bench.run_bundle(*PACK)
    for probe in PACK:
        assert same(packed.weights(probe), bench.weights(probe))
        assert bench.history(probe) == packed.history(probe)


def test_a_probe_of_the_wrong_data_fails_alone(bench):
    ce = replace(LINEAR, objective="ce")
    bench.run_bundle(ce, LINEAR)
    assert "expected exactly one" in bench.reason(ce)
    assert bench.told(LINEAR, "finished")


def test_a_head_that_raises_fails_its_own_probe(packed, bench, monkeypatch):
    """BCOS is the only one with such layers."""

    def broken(self, x):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(BcosConv2d, "forward", broken)
    bench.run_bundle(LINEAR, BCOS)
    assert bench.reason(BCOS) == "RuntimeError: no such kernel"
    assert same(packed.weights(LINEAR), bench.weights(LINEAR))


def test_what_the_backbone_raises_concerns_all(bench, monkeypatch):
    def broken(self, pictures):
        raise ValueError("image 0-003: its place in the shards holds another")

    monkeypatch.setattr(FrozenBackbone, "__call__", broken)
    bench.run_bundle(LINEAR, DEEP)
    (event,) = bench.told(LINEAR, "failed")
    assert "image 0-003" in event["reason"]
    assert "train_pack" in bench.told(DEEP, "failed")[0]["traceback"]


def test_a_probe_that_is_added_is_trained_alone(packed, bench):
    added = replace(LINEAR, probe=BcosProbe())
    done = {probe.result_id for probe in PACK} | {LINEAR.backbone.result_id}
    images = {split: len(its) for split, its in bench.splits.items()}
    plan = make_plan([*PACK, added], lambda r: r.result_id in done, packed.storage, images)
    assert plan.stages == [[[added]]]
    together = make_plan([*PACK, added], lambda _: False, packed.storage, images)
    assert [[len(bundle) for bundle in stage] for stage in together.stages] == [[len(PACK) + 1]]


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(SmallViT(size_px=SIZE_PX), marks=pytest.mark.slow),  # timm: some seconds
        SmallBcosResNet(width=4),
        SmallBcosViTc(),
    ],
    ids=lambda network: network.key,
)
def test_any_network_with_features_serves_a_pack(network, bench, tmp_path):
    kinds = (ConventionalProbe(), ConventionalProbe(layers=2, hidden=6), BcosProbe(layers=2))
    backbone = UntrainedBackbone(network=network)
    asked = [replace(LINEAR, backbone=backbone, probe=kind, epochs=1) for kind in kinds]
    bench.run_bundle(*asked)
    for probe in asked:
        assert bench.told(probe, "finished"), bench.events
    alone = ProbeBench(tmp_path / "alone", bench.splits)
    assert alone.run(asked[1])
    assert same(alone.weights(asked[1]), bench.weights(asked[1]))


def test_patience_stops_a_probe_and_no_other(bench):
    hasty = replace(LINEAR, epochs=6, patience=1, learning_rate=10.0, schedule="constant")
    long = replace(LINEAR, epochs=6)
    bench.run_bundle(hasty, long)
    stopped, losses = len(bench.history(hasty)), [m["val/loss"] for _, m in bench.history(hasty)]
    assert stopped < 6
    assert losses[-1] >= min(losses[:-1])
    assert bench.summary(hasty)["epoch"] == stopped
    assert "test/loss" in bench.history(hasty)[-1][1]
    assert len(bench.history(long)) == 6


def test_a_worker_that_does_not_lead_takes_its_share_and_writes_nothing(bench, monkeypatch):
    shared = []

    def sum_up(self, parameters, losses, share):
        assert all(p.grad is not None for p in parameters)
        shared.append(share)
        return losses

    monkeypatch.setattr(Team, "sum_up", sum_up)
    probe = replace(LINEAR, workers=2)
    trial = Trial(probe, bench.storage, bench.feeds, bench.events.append, Team(rank=1, size=2))
    with pytest.raises(Dismissed):
        probe.compute(trial)
    assert shared == 3 * [0.5, 0.5, 0.5]
    assert bench.events == []
    assert list(trial.folder.iterdir()) == []
    with pytest.raises(ValueError, match="take patience 0 or one worker"):
        replace(probe, patience=2)
