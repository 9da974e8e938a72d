"""P3, P5, P7 and P8: pre-trainings, box sizes and depths."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.findings.probe_layers import DeeperBcosProbes, DeeperConventionalProbes
from analysis.findings.probe_pretraining import LossMattersMore, SmallBoxesGainMost

P3, P5, P7, P8 = (
    LossMattersMore(),
    SmallBoxesGainMost(),
    DeeperBcosProbes(),
    DeeperConventionalProbes(),
)


def two_pretrainings(probes, moco, dino):
    """GridPG (CE, BCE) of two pre-trainings."""
    for name, (ce, bce) in (("moco_v2", moco), ("dino", dino)):
        probes.pair(ce=ce, bce=bce, pretraining=name)
    return probes


def test_the_loss_matters_more(probes) -> None:
    found = two_pretrainings(probes, (0.3, 0.6), (0.35, 0.65)).only(P3)
    assert found.verdict == "holds"
    assert found.value == pytest.approx(0.3, abs=0.01)
    assert found.against == pytest.approx(0.05, abs=0.01)
    assert found.pretraining == "dino, moco_v2"


def test_the_pretraining_matters_more(probes) -> None:
    found = two_pretrainings(probes, (0.3, 0.35), (0.6, 0.65)).only(P3)
    assert found.verdict == "fails"


def test_one_pretraining_has_no_range(probes) -> None:
    probes.pair(ce=0.3, bce=0.6)
    assert probes.judged(P3).contrasts == ()


def test_an_unread_probe_leaves_the_range_open(probes) -> None:
    probes.pair(ce=0.3, bce=0.6, pretraining="moco_v2")
    probes.pair(ce=0.3, bce=0.6, pretraining="dino", accuracies=(0.2, 0.8))
    found = probes.only(P3)
    assert found.verdict == "undecided"
    assert "does not exceed" in found.why


@pytest.mark.parametrize(
    ("moco", "dino", "verdict"),
    [((0.3, 0.6), (0.6, 0.3), "holds"), ((0.3, 0.3), (0.6, 0.6), "fails")],
)
def test_whether_one_pretraining_is_best_for_all_methods(probes, moco, dino, verdict) -> None:
    """Scores of LRP and LIME."""
    for name, (lrp, lime) in (("moco_v2", moco), ("dino", dino)):
        for method, score in (("lrp", lrp), ("lime", lime)):
            probes.pair(ce=score, bce=score + 0.3, pretraining=name, method=method)
            if method == "lime":
                probes.mosaics(probes.name("ce", pretraining=name), score, method=method)
    best = [c for c in probes.judged(P3).contrasts if c.what.startswith("no pre-training")]
    assert {c.verdict for c in best} == {verdict}
    assert {c.loss for c in best} == {"ce", "bce"}


def by_size(probes, small: float, large: float, **fields):
    """EPG gains of small and of large boxes."""
    areas = np.repeat([0.1, 0.9], 20)
    noise = np.random.default_rng(0).normal(0, 0.01, 40)
    method = fields.pop("method", "lrp")
    probes.controls(**{k: v for k, v in fields.items() if k != "pretraining"})
    base = np.full(40, 0.4)
    probes.images(probes.probe("ce", **fields), {"epg": base}, method=method, areas=areas)
    gains = np.repeat([small, large], 20) + noise
    of = probes.probe("bce", **fields)
    probes.images(of, {"epg": base + gains}, method=method, areas=areas)
    return probes


@pytest.mark.parametrize(
    ("small", "large", "verdicts"),
    [
        (0.2, 0.05, ["holds", "holds"]),
        (0.05, 0.2, ["holds", "fails"]),
        (-0.1, -0.2, ["fails", "holds"]),
    ],
)
def test_gains_fall_with_the_size_of_boxes(probes, small, large, verdicts) -> None:
    verdict = by_size(probes, small, large).judged(P5)
    assert [c.verdict for c in verdict.deciding] == verdicts
    assert verdict.verdict == ("fails" if "fails" in verdicts else "holds")
    assert verdict.deciding[1].what == "gain by BCE of boxes 0-0.25 over 0.75-1"


def test_boxes_of_one_size_say_nothing_of_sizes(probes) -> None:
    probes.controls()
    for loss, score in (("ce", 0.4), ("bce", 0.6)):
        probes.images(probes.probe(loss), {"epg": score}, areas=np.full(40, 0.1))
    signs, sizes = probes.deciding(P5)
    assert (signs.verdict, sizes.verdict) == ("holds", "undecided")
    assert sizes.why == "boxes of one size bin at most"


@pytest.mark.parametrize(
    ("backbone", "pretraining", "decide"),
    [
        ("small_resnet", "moco_v2", 0),
        ("small_bcos_resnet", "dino", 0),
        ("small_bcos_resnet", "moco_v2", 2),
    ],
)
def test_grad_cam_is_exempt_where_the_paper_says(probes, backbone, pretraining, decide) -> None:
    fields = {"backbone": backbone, "pretraining": pretraining, "method": "grad_cam"}
    assert len(by_size(probes, 0.2, 0.1, **fields).deciding(P5)) == decide


def deeper(probes, form, accuracies, scores, method="lrp", layout="imagenet", images=50000):
    """Probes of 1, 2, ... layers trained by BCE."""
    for layers, (accuracy, score) in enumerate(zip(accuracies, scores, strict=True), 1):
        probe = form if layers == 1 else f"{form}_l{layers}"
        probes.controls(probe=probe, layout=layout)
        of = probes.probe("bce", accuracy, probe=probe, layout=layout)
        if layout == "voc":
            probes.images(of, {"epg": score}, method=method)
        else:
            probes.mosaics(of, score, method=method)
    for row in probes.rows:
        row["data.images_val"] = images
    return probes


def verdicts(probes, finding) -> dict[str, str]:
    return {f"{c.metric} {c.what}": c.verdict for c in probes.deciding(finding)}


def test_deeper_bcos_probes_fall_in_neither(probes) -> None:
    deeper(probes, "bcos", (0.7, 0.75, 0.8), (0.5, 0.5, 0.6))
    assert verdicts(probes, P7) == {
        "accuracy 3 layers over 1": "holds",
        "grid_pg 3 layers over 1": "holds",
    }
    assert probes.judged(P7).verdict == "holds"
    assert len(probes.judged(P7).contrasts) == 6  # the steps are shown


def test_a_step_that_falls_fails_although_the_ends_rise(probes) -> None:
    deeper(probes, "bcos", (0.7, 0.75, 0.8), (0.5, 0.4, 0.6))
    assert verdicts(probes, P7)["grid_pg 2 layers over 1"] == "fails"
    assert probes.judged(P7).verdict == "fails"


def test_few_images_leave_accuracies_open(probes) -> None:
    deeper(probes, "bcos", (0.7, 0.71), (0.5, 0.6), images=200)
    assert verdicts(probes, P7)["accuracy 2 layers over 1"] == "undecided"


def test_grad_cam_is_exempt_from_depth(probes) -> None:
    deeper(probes, "bcos", (0.7, 0.8), (0.6, 0.4), method="grad_cam")
    assert verdicts(probes, P7) == {"accuracy 2 layers over 1": "holds"}


def test_with_several_classes_f1_and_epg_count(probes) -> None:
    deeper(probes, "bcos", (0.5, 0.6), (0.4, 0.5), layout="voc")
    assert verdicts(probes, P7) == {
        "f1 2 layers over 1": "holds",
        "epg 2 layers over 1": "holds",
    }


def test_deeper_conventional_probes_trade_grid_pg_for_accuracy(probes) -> None:
    deeper(probes, "conventional", (0.7, 0.75, 0.8), (0.6, 0.5, 0.4))
    assert probes.judged(P8).verdict == "holds"
    assert probes.judged(P7).contrasts == ()


def test_a_rising_grid_pg_fails_and_a_rising_epg_holds(probes) -> None:
    deeper(probes, "conventional", (0.7, 0.8), (0.4, 0.6))
    assert verdicts(probes, P8)["grid_pg 2 layers over 1"] == "fails"
    probes.clear()
    deeper(probes, "conventional", (0.7, 0.8), (0.4, 0.6), layout="voc")
    assert probes.judged(P8).verdict == "holds"


def test_deeper_probes_have_controls_too(probes) -> None:
    for layers in ("bcos", "bcos_l2"):
        probes.mosaics(probes.probe("bce", 0.8, probe=layers), 0.5)
    found = probes.deciding(P7)
    assert {c.verdict for c in found} == {"undecided"}
    assert all(c.why.startswith("no control") for c in found)
