"""Which bundle is next, and which run without a break."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.search import Searcher

from sweeps.launch import stages
from sweeps.launch.events import Events
from sweeps.launch.plan import Plan, closure, make_plan
from sweeps.launch.queue import Bundle, Queue
from sweeps.launch.stages import dependencies, run_stages, waves
from trainables.classifier_training import ClassifierTraining
from trainables.guided_training import GuidedTraining
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.result import Result

IMAGES = {"train": 40, "val": 12, "test": 12}


@pytest.fixture
def plan(make_grid, tmp_path) -> Plan:
    """A baseline, the control and two guided trainings of each of two seeds."""
    results = make_grid(seeds=(0, 1), losses=("energy", "l1"))
    return make_plan(results, lambda _: False, tmp_path, IMAGES)


@pytest.fixture
def play(monkeypatch, tmp_path) -> Callable[..., tuple[Events, list[tuple[Bundle, list[Bundle]]]]]:
    """Run a plan; its trials do nothing, and each goes on until no other can begin.

    Returns the events, and each bundle that began with those that ran then.
    """

    def run(plan: Plan, fails: Callable[[Result], bool]) -> Any:
        quiet = SimpleNamespace(failed=lambda *_: None, event=lambda *_: None)
        events = Events(quiet, quiet, plan.missing, tmp_path)  # type: ignore[arg-type]
        began: list[tuple[Bundle, list[Bundle]]] = []

        def fit(bundles: list[Bundle], startable: Any, *_: Any) -> None:
            queue, running = Queue(bundles, startable), list[Bundle]()
            while (given := queue.suggest("")) != Searcher.FINISHED:
                if given:
                    for result in given["bundle"]:
                        own = {r.result_id for r in given["bundle"]}
                        needed = {d.result_id for d in result.dependencies} - own
                        assert needed <= events.finished, result.label
                    began.append((given["bundle"], list(running)))
                    running.append(given["bundle"])
                    continue
                for result in running.pop(0):
                    if fails(result):
                        events.fail(result.result_id, "it diverged")
                    else:
                        events.finished.add(result.result_id)
            events.finished |= {result.result_id for bundle in running for result in bundle}

        monkeypatch.setattr(stages, "fit", fit)
        sweep = SimpleNamespace(workers=1)
        others = (tmp_path, None, None, None, quiet, events, {})
        run_stages(plan, sweep, *others)  # type: ignore[arg-type]
        return events, began

    return run


def kinds(bundles: list[Bundle]) -> list[type]:
    return [type(bundle[0]) for bundle in bundles]


def named(*names: str) -> Bundle:
    return list(names)  # type: ignore[arg-type]  # what they are does not matter here


def test_a_bundle_is_given_as_soon_as_what_it_needs_is_there():
    there, needs = {""}, {"a": "", "b": "a", "c": "", "d": "c"}
    queue = Queue(map(named, needs), lambda bundle: bundle if needs[bundle[0]] in there else None)
    assert [queue.suggest(""), queue.suggest("")] == [{"bundle": ["a"]}, {"bundle": ["c"]}]
    assert queue.suggest("") is None
    there.add("c")
    assert queue.suggest("") == {"bundle": ["d"]}
    assert queue.suggest("") is None
    there.add("a")
    assert queue.suggest("") == {"bundle": ["b"]}
    assert queue.suggest("") == Searcher.FINISHED


def test_a_bundle_of_which_nothing_is_left_is_passed_over():
    answers = {"a": named(), "b": named("b")}
    queue = Queue(map(named, answers), lambda bundle: answers[bundle[0]])
    assert queue.suggest("") == {"bundle": ["b"]}
    assert queue.suggest("") == Searcher.FINISHED


def test_all_stages_of_trials_are_one_wave(plan):
    ((kind, wave),) = waves(plan, {})
    assert kind == "alone"
    assert wave == [bundle for stage in plan.stages for bundle in stage]
    assert kinds(wave) == [ClassifierTraining] * 2 + [GuidedTraining] * 6


def test_an_evaluation_waits_for_its_fine_tuning_in_the_same_wave(designs, play, tmp_path):
    """While others run beside it."""
    made = make_plan(designs, lambda _: False, tmp_path, IMAGES)
    ((kind, wave),) = waves(made, {})
    assert kind == "alone"
    events, began = play(made, lambda _: False)
    assert events.finished == made.missing.keys()
    assert len(began) == len(wave)
    beside = [kinds([bundle, *running]) for bundle, running in began]
    assert any({ProtocolEvaluation, IdsdsFinetuning} <= set(found) for found in beside)


def test_a_fine_tuning_that_failed_is_not_judged(designs, play, tmp_path):
    tuned = next(result for result in designs if isinstance(result, IdsdsFinetuning))
    made = make_plan(designs, lambda _: False, tmp_path, IMAGES)
    events, began = play(made, lambda result: result == tuned)
    lost = {result.result_id for result in designs if tuned in closure([result])}
    assert len(lost) == 1 + 2 + 1  # it, two methods, and the comparison
    assert events.failed.keys() == lost
    assert lost & {r.result_id for bundle, _ in began for r in bundle} == {tuned.result_id}


def test_where_another_launch_computes_something_a_wave_depends_on_earlier_ones_only(plan):
    (first, *_), *_ = plan.stages
    found = list(waves(plan, {first[0].result_id: first[0]}))
    assert [len(wave) for _, wave in found] == [2, 6]  # the rest needs the baseline's maps
    before: set[str] = set()
    for _, wave in found:
        behind = {r.result_id for bundle in wave for r in bundle}
        for bundle in wave:
            own = {result.result_id for result in bundle}
            assert not dependencies(bundle) & behind - own - before
        before |= behind


def test_trials_of_several_workers_run_apart(plan):
    def shared(bundle: Bundle) -> Bundle:
        guided = isinstance(bundle[0], GuidedTraining) and bundle[0].loss is not None
        return [replace(result, workers=2) if guided else result for result in bundle]

    first, second = plan.stages
    mixed = Plan(plan.wanted, plan.missing, [first, [shared(bundle) for bundle in second]])
    assert [(kind, len(wave)) for kind, wave in waves(mixed, {})] == [("alone", 4), ("team", 4)]


def test_what_a_dead_trial_left_has_failed_before_anything_waits_for_it(plan):
    told = []
    tracking = SimpleNamespace(failed=lambda *words: told.append(words))
    progress = SimpleNamespace(event=lambda *_: None)
    events = Events(tracking, progress, plan.missing, None)  # type: ignore[arg-type]
    bundle = plan.stages[0][0]
    events.finished.add(bundle[0].result_id)
    trial = SimpleNamespace(get_pickled_error=lambda: None, config={"bundle": bundle})
    events.on_trial_error(1, [], trial)  # type: ignore[arg-type]
    assert events.failed.keys() == {result.result_id for result in bundle[1:]}
    assert all("died 3 times" in reason for _, reason, _ in told)
