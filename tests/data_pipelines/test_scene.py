"""Composed scenes."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from data_pipelines.glyph import covered_patches
from data_pipelines.scene import Scene, SceneStyle, compose
from data_pipelines.sources import Sources, partitioned_sources

HUES = np.array([colorsys.hsv_to_rgb(k / 10, 1, 1) for k in range(10)]) * 255


@pytest.fixture(scope="module")
def sources() -> Sources:
    return partitioned_sources(0)["train"]


def scenes(sources: Sources, n: int, *, cued=True, lone=False, **knobs) -> list[Scene]:
    """Scenes 0 to n - 1."""
    style = SceneStyle(**knobs)
    rngs = [np.random.default_rng(k) for k in range(n)]
    return [compose(style, sources, rng, cued=cued, lone=lone) for rng in rngs]


def cue_of(scene: Scene) -> int | None:
    """The class that an opaque cue of three pixels means."""
    for turns in range(4):
        stripe = np.rot90(scene.image, turns)[:3].reshape(-1, 3)
        distance = np.abs(HUES - stripe.mean(axis=0)).max(axis=1)
        if distance.min() <= 1 and stripe.std(axis=0).max() == 0:
            return int(distance.argmin())
    return None


def test_an_image_holds_one_to_three_different_digits_each_with_its_pixels(sources):
    counts = set()
    for scene in scenes(sources, 100):
        assert len(set(scene.labels)) == len(scene.labels)
        assert set(np.unique(scene.instances)) == set(range(len(scene.labels) + 1))
        counts.add(len(scene.labels))
    assert counts == {1, 2, 3}


def test_boxes_are_tight_one_based_and_inclusive(sources):
    for scene in scenes(sources, 30):
        for number, (xmin, ymin, xmax, ymax) in enumerate(scene.boxes, start=1):
            visible = scene.instances == number
            inside = visible[ymin - 1 : ymax, xmin - 1 : xmax]
            assert inside.sum() == visible.sum()
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_boxes_of_one_image_never_overlap(sources):
    for scene in scenes(sources, 50):
        cover = np.zeros((64, 64), dtype=int)
        for xmin, ymin, xmax, ymax in scene.boxes:
            cover[ymin - 1 : ymax, xmin - 1 : xmax] += 1
        assert cover.max() == 1


def test_digits_keep_to_their_sides_and_off_the_cue(sources):
    for scene in scenes(sources, 50, digit_px=(16, 20), cue_px=3, cue_opacity=1.0):
        assert cue_of(scene) is not None
        sides = [(x1 - x0 + 1, y1 - y0 + 1) for x0, y0, x1, y1 in scene.boxes]
        assert max(map(max, sides)) <= 20


def test_the_cue_tells_a_class_in_the_stated_share_of_training_images(sources):
    made = scenes(sources, 400, cue_share=0.5, cue_px=3, cue_opacity=1.0)
    told = np.mean([cue_of(scene) in scene.labels for scene in made])
    by_chance = np.mean([len(scene.labels) / 10 for scene in made])
    expected = 0.5 + 0.5 * by_chance
    assert told == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 400))


def test_the_cue_tells_nothing_outside_training(sources):
    made = scenes(sources, 400, cued=False, cue_share=1.0, cue_px=3, cue_opacity=1.0)
    told = np.mean([cue_of(scene) in scene.labels for scene in made])
    by_chance = np.mean([len(scene.labels) / 10 for scene in made])
    assert told == pytest.approx(by_chance, abs=4 * np.sqrt(0.25 / 400))


def test_the_cue_can_be_absent(sources):
    absent = scenes(sources, 30, cued=False, cue_elsewhere="absent", cue_px=3, cue_opacity=1.0)
    assert {cue_of(scene) for scene in absent} == {None}
    assert {cue_of(scene) for scene in scenes(sources, 30, cue_px=0)} == {None}


def test_a_lone_digit_lies_on_at_least_four_of_sixteen_patches(sources):
    for scene in scenes(sources, 200, lone=True):
        assert len(scene.labels) == 1
        visible = (scene.instances == 1).astype(float)
        assert covered_patches(visible, (slice(0, 64), slice(0, 64)), 64) >= 4


def test_scenes_repeat_and_knobs_change_them(sources):
    first, again = scenes(sources, 5), scenes(sources, 5)
    harder = scenes(sources, 5, contrast=0.05)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    assert any(not np.array_equal(a.image, b.image) for a, b in zip(first, harder, strict=True))


def test_other_sizes_are_composed_too(sources):
    assert scenes(sources, 1, size_px=96)[0].image.shape == (96, 96, 3)


@pytest.mark.parametrize(
    "knobs",
    [
        {"contrast": 1.5},
        {"cue_share": -0.1},
        {"cue_opacity": 2},
        {"digit_counts": (0.5, 0.4)},
        {"digit_counts": ()},
        {"clutter": -1},
        {"cue_px": 64},
    ],
)
def test_an_impossible_knob_is_refused_by_name(knobs):
    with pytest.raises(ValueError, match=rf"SceneStyle\.{next(iter(knobs))} = .*: expected"):
        SceneStyle(**knobs)
