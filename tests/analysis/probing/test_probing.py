"""Runs as frames of probes: what is one probe, what sets two apart, and what each reached."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis import probing
from analysis.findings.probe_evidence import ProbeEvidence
from analysis.probing import evaluated, family_of, trained, values


def row(frame, result_id: str):
    return frame.set_index("result_id").loc[result_id]


def test_a_probe_is_known_by_its_tags_and_judged_at_its_last_epoch(probes) -> None:
    name = probes.probe("bce", 0.8, probe="bcos_l2", pretraining="dino")
    found = row(trained(probes.runs()), name)
    place = ("digit_scenes imagenet", "small_resnet", "dino", "bcos_l2", "bce", "")
    assert tuple(found[list(probing.PROBE)]) == place
    assert (found["form"], found["layers"], found["rest"]) == ("bcos", 2, "bcos")
    assert (found["accuracy"], found["epoch"], found["split"]) == (0.8, 2, "val")
    assert found["units"] == 200
    assert not found["several"]


def test_test_stands_before_validation(probes) -> None:
    name = probes.probe("bce", 0.8, **{"data.images_test": 300})
    probes.epochs.append((name, 2, {"test/accuracy": 0.7, "test/f1": 0.6}))
    found = row(trained(probes.runs()), name)
    assert (found["accuracy"], found["f1"], found["split"]) == (0.7, 0.6, "test")
    assert found["units"] == 300


def test_a_run_may_say_its_images_itself(probes) -> None:
    name = probes.probe("bce", 0.8, **{"data.images_val": np.nan})
    assert np.isnan(row(trained(probes.runs()), name)["units"])
    probes.epochs.append((name, 2, {"val/images": 123.0}))
    assert row(trained(probes.runs()), name)["units"] == 123


def test_whole_networks_stand_beside_at_their_best_epoch(probes) -> None:
    base = {"data.name": "digit_scenes", "data.layout": "imagenet", "network.name": "small_resnet"}
    run = {"result_id": "base", "kind": "classifier_training", "objective": "ce", "seed": 0}
    probes.rows.append({**base, **run})
    for epoch, accuracy in ((1, 0.5), (2, 0.9), (3, 0.7)):
        probes.epochs.append(("base", epoch, {"val/accuracy": accuracy, "val/f1": 0.1 * epoch}))
    found = row(trained(probes.runs()), "base")
    assert (found["backbone"], found["probe"], found["loss"]) == (
        "small_resnet",
        "own classifier",
        "ce",
    )
    assert (found["accuracy"], found["epoch"]) == (0.9, 2)


def test_recipes_are_told_apart(probes) -> None:
    one = probes.probe("bce", seed=0, epochs=100)
    other = probes.probe("bce", seed=1, epochs=50)
    found = trained(probes.runs()).set_index("result_id")["variant"]
    assert (found[one], found[other]) == ("epochs=100", "epochs=50")


def test_pretrainings_of_one_name_are_told_apart(probes) -> None:
    one = probes.probe("bce", seed=0, **{"backbone.of.epochs": 10, "backbone.of.seed": 0})
    other = probes.probe("bce", seed=1, **{"backbone.of.epochs": 20, "backbone.of.seed": 1})
    found = trained(probes.runs()).set_index("result_id")
    assert found.loc[one, "pretraining"] == "moco_v2 (backbone.of.epochs=10)"
    assert found.loc[other, "pretraining"] == "moco_v2 (backbone.of.epochs=20)"
    assert found.loc[other, "seed"] == "1/1"


def test_the_logit_bias_sets_no_losses_apart(probes) -> None:
    probes.probe("ce")
    biased = probes.probe("bce", probe="conventional_bias-2.3", **{"probe.name": "conventional"})
    found = trained(probes.runs()).set_index("result_id")
    assert found.loc[biased, "probe"] == "conventional"
    plain = probes.probe("bce")  # now it does
    found = trained(probes.runs()).set_index("result_id")
    assert found.loc[biased, "probe"] == "conventional_bias-2.3"
    assert found.loc[plain, "probe"] == "conventional"


def test_an_evaluation_is_of_a_probe_in_a_gauge(probes) -> None:
    of = probes.probe("ce", layout="voc")
    name = probes.mosaics(
        of,
        method="integrated_gradients",
        gauge="exchanged",
        side=2,
        **{"gauge.other.objective": "bce", "gauge.other.off_target": "uniform"},
    )
    runs = probes.runs()
    found = row(evaluated(runs, trained(runs)), name)
    assert (found["training"], found["several"]) == (of, True)
    assert (found["method"], found["gauge"], found["images"], found["choice"]) == (
        "integrated_gradients",
        "exchanged bce_uniform",
        "common",
        "",
    )
    assert (found["side"], found["dead"]) == (2, 0.1)


def test_mosaics_of_two_sizes_are_two_choices(probes) -> None:
    of = probes.probe("ce")
    two, three = probes.mosaics(of, side=2), probes.mosaics(of, side=3)
    runs = probes.runs()
    found = evaluated(runs, trained(runs)).set_index("result_id")["choice"]
    assert (found[two], found[three]) == ("side=2", "side=3")


def test_scores_by_box_size_stand_beside_those_of_all_boxes(probes) -> None:
    name = probes.images(probes.probe("ce"), {"epg_smooth5": 0.4})
    runs = probes.runs()
    found = values(runs, evaluated(runs, trained(runs)))
    mine = found[found["result_id"] == name].set_index("area")
    assert set(mine["protocol"]) == {"epg_smooth5"}
    assert mine.loc["0-0.25", "value"] == 0.1
    assert mine.loc["", "defined_fraction"] == 1.0
    assert set(mine.index) == {"", "0-0.25"}


@pytest.mark.parametrize(
    ("key", "family"),
    [("grid_pg_n2", "grid_pg"), ("epg_smooth5", "epg"), ("gini", "gini"), ("on_object_epg", "")],
)
def test_families_of_keys(key: str, family: str) -> None:
    assert family_of(key) == family


def test_evidence_by_hand_is_that_of_runs(probes) -> None:
    """The other tests leave the way through the runs out."""
    probes.whole()
    ours, theirs = probes.evidence(), ProbeEvidence.of(probes.runs())
    for name, keys in (("trained", ["result_id"]), ("evaluated", ["result_id"])):
        found = getattr(theirs, name).sort_values(keys, ignore_index=True)
        by_hand = getattr(ours, name).sort_values(keys, ignore_index=True)[list(found)]
        pd.testing.assert_frame_equal(found, by_hand, check_dtype=False)
    keys = ["result_id", "protocol", "area"]
    found = theirs.values.drop(columns="defined_fraction").sort_values(keys, ignore_index=True)
    by_hand = ours.values.sort_values(keys, ignore_index=True)[list(found)]
    pd.testing.assert_frame_equal(found, by_hand, check_dtype=False)


def test_nothing_at_all_is_empty_frames(probes) -> None:
    probes.rows.append({"result_id": "other", "kind": "guided_training"})
    evidence = ProbeEvidence.of(probes.runs())
    assert evidence.trained.empty
    assert evidence.evaluated.empty
    assert evidence.values.empty
    assert evidence.probes() == []


def test_evaluations_without_their_training_are_left_out(probes) -> None:
    probes.mosaics("unknown")
    evidence = ProbeEvidence.of(probes.runs())
    assert evidence.evaluated.empty
