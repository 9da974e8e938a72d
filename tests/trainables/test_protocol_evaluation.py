"""Evaluation of methods by protocols: parts of any size, resuming, failures, what is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.trainables.conftest import Bench
from tests.trainables.plugins import InsideShare, Raising
from tests.trainables.scenes import BASELINE, segmented, squares
from trainables import protocol_evaluation
from trainables.attribution.bcos import Bcos
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.conclusion import conclude
from trainables.evaluator import full_size_maps
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.metrics.localization import Epg
from trainables.metrics.on_object import OnObjectEpg
from trainables.metrics.perturbation_curves import Deletion
from trainables.metrics.segmentation import AveragePrecision, MeanIou, PixelAccuracy
from trainables.metrics.single_deletion import Idsds, Sds
from trainables.models.network import evaluating
from trainables.parts import parts_folder
from trainables.passes import Passes
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.result import Result
from trainables.scorer import Scorer
from trainables.training import restore, weights_path
from trainables.trial import Trial, run_bundle

CURVE = Deletion(points=4, reference_class="predicted")
PROTOCOLS = (Sds(patches=4), Epg(), CURVE, InsideShare())
EVALUATION = ProtocolEvaluation(of=BASELINE, attribution=InputXGradient(), protocols=PROTOCOLS)


@pytest.fixture(scope="module")
def evaluated(trained, splits, tmp_path_factory) -> Bench:
    """All 16 validation images at once."""
    bench = Bench(trained, splits).beside(tmp_path_factory.mktemp("evaluated"), BASELINE)
    assert bench.run(EVALUATION), bench.events
    return bench


@pytest.fixture
def small_parts(monkeypatch) -> None:
    monkeypatch.setattr(protocol_evaluation, "PART_IMAGES", 4)


def metrics_of(bench: Bench, result: Result = EVALUATION) -> dict[str, float]:
    """What the result reported, at once."""
    ((step, metrics),) = bench.history(result)
    assert step == 1
    return metrics


def plain_scores(bench: Bench, evaluation: ProtocolEvaluation) -> dict[str, list[float]]:
    """Image after image, class after class, protocol after protocol; nothing is shared."""
    trial = Trial(evaluation, bench.storage, bench.feeds, bench.events.append)
    model, summary = BASELINE.network.build(3), bench.summary(BASELINE)
    restore(trial, BASELINE, summary, summary["epoch"], model)
    images, method = bench.splits["val"], evaluation.attribution
    scores: dict[str, list[float]] = {p.key: [] for p in evaluation.protocols}
    with evaluating(model.module):
        for image, target in zip(*images.pairs(), strict=True):
            batch = Batch(
                images=model.encode(torch.from_numpy(images.images([image]))),
                image_ids=[str(images.image_ids[image])],
                image_index=torch.tensor([0]),
                targets=torch.tensor([target]),
                masks=torch.from_numpy(images.masks(image, target)),
            )
            for protocol in evaluation.protocols:
                with Passes(model, batch) as passes:
                    passes.expect(method.needs(model))
                    score = protocol(passes, full_size_maps(method, passes))
                scores[protocol.key].append(float(score))
    return scores


def test_rows_and_means_are_those_of_a_plain_loop(evaluated):
    rows, metrics = evaluated.rows(EVALUATION), metrics_of(evaluated)
    for key, plain in plain_scores(evaluated, EVALUATION).items():
        own = rows[rows["protocol_key"] == key]["score"]
        np.testing.assert_allclose(own, plain, rtol=1e-4, atol=1e-5)
        if key != InsideShare().key:
            protocol = next(p for p in PROTOCOLS if p.key == key)
            mean = protocol.reduce(np.array(plain))
            assert metrics[f"val/{key}"] == pytest.approx(mean, rel=1e-4)
        assert metrics[f"val/{key}_defined_fraction"] == 1 - np.isnan(plain).mean()


def test_one_row_for_each_image_class_and_protocol_in_order(evaluated):
    rows, images = evaluated.rows(EVALUATION), evaluated.splits["val"]
    index, targets = images.pairs()
    assert len(rows) == len(index) * len(PROTOCOLS)
    assert set(rows["method_key"]) == {"input_x_gradient"}
    for protocol in PROTOCOLS:
        own = rows[rows["protocol_key"] == protocol.key]
        assert own["image_id"].tolist() == images.image_ids[index].tolist()
        assert own["target"].tolist() == targets.tolist()
    areas = images.masks(index, targets).mean((1, 2))
    np.testing.assert_allclose(own["box_area_fraction"], areas, rtol=1e-6)


def test_sums_over_the_data_set_are_divided_once(evaluated):
    """The mean of the rows would be another number."""
    rows = evaluated.rows(EVALUATION)
    own = rows[rows["protocol_key"] == InsideShare().key]["score"]
    value = metrics_of(evaluated)["val/inside_share"]
    assert 0 < value < 1
    assert value != pytest.approx(own.mean(), rel=1e-6)


def test_curves_are_kept_with_their_steps_and_interval(evaluated):
    curves = np.load(evaluated.folder(EVALUATION) / "artifacts" / "curves.npz")
    assert list(curves) == [CURVE.key]
    steps, mean, low, high = curves[CURVE.key].T
    np.testing.assert_allclose(steps, CURVE.steps)
    assert (low <= mean).all()
    assert (mean <= high).all()
    area = float(CURVE.area(torch.from_numpy(mean)[None]))
    assert metrics_of(evaluated)[f"val/{CURVE.key}"] == pytest.approx(area, rel=1e-5)


def test_what_is_left_is_the_result_with_rows_curves_and_examples(evaluated):
    folder = evaluated.folder(EVALUATION)
    assert {path.name for path in folder.iterdir()} == {"result.json", "artifacts"}
    names = {path.name for path in (folder / "artifacts").iterdir()}
    assert names == {"rows.parquet", "curves.npz", "examples.npz"}
    with np.load(folder / "artifacts" / "examples.npz") as examples:
        assert len(examples["image_ids"]) == 4
        assert examples["maps"].shape == examples["images"].shape[:3]
    assert evaluated.summary(EVALUATION) == {"images": 16, "skipped": []}
    assert metrics_of(evaluated)["images"] == 16
    assert metrics_of(evaluated)["skipped_images"] == 0


@pytest.mark.parametrize("size", [1, 5])
def test_parts_of_any_size_give_the_same(evaluated, tmp_path, monkeypatch, size):
    monkeypatch.setattr(protocol_evaluation, "PART_IMAGES", size)
    other = evaluated.beside(tmp_path, BASELINE)
    assert other.run(EVALUATION), other.events
    pd.testing.assert_frame_equal(
        other.rows(EVALUATION), evaluated.rows(EVALUATION), rtol=1e-4, atol=1e-5
    )
    assert metrics_of(other) == pytest.approx(metrics_of(evaluated), rel=1e-4)


def test_a_killed_evaluation_repeats_no_finished_part(bench, tmp_path, monkeypatch, small_parts):
    undisturbed = bench.beside(tmp_path / "undisturbed", BASELINE)
    assert undisturbed.run(EVALUATION)
    scored: list[list[str]] = []
    score = Scorer.__call__

    def killed(self, parts, image_ids, *others):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(image_ids)
        return score(self, parts, image_ids, *others)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            bench.run(EVALUATION)
    parts = parts_folder(bench.storage, EVALUATION.bundle)
    times = {path: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert len(times) == 2

    def go_on(self, folder, image_ids, *others):
        scored.append(image_ids)
        done = score(self, folder, image_ids, *others)
        assert {path: path.stat().st_mtime_ns for path in times} == times
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "__call__", go_on)
        assert bench.run(EVALUATION), bench.events
    images = [image_id for part in scored for image_id in part]
    assert sorted(images) == sorted(bench.splits["val"].image_ids)
    assert not parts.exists()
    pd.testing.assert_frame_equal(
        bench.rows(EVALUATION), undisturbed.rows(EVALUATION), check_exact=True
    )
    assert metrics_of(bench) == metrics_of(undisturbed)


def test_a_training_that_left_no_summary_is_not_judged(bench):
    """A killed one has left a checkpoint, and weights of its last epochs."""
    (bench.folder(BASELINE) / "result.json").unlink()
    assert bench.kept_epochs(BASELINE)
    assert (bench.folder(BASELINE) / "checkpoint.safetensors").exists()
    bench.run_bundle(EVALUATION)
    assert f"{BASELINE.label} has left no result; launch the sweep again" in bench.reason(
        EVALUATION
    )
    assert not parts_folder(bench.storage, EVALUATION.bundle).exists()


@pytest.mark.parametrize("content", [slice(-1), slice(0)], ids=["cut_short", "empty"])
def test_weights_that_are_not_the_recorded_ones_are_not_judged(bench, content):
    epoch = bench.summary(BASELINE)["epoch"]
    path = weights_path(bench.folder(BASELINE), epoch)
    path.write_bytes(path.read_bytes()[content])
    assert not bench.run(EVALUATION)
    assert f"{path}: sha256 differs from the recorded" in bench.reason(EVALUATION)
    assert not parts_folder(bench.storage, EVALUATION.bundle).exists()
    assert not (bench.folder(EVALUATION) / "result.json").exists()


def test_weights_of_an_unfinished_epoch_are_not_judged_though_a_summary_is_there(bench):
    """What trains anew overwrites files; the summary of before names others."""
    kept = bench.kept_epochs(BASELINE)
    assert len(kept) == 2
    epoch = bench.summary(BASELINE)["epoch"]
    (other,) = set(kept) - {epoch}
    folder = bench.folder(BASELINE)
    weights_path(folder, epoch).write_bytes(weights_path(folder, other).read_bytes())
    assert not bench.run(EVALUATION)
    assert "sha256 differs from the recorded" in bench.reason(EVALUATION)


class TestChoice:
    """Which images are judged."""

    def test_it_is_a_function_of_seed_and_ids(self):
        ids = [f"{i:03d}" for i in range(50)]
        some = replace(EVALUATION, images=10)
        chosen = some.chosen_ids(ids)
        assert len(chosen) == 10
        assert chosen <= set(ids)
        assert some.chosen_ids(ids[::-1]) == chosen
        other_method = replace(some, attribution=GradCam(), protocols=(Epg(),))
        assert other_method.chosen_ids(ids) == chosen
        assert replace(some, seed=1).chosen_ids(ids) != chosen

    def test_fewer_images_are_among_more(self):
        ids = [f"{i:03d}" for i in range(50)]
        few, more = (replace(EVALUATION, images=n).chosen_ids(ids) for n in (10, 20))
        assert few < more

    @pytest.mark.parametrize("images", [0, 50, 99])
    def test_zero_or_enough_is_all(self, images):
        ids = [f"{i:03d}" for i in range(50)]
        assert replace(EVALUATION, images=images).chosen_ids(ids) == set(ids)

    def test_only_the_chosen_are_scored(self, bench):
        some = replace(EVALUATION, images=5)
        assert bench.run(some)
        chosen = some.chosen_ids(bench.splits["val"].image_ids.tolist())
        assert set(bench.rows(some)["image_id"]) == chosen
        assert metrics_of(bench, some)["images"] == 5


def test_the_predicted_class_may_be_explained(bench):
    predicted = replace(EVALUATION, explained_class="predicted", protocols=(Sds(patches=4),))
    assert bench.run(predicted), bench.events
    trial = Trial(predicted, bench.storage, bench.feeds, bench.events.append)
    model, summary = BASELINE.network.build(3), bench.summary(BASELINE)
    restore(trial, BASELINE, summary, summary["epoch"], model)
    images = bench.splits["val"]
    with evaluating(model.module), torch.no_grad():
        logits = model.module(model.encode(torch.from_numpy(images.images(np.arange(16)))))
    rows = bench.rows(predicted)
    assert rows["image_id"].tolist() == images.image_ids.tolist()
    assert rows["target"].tolist() == logits.argmax(1).tolist()


def test_an_image_without_a_class_has_no_row_and_is_counted(trained, splits, tmp_path):
    """Alone in its part, so that there is nothing to explain in a whole batch."""
    bench = Bench(trained, splits | {"val": squares(3, 5, unlabeled=[0, 2])})
    bench = bench.beside(tmp_path, BASELINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol_evaluation, "PART_IMAGES", 1)
        assert bench.run(EVALUATION), bench.events
    assert set(bench.rows(EVALUATION)["image_id"]) == {"5-001"}
    assert metrics_of(bench)["images"] == 3


def test_a_damaged_image_is_told_and_counted(trained, splits, tmp_path):
    whole = splits["val"]
    damaged = replace(
        whole,
        image_ids=whole.image_ids[1:],
        labels=whole.labels[1:],
        boxes=whole.boxes[whole.box_offsets[1] :],
        box_offsets=whole.box_offsets[1:] - whole.box_offsets[1],
        rows=whole.rows[1:],
        skipped={str(whole.image_ids[0]): "cut short"},
    )
    bench = Bench(trained, splits | {"val": damaged}).beside(tmp_path, BASELINE)
    assert bench.run(EVALUATION), bench.events
    assert bench.summary(EVALUATION) == {"images": 16, "skipped": [whole.image_ids[0]]}
    assert metrics_of(bench)["skipped_images"] == 1
    assert len(set(bench.rows(EVALUATION)["image_id"])) == 15


def test_a_method_that_raises_fails_its_result_with_the_reason(bench):
    broken = replace(EVALUATION, attribution=Raising())
    assert not bench.run(broken)
    assert bench.reason(broken).endswith("RuntimeError: no map today")
    assert not parts_folder(
        bench.storage, broken.bundle
    ).exists()  # the next try begins from nothing
    assert not (bench.folder(broken) / "result.json").exists()


class TestBundle:
    """Several methods on one network, scored together."""

    BROKEN = replace(EVALUATION, attribution=Raising())
    CAM = replace(EVALUATION, attribution=GradCam())

    def test_evaluations_of_one_network_and_choice_are_one_bundle(self):
        assert EVALUATION.bundle == self.CAM.bundle
        others = (
            replace(EVALUATION, images=5),
            replace(EVALUATION, seed=1),
            replace(EVALUATION, of=replace(BASELINE, seed=1)),
            replace(EVALUATION, explained_class="predicted"),
        )
        assert len({e.bundle for e in (EVALUATION, *others)}) == 5

    def test_one_method_fails_one_result_and_the_others_are_as_if_alone(
        self, evaluated, bench, small_parts
    ):
        bundle = (EVALUATION, self.BROKEN, self.CAM)
        run_bundle(bundle, bench.storage, bench.feeds, bench.events.append)
        ends = {e["result_id"]: e for e in bench.events if e["event"] in ("finished", "failed")}
        assert [ends[r.result_id]["event"] for r in bundle] == ["finished", "failed", "finished"]
        failed = ends[self.BROKEN.result_id]
        assert failed["reason"] == "RuntimeError: no map today"
        assert "Traceback" in failed["traceback"]
        pd.testing.assert_frame_equal(
            bench.rows(EVALUATION), evaluated.rows(EVALUATION), rtol=1e-4, atol=1e-5
        )
        assert set(bench.rows(self.CAM)["method_key"]) == {"grad_cam"}
        assert not (bench.folder(self.BROKEN) / "result.json").exists()

    def test_what_was_not_scored_is_named(self, bench, tmp_path):
        trial = Trial(EVALUATION, bench.storage, bench.feeds, bench.events.append)
        reason, _ = conclude(EVALUATION, trial, tmp_path / "parts", {"b", "a"})
        assert reason == "2 images were not scored, first a; run the command again"


def test_protocols_of_segmentation_judge_the_images_that_have_it(
    trained, splits, tmp_path, small_parts
):
    images = segmented(splits["val"])
    bench = Bench(trained, {"val": images}).beside(tmp_path / "storage", BASELINE)
    protocols = (PixelAccuracy(), MeanIou(), AveragePrecision(), OnObjectEpg())
    evaluation = replace(EVALUATION, protocols=protocols)
    assert bench.run(evaluation), bench.events
    pairs = int(images.labels[::2].sum())
    for protocol in protocols:
        rows = bench.rows(evaluation)
        mine = rows[rows["protocol_key"] == protocol.key]
        if protocol.key != "pixel_accuracy" and protocol.key != "mean_iou":
            assert mine["score"].notna().sum() == pairs
        assert 0 < metrics_of(bench, evaluation)[f"val/{protocol.key}"] <= 1


def test_a_part_of_which_no_image_is_segmented_is_undefined(bench, tmp_path):
    images = bench.splits["val"]
    evaluation = replace(EVALUATION, protocols=(OnObjectEpg(),))
    trial = Trial(evaluation, bench.storage, bench.feeds, bench.events.append)
    scorer, ids = Scorer((evaluation,), trial, images), images.image_ids[:2].tolist()
    scorer(tmp_path / "parts", ids, images.images([0, 1]), {}, [b"", b""])
    assert conclude(evaluation, trial, tmp_path / "parts", set(ids)) == ("", "")
    assert bench.rows(evaluation)["score"].isna().all()


class TestCheck:
    """What cannot work is refused before anything runs."""

    def test_it_needs_a_protocol(self):
        with pytest.raises(ValueError, match="at least one protocol"):
            replace(EVALUATION, protocols=()).check()

    def test_the_method_must_suit_the_network(self):
        with pytest.raises(ValueError, match="B-cos"):
            replace(EVALUATION, attribution=Bcos()).check()

    def test_idsds_needs_a_network_that_knows_deleted_patches(self):
        with pytest.raises(ValueError, match="fine-tuned by idsds_finetuning with 16 patches"):
            replace(EVALUATION, protocols=(Idsds(),)).check()

    def test_a_network_that_knows_them_is_not_judged_by_sds(self):
        tuned = IdsdsFinetuning(start=replace(BASELINE, objective="ce"), epochs=1)
        ProtocolEvaluation(of=tuned, attribution=InputXGradient(), protocols=(Idsds(),)).check()
        with pytest.raises(ValueError, match="is called idsds"):
            ProtocolEvaluation(of=tuned, attribution=InputXGradient(), protocols=(Sds(),)).check()


def test_means_and_directions_go_by_the_same_keys(evaluated):
    keys = {f"val/{key}" for key in EVALUATION.directions}
    assert keys <= metrics_of(evaluated).keys()
    assert EVALUATION.directions["sds_p4"] == "max"
    assert EVALUATION.directions[CURVE.key] == "min"
