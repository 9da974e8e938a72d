"""The grid pointing game: which images, which mosaics, whose cells, and who may play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.image_set import ImageSet
from tests.trainables.conftest import Bench
from tests.trainables.scenes import SIZE_PX, Feed
from trainables import grid_evaluation
from trainables.attribution.attribution import Attribution
from trainables.attribution.baseline_maps import UniformMap
from trainables.attribution.cam import GradCam
from trainables.attribution.rise import Rise
from trainables.batch import Batch
from trainables.classifier_training import ClassifierTraining
from trainables.grid_evaluation import GridEvaluation, check_takes, mosaics, split_logits
from trainables.metrics.grid_pg import GridPg
from trainables.models.user_network import UserNetwork
from trainables.trial import Trial, feed_key

COLORS = [(a, b, c) for a in (0, 255) for b in (0, 255) for c in (0, 255)]
"""Classes: pictures of one color each. A ninth class has no picture."""
CLASSES = len(COLORS) + 1
SETTINGS: dict[str, Any] = {"image_size_px": SIZE_PX, "epochs": 1, "learning_rate": 1e-12}
HERE = f"{__name__}:"


class ColorNet(nn.Module):
    """Knows the colors from the start: a map of each, and its mean as logit."""

    depths: ClassVar[dict[str, str]] = {"input": "", "final": "colors"}

    def __init__(self, classes: int):
        super().__init__()
        self.colors = nn.Sequential(nn.Conv2d(3, classes, 1), nn.ReLU())
        corners = 2 * torch.tensor(COLORS).float() / 255 - 1
        with torch.no_grad():
            self.colors[0].weight[:] = -1.0
            self.colors[0].weight[: len(COLORS)] = 10 * corners[:classes, :, None, None]
            self.colors[0].bias[:] = -20.0

    def forward(self, images: Tensor) -> Tensor:
        return self.colors(images).mean((2, 3))


class FixedNet(ColorNet):
    """The same for images of one size."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2:] != (SIZE_PX, SIZE_PX):
            raise AssertionError(f"expected {SIZE_PX} px, got {images.shape[2]}")
        return super().forward(images)


def colors(classes: int) -> nn.Module:
    return ColorNet(classes)


def fixed(classes: int) -> nn.Module:
    return FixedNet(classes)


NETWORK = UserNetwork(build_path=HERE + "colors", encoding="half", check_px=SIZE_PX)
DATA = DigitScenes(layout="imagenet")
TRAINED = ClassifierTraining(network=NETWORK, data=DATA, objective="ce", **SETTINGS)


def pictures(n: int, seed: int) -> ImageSet:
    """Pictures of the colors in turn, a little noisy."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % len(COLORS)
    pixels = np.array(COLORS)[classes][:, None, None] + rng.integers(
        -9, 9, (n, SIZE_PX, SIZE_PX, 3)
    )
    return ImageSet(
        classes=tuple(f"color {k}" for k in range(CLASSES)),
        size_px=SIZE_PX,
        image_ids=np.array([f"{seed}-{row:03d}" for row in range(n)]),
        labels=np.eye(CLASSES, dtype=np.uint8)[classes],
        boxes=np.empty((0, 5), np.int32),
        box_offsets=np.zeros(n + 1, np.int64),
        blocks=[pixels.clip(0, 255).astype(np.uint8)],
        rows=np.arange(n),
    )


class ColorBench(Bench):
    """Feeds of one color an image."""

    @property
    def feeds(self) -> dict[Any, Feed]:
        return {feed_key(TRAINED, split): Feed(images) for split, images in self.splits.items()}


@pytest.fixture(scope="module")
def color_splits() -> dict[str, ImageSet]:
    return {"train": pictures(16, 0), "val": pictures(40, 1)}


@pytest.fixture(scope="module")
def started(color_splits, tmp_path_factory) -> Path:
    bench = ColorBench(tmp_path_factory.mktemp("started"), color_splits)
    assert bench.run(TRAINED), bench.events
    return bench.storage


@pytest.fixture
def bench(color_splits, started, tmp_path) -> ColorBench:
    """The classifier is there."""
    beside = ColorBench(started, color_splits).beside(tmp_path / "storage", TRAINED)
    return ColorBench(beside.storage, color_splits)


def evaluation(method: Attribution | None = None, **changed: Any) -> GridEvaluation:
    fields: dict[str, Any] = {"of": TRAINED, "attribution": method or GradCam(), "side": 2}
    return GridEvaluation(**fields | {"grids": 6} | changed)


def drawn(bench: Bench, result: GridEvaluation) -> grid_evaluation.Grids:
    trial = Trial(result, bench.storage, bench.feeds, bench.events.append)
    return result.drawn(trial, trial.images("val"))


class TestScores:
    def test_a_uniform_map_scores_the_share_of_a_cell(self, bench):
        result = evaluation(UniformMap(), grids=3)
        assert bench.run(result), bench.events
        rows = bench.rows(result)
        assert len(rows) == 3 * 4
        # the filter loses a little at the border, where each cell has equally much of it
        np.testing.assert_allclose(rows["score"], 1 / 4, rtol=1e-5)
        np.testing.assert_allclose(rows["box_area_fraction"], 1 / 4)

    def test_a_map_of_each_color_finds_its_cell(self, bench):
        result = evaluation()
        assert bench.run(result), bench.events
        rows = bench.rows(result)
        assert (rows["score"] > 0.9).all()  # the filter blurs it over the border
        ((_, metrics),) = bench.history(result)
        assert metrics["val/grid_pg_n2"] == pytest.approx(rows["score"].mean())
        assert metrics["val/grid_pg_n2_defined_fraction"] == 1
        assert metrics["images"] == 6
        assert result.directions == {"grid_pg_n2": "max"}

    def test_rows_name_the_mosaics_and_every_class_in_them(self, bench):
        result = evaluation()
        assert bench.run(result), bench.events
        rows, grids = bench.rows(result), drawn(bench, result)
        names = grids.ids(bench.splits["val"].image_ids.tolist())
        assert sorted(set(rows["image_id"])) == sorted(names)
        for name, classes in zip(names, grids.classes.tolist(), strict=True):
            assert sorted(rows[rows["image_id"] == name]["target"]) == sorted(classes)
        assert set(rows["method_key"]) == {"grad_cam"}

    def test_what_a_killed_evaluation_has_done_is_not_done_again(self, bench, monkeypatch):
        result, asked = evaluation(grids=20), list[int]()
        assert bench.run(result), bench.events
        expected = bench.rows(result)
        composed, last = mosaics, 15

        def counted(*arguments: Any) -> Batch:
            asked.extend(arguments[4])
            if max(arguments[4]) > last:
                raise KeyboardInterrupt
            return composed(*arguments)

        monkeypatch.setattr(grid_evaluation, "mosaics", counted)
        with pytest.raises(KeyboardInterrupt):
            bench.run(result)
        asked.clear()
        last = 20
        assert bench.run(result), bench.events
        assert asked == [16, 17, 18, 19]
        assert bench.rows(result).equals(expected)
        assert not (bench.folder(result) / "parts").exists()


class TestMosaics:
    def test_each_cell_is_the_image_of_its_class(self, bench):
        images, result = bench.splits["val"], evaluation(side=2)
        grids = drawn(bench, result)
        names = grids.ids(images.image_ids.tolist())
        batch = mosaics(NETWORK.build(CLASSES), images, grids, names, [4, 1], torch.device("cpu"))
        assert batch.image_ids == [names[4], names[1]]
        assert batch.images.shape == (2, 3, 2 * SIZE_PX, 2 * SIZE_PX)
        assert batch.masks is not None
        for row, (image, target) in enumerate(
            zip(batch.image_index.tolist(), batch.targets.tolist(), strict=True)
        ):
            cell = batch.images[image][:, batch.masks[row]].mean(1)
            wanted = 2 * torch.tensor(COLORS[target]) / 255 - 1
            torch.testing.assert_close(cell, wanted.float(), atol=0.1, rtol=0)
        assert batch.masks.sum(0).eq(2).all()  # once for each of two mosaics

    def test_they_follow_from_the_seed_alone(self, bench):
        first = drawn(bench, evaluation())
        again = drawn(bench, evaluation(UniformMap(), grids=9))
        assert np.array_equal(first.rows, again.rows[:6])
        assert not np.array_equal(first.rows, drawn(bench, evaluation(seed=1)).rows)

    def test_only_sure_and_correct_images_of_one_class_are_taken(self, bench, color_splits):
        val = color_splits["val"]
        labels = val.labels.copy()
        labels[:8] = np.roll(labels[:8], 1, axis=1)  # wrong ones
        labels[8:16] = 1  # of all classes
        other = ColorBench(bench.storage, color_splits | {"val": replace(val, labels=labels)})
        assert drawn(other, evaluation(grids=60)).rows.min() >= 16

    def test_common_images_are_equal_for_all_compared(self, bench):
        second = replace(TRAINED, seed=1)
        assert bench.run(second), bench.events
        compared = (TRAINED, second)
        common = [
            evaluation(of=one, images="common", compared=compared, grids=4) for one in compared
        ]
        for result in common:
            result.check()
            assert bench.run(result), bench.events
        first, other = (bench.rows(result)["image_id"].tolist() for result in common)
        assert first == other
        assert set(common[0].dependencies) == set(compared)

    def test_the_split_goes_through_the_network_once_for_all(self, bench, monkeypatch):
        assert bench.run(evaluation()), bench.events
        monkeypatch.setattr(grid_evaluation, "batches", None)
        assert bench.run(evaluation(UniformMap(), seed=1)), bench.events
        trial = Trial(evaluation(), bench.storage, bench.feeds, bench.events.append)
        images = bench.splits["val"]
        logits = split_logits(trial, TRAINED, "val", images)
        assert logits.shape == (40, CLASSES)
        assert np.array_equal(logits.argmax(1), images.labels.argmax(1))

    def test_a_network_that_knows_too_few_classes_fails_with_a_remedy(self, bench):
        result = evaluation(side=3)
        assert not bench.run(result)
        assert "needs 9 classes and the chosen images have 8" in bench.reason(result)


class TestRefusals:
    """Said before anything is computed."""

    def test_what_works_is_not_refused(self):
        for method in (GradCam(), UniformMap(), Rise()):
            evaluation(method).check()

    def test_too_few_classes(self, monkeypatch):
        evaluation(side=3).check()
        monkeypatch.setattr(DigitScenes, "classes", lambda _: tuple("abcdefgh"))
        evaluation(side=2).check()
        with pytest.raises(ValueError, match="3 x 3 needs 9 classes and digit_scenes has 8"):
            evaluation(side=3).check()

    def test_a_network_of_one_image_size(self):
        network = UserNetwork(build_path=HERE + "fixed", encoding="half", check_px=SIZE_PX)
        check_takes(network, SIZE_PX)
        with pytest.raises(ValueError, match=f"no mosaics of 48 px: expected {SIZE_PX} px, got 48"):
            evaluation(of=replace(TRAINED, network=network)).check()

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"grids": 0}, "grids = 0"),
            ({"confidence": 1.0}, "confidence = 1.0"),
            ({"images": "common"}, "0 networks compared"),
            ({"compared": (TRAINED,)}, "images = 'own', 1 networks compared"),
            ({"images": "common", "compared": (replace(TRAINED, seed=1),)}, "this one among them"),
            (
                {
                    "images": "common",
                    "compared": (TRAINED, replace(TRAINED, image_size_px=32)),
                },
                "no common images",
            ),
        ],
    )
    def test_a_choice_that_cannot_be(self, changed: dict[str, Any], reason: str):
        with pytest.raises(ValueError, match=reason):
            evaluation(**changed).check()


def test_a_bundle_is_one_network_and_one_choice_of_mosaics():
    one = evaluation()
    assert evaluation(UniformMap()).bundle == one.bundle
    others: Sequence[dict[str, Any]] = (
        {"side": 3}, {"seed": 1}, {"grids": 7}, {"confidence": 0.5},
        {"of": replace(TRAINED, seed=1)}, {"images": "common", "compared": (TRAINED,)},
    )  # fmt: skip
    bundles = {evaluation(**changed).bundle for changed in others}
    assert len(bundles | {one.bundle, TRAINED.bundle}) == len(others) + 2


def test_it_is_judged_by_grid_pg_of_its_side():
    assert evaluation(side=3).protocols == (GridPg(side=3),)
    assert evaluation(side=2).protocols[0].chance == 1 / 4
