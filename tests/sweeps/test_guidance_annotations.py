"""Which trainings the sweep over annotations asks for, and what it shares with the other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.manifest import Manifest, SplitSummary
from sweeps.guidance_annotations import GuidanceAnnotations
from sweeps.guidance_lambda import GuidanceLambda
from trainables.guided_training import GuidedTraining
from trainables.result import Result

DATA = DigitScenes(fingerprint="0123456789abcdef")
PUBLISHED: dict[str, Any] = {"dataset": "voc2007", "data_root": "nowhere"}


def results_of(sweep: GuidanceAnnotations | GuidanceLambda) -> dict[str, Result]:
    return {r.result_id: r for r in sweep.results(DATA)}


def guided_of(**flags: Any) -> list[GuidedTraining]:
    every = results_of(GuidanceAnnotations(**flags)).values()
    return [r for r in every if isinstance(r, GuidedTraining) and r.loss is not None]


def kinds_of(guided: list[GuidedTraining]) -> Counter[tuple[float, float]]:
    return Counter((r.annotated_fraction, r.dilation) for r in guided)


def test_the_papers_grid():
    """72 of few annotations, 54 of dilated boxes, and 36 of all boxes as they are."""
    guided = guided_of(**PUBLISHED)
    assert kinds_of(guided) == {
        (0.01, 0): 36, (0.1, 0): 36, (1, 0): 36, (1, 0.1): 18, (1, 0.25): 18, (1, 0.5): 18,
    }  # fmt: skip
    assert {r.loss.name for r in guided} == {"energy", "l1"}
    dilated = {r.attribution.layer for r in guided if r.dilation}
    assert dilated == {"input"}


def test_the_demo_has_one_b_cos_network_and_each_losss_largest_lambda():
    guided = guided_of()
    assert len(guided) == 18
    assert {r.start.network.name for r in guided} == {"small_bcos_resnet"}
    plain = {r.loss.name: r.lambda_loc for r in guided if r.annotated_fraction == 1}
    assert plain == {"energy": 5e-3, "l1": 1e-2}


def test_lambda_is_divided_by_the_annotated_share():
    """As spec'd: for one per cent energy 5e-2, 1e-1, 5e-1 and l1 1e-1, 5e-1, 1."""
    guided = guided_of(**PUBLISHED, models=("bcos",), layers=("input",))
    used = {
        (r.loss.name, f): sorted(x.lambda_loc for x in guided
                                 if x.loss == r.loss and x.annotated_fraction == f)
        for r in guided for f in (0.01, 0.1)
    }  # fmt: skip
    assert used == {
        ("energy", 0.01): [5e-2, 1e-1, 5e-1], ("l1", 0.01): [1e-1, 5e-1, 1],
        ("energy", 0.1): [5e-3, 1e-2, 5e-2], ("l1", 0.1): [1e-2, 5e-2, 1e-1],
    }  # fmt: skip


def test_lambda_stays_on_demand():
    guided = guided_of(compensate=False, losses=("energy",), layers=("input",))
    assert {r.lambda_loc for r in guided} == {5e-3}


@pytest.mark.parametrize("flags", [{}, PUBLISHED], ids=["sample", "published"])
def test_whatever_has_all_boxes_as_they_are_belongs_to_the_other_sweep_too(flags):
    others = results_of(GuidanceLambda(**flags, grid="paper"))
    ours = results_of(GuidanceAnnotations(**flags, grid="paper"))
    apart = [r for i, r in ours.items() if i not in others]
    assert len(apart) == 72 + 54
    assert all(r.annotated_fraction < 1 or r.dilation > 0 for r in apart)


def test_an_explicit_layer_and_no_dilation():
    guided = guided_of(layers=("mid2",), dilations=(), fractions=(0.5,))
    assert {(r.attribution.layer, r.annotated_fraction) for r in guided} == {("mid2", 0.5)}
    assert len(guided) == 2


def test_a_smoke_run_annotates_at_least_some_of_its_images():
    sweep = GuidanceAnnotations(smoke=True).small()
    guided = [r for r in sweep.results(DATA) if isinstance(r, GuidedTraining) and r.loss]
    assert kinds_of(guided) == {(0.1, 0): 2, (1, 0): 2, (1, 0.5): 2}


def test_a_share_that_comes_to_no_image_is_refused_once_these_are_counted(tmp_path):
    sweep = GuidanceAnnotations(**PUBLISHED)
    few, enough = (
        Manifest(tmp_path, {}, (), "", "", {"train": SplitSummary(n, n, n, {}, {})})
        for n in (99, 100)
    )
    with pytest.raises(ValueError, match=r"--fractions 0\.01: of 99 .* give at least 0\.0102"):
        sweep.check_data(few)
    sweep.check_data(enough)


def test_the_scaled_lambdas_are_told_as_ours():
    assert "lambda is divided by the annotated share (ours): 0.01, 0.1" in (
        GuidanceAnnotations().notes()
    )
    assert not any("ours" in line for line in GuidanceAnnotations(compensate=False).notes())
