"""Which results are missing, which ride together, and in which order: no Ray, no data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable

import pytest

from sweeps.launch.plan import Plan, closure, has_files, make_plan
from sweeps.launch.weights import prune
from trainables.attribution_evaluation import AttributionEvaluation
from trainables.classifier_training import ClassifierTraining
from trainables.guided_training import GuidedTraining
from trainables.result import Result
from trainables.training import weights_path

IMAGES = {"train": 40, "val": 12, "test": 12}


@pytest.fixture
def baseline(grid) -> ClassifierTraining:
    return next(r for r in grid if isinstance(r, ClassifierTraining))


@pytest.fixture
def control(grid) -> GuidedTraining:
    return next(r for r in grid if isinstance(r, GuidedTraining) and r.loss is None)


@pytest.fixture
def guided(grid) -> GuidedTraining:
    return next(r for r in grid if isinstance(r, GuidedTraining) and r.loss is not None)


@pytest.fixture
def judged_control(grid, control) -> AttributionEvaluation:
    return next(r for r in grid if isinstance(r, AttributionEvaluation) and r.of == control)


@pytest.fixture
def judged_baseline(guided) -> AttributionEvaluation:
    assert guided.reference is not None
    return guided.reference


@pytest.fixture
def plan(tmp_path) -> Callable[[Iterable[Result], Iterable[Result]], Plan]:
    """The plan for some results, others being finished; files lie in tmp_path."""

    def make(results: Iterable[Result], finished: Iterable[Result] = ()) -> Plan:
        ids = {r.result_id for r in finished}
        return make_plan(results, lambda r: r.result_id in ids, tmp_path, IMAGES)

    return make


@pytest.fixture
def leave(tmp_path) -> Callable[..., None]:
    """Write what a finished result leaves: its summary, and a file for each kept epoch."""

    def write(result: Result, *epochs: int) -> None:
        folder, sums = tmp_path / result.result_id, {}
        for epoch in epochs:
            path = weights_path(folder, epoch)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content := f"weights of epoch {epoch}".encode())
            sums[str(epoch)] = hashlib.sha256(content).hexdigest()
        folder.mkdir(exist_ok=True)
        summary = {"epoch": min(epochs, default=0), "weights": sums}
        (folder / "result.json").write_text(json.dumps(summary))

    return write


def ids(results: Iterable[Result]) -> list[str]:
    return [r.result_id for r in results]


def test_closure_brings_everything_that_a_result_depends_on_and_dependencies_first(
    guided, baseline, judged_baseline
):
    order = list(dict.fromkeys(ids(closure([guided]))))
    assert order == ids([baseline, judged_baseline, guided])


def test_everything_is_missing_at_first_and_planned_once(grid, plan):
    made = plan(grid)
    planned = [r.result_id for stage in made.stages for bundle in stage for r in bundle]
    assert sorted(planned) == sorted(made.missing) == sorted({*ids(grid)})
    assert list(made.wanted) == list(made.missing)


def test_a_result_that_is_asked_for_twice_is_planned_once(grid, plan):
    assert len(plan([*grid, *grid]).missing) == len(plan(grid).missing)


def test_an_evaluation_rides_in_the_trial_of_what_it_judges(
    grid, plan, baseline, control, judged_baseline, judged_control
):
    bundles = [ids(bundle) for stage in plan(grid).stages for bundle in stage]
    assert ids([baseline, judged_baseline]) in bundles
    assert ids([control, judged_control]) in bundles


def test_an_evaluation_whose_training_is_finished_is_a_trial_of_its_own(
    grid, plan, leave, judged_baseline
):
    finished = [r for r in grid if r != judged_baseline]
    for result in finished:
        leave(result, 1)
    assert plan(grid, finished).stages == [[[judged_baseline]]]


def test_stages_follow_dependencies(grid, plan):
    made = plan(grid)
    before: set[str] = set()
    for stage in made.stages:
        for bundle in stage:
            within: set[str] = set()
            for result in bundle:
                assert {d.result_id for d in result.dependencies} <= before | within
                within.add(result.result_id)
        before |= {r.result_id for bundle in stage for r in bundle}
    assert len(made.stages) == 2


def test_the_longest_trial_of_a_stage_comes_first(plan, make_grid):
    made = plan(make_grid(losses=("energy", "l1"), layers=("final", "input"), seeds=(0, 1)))
    for stage in made.stages:
        costs = [sum(r.cost(IMAGES) for r in bundle) for bundle in stage]
        assert costs == sorted(costs, reverse=True)
    assert len(made.stages[1]) == 2 * (1 + 2 * 2)  # a control and four guided trainings a seed


def test_what_is_finished_is_not_computed_again_though_its_files_are_gone(grid, plan):
    made = plan(grid, grid)
    assert made.missing == {}
    assert made.stages == []
    assert len(made.wanted) == len(grid)


def test_only_the_missing_result_runs_where_the_files_it_needs_are_there(
    grid, plan, leave, guided, baseline, judged_baseline
):
    leave(baseline, 1, 2)
    leave(judged_baseline)
    assert plan(grid, [r for r in grid if r != guided]).stages == [[[guided]]]


def test_a_dependency_whose_files_are_gone_is_computed_again_and_nothing_else(
    grid, plan, leave, guided, baseline, judged_baseline
):
    leave(judged_baseline)
    made = plan(grid, [r for r in grid if r != guided])
    assert made.stages == [[[baseline]], [[guided]]]


def test_a_dependency_whose_weights_are_not_the_recorded_ones_is_computed_again(
    grid, plan, leave, guided, baseline, judged_baseline, tmp_path
):
    leave(baseline, 1, 2)
    leave(judged_baseline)
    weights_path(tmp_path / baseline.result_id, 2).write_bytes(b"others")
    made = plan(grid, [r for r in grid if r != guided])
    assert list(made.missing) == ids([baseline, guided])


@pytest.mark.parametrize("told", [False, True], ids=["no_summary", "run_is_not_finished"])
def test_a_killed_fine_tuning_goes_on_before_it_is_judged(designs, plan, leave, tmp_path, told):
    """Its weights are there; its summary, if the driver was killed before it took the end."""
    classifier, *judged, tuned, first, second, compared = designs
    leave(classifier, 1)
    for evaluation in judged:
        leave(evaluation)
    leave(tuned, 2)
    (tmp_path / tuned.result_id / "checkpoint.safetensors").touch()
    if not told:
        (tmp_path / tuned.result_id / "result.json").unlink()
    made = plan(designs, [classifier, *judged])
    assert made.stages == [[[tuned]], [[first, second]], [[compared]]]


def test_a_fine_tuning_whose_weights_are_cut_short_is_computed_again_before_it_is_judged(
    designs, plan, leave, tmp_path
):
    classifier, *judged, tuned, first, second, compared = designs
    leave(classifier, 1)
    for evaluation in judged:
        leave(evaluation)
    leave(tuned, 1, 2)
    path = weights_path(tmp_path / tuned.result_id, 2)
    path.write_bytes(path.read_bytes()[:-1])
    made = plan(designs, [classifier, *judged, tuned])
    assert made.stages == [[[tuned]], [[first, second]], [[compared]]]


def test_missing_files_are_followed_down_to_the_first_dependency(
    grid, plan, control, baseline, judged_baseline, judged_control, leave
):
    leave(judged_baseline)
    made = plan([judged_control], [r for r in grid if r != judged_control])
    assert list(made.missing) == ids([baseline, control, judged_control])
    assert [[ids(bundle) for bundle in stage] for stage in made.stages] == [
        [ids([baseline])],
        [ids([control, judged_control])],
    ]


def test_a_summary_without_weights_has_all_its_files(leave, judged_baseline, tmp_path):
    assert not has_files(judged_baseline, tmp_path)
    leave(judged_baseline)
    assert has_files(judged_baseline, tmp_path)


def test_pruning_keeps_the_best_the_last_and_the_front_and_drops_checkpoints(
    leave, guided, tmp_path
):
    leave(guided, 2, 3, 5, 7, 9)  # the best is the lowest here
    folder = tmp_path / guided.result_id
    (folder / "checkpoint.safetensors").touch()
    prune([guided], {guided.result_id: {5}}, tmp_path)
    kept = [epoch for epoch in range(10) if weights_path(folder, epoch).exists()]
    assert kept == [2, 5, 9]
    assert not (folder / "checkpoint.safetensors").exists()
    prune([guided], {}, tmp_path)  # what one launch kept another may drop; twice does no harm
    assert not weights_path(folder, 5).exists()
