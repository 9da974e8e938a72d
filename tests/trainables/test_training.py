"""Training: it learns, it repeats, it resumes, it keeps what must be kept."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.trainables.scenes import BASELINE, CONTROL, GUIDED
from trainables.attribution.gradient import InputXGradient
from trainables.losses.localization import RrrStar
from trainables.training import SHUFFLE, best_epoch
from trainables.trial import Trial

LONG = replace(GUIDED, epochs=4, lambda_loc=5e-2)


class Killed(BaseException):
    """What a dead process looks like from inside: nothing catches it."""


def interrupted_at(bench, result, step):
    """An emitter that dies when it is told the metrics of a step."""

    def emit(event):
        bench.events.append(event)
        if event["result_id"] == result.result_id and event.get("step") == step:
            raise Killed

    return emit


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_the_losses_fall(bench):
    longer = replace(BASELINE, epochs=5)
    assert bench.run(longer)
    losses = [metrics["train/loss"] for _, metrics in bench.history(longer)]
    assert losses[-1] < 0.8 * losses[0]
    assert bench.run(LONG), bench.events[-1]
    guided = [m["train/localization_loss"] for _, m in bench.history(LONG) if "train/loss" in m]
    assert guided[-1] < 0.9 * guided[0]


@pytest.mark.parametrize("result", [BASELINE, GUIDED], ids=lambda result: result.name)
def test_a_seed_repeats_bit_for_bit(result, bench):
    (first, second) = (replace(result, epochs=2, seed=seed) for seed in (3, 4))
    assert bench.run(first)
    weights, history = bench.weights(first), bench.history(first)
    for path in sorted(bench.folder(first).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    bench.events.clear()
    torch.rand(3)  # what happened before in the process has no part in it
    assert bench.run(first)
    assert same(bench.weights(first), weights)
    assert bench.history(first) == history
    assert bench.run(second)
    assert not same(bench.weights(second), weights)


@pytest.mark.parametrize("result", [BASELINE, GUIDED], ids=lambda result: result.name)
def test_a_resumed_training_equals_an_undisturbed_one(result, bench, tmp_path):
    result = replace(result, seed=7)
    assert bench.run(result)
    undisturbed = bench.history(result)
    other = bench.beside(tmp_path / "beside", BASELINE, GUIDED.reference)
    with pytest.raises(Killed):
        other.run_with(interrupted_at(other, result, 1), result)
    assert other.kept_epochs(result) == [1]
    assert not (other.folder(result) / "result.json").exists()
    assert other.history(result) == undisturbed[:1]

    other.events.clear()
    assert other.run(result)
    assert other.history(result) == undisturbed  # epoch 1 told again, once, from the checkpoint
    assert digests(other, result) == digests(bench, result)
    assert other.summary(result) == bench.summary(result)


def test_an_interrupted_training_computes_no_finished_epoch_again(bench, monkeypatch):
    with pytest.raises(Killed):
        bench.run_with(interrupted_at(bench, CONTROL, 2), CONTROL)
    epochs = []
    batches = type(CONTROL)._batches
    monkeypatch.setattr(
        type(CONTROL),
        "_batches",
        lambda self, trial, epoch: epochs.append(epoch) or batches(self, trial, epoch),
    )
    assert bench.run(CONTROL)
    assert epochs == [3]
    bench.events.clear()
    assert bench.run(CONTROL)  # finished: nothing but its history
    assert epochs == [3]
    assert [step for step, _ in bench.history(CONTROL)] == [1, 2, 3]


def digests(bench, result):
    """sha256 of every kept weights file."""
    files = sorted((bench.folder(result) / "weights").iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("result", [BASELINE, LONG, CONTROL], ids=lambda r: r.label)
def test_the_best_the_last_and_the_front_are_kept_and_no_other_weights(result, bench):
    result = replace(result, epochs=6, seed=2)
    assert bench.run(result), bench.events[-1]
    trained = [metrics for _, metrics in bench.history(result) if "train/loss" in metrics]
    expected = result.keeps(trained)
    assert {best_epoch(trained, "val/f1"), 6} <= expected
    assert expected < set(range(1, 7))  # else nothing is shown
    assert set(bench.kept_epochs(result)) == expected
    weights = bench.summary(result)["weights"]
    assert set(map(int, weights)) == expected
    assert bench.summary(result)["epoch"] == best_epoch(trained, "val/f1")
    named = {f"epoch-{int(epoch):04d}.safetensors": digest for epoch, digest in weights.items()}
    assert digests(bench, result) == named


def test_the_best_epoch_is_the_first_maximum_and_never_undefined():
    history = [{"val/f1": value} for value in (0.2, 0.5, 0.5, float("nan"), 0.4)]
    assert best_epoch(history, "val/f1") == 2
    assert best_epoch([{"val/f1": float("nan")}, {"val/f1": 0.0}], "val/f1") == 2
    assert best_epoch([{}, {}], "val/f1") == 1


def test_a_batch_holds_each_image_once_in_an_order_of_its_seed_and_epoch(empty_bench):
    trial = Trial(BASELINE, empty_bench.storage, empty_bench.feeds, empty_bench.events.append)
    first = [batch for _, batch in BASELINE._batches(trial, 1)]
    assert [number for number, _ in BASELINE._batches(trial, 1)] == [1, 2, 3, 4, 5]
    assert sorted(np.concatenate(first)) == list(range(40))
    again = [batch for _, batch in BASELINE._batches(trial, 1)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = np.concatenate([batch for _, batch in BASELINE._batches(trial, 2)])
    assert not np.array_equal(np.concatenate(first), other)


def test_the_control_is_plain_training_from_the_best_epoch(bench):
    assert bench.run(CONTROL)
    images = bench.splits["train"]
    model = BASELINE.network.build(3)
    model.module.load_state_dict(bench.weights(BASELINE, bench.summary(BASELINE)["epoch"]))
    optimizer = torch.optim.Adam(model.module.parameters(), lr=CONTROL.learning_rate)
    model.module.train()
    for epoch in (1, 2, 3):
        order = np.random.default_rng([CONTROL.seed, SHUFFLE, epoch]).permutation(40)
        for start in range(0, 40, 8):
            batch = order[start : start + 8]
            x = model.encode(torch.from_numpy(images.images(batch)))
            labels = torch.from_numpy(images.labels[batch]).float()
            optimizer.zero_grad()
            logits = model.module(x)
            functional.binary_cross_entropy_with_logits(logits, labels).backward()
            optimizer.step()
    assert same(bench.weights(CONTROL, 3), dict(model.module.state_dict()))


class TestDivergence:
    """A loss that is no number fails its result, with the place where it came about."""

    def test_of_the_classification_names_epoch_and_step(self, empty_bench):
        wild = replace(BASELINE, learning_rate=1e20)
        assert not empty_bench.run(wild)
        expected = "DivergedError: loss is nan at epoch 1, step 2; lower the learning rate"
        assert empty_bench.reason(wild).startswith(expected)

    def test_of_the_maps_names_epoch_and_step(self, bench):
        wild = replace(GUIDED, learning_rate=1e20)
        assert not bench.run(wild)
        assert bench.reason(wild).startswith("ValueError: epoch 1, step 2: input_x_gradient_final")

    def test_of_the_localization_loss_names_epoch_and_step(self, bench, monkeypatch):
        monkeypatch.setattr(
            RrrStar, "per_map", lambda self, maps, masks: maps.sum((1, 2)) * torch.nan
        )
        broken = replace(GUIDED, loss=RrrStar(), lambda_loc=1e-5)
        assert not bench.run(broken)
        assert "localization_loss is nan at epoch 1, step 1" in bench.reason(broken)

    def test_after_the_last_step_names_the_evaluation(self, empty_bench):
        wild = replace(BASELINE, learning_rate=1e30, batch_size=40)
        assert not empty_bench.run(wild)
        assert "evaluation after epoch 1" in empty_bench.reason(wild)

    def test_leaves_no_checkpoint_of_its_epoch(self, empty_bench):
        wild = replace(BASELINE, learning_rate=1e20)
        assert not empty_bench.run(wild)
        assert not list(empty_bench.folder(wild).iterdir())


@pytest.mark.parametrize("field", ["epochs", "batch_size", "learning_rate"])
@pytest.mark.parametrize("value", [0, -1])
def test_counts_and_rates_that_are_not_positive_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"ClassifierTraining.{field} = .*must be positive"):
        replace(BASELINE, **{field: value})


def test_training_at_any_module_path_works(bench):
    result = replace(GUIDED, attribution=InputXGradient(layer="layer2.0.conv1"), epochs=1)
    result.check()
    assert bench.run(result), bench.events[-1]
