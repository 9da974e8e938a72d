"""P10: rollout that sees no probe, the gauge, and the shift."""

from __future__ import annotations

import re

import numpy as np
import pytest

from analysis.findings.probe_controls import RolloutIsBlind, dead_maps
from analysis.findings.probe_gauge import GainIsGauge, ShiftMovesMaps, gauges, shifts

P10A, P10B, P10C = RolloutIsBlind(), GainIsGauge(), ShiftMovesMaps()
VIT = {"backbone": "small_vit", "pretraining": "dino"}


def blind(mosaics: int = 24) -> np.ndarray:
    """Scores of one map for all nine classes: the shares of its cells, which add up to 1."""
    shares = np.random.default_rng(1).dirichlet(np.ones(9), mosaics)
    return shares.astype(np.float32).astype(np.float64)


def rollouts(probes, *scores, **fields):
    losses = ("ce", "bce", "bce_uniform")
    for loss, one in zip(losses, scores, strict=False):
        probes.mosaics(probes.probe(loss, **VIT), one, method="rollout", **fields)
    return probes


def test_rollout_is_the_same_for_all_probes(probes) -> None:
    found = rollouts(probes, blind(), blind(), blind()).only(P10A)
    assert (found.verdict, found.why) == ("holds", "")
    assert found.value == pytest.approx(1 / 9, abs=1e-6)
    assert (found.what, found.units) == ("3 of 3 probes on the same mosaics", 24)


def test_one_bit_is_a_difference(probes) -> None:
    other = blind()
    other[3, 4] = np.nextafter(np.float32(other[3, 4]), 1)
    found = rollouts(probes, blind(), other).only(P10A)
    assert (found.verdict, found.why) == ("fails", "scores differ between probes")


def test_another_mean_is_no_chance(probes) -> None:
    found = rollouts(probes, blind() + 0.01, blind() + 0.01).only(P10A)
    assert (found.verdict, found.why) == ("fails", "mean is not 0.111111")


def test_one_probe_is_no_comparison(probes) -> None:
    assert rollouts(probes, blind()).only(P10A).verdict == "undecided"


def test_other_mosaics_are_no_comparison(probes) -> None:
    for loss in ("ce", "bce"):
        names = [f"{loss}{k}" for k in range(24)]
        of = probes.probe(loss, **VIT)
        probes.mosaics(of, blind(), method="rollout", names=names)
    assert probes.only(P10A).why == "no two probes were scored on the same mosaics"


def gauge_pair(probes, ce, bce, carried=None):
    """GridPG (as trained, centered) of both losses, and of CE with BCE's class mean."""
    probes.pair(ce=ce[0], bce=bce[0])
    for loss, (_, centered) in (("ce", ce), ("bce", bce)):
        probes.mosaics(probes.name(loss), centered, gauge="centered")
    if carried is not None:
        other = {"gauge.other.objective": "bce", "gauge.other.off_target": "zero"}
        probes.mosaics(probes.name("ce"), carried, gauge="exchanged", **other)
    return probes


def test_a_gain_that_goes_with_the_class_mean_is_the_gauge(probes) -> None:
    gauge_pair(probes, ce=(0.4, 0.4), bce=(0.6, 0.4), carried=0.6)
    verdict = probes.judged(P10B)
    (found,) = verdict.deciding
    assert (verdict.verdict, found.verdict) == ("holds", "holds")
    assert found.value == pytest.approx(0.2, abs=0.01)
    assert found.against == pytest.approx(0.0, abs=0.01)
    assert re.search(r"\b\d+\.\d as trained, -?0\.\d in its direction", verdict.note)
    assert "% is the gauge" in verdict.note
    shown = {c.what: c for c in verdict.contrasts}
    assert shown["CE carrying BCE's class mean, over CE"].effect == pytest.approx(0.2, abs=0.01)
    assert shown["CE centered, over CE"].verdict == "undecided"


def test_a_gain_that_stays_is_the_loss(probes) -> None:
    verdict = gauge_pair(probes, ce=(0.4, 0.2), bce=(0.6, 0.6)).judged(P10B)
    assert verdict.verdict == "fails"


def test_an_effect_may_be_a_loss(probes) -> None:
    found = gauge_pair(probes, ce=(0.6, 0.4), bce=(0.4, 0.4)).only(P10B)
    assert found.verdict == "holds"
    assert found.value == pytest.approx(0.2, abs=0.01)
    (row,) = gauges(probes.evidence()).to_dict("records")
    assert row["share"] == pytest.approx(1.0, abs=0.05)


def test_no_effect_cannot_go(probes) -> None:
    verdict = gauge_pair(probes, ce=(0.5, 0.4), bce=(0.5, 0.1)).judged(P10B)
    (found,) = verdict.deciding
    assert (found.verdict, found.read) == ("undecided", True)
    assert found.why == "there is no effect as trained that could go"
    assert verdict.note == ""


def test_the_gauge_is_read_of_controlled_probes_only(probes) -> None:
    gauge_pair(probes, ce=(0.4, 0.4), bce=(0.6, 0.4))
    probes.rows = [row for row in probes.rows if row.get("tag.pretraining") != "none"]
    (found,) = probes.deciding(P10B)
    assert found.verdict == "undecided"
    assert found.why.startswith("no control")


def test_gauges_stand_side_by_side(probes) -> None:
    gauge_pair(probes, ce=(0.4, 0.41), bce=(0.6, 0.5), carried=0.55)
    (row,) = gauges(probes.evidence()).to_dict("records")
    numbers = [row[name] for name in ("ce", "ce_centered", "ce_exchanged", "bce", "bce_centered")]
    np.testing.assert_allclose(numbers, [0.4, 0.41, 0.55, 0.6, 0.5], atol=0.01)
    assert row["share"] == pytest.approx(1 - 0.09 / 0.2, abs=0.03)
    assert row["gain_low"] < row["gain"] < row["gain_high"]


def test_no_gain_has_no_share(probes) -> None:
    gauge_pair(probes, ce=(0.5, 0.4), bce=(0.5, 0.4))
    (row,) = gauges(probes.evidence()).to_dict("records")
    assert np.isnan(row["share"])
    assert np.isnan(row["ce_exchanged"])


def shifted(probes, *pairs, losses=(0.5, 0.5)):
    """GridPG by alpha of a CE probe with 0.6, and its cross-entropy before and after."""
    of = probes.probe("ce")
    before, after = ({"val/ce_loss": one} if one is not None else {} for one in losses)
    probes.mosaics(of, 0.6, logged=before)
    for alpha, score in pairs:
        more = {"gauge": "shifted", "gauge.alpha": alpha, "logged": after}
        probes.mosaics(of, score, **more)
    return probes


def test_a_shift_moves_grid_pg_and_leaves_the_loss(probes) -> None:
    verdict = shifted(probes, (5.0, 0.4), (20.0, 0.2)).judged(P10C)
    assert verdict.verdict == "holds"
    (found,) = verdict.deciding
    assert (found.what, found.published) == ("alpha = 20", "65.7 → 11.9")
    assert found.effect == pytest.approx(-0.4, abs=0.01)
    assert verdict.note == ""


def test_a_shift_that_moves_the_loss_is_none(probes) -> None:
    found = shifted(probes, (20.0, 0.2), losses=(0.5, 0.6)).only(P10C)
    assert (found.verdict, found.why) == ("fails", "cross-entropy moved by +0.1000")


def test_a_shift_that_changes_nothing_is_open(probes) -> None:
    found = shifted(probes, (20.0, 0.6), losses=(None, None)).only(P10C)
    assert (found.verdict, found.why) == ("undecided", "the interval includes 0")


def test_a_loss_that_nobody_logged_is_said(probes) -> None:
    verdict = shifted(probes, (20.0, 0.2), losses=(None, None)).judged(P10C)
    assert verdict.verdict == "holds"
    assert verdict.note.startswith("no run says its cross-entropy")


def test_a_shift_without_its_probe_as_trained_is_open(probes) -> None:
    probes.mosaics(probes.probe("ce"), 0.2, gauge="shifted", **{"gauge.alpha": 20.0})
    found = probes.only(P10C)
    assert (found.verdict, found.why) == ("undecided", "no scores of the unshifted probe")
    (row,) = shifts(probes.evidence()).to_dict("records")
    assert row["grid_pg"] == pytest.approx(0.2, abs=0.02)


def test_dead_maps_are_counted_by_loss(probes) -> None:
    probes.pair(ce=0.4, bce=0.6)
    (row,) = dead_maps(probes.evidence()).to_dict("records")
    assert (row["ce"], row["bce"]) == (0.1, 0.1)
    assert np.isnan(row["bce_uniform"])
