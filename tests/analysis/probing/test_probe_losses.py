"""P1, P2, P4, P6 and P9: what BCE does, with every way to a verdict."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.findings.contrast import Contrast, corrected, ruled
from analysis.findings.probe_evidence import ProbeEvidence
from analysis.findings.probe_losses import (
    AccuracyStays,
    BceIsSimpler,
    BceKeepsConfidence,
    BceLocalizesBetter,
    TransformersGainToo,
)

P1, P2, P4, P6, P9 = (
    BceLocalizesBetter(),
    AccuracyStays(),
    BceIsSimpler(),
    BceKeepsConfidence(),
    TransformersGainToo(),
)


@pytest.mark.parametrize(
    ("rule", "low", "high", "margin", "verdict"),
    [
        ("above", 0.01, 0.2, 0.0, "holds"),
        ("above", -0.2, 0.0, 0.0, "fails"),
        ("above", -0.1, 0.1, 0.0, "undecided"),
        ("above", np.nan, np.nan, 0.0, "undecided"),
        ("below", -0.2, -0.01, 0.0, "holds"),
        ("below", 0.0, 0.1, 0.0, "fails"),
        ("not_below", -0.004, 0.1, 0.005, "holds"),
        ("not_below", -0.1, -0.006, 0.005, "fails"),
        ("not_below", -0.1, 0.1, 0.005, "undecided"),
        ("within", -0.01, 0.015, 0.015, "holds"),
        ("within", 0.02, 0.1, 0.015, "fails"),
        ("within", -0.1, -0.02, 0.015, "fails"),
        ("within", -0.02, 0.01, 0.015, "undecided"),
    ],
)
def test_intervals_rule(rule, low, high, margin, verdict) -> None:
    assert ruled(rule, low, high, margin) == verdict


def test_p_values_are_corrected_over_what_decides() -> None:
    def contrast(p: float, decides: bool) -> Contrast:
        return Contrast(what="", metric="", verdict="holds", p=p, decides=decides)

    found = corrected([contrast(0.01, True), contrast(0.03, False), contrast(0.04, True)])
    assert [c.p_holm for c in found[::2]] == [0.02, 0.04]
    assert np.isnan(found[1].p_holm)


def test_a_gain_on_the_same_mosaics_holds(probes) -> None:
    found = probes.pair(ce=0.4, bce=0.6).only(P1)
    assert (found.verdict, found.why) == ("holds", "")
    assert found.effect == pytest.approx(0.2, abs=0.01)
    assert 0 < found.low < found.effect < found.high
    assert (found.paired, found.units, found.seeds) == (True, 24, 1)
    assert found.published == "50 → 80"
    assert len(found.results) == 2


def test_a_loss_fails_and_a_tie_is_open(probes) -> None:
    assert probes.pair(ce=0.6, bce=0.4).only(P1).verdict == "fails"
    probes.clear()
    tie = probes.pair(ce=0.5, bce=0.5).only(P1)
    assert tie.verdict == "undecided"
    assert tie.why.endswith("includes 0")


def test_a_probe_that_does_not_exceed_its_control_is_not_read(probes) -> None:
    found = probes.pair(ce=0.4, bce=0.6, accuracies=(0.25, 0.8)).only(P1)
    assert found.verdict == "undecided"
    assert found.why == (
        "accuracy 25.0 of ce does not exceed its untrained control's interval 15.0 to 26.1"
    )
    assert found.effect == pytest.approx(0.2, abs=0.01)  # still shown


def test_without_a_control_nothing_is_read(probes) -> None:
    for loss, score in (("ce", 0.4), ("bce", 0.6)):
        probes.mosaics(probes.probe(loss), score)
    found = probes.only(P1)
    assert (found.verdict, found.read) == ("undecided", False)
    assert found.why == (
        "no control: no finished conventional bce on small_resnet without training"
    )


def test_a_control_of_unknown_size_controls_nothing(probes) -> None:
    probes.pair(ce=0.4, bce=0.6)
    for row in probes.rows:
        row["data.images_val"] = np.nan
    assert "no run says how many images" in probes.only(P1).why


def test_a_control_is_of_the_same_network_and_probe(probes) -> None:
    probes.controls(probe="conventional_l2").controls(backbone="resnet50")
    for loss, score in (("ce", 0.4), ("bce", 0.6)):
        probes.mosaics(probes.probe(loss), score)
    assert probes.only(P1).why.startswith("no control")


def test_a_missing_side_is_open(probes) -> None:
    probes.controls().probe("ce", status="FAILED")
    probes.mosaics(probes.probe("bce"), 0.6)
    found = probes.only(P1)
    assert found.verdict == "undecided"
    assert found.why == "no finished conventional ce trained alike"


def test_other_recipes_are_never_compared(probes) -> None:
    probes.pair(ce=0.4, bce=0.6)
    for row in probes.rows:
        row["learning_rate"] = 1e-3 if row.get("tag.loss") == "ce" else 30.0
    (found,) = P1.verdict(ProbeEvidence.of(probes.runs())).deciding
    assert found.verdict == "undecided"
    assert found.why == "no finished conventional ce trained alike"


def test_scores_that_failed_leave_it_open(probes) -> None:
    probes.controls().mosaics(probes.probe("ce"), 0.4)
    probes.mosaics(probes.probe("bce"), 0.6, status="FAILED")
    found = probes.only(P1)
    assert (found.verdict, found.metric) == ("undecided", "grid_pg")
    assert found.why == "no scores of CE to compare"


def test_the_texts_bce_decides_and_the_codes_stands_beside(probes) -> None:
    probes.pair(ce=0.4, bce=0.6).pair(ce=0.4, bce=0.3, loss="bce_uniform")
    verdict = probes.judged(P1)
    assert verdict.verdict == "holds"
    assert [c.loss for c in verdict.deciding] == ["bce"]
    (beside,) = (c for c in verdict.contrasts if c.loss == "bce_uniform")
    assert (beside.verdict, beside.claimed) == ("fails", True)
    assert "with 1/C, as in the code, 0 of 1 hold" in verdict.note


def test_the_codes_bce_decides_where_it_is_alone(probes) -> None:
    verdict = probes.pair(ce=0.4, bce=0.3, loss="bce_uniform").judged(P1)
    assert verdict.verdict == "fails"
    assert "where the text's (0) was not run" in verdict.note


def test_exempt_methods_and_deeper_probes_are_shown_only(probes) -> None:
    probes.pair(ce=0.6, bce=0.4, method="grad_cam").pair(ce=0.6, bce=0.4, probe="conventional_l2")
    verdict = probes.judged(P1)
    assert (verdict.verdict, verdict.deciding) == ("undecided", [])
    assert [c.verdict for c in verdict.contrasts] == ["fails", "fails"]


def test_integrated_gradients_count_on_bcos_networks_alone(probes) -> None:
    probes.pair(ce=0.4, bce=0.6, method="integrated_gradients")
    assert probes.deciding(P1) == []
    probes.pair(ce=0.4, bce=0.6, method="integrated_gradients", backbone="small_bcos_resnet")
    assert probes.only(P1).backbone == "small_bcos_resnet"


def test_own_images_are_two_samples_and_give_way_to_common_ones(probes) -> None:
    probes.controls()
    for loss, score in (("ce", 0.4), ("bce", 0.6)):
        names = [f"{loss}{k}" for k in range(24)]
        probes.mosaics(probes.probe(loss), score, images="own", names=names)
    found = probes.only(P1)
    assert (found.verdict, found.paired, found.images) == ("holds", False, "own")
    for loss, score in (("ce", 0.6), ("bce", 0.4)):
        probes.mosaics(probes.name(loss), score)
    found = probes.only(P1)
    assert (found.verdict, found.paired, found.images) == ("fails", True, "common")


def test_seeds_are_averaged_and_their_deviation_kept(probes) -> None:
    probes.pair(ce=0.4, bce=0.5).pair(ce=0.4, bce=0.7, seed=1)
    found = probes.only(P1)
    assert found.seeds == 2
    assert found.effect == pytest.approx(0.2, abs=0.01)
    assert found.sd == pytest.approx(0.2 / np.sqrt(2), abs=0.01)


def test_dead_maps_are_left_out_and_counted_as_0_beside(probes) -> None:
    scores = np.full((24, 9), 0.6)
    dead = scores.copy()
    dead[:18] = np.nan
    probes.controls().mosaics(probes.probe("ce"), scores - 0.2)
    probes.mosaics(probes.probe("bce"), dead)
    decides, beside = probes.judged(P1).contrasts
    assert (decides.verdict, decides.units) == ("holds", 6)
    assert beside.what == "BCE over CE, dead maps count 0"
    assert beside.value == pytest.approx(0.15)
    assert (beside.verdict, beside.decides) == ("fails", False)


def test_several_classes_without_ce_are_no_comparison(probes) -> None:
    probes.mosaics(probes.probe("bce", layout="voc"), 0.6)
    assert probes.judged(P1).contrasts == ()
    assert probes.judged(P2).contrasts == ()


def test_equal_accuracies_hold_only_with_many_images(probes) -> None:
    probes.pair(ce=0.4, bce=0.6, accuracies=(0.8, 0.805))
    verdict = probes.judged(P2)
    assert verdict.verdict == "undecided"
    assert verdict.note == "1 of 1 differences are within 1.5 points"
    for row in probes.rows:
        row["data.images_val"] = 50000
    (found,) = probes.deciding(P2)
    assert found.verdict == "holds"
    assert found.published == "67.5 → 66.9"


def test_accuracies_that_are_far_apart_fail(probes) -> None:
    assert probes.pair(ce=0.4, bce=0.6, accuracies=(0.5, 0.9)).only(P2).verdict == "fails"


def compare_images(probes, ce, bce, **fields):
    method = fields.pop("method", "lrp")
    probes.controls(**{k: v for k, v in fields.items() if k != "pretraining"})
    probes.images(probes.probe("ce", **fields), ce, method=method)
    probes.images(probes.probe("bce", **fields), bce, method=method)
    return probes


def test_entropy_falls_and_gini_does_not(probes) -> None:
    compare_images(probes, {"entropy": 8.0, "gini": 0.5}, {"entropy": 6.0, "gini": 0.6})
    verdict = probes.judged(P4)
    assert [(c.metric, c.verdict) for c in verdict.deciding] == [
        ("entropy", "holds"),
        ("gini", "holds"),
    ]
    assert [c.published for c in verdict.deciding] == ["-1.48", "+0.07"]


def test_a_rounded_gini_is_equal_and_a_lower_one_fails(probes) -> None:
    equal = np.full(40, 0.5)
    compare_images(probes, {"gini": equal}, {"gini": equal - 0.004})
    assert probes.only(P4).verdict == "holds"
    probes.clear()
    compare_images(probes, {"gini": equal}, {"gini": equal - 0.02})
    assert probes.only(P4).verdict == "fails"


def test_the_control_of_scale_stands_beside(probes) -> None:
    scores = {"entropy": 8.0, "entropy_unit_sum": 8.0}
    compare_images(probes, scores, {"entropy": 6.0, "entropy_unit_sum": 9.0})
    verdict = probes.judged(P4)
    assert [c.metric for c in verdict.deciding] == ["entropy"]
    assert {c.metric: c.verdict for c in verdict.contrasts} == {
        "entropy": "holds",
        "entropy_unit_sum": "fails",
    }


@pytest.mark.parametrize(
    ("method", "pretraining", "decides"),
    [
        ("input_x_gradient", "dino", False),
        ("integrated_gradients", "dino", False),
        ("grad_cam", "moco_v2", False),
        ("grad_cam", "dino", True),
        ("lrp", "moco_v2", True),
    ],
)
def test_exemptions_of_table_e1(probes, method, pretraining, decides) -> None:
    fields = {"method": method, "pretraining": pretraining}
    compare_images(probes, {"entropy": 8.0}, {"entropy": 6.0}, **fields)
    assert len(probes.deciding(P4)) == decides


def test_pixel_deletion_is_said_of_bcos_and_lrp(probes) -> None:
    compare_images(probes, {"pixel_deletion": 0.4}, {"pixel_deletion": 0.5})
    assert probes.only(P6).verdict == "holds"
    probes.clear()
    compare_images(probes, {"pixel_deletion": 0.4}, {"pixel_deletion": 0.5}, method="grad_cam")
    assert probes.deciding(P6) == []


@pytest.mark.parametrize(
    ("backbone", "method", "published"),
    [
        ("small_vit", "transformer_attribution", "31 → 43 (+11.7)"),
        ("small_bcos_vitc", "bcos", "47 → 80 (+32.7)"),
    ],
)
def test_transformers_have_a_finding_of_their_own(probes, backbone, method, published) -> None:
    fields = {"backbone": backbone, "method": method, "pretraining": "dino"}
    found = probes.pair(ce=0.4, bce=0.6, **fields).only(P9)
    assert (found.verdict, found.published) == ("holds", published)
    assert probes.judged(P1).contrasts == ()
