"""Group training: settings, windows, which boxes are used, and what is reported about whom."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_pipelines.augmentation import view
from data_pipelines.boxes import annotated_subset
from tests.trainables.conftest import Bench
from tests.trainables.scenes import BIRDS, birds, squares
from trainables import group_training
from trainables.attribution.gradient import InputXGradient
from trainables.checkpoint import save_weights
from trainables.group_training import GroupEvaluation
from trainables.groups import ACCURACIES, group_accuracies, labelled
from trainables.losses.localization import Energy, RrrStar
from trainables.models.pretrained import pretrained_of
from trainables.trial import Trial

FINAL = InputXGradient(layer="final")
CONVENTIONAL = replace(
    BIRDS, loss=Energy(), attribution=FINAL, lambda_loc=0.01, annotated_fraction=0.25
)
REVERSED = replace(CONVENTIONAL, setting="reversed")


@pytest.fixture(scope="session")
def flock() -> dict:
    """G1 and G4 to train and to select on, all four groups to test."""
    return {"train": birds(24, 0), "val": birds(8, 1), "test": birds(12, 2, (0, 1, 2, 3))}


@pytest.fixture(scope="session")
def hatched(flock, tmp_path_factory):
    """Storage that holds the baseline, and its evaluations in both settings."""
    bench = Bench(tmp_path_factory.mktemp("hatched"), flock)
    for setting in ("conventional", "reversed"):
        evaluation = GroupEvaluation(of=BIRDS, attribution=FINAL, setting=setting)
        assert bench.run(evaluation), bench.events[-1]
    return bench


@pytest.fixture
def nest(hatched, tmp_path) -> Bench:
    """A bench of its own that holds the same."""
    needed = [BIRDS, CONVENTIONAL.reference, REVERSED.reference]
    return hatched.beside(tmp_path / "nest", *needed)


@pytest.fixture
def steps(monkeypatch):
    """What guided_step was given, call by call."""
    calls, real = [], group_training.guided_step

    def watched(model, batch, labels, annotated, attribution, loss, weight):
        calls.append(
            SimpleNamespace(batch=batch, labels=labels, annotated=annotated, weight=weight)
        )
        return real(model, batch, labels, annotated, attribution, loss, weight)

    monkeypatch.setattr(group_training, "guided_step", watched)
    return calls


def numbers(call) -> list[int]:
    return [int(name.split("-")[1]) for name in call.batch.image_ids]


class TestConstruction:
    """What cannot be a group training is refused at once."""

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"setting": "reversed"}, "a baseline uses no boxes and serves both settings"),
            ({"annotated_fraction": 0.5}, "a baseline uses no boxes and serves both settings"),
            ({"annotation_seed": 1}, "a baseline uses no boxes and serves both settings"),
            ({"loss": Energy()}, "has a loss, an attribution and a positive lambda"),
            ({"lambda_loc": 0.1}, "has a loss, an attribution and a positive lambda"),
            ({"objective": "ce"}, "objective = 'ce': a group training takes 'bce'"),
            ({"crop_px": 25}, "crop_px = 25: must lie between 1 and image_size_px = 24"),
            ({"crop_px": 0}, "crop_px = 0"),
        ],
    )
    def test_of_a_baseline_is_refused(self, changed, message):
        with pytest.raises(ValueError, match=message):
            replace(BIRDS, **changed)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"lambda_loc": -1.0}, "lambda_loc = -1.0"),
            ({"annotated_fraction": 0.0}, "annotated_fraction = 0.0"),
            ({"annotation_seed": -1}, "the seed be at least 0"),
            ({"setting": "sideways"}, "GroupTraining.setting = 'sideways'"),
        ],
    )
    def test_of_a_guided_one_is_refused(self, changed, message):
        with pytest.raises(ValueError, match=message):
            replace(CONVENTIONAL, **changed)

    def test_an_evaluation_of_a_guided_training_is_refused(self):
        with pytest.raises(ValueError, match="judges its own maps; give a baseline"):
            GroupEvaluation(of=CONVENTIONAL, attribution=FINAL)

    def test_guided_trainings_of_a_seed_share_one_baseline_and_one_threshold_a_setting(self):
        again = replace(CONVENTIONAL, annotation_seed=1)
        others = [again, REVERSED, replace(REVERSED, loss=RrrStar())]
        assert {other.baseline.result_id for other in others} == {BIRDS.result_id}
        assert others[0].reference == CONVENTIONAL.reference != REVERSED.reference
        assert others[2].reference == REVERSED.reference
        assert BIRDS.dependencies == ()
        assert CONVENTIONAL.dependencies == (CONVENTIONAL.reference,)

    def test_lambda_keeps_its_meaning_at_other_batches_and_windows(self):
        assert CONVENTIONAL.lambda_scale == 64 / 8
        assert replace(CONVENTIONAL, loss=RrrStar()).lambda_scale == 8 * (224 / 20) ** 2


class TestGroups:
    """Labels of a setting, and accuracies."""

    def test_labels_and_classes_of_boxes_follow_from_the_groups(self):
        images = birds(8, 0, (0, 1, 2, 3))
        for setting, indices in (("conventional", [0, 0, 1, 1]), ("reversed", [0, 1, 0, 1])):
            found = labelled(images, setting)
            assert found.labels.argmax(1).tolist() == indices * 2
            assert (found.labels.sum(1) == 1).all()
            assert found.boxes[:, 0].tolist() == indices * 2
            np.testing.assert_array_equal(found.boxes[:, 1:], images.boxes[:, 1:])
        assert labelled(images, "reversed").classes == ("land", "water")

    def test_both_settings_are_the_same_in_training(self, flock):
        one, other = (labelled(flock["train"], s).labels for s in ("conventional", "reversed"))
        np.testing.assert_array_equal(one, other)

    def test_images_without_groups_are_refused(self):
        with pytest.raises(ValueError, match=r"no groups.*take the dataset waterbirds"):
            labelled(squares(4, 0), "conventional")

    def test_accuracies_are_shares_of_each_group_and_the_worst_is_their_least(self):
        rng = np.random.default_rng(0)
        groups = rng.integers(0, 4, 200)
        logits, labels = rng.normal(size=(200, 2)), np.eye(2, dtype=np.uint8)[groups // 2]
        hit = logits.argmax(1) == groups // 2
        found = group_accuracies(logits, labels, groups)
        each = [hit[groups == k].mean() for k in range(4)]
        assert [found[f"accuracy_g{k}"] for k in (1, 2, 3, 4)] == pytest.approx(each)
        assert found["accuracy"] == pytest.approx(hit.mean())
        assert found["accuracy_worst"] == pytest.approx(min(each))
        assert found["accuracy_tied"] == pytest.approx(hit[np.isin(groups, (0, 3))].mean())
        assert set(found) == set(ACCURACIES)

    def test_an_absent_group_is_undefined_and_not_the_worst(self):
        labels = np.eye(2, dtype=np.uint8)[[0, 1]]
        found = group_accuracies(np.array([[2.0, 1.0], [0.0, 3.0]]), labels, np.array([0, 3]))
        assert np.isnan(found["accuracy_g2"])
        assert np.isnan(found["accuracy_g3"])
        assert found["accuracy_worst"] == 1.0


@pytest.mark.parametrize("result", [CONVENTIONAL, REVERSED], ids=lambda result: result.setting)
def test_a_step_sees_windows_of_its_epoch_and_masks_that_moved_with_them(nest, steps, result):
    assert nest.run(result), nest.events[-1]
    images, trial = nest.splits["train"], Trial(result, nest.storage, {}, print)
    colors = np.array([[220, 30, 30], [30, 220, 30]])
    for position, call in enumerate(steps):
        epoch, chosen = 1 + position // 3, numbers(call)
        expected = result.augmented(trial, images, epoch).images(chosen)
        model = result.network.build(2)
        assert torch.equal(call.batch.images, model.encode(torch.from_numpy(expected)))
        bird = (expected[:, None] == colors[None, :, :, None, None]).all(2).any(1)
        assert bird.any()
        mask = call.batch.masks.numpy()
        np.testing.assert_array_equal(mask, bird if result.setting == "conventional" else ~bird)
        targets = images.groups[chosen] // 2
        assert call.batch.targets.tolist() == targets.tolist()
        assert call.labels.argmax(1).tolist() == targets.tolist()
    assert sorted(n for call in steps[:3] for n in numbers(call)) == list(range(24))


def test_windows_are_a_function_of_seed_epoch_and_image(flock, tmp_path):
    def seen(seed: int, epoch: int, of=BIRDS) -> np.ndarray:
        trial = Trial(replace(of, seed=seed), tmp_path, {}, print)
        return of.augmented(trial, flock["train"], epoch).images(np.arange(24))

    np.testing.assert_array_equal(seen(0, 1), seen(0, 1, CONVENTIONAL))
    assert (seen(0, 1) != seen(0, 2)).any()
    assert (seen(0, 1) != seen(1, 1)).any()


def test_the_drawing_of_boxes_is_crossed_with_the_seed(nest, steps, flock):
    assert nest.run(replace(CONVENTIONAL, annotation_seed=1, epochs=1)), nest.events[-1]
    used = {
        number
        for call in steps
        for number, annotated in zip(numbers(call), call.annotated.tolist(), strict=True)
        if annotated
    }
    assert used == set(annotated_subset(24, 0.25, 1).tolist())
    assert {call.weight for call in steps} == {0.01 * 64 / 8}
    for seed, drawing in product((0, 1), (0, 1)):
        result = replace(CONVENTIONAL, seed=seed, annotation_seed=drawing)
        chosen = np.flatnonzero(result.annotated(flock["train"]))
        assert chosen.tolist() == annotated_subset(24, 0.25, drawing).tolist()
    assert used != set(annotated_subset(24, 0.25, 0).tolist())


def test_too_small_a_share_of_too_few_images_is_refused(nest):
    result = replace(CONVENTIONAL, annotated_fraction=0.01)
    assert not nest.run(result)
    assert "annotated_fraction = 0.01 of 24 training images is none" in nest.reason(result)


def test_a_reversed_training_on_all_groups_is_refused(nest):
    nest.splits = {**nest.splits, "train": birds(24, 0, (0, 1, 2, 3))}
    assert not nest.run(REVERSED)
    assert "reversed: the training split holds G2 or G3" in nest.reason(REVERSED)


def test_guided_and_baseline_start_alike_and_differ_in_the_localization_loss_alone(nest):
    nothing = replace(CONVENTIONAL, lambda_loc=1e-30)
    assert nest.run(nothing), nest.events[-1]
    guided, baseline = nest.weights(nothing), nest.weights(BIRDS)
    assert all(torch.allclose(guided[name], baseline[name], atol=1e-6) for name in baseline)


def test_guided_and_baseline_start_from_one_file_of_weights(nest, tmp_path):
    published = BIRDS.network.build(2).module
    save_weights(tmp_path / "published.safetensors", published)
    start = {"pretrained": pretrained_of(tmp_path / "published.safetensors")}
    start |= {"epochs": 1, "learning_rate": 1e-9}
    guided = replace(REVERSED, **start)
    assert guided.baseline == replace(BIRDS, **start)
    assert nest.run(guided), nest.events[-1]  # and its baseline, which is judged first
    for weights in (nest.weights(guided), nest.weights(guided.baseline)):
        for name, parameter in published.named_parameters():
            torch.testing.assert_close(weights[name], parameter.detach(), atol=1e-6, rtol=0)


def test_one_baseline_is_judged_by_birds_and_by_places(hatched):
    history, best = hatched.history(BIRDS), hatched.summary(BIRDS)["epoch"]
    assert [e for e, m in history if "test/accuracy" in m] == [best]  # no other is tested
    metrics = {key: value for e, m in history if e == best for key, value in m.items()}
    for group, same in ((1, True), (2, False), (3, False), (4, True)):
        by_bird, by_place = (metrics[f"test/{of}accuracy_g{group}"] for of in ("", "place_"))
        assert by_place == pytest.approx(by_bird if same else 1 - by_bird)
    assert metrics["val/accuracy"] == metrics["val/place_accuracy"] == metrics["val/accuracy_tied"]


def test_the_maps_of_a_baseline_are_judged_inside_and_outside_of_the_box(hatched):
    means = {}
    for result in (CONVENTIONAL, REVERSED):
        rows = hatched.rows(result.reference)
        rows = rows[(rows["split"] == "val") & (rows["protocol_key"] == "epg")]
        means[result.setting] = rows.set_index("image_id")
        assert "iou_threshold" in hatched.summary(result.reference)
    # in validation both settings explain the same logit: what is not inside is outside
    inside, outside = means["conventional"], means["reversed"]
    shares = (inside["score"] + outside["score"]).dropna()  # a map may speak for nothing
    assert len(shares)
    np.testing.assert_allclose(shares, 1, atol=1e-6)
    area = inside["box_area_fraction"] + outside["box_area_fraction"]
    np.testing.assert_allclose(area, 1, atol=1e-6)


def test_a_guided_training_reports_its_setting_and_the_selected_epoch(nest):
    for result in (CONVENTIONAL, REVERSED):
        assert nest.run(result), nest.events[-1]
        ((epoch, _),) = [(e, m) for e, m in nest.history(result) if "test/accuracy" in m]
        assert epoch == nest.summary(result)["epoch"]
        metrics = {k: v for e, m in nest.history(result) if e == epoch for k, v in m.items()}
        assert {"test/epg", "test/box_iou_tuned", "val/epg", "lambda_used"} <= metrics.keys()
        assert not any("place" in key for key in metrics)
        assert metrics["test/accuracy_worst"] == min(
            metrics[f"test/accuracy_g{k}"] for k in (1, 2, 3, 4)
        )
        rows = nest.rows(result)
        assert set(rows["split"]) == {"val", "test"}
        groups = dict(zip(nest.splits["test"].image_ids, nest.splits["test"].groups, strict=True))
        tested = rows[rows["split"] == "test"].drop_duplicates("image_id")
        of_tested = np.array([groups[image_id] for image_id in tested["image_id"]])
        labels = of_tested // 2 if result is CONVENTIONAL else of_tested % 2
        assert tested["target"].tolist() == labels.tolist()
        examples = np.load(nest.folder(result) / "artifacts" / "examples.npz", allow_pickle=False)
        assert examples["maps"].shape[1:] == (20, 20)


def test_of_equal_epochs_the_last_is_selected_and_kept():
    history = [{"val/accuracy_tied": v, "val/accuracy": -v} for v in (0.9, 1.0, 1.0, 0.95)]
    assert BIRDS.best(history) == 3
    assert BIRDS.keeps(history) == {3, 4}


def test_a_window_without_the_bird_has_an_empty_mask_inside_and_a_full_one_outside(flock):
    images = flock["train"]
    windows = BIRDS.seen(images).windows
    aside = replace(windows, size_px=2, top=windows.top * 0, left=windows.left * 0)
    for outside in (False, True):
        masks = view(images, aside, outside=outside).masks(np.arange(24), images.groups // 2)
        assert (masks == outside).all()


def test_more_annotations_and_the_input_cost_more():
    images = {"train": 600, "val": 10, "test": 10}
    final = replace(CONVENTIONAL, epochs=350)
    at_input = replace(final, attribution=InputXGradient(layer="input"))
    few = replace(at_input, annotated_fraction=0.01)
    assert BIRDS.cost(images) < replace(few, epochs=3).cost(images)
    assert final.cost(images) < few.cost(images) < at_input.cost(images)
