"""On-object EPG and the pointing game: values by hand and plain loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.metrics.box_size import means_by_box_size
from trainables.metrics.localization import Epg
from trainables.metrics.metric import Metric
from trainables.metrics.on_object import OnObjectEpg
from trainables.metrics.pointing_game import PointingGame, dilated


def score(
    metric: Metric, maps: Tensor, masks: Tensor | None, segments: Tensor | None = None
) -> Tensor:
    images = torch.zeros(len(maps), 3, *maps.shape[1:])
    batch = SimpleNamespace(images=images, masks=masks, segments=segments)
    passes: Any = SimpleNamespace(batch=batch)
    return metric(passes, maps)


MAP = torch.tensor([[[4.0, 1.0], [2.0, 9.0]]])
BOX = torch.tensor([[[True, True], [False, False]]])


def test_the_papers_example_scores_four_fifths() -> None:
    segments = torch.tensor([[[1, 0], [0, 0]]], dtype=torch.int8)
    assert score(OnObjectEpg(), MAP, BOX, segments).item() == pytest.approx(0.8)


def test_the_object_counts_within_its_boxes_only_and_undecided_pixels_do_not() -> None:
    beyond = torch.tensor([[[1, -1], [0, 1]]], dtype=torch.int8)
    assert score(OnObjectEpg(), MAP, BOX, beyond).item() == pytest.approx(0.8)


def test_importance_outside_the_boxes_alone_is_undefined() -> None:
    outside = torch.tensor([[[0.0, -1.0], [2.0, 9.0]]])
    segments = torch.ones(1, 2, 2, dtype=torch.int8)
    assert score(OnObjectEpg(), outside, BOX, segments).isnan().all()


def test_an_object_that_the_annotation_does_not_show_is_undefined() -> None:
    for value in (-1, 0):
        segments = torch.full((1, 2, 2), value, dtype=torch.int8)
        assert score(OnObjectEpg(), MAP, BOX, segments).isnan().all()


def test_a_map_beside_the_object_scores_zero() -> None:
    segments = torch.tensor([[[0, 1], [0, 0]]], dtype=torch.int8)
    assert score(OnObjectEpg(), MAP * torch.tensor([1.0, 0.0]), BOX, segments).item() == 0


def test_what_is_missing_is_named() -> None:
    segments = torch.ones(1, 2, 2, dtype=torch.int8)
    with pytest.raises(ValueError, match="on_object_epg needs masks"):
        score(OnObjectEpg(), MAP, None, segments)
    with pytest.raises(ValueError, match="on_object_epg needs segments"):
        score(OnObjectEpg(), MAP, BOX)
    with pytest.raises(ValueError, match=r"segments of torch\.int8"):
        score(OnObjectEpg(), MAP, BOX, segments.bool())


def test_the_maximum_hits_or_misses() -> None:
    assert score(PointingGame(), MAP, BOX).item() == 0
    assert score(PointingGame(), MAP, ~BOX).item() == 1


def test_equal_maxima_count_in_part() -> None:
    maps = torch.tensor([[[9.0, 1.0], [9.0, 9.0]]])
    assert score(PointingGame(), maps, BOX).item() == pytest.approx(1 / 3)


def test_a_map_without_positive_importance_points_nowhere() -> None:
    maps = torch.stack([torch.zeros(2, 2), -MAP[0]])
    assert score(PointingGame(), maps, BOX.expand(2, 2, 2)).isnan().all()


@pytest.mark.parametrize("tolerance", [0, 1, 2, 5])
def test_tolerance_is_a_distance_in_pixels(tolerance: int) -> None:
    generator = np.random.default_rng(tolerance)
    masks = generator.random((3, 11, 8)) < 0.03
    masks[0] = False
    expected = np.zeros_like(masks)
    for n, y, x in np.ndindex(masks.shape):
        ys, xs = np.nonzero(masks[n])
        expected[n, y, x] = bool((np.hypot(ys - y, xs - x) <= tolerance).any())
    np.testing.assert_array_equal(dilated(torch.from_numpy(masks), tolerance), expected)


def test_a_maximum_near_the_box_hits_with_tolerance() -> None:
    assert score(PointingGame(tolerance_px=1), MAP, BOX).item() == 1
    assert PointingGame(tolerance_px=15).key == "pointing_game_tol15"
    with pytest.raises(ValueError, match="tolerance_px = -1"):
        PointingGame(tolerance_px=-1)


def test_box_sizes_part_the_rows() -> None:
    scores = np.array([0.1, np.nan, 0.3, 0.5, 0.7, 0.9])
    area = np.array([0.0, 0.1, 0.25, 0.49, 0.99, 1.0])
    means = means_by_box_size(Epg(), scores, area)
    assert means == pytest.approx(
        {
            "epg_area0-0.25": 0.05,  # the undefined row counts as 0, as EPG says
            "epg_area0-0.25_defined_fraction": 0.5,
            "epg_area0-0.25_rows": 2,
            "epg_area0.25-0.5": 0.4,
            "epg_area0.25-0.5_defined_fraction": 1,
            "epg_area0.25-0.5_rows": 2,
            "epg_area0.75-1": 0.8,
            "epg_area0.75-1_defined_fraction": 1,
            "epg_area0.75-1_rows": 2,
        }
    )
    halves = means_by_box_size(Epg(undefined="drop"), scores, area, edges=(0, 0.5, 1))
    assert halves["epg_drop_area0-0.5"] == pytest.approx(0.3)


def test_edges_that_do_not_ascend_and_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="must ascend"):
        means_by_box_size(Epg(), np.zeros(1), np.zeros(1), edges=(0.5, 0.5))
    with pytest.raises(ValueError, match=r"\(2,\) scores"):
        means_by_box_size(Epg(), np.zeros(2), np.zeros(1))
