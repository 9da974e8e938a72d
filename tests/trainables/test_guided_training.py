"""Guided training: what is explained, what counts, and how much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.reference import weak_front
from tests.trainables.conftest import Bench
from tests.trainables.networks import CLASSES, pictures, tiny_model
from tests.trainables.scenes import BASELINE, CONTROL, GUIDED, squares
from trainables import guided_training
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.guided_training import ROUNDING, draw_targets, guided_step, own_front
from trainables.losses.localization import L1, Energy, Ppce, RrrStar
from trainables.losses.loss import Loss
from trainables.trial import Trial

GOLDEN = Path(__file__).parents[1] / "golden" / "guidance"


class TestConstruction:
    """What cannot be a guided training is refused at once."""

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"lambda_loc": -1e-3}, "lambda_loc = -0.001: must not be negative; 0 is the control"),
            ({"lambda_loc": 0.0}, "a positive lambda; the control has none"),
            ({"loss": None}, "has a loss, an attribution and a positive lambda"),
            ({"attribution": None}, "has a loss, an attribution and a positive lambda"),
            ({"annotated_fraction": 0.0}, "annotated_fraction = 0.0"),
            ({"annotated_fraction": 1.5}, "annotated_fraction = 1.5"),
            ({"dilation": -0.1}, "dilation = -0.1"),
            (
                {"lambda_loc": float("nan")},
                "GuidedTraining.lambda_loc = nan: expected a finite number",
            ),
            ({"loss": "energy"}, "GuidedTraining.loss = 'energy'"),
        ],
    )
    def test_is_refused(self, changed, message):
        with pytest.raises(ValueError, match=message):
            replace(GUIDED, **changed)

    @pytest.mark.parametrize(
        "changed", [{"lambda_loc": 1e-3}, {"loss": Energy()}, {"attribution": GradCam()}]
    )
    def test_a_control_with_a_part_of_guidance_is_refused(self, changed):
        with pytest.raises(ValueError, match="the control has none"):
            replace(CONTROL, **changed)

    def test_maps_that_cannot_be_differentiated_are_refused(self, monkeypatch):
        monkeypatch.setattr(GradCam, "differentiable", False)
        with pytest.raises(
            ValueError, match="grad_cam cannot guide: it is not marked differentiable"
        ):
            replace(GUIDED, attribution=GradCam())

    def test_an_unknown_layer_is_refused_before_anything_runs(self):
        with pytest.raises(ValueError, match="unknown layer 'mid4'; known depths: input, mid1"):
            replace(GUIDED, attribution=InputXGradient(layer="mid4")).check()

    def test_minus_zero_is_the_control_too(self):
        assert replace(CONTROL, lambda_loc=-0.0).result_id == CONTROL.result_id


@pytest.mark.parametrize(
    ("loss", "batch_size", "size_px", "factor"),
    [
        (Energy(), 64, 224, 1.0),
        (L1(), 16, 224, 4.0),
        (Ppce(), 16, 64, 4.0),  # a mean over pixels: no pixel factor
        (RrrStar(), 64, 224, 1.0),
        (RrrStar(), 64, 64, (224 / 64) ** 2),
        (RrrStar(), 16, 64, 4 * (224 / 64) ** 2),
    ],
)
def test_lambda_keeps_its_meaning_at_other_batch_and_image_sizes(loss, batch_size, size_px, factor):
    start = replace(BASELINE, image_size_px=size_px)
    result = replace(GUIDED, start=start, loss=loss, batch_size=batch_size)
    assert result.lambda_scale == pytest.approx(factor)


class TestTargets:
    """One positive class of each image, anew each epoch."""

    def draw(self, bench: Bench, images, epoch: int, chosen, seed: int = 0):
        trial = Trial(replace(GUIDED, seed=seed), bench.storage, {}, bench.events.append)
        return draw_targets(trial, images, epoch, np.asarray(chosen))

    def test_are_uniform_over_the_positives(self, empty_bench):
        labels = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 0, 1], [1, 1, 1, 1]])
        images = replace(squares(4, 0), labels=labels.astype(np.uint8))
        counts, epochs = np.zeros((4, 4)), 3000
        for epoch in range(epochs):
            explained, targets = self.draw(empty_bench, images, epoch, range(4))
            counts[explained, targets] += 1
        expected = labels / labels.sum(1, keepdims=True)
        spread = np.sqrt(expected * (1 - expected) / epochs)
        assert (np.abs(counts / epochs - expected) <= 4 * spread).all()

    def test_come_as_often_as_in_the_reference(self, empty_bench):
        arrays = np.load(GOLDEN / "sampling.npz", allow_pickle=False)
        labels, theirs = arrays["targets"], arrays["targets_counts_4000"]
        images = replace(squares(4, 0), labels=labels.astype(np.uint8))
        ours = np.zeros((4, 4))
        for epoch in range(4000):
            ours[self.draw(empty_bench, images, epoch, range(4))] += 1
        assert (ours.sum(1) == theirs.sum(1)).all()
        assert ((ours > 0) == (theirs > 0)).all()
        assert np.abs(ours - theirs).max() <= 4 * np.sqrt(4000 / 2)  # of a difference, at 1/2
        drawn = arrays["targets_sample_seed0"]
        assert ((drawn >= 0) & (labels[np.arange(4), drawn] > 0)).all()

    def test_follow_from_seed_epoch_and_image_whatever_the_batches(self, empty_bench):
        images = squares(30, 5)
        whole = dict(zip(*self.draw(empty_bench, images, 1, range(30)), strict=True))
        order = np.random.default_rng(0).permutation(30)
        for batch in np.array_split(order, 4):
            explained, targets = self.draw(empty_bench, images, 1, batch)
            assert explained.tolist() == batch.tolist()
            assert all(whole[i] == t for i, t in zip(explained, targets, strict=True))
        for epoch, seed in ((2, 0), (1, 1)):
            other = dict(zip(*self.draw(empty_bench, images, epoch, range(30), seed), strict=True))
            assert other != whole

    def test_are_classes_of_the_image_and_none_of_an_unlabeled_one(self, empty_bench):
        images = squares(12, 5, unlabeled=(3, 7))
        explained, targets = self.draw(empty_bench, images, 1, range(12))
        assert sorted({*range(12)} - {*explained}) == [3, 7]
        assert all(images.labels[i, t] for i, t in zip(explained, targets, strict=True))
        explained, targets = self.draw(empty_bench, images, 1, [7, 3])
        assert len(explained) == len(targets) == 0


@pytest.fixture
def steps(monkeypatch):
    """What guided_step was given, call by call."""
    calls = []

    def watched(model, batch, labels, annotated, attribution, loss, weight):
        calls.append(
            SimpleNamespace(batch=batch, labels=labels, annotated=annotated, weight=weight)
        )
        return guided_step(model, batch, labels, annotated, attribution, loss, weight)

    monkeypatch.setattr(guided_training, "guided_step", watched)
    return calls


def image_numbers(batch: Batch) -> list[int]:
    return [int(name.split("-")[1]) for name in batch.image_ids]


def test_an_image_without_label_is_classified_but_not_explained(bench, steps):
    bench.splits = {**bench.splits, "train": squares(40, 0, unlabeled=(4, 11, 12))}
    assert bench.run(replace(GUIDED, epochs=1)), bench.events[-1]
    seen = [i for call in steps for i in image_numbers(call.batch)]
    assert sorted(seen) == list(range(40))
    for call in steps:
        numbers = image_numbers(call.batch)
        explained = {numbers[i] for i in call.batch.image_index}
        assert explained == set(numbers) - {4, 11, 12}
        assert len(call.labels) == len(numbers)


def test_a_batch_without_any_label_is_a_plain_step(bench, steps):
    bench.splits = {**bench.splits, "train": squares(40, 0, unlabeled=range(40))}
    result = replace(GUIDED, epochs=1)
    assert bench.run(result), bench.events[-1]
    assert bench.run(replace(CONTROL, epochs=1))
    assert all(len(call.batch.targets) == 0 for call in steps)
    guided, plain = bench.weights(result, 1), bench.weights(replace(CONTROL, epochs=1), 1)
    assert all(torch.equal(guided[name], plain[name]) for name in plain)


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_a_fraction_of_the_images_keeps_its_boxes_and_all_are_explained(bench, steps, fraction):
    assert bench.run(replace(GUIDED, epochs=2, annotated_fraction=fraction))
    expected = set(np.random.RandomState(0).permutation(40)[: int(fraction * 40)].tolist())
    counted = set()
    for call in steps:
        numbers = np.array(image_numbers(call.batch))[call.batch.image_index]
        assert len(numbers) == len(call.labels)  # with batch statistics nobody is left out
        counted |= set(numbers[call.annotated.numpy()].tolist())
    assert counted == expected


def test_lambda_of_the_step_is_at_our_scale_and_logged(bench, steps):
    assert bench.run(replace(GUIDED, epochs=1))
    assert {call.weight for call in steps} == {5e-3 * 64 / 8}
    ((_, metrics), *_) = bench.history(replace(GUIDED, epochs=1))
    assert metrics["lambda_used"] == 5e-3 * 64 / 8


def test_boxes_are_dilated_in_training_only(bench, steps):
    plain, wide = replace(GUIDED, epochs=1), replace(GUIDED, epochs=1, dilation=0.25)
    assert bench.run(plain)
    assert bench.run(wide)
    half = len(steps) // 2
    for one, other in zip(steps[:half], steps[half:], strict=True):
        assert one.batch.image_ids == other.batch.image_ids
        assert (one.batch.masks <= other.batch.masks).all()
        assert one.batch.masks.sum() < other.batch.masks.sum()
    for result in (plain, wide):
        rows = bench.rows(result)
        assert rows["box_area_fraction"].max() < (9 / 24) ** 2  # as published


class TestGuidedStep:
    """One step on a tiny network, in float64."""

    def step(self, loss: Loss, masks: torch.Tensor, annotated: list[bool]):
        model = tiny_model(training=True)
        batch = Batch.single(pictures(3), torch.tensor([0, 1, 2]), masks)
        labels = torch.eye(CLASSES, dtype=torch.float64)[:3]
        method = InputXGradient(layer="mid3")
        values = guided_step(model, batch, labels, torch.tensor(annotated), method, loss, 0.3)
        return values, [p.grad for p in model.module.parameters()]

    def masks(self) -> torch.Tensor:
        masks = torch.zeros(3, 12, 12, dtype=torch.bool)
        for i in range(3):
            masks[i, i : i + 6, 3:9] = True
        return masks

    @pytest.mark.parametrize("loss", [Energy(), L1(), Ppce(), RrrStar()], ids=lambda loss: loss.key)
    def test_an_empty_mask_counts_as_not_annotated(self, loss):
        empty = self.masks()
        empty[1] = False
        with_empty, gradients = self.step(loss, empty, [True, True, True])
        left_out, expected = self.step(loss, self.masks(), [True, False, True])
        assert with_empty == left_out
        assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))

    def test_the_localization_loss_is_summed_over_the_annotated(self):
        (_, both), _ = self.step(Energy(), self.masks(), [True, False, True])
        singles = [
            self.step(Energy(), self.masks(), [i == k for i in range(3)])[0][1] for k in (0, 2)
        ]
        assert both == pytest.approx(sum(singles), rel=1e-12)

    def test_nobody_annotated_costs_no_explanation(self, monkeypatch):
        monkeypatch.setattr(InputXGradient, "attribute", None)
        (_, localization), gradients = self.step(Energy(), self.masks(), [False, False, False])
        assert localization == 0
        assert all(g is not None for g in gradients)


class TestOwnFront:
    """Epochs of one run that none other of the run dominates."""

    def brute(self, points: np.ndarray) -> set[int]:
        raw = {
            i
            for i, one in enumerate(points)
            if not any((other >= one).all() and (other > one).any() for other in points)
        }
        return {i + 1 for i in raw | set(weak_front(np.round(points / ROUNDING).tolist()))}

    @pytest.mark.parametrize("seed", range(8))
    def test_equals_brute_force(self, seed):
        rng = np.random.default_rng(seed)
        points = rng.random((40, 3)).round(2 if seed % 2 else 4)  # ties, and near ones
        points[20:24] = points[10:14]
        names = guided_training.OBJECTIVES
        history = [dict(zip(names, map(float, point), strict=True)) for point in points]
        assert own_front(history) == self.brute(points)

    def test_of_a_control_is_where_its_f1_is_best(self):
        history = [{"val/f1": value} for value in (0.3, 0.7, 0.5, 0.7)]
        assert own_front(history) == {2, 4}

    def test_no_epoch_of_a_pooled_front_is_missing(self):
        rng = np.random.default_rng(0)
        runs = [rng.random((15, 3)).round(2) for _ in range(3)]
        pooled = np.concatenate(runs)
        for chosen in (
            weak_front(pooled.tolist()),
            weak_front(np.round(pooled / ROUNDING).tolist()),
        ):
            for index in chosen:
                run, epoch = divmod(index, 15)
                history = [
                    dict(zip(guided_training.OBJECTIVES, p, strict=True))
                    for p in runs[run].tolist()
                ]
                assert epoch + 1 in own_front(history)


def test_weights_that_are_not_those_recorded_are_refused(bench):
    epoch = bench.summary(BASELINE)["epoch"]
    path = bench.folder(BASELINE) / "weights" / f"epoch-{epoch:04d}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not bench.run(GUIDED)
    assert f"{path}: sha256 differs from the recorded" in bench.reason(GUIDED)


def test_rows_and_examples_are_left_for_every_kept_epoch(bench):
    assert bench.run(GUIDED)
    rows, kept = bench.rows(GUIDED), bench.kept_epochs(GUIDED)
    assert sorted(rows["epoch"].unique()) == kept
    assert set(rows["split"]) == {"test"}
    pairs = int(bench.splits["test"].labels.sum())
    assert len(rows) == pairs * 3 * len(kept)
    tested = [step for step, metrics in bench.history(GUIDED) if "test/f1" in metrics]
    assert tested == kept
    examples = np.load(bench.folder(GUIDED) / "artifacts" / "examples.npz", allow_pickle=False)
    assert examples["maps"].shape == (6, 24, 24)
    reference = np.load(bench.folder(GUIDED.reference) / "artifacts" / "examples.npz")
    assert (examples["image_ids"] == reference["image_ids"]).all()  # comparable pictures


def test_a_guided_training_needs_the_baseline_and_its_evaluation_a_control_the_baseline():
    needed = [result.name for result in GUIDED.dependencies]
    assert needed == ["classifier_training", "attribution_evaluation"]
    assert CONTROL.dependencies == (BASELINE,)
