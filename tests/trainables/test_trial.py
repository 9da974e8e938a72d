"""Trials: a clean environment for each, failures that stay where they are."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainables.scenes import BASELINE, CONTROL, GUIDED
from trainables import classifier_training
from trainables.attribution_evaluation import AttributionEvaluation
from trainables.losses.localization import Energy
from trainables.trial import Trial, environment, feed_key

WILD = replace(BASELINE, learning_rate=1e20)
"""Diverges at its second step."""
SHORT = replace(BASELINE, epochs=1, seed=5)


def surroundings() -> dict[str, object]:
    """What a process keeps from one trial to the next."""
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002  that it is left alone
        "python": random.getstate(),
    }


@pytest.fixture
def vandal(monkeypatch):
    """Evaluations leave the process in disorder."""
    score = classifier_training.score

    def leave_disorder(*arguments):
        scores = score(*arguments)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(False)
        torch.rand(17)
        return scores

    monkeypatch.setattr(classifier_training, "score", leave_disorder)
    yield
    monkeypatch.undo()


class TestEnvironment:
    """Set at entry, restored at exit."""

    def test_inside_it_is_as_the_result_states(self):
        with torch.no_grad(), environment(replace(BASELINE, threads=2, seed=9)):
            assert torch.get_num_threads() == 2
            assert torch.get_default_dtype() == torch.float32
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_grad_enabled()
            assert not torch.utils.deterministic.fill_uninitialized_memory
            drawn = torch.rand(2)
        assert torch.equal(drawn, torch.rand(2, generator=torch.Generator().manual_seed(9)))

    @pytest.mark.usefixtures("vandal")
    def test_a_trial_leaves_the_process_as_it_was(self, empty_bench):
        before = surroundings()
        assert empty_bench.run(SHORT)
        assert surroundings() == before

    @pytest.mark.usefixtures("vandal")
    def test_a_failed_trial_too(self, empty_bench):
        before = surroundings()
        assert not empty_bench.run(replace(SHORT, learning_rate=1e30, epochs=2, batch_size=40))
        assert surroundings() == before

    def test_the_default_type_of_others_has_no_part_in_it_and_comes_back(self, empty_bench):
        torch.set_default_dtype(torch.float64)
        try:
            before = surroundings()
            assert empty_bench.run(SHORT)
            assert surroundings() == before
        finally:
            torch.set_default_dtype(torch.float32)
        assert empty_bench.weights(SHORT)["fc.weight"].dtype == torch.float32


def test_a_trial_after_another_in_one_process_equals_the_trial_alone(bench, tmp_path):
    alone = bench.beside(tmp_path / "alone", BASELINE, GUIDED.reference)
    assert alone.run(GUIDED)
    bench.run_bundle(SHORT, CONTROL, WILD, GUIDED)  # one of them fails
    assert bench.history(GUIDED) == alone.history(GUIDED)
    ours, theirs = bench.weights(GUIDED), alone.weights(GUIDED)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_failure_takes_only_its_dependents_along(bench):
    of_wild = AttributionEvaluation(of=WILD, attribution=GUIDED.attribution)
    guided_wild = replace(GUIDED, start=WILD)
    bench.run_bundle(WILD, of_wild, guided_wild, CONTROL)
    assert bench.reason(WILD).startswith("DivergedError: loss is nan at epoch 1, step 2")
    assert bench.reason(of_wild) == f"not run: {WILD.result_id} failed"
    assert bench.reason(guided_wild) == f"not run: {WILD.result_id} failed"
    assert len(bench.told(CONTROL, "finished")) == 1
    assert not bench.told(guided_wild, "running")


def test_a_nan_loss_fails_its_result_and_not_the_next_of_the_bundle(bench, tmp_path, monkeypatch):
    alone = bench.beside(tmp_path / "alone", BASELINE, GUIDED.reference)
    assert alone.run(CONTROL)
    monkeypatch.setattr(Energy, "per_map", lambda self, maps, masks: maps.sum((1, 2)) * torch.nan)
    bench.run_bundle(GUIDED, CONTROL)
    assert "localization_loss is nan at epoch 1, step 1" in bench.reason(GUIDED)
    assert bench.history(CONTROL) == alone.history(CONTROL)


def test_what_a_plugin_raises_is_told_with_its_traceback(bench, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("in my loss")

    monkeypatch.setattr(Energy, "per_map", broken)
    assert not bench.run(GUIDED)
    (event,) = bench.told(GUIDED, "failed")
    assert event["reason"] == "ZeroDivisionError: in my loss"
    assert "in broken" in event["traceback"]


def test_a_result_is_told_in_order_and_says_where_it_ran(bench):
    assert bench.run(CONTROL)
    assert [event["event"] for event in bench.events] == ["running", *["epoch"] * 3, "finished"]
    running, finished = bench.events[0], bench.events[-1]
    assert running["pid"] > 0
    assert running["device"]
    assert finished["seconds"] > 0


def test_dependencies_run_first_and_once(empty_bench):
    assert empty_bench.run(GUIDED)
    order = [e["result_id"] for e in empty_bench.events if e["event"] == "running"]
    assert order == [r.result_id for r in (BASELINE, GUIDED.reference, GUIDED)]
    empty_bench.events.clear()
    assert empty_bench.run(replace(GUIDED, lambda_loc=1e-3))
    assert len([e for e in empty_bench.events if e["event"] == "running"]) == 1


def test_a_missing_dependency_is_named_with_the_remedy(empty_bench):
    empty_bench.run_bundle(CONTROL)
    assert "baseline small_resnet_width4 seed 0 has left no result" in empty_bench.reason(CONTROL)


def test_undefined_metrics_are_not_reported(empty_bench):
    trial = Trial(BASELINE, empty_bench.storage, {}, empty_bench.events.append)
    trial.report(3, {"val/f1": 0.5, "val/epg": float("nan"), "val/map": float("inf")})
    assert empty_bench.history(BASELINE) == [(3, {"val/f1": 0.5})]


def test_random_numbers_are_a_function_of_seed_and_stream(empty_bench):
    def drawn(result, *stream):
        return Trial(result, empty_bench.storage, {}, print).generator(*stream).random()

    assert drawn(BASELINE, 1, 2) == drawn(CONTROL, 1, 2)
    others = [(BASELINE, 2, 1), (BASELINE, 1, 3), (SHORT, 1, 2)]
    assert len({drawn(BASELINE, 1, 2), *(drawn(*other) for other in others)}) == 4


def test_results_on_the_same_pixels_share_a_feed():
    assert feed_key(BASELINE, "val") == feed_key(GUIDED, "val") == feed_key(GUIDED.reference, "val")
    assert feed_key(replace(BASELINE, image_size_px=32), "val") != feed_key(BASELINE, "val")
