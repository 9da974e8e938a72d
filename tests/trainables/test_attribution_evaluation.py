"""Evaluation of a training's maps: one threshold, chosen on validation, judges all."""

from __future__ import annotations

import numpy as np
import torch

from tests.reference import box_iou
from tests.trainables.conftest import Bench
from tests.trainables.scenes import BASELINE, CONTROL, GUIDED, segmented
from trainables.attribution_evaluation import AttributionEvaluation
from trainables.metrics.localization import IOU_THRESHOLDS
from trainables.models.network import evaluating
from trainables.passes import Passes
from trainables.scoring import batches
from trainables.training import restore
from trainables.trial import Trial

METHOD = GUIDED.attribution
OF_BASELINE = GUIDED.reference
OF_CONTROL = AttributionEvaluation(of=CONTROL, attribution=METHOD)


def test_the_threshold_is_the_best_on_the_validation_split_of_the_baseline(bench):
    trial = Trial(OF_BASELINE, bench.storage, bench.feeds, bench.events.append)
    model = BASELINE.network.build(3)
    summary = bench.summary(BASELINE)
    restore(trial, BASELINE, summary, summary["epoch"], model)
    scores = np.zeros(len(IOU_THRESHOLDS))
    with evaluating(model.module):
        for batch in batches(model, bench.splits["val"], torch.device("cpu")):
            with Passes(model, batch) as passes:
                maps = METHOD.at_image_size(METHOD(passes), passes).double().numpy()
            for map_, mask in zip(maps, batch.masks.numpy(), strict=True):
                each = [box_iou(map_, mask, threshold) for threshold in IOU_THRESHOLDS]
                scores += np.nan_to_num(each)
    assert bench.summary(OF_BASELINE)["iou_threshold"] == IOU_THRESHOLDS[int(scores.argmax())]


def test_all_are_judged_by_the_threshold_of_the_baseline(bench):
    assert bench.run(OF_CONTROL)
    threshold = bench.summary(OF_BASELINE)["iou_threshold"]
    assert bench.summary(OF_CONTROL)["iou_threshold"] == threshold
    assert all(m["iou_threshold"] == threshold for _, m in bench.history(OF_CONTROL))


def test_a_baseline_is_judged_at_its_best_epoch_others_at_all_kept(bench):
    assert bench.run(OF_CONTROL)
    assert [step for step, _ in bench.history(OF_CONTROL)] == bench.kept_epochs(CONTROL)
    assert bench.summary(OF_BASELINE)["epochs"] == [bench.summary(BASELINE)["epoch"]]
    for result, epochs in ((OF_BASELINE, 1), (OF_CONTROL, len(bench.kept_epochs(CONTROL)))):
        rows = bench.rows(result)
        pairs = sum(int(bench.splits[split].labels.sum()) for split in ("val", "test"))
        assert len(rows) == pairs * 3 * epochs
        assert set(rows["split"]) == {"val", "test"}


def test_on_object_epg_is_reported_where_a_split_has_segmentation(trained, splits, tmp_path):
    whole = Bench(trained, splits | {"test": segmented(splits["test"])})
    bench = whole.beside(tmp_path / "storage", BASELINE)
    for result in (OF_BASELINE, GUIDED):
        assert bench.run(result), bench.events
        assert result.directions["on_object_epg"] == "max"
        named = {key for _, metrics in bench.history(result) for key in metrics}
        assert {key for key in named if "on_object" in key} == {
            "test/on_object_epg",
            "test/on_object_epg_defined_fraction",
        }
        rows = bench.rows(result)
        defined = rows[(rows["protocol_key"] == "on_object_epg") & rows["score"].notna()]
        assert set(defined["image_id"]) <= set(splits["test"].image_ids[::2])


def test_it_sees_the_classification_that_the_training_saw(bench):
    assert bench.run(OF_CONTROL)
    trained = dict(bench.history(CONTROL))
    for epoch, metrics in bench.history(OF_CONTROL):
        assert metrics["val/f1"] == trained[epoch]["val/f1"]
        assert metrics["val/map"] == trained[epoch]["val/map"]


def test_it_rides_in_the_trial_of_what_it_judges():
    assert OF_BASELINE.bundle == BASELINE.bundle
    assert OF_CONTROL.bundle == CONTROL.bundle
    assert OF_CONTROL.dependencies == (CONTROL, OF_BASELINE)
