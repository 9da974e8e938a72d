"""R11 and R12: Grad-CAM, and the layers between."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.findings.maps import GradCamIsTheSame, LayersFollowTheTrend

R11, R12 = GradCamIsTheSame(), LayersFollowTheTrend()


def two_methods(trainings: Any, epg: float, kind: str = "vanilla") -> Any:
    for method, point in (("grad_cam", (0.8, epg, 0.4)), (None, (0.8, 0.50, 0.4))):
        of = {} if method is None else {"attribution": method}
        trainings.base(kind, "final", **of).curve(kind, "final", "energy", [point], **of)
    return trainings


@pytest.mark.parametrize("kind", ["vanilla", "bcos"])
@pytest.mark.parametrize(
    ("epg", "verdict"), [(0.52, "holds"), (0.525, "fails"), (0.48, "holds"), (0.475, "fails")]
)
def test_grad_cam_must_be_within_two_points(
    trainings: Any, kind: str, epg: float, verdict: str
) -> None:
    found = two_methods(trainings, epg, kind).only(R11, "EPG")
    assert (found.verdict, found.attribution) == (verdict, "grad_cam")
    assert found.effect == pytest.approx(epg - 0.5)


def test_grad_cam_alone_is_not_compared(trainings: Any) -> None:
    trainings.base("vanilla", "final", attribution="grad_cam")
    trainings.curve("vanilla", "final", "l1", [(0.8, 0.5, 0.4)], attribution="grad_cam")
    found = trainings.judged(R11)
    assert (found.comparisons, len(found.missing), found.on_grid) == ((), 48, "undecided")


def test_missing_baseline_leaves_it_undecided(trainings: Any) -> None:
    two_methods(trainings, 0.5).beside.pop()
    assert trainings.only(R11, "EPG").why == "no evaluation of the baseline"


LAYERS = ("input", "mid1", "mid2", "mid3", "final")


def by_depth(trainings: Any, *values: float, layers: tuple[str, ...] = LAYERS) -> Any:
    for layer, epg in zip(layers, values, strict=True):
        trainings.base("xdnn", layer).curve("xdnn", layer, "l1", [(0.8, epg, 0.4)])
    return trainings


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.3, 0.4, 0.5, 0.6, 0.7), "holds"),
        ((0.3, 0.4, 0.38, 0.6, 0.7), "holds"),
        ((0.3, 0.4, 0.37, 0.6, 0.7), "fails"),
        ((0.3, 0.4, 0.39, 0.375, 0.7), "fails"),  # two small steps back are one large
        ((0.7, 0.6, 0.5, 0.4, 0.3), "holds"),
        ((0.7, 0.6, 0.65, 0.4, 0.3), "fails"),
    ],
)
def test_scores_follow_the_trend(trainings: Any, values: list[float], verdict: str) -> None:
    found = by_depth(trainings, *values).only(R12, "EPG")
    assert found.verdict == verdict
    assert found.key in R12.expected()
    assert found.effect == pytest.approx(values[-1] - values[0])


def test_fewer_layers_are_not_the_papers(trainings: Any) -> None:
    by_depth(trainings, 0.3, 0.4, 0.5, layers=("input", "mid2", "final"))
    found = trainings.only(R12, "EPG")
    assert found.verdict == "holds"
    assert found.key.what == "L1 EPG (input, mid2, final alone)"


def test_two_layers_have_no_trend(trainings: Any) -> None:
    found = by_depth(trainings, 0.3, 0.5, layers=("input", "final")).judged(R12)
    assert found.comparisons == ()


def test_nan_at_one_layer_leaves_it_undecided(trainings: Any) -> None:
    by_depth(trainings, 0.3, 0.4, 0.5, 0.6, 0.7).change({"layer": "mid2"}, val_epg=float("nan"))
    found = trainings.only(R12, "EPG")
    assert (found.verdict, found.why) == ("undecided", "L1: no finite scores")
