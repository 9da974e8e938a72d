"""Findings on methods, I2, I3, I9, I11, A1, A2, on made-up scores; what leaves them open."""

from __future__ import annotations

import pytest

from analysis.design_methods import CAMS, RAW, SIGNED, SMOOTHED, absolute
from analysis.findings.design_also import AGNOSTIC
from analysis.findings.design_finding import DesignContrast, counted
from analysis.findings.designs import design_verdicts
from analysis.probing_rows import Gain
from tests.analysis.made_designs import METHODS, Made, column


def signed(low: float, high: float, protocol: str = "idsds", without: str = "") -> Made:
    """A plain network on which signed maps score high and absolute ones low."""
    made = Made().tuned("small_resnet")
    for k, method in enumerate(SIGNED):
        if method != without:
            made.score("small_resnet", method, high + 0.01 * k, protocol=protocol, noise=k)
            name = absolute(method)
            made.score("small_resnet", name, low + 0.01 * k, protocol=protocol, noise=k + 9)
    return made


def smoothed(mean: float, pairs=SMOOTHED) -> Made:
    """A plain network, and smoothed methods at a mean beside methods at 0.3."""
    made = Made().tuned("small_resnet")
    for k, (smooth, method) in enumerate(pairs):
        made.score("small_resnet", method, 0.3, noise=k)
        made.score("small_resnet", smooth, mean, noise=k + 9)
    return made


def test_nothing_at_all_leaves_everything_open():
    findings, contrasts = design_verdicts(Made().evidence)
    assert findings["id"].tolist() == [f"I{k}" for k in range(1, 12)] + ["A1", "A2"]
    assert set(findings["verdict"]) == {"undecided"}
    assert findings["why"].str.len().gt(0).all()
    assert len(contrasts) == 1  # I10 asks about networks, whichever there are


@pytest.mark.parametrize(("low", "high", "said"), [(0.1, 0.3, "holds"), (0.3, 0.1, "fails")])
def test_signed_maps_against_absolute_ones(low, high, said):
    assert signed(low, high).verdict("I2") == said


def test_the_better_half_is_chosen_by_the_papers_setting_alone():
    made = Made().tuned("small_resnet").tuned("small_resnet", setting="p4_zero")
    means = {"IG-U": 0.6, "IG": 0.5, "IxG": 0.4, "IG-SG": 0.2, "IxG-SG": 0.1}
    for k, (method, mean) in enumerate(means.items()):
        rival = 0.3 if mean > 0.3 else 0.9  # only the better three beat their absolute maps
        for setting, value in (("p16_zero", mean), ("p4_zero", 1 - 1.6 * mean)):
            made.score("small_resnet", method, value, setting=setting, noise=k)
            made.score("small_resnet", absolute(method), rival, setting=setting, noise=k + 9)
    assert made.verdict("I2") == "holds"
    (what,) = [what for what in made.contrasts("I2").index if "methods for" in what]
    assert what == "signed over absolute on small_resnet (3 of 3 methods for, 0 against)"


def test_a_missing_pair_leaves_it_open_unless_the_others_fail():
    made = signed(0.1, 0.3, without="IG-SG")
    assert made.verdict("I2") == "undecided"
    assert made.finding("I2")["why"] == "no run of IG-SG on small_resnet by idsds"
    assert signed(0.3, 0.1, without="IG-SG").verdict("I2") == "fails"


def test_a_missing_pair_may_be_one_of_the_better_half():
    made = Made().tuned("small_resnet")
    for k, (method, rival) in enumerate({"IG-U": 0.1, "IG": 0.9, "IxG": 0.9, "IxG-SG": 0}.items()):
        made.score("small_resnet", method, 0.6 - 0.1 * k, noise=k)
        made.score("small_resnet", absolute(method), rival, noise=k + 9)
    assert made.verdict("I2") == "undecided"  # one for, one against, and IG-SG or IxG
    for name, mean in (("IG-SG", 0.0), (absolute("IG-SG"), 0.9)):
        made.score("small_resnet", name, mean, noise=7)
    assert made.verdict("I2") == "fails"


@pytest.mark.parametrize(("mean", "said"), [(0.1, "holds"), (0.5, "fails"), (0.3, "undecided")])
def test_smoothing(mean, said):
    assert smoothed(mean).verdict("I3") == said


def test_smoothing_of_some_methods_is_not_that_of_all():
    some = smoothed(0.1, SMOOTHED[:1])
    assert some.verdict("I3") == "undecided"
    assert "no run of IG on small_resnet" in some.finding("I3")["why"]
    assert smoothed(0.5, SMOOTHED[:1]).verdict("I3") == "fails"


def test_equal_scores_decide_nothing():
    made = Made().tuned("small_resnet")
    for smooth, method in SMOOTHED:
        made.score("small_resnet", smooth, 0.3).score("small_resnet", method, 0.3)
    assert made.verdict("I3") == "undecided"
    assert set(made.contrasts("I3")["why"]) == {"the interval +0.000 to +0.000 includes 0"}


def after_softmax(mean: float, networks=("small_resnet", "small_vgg")) -> Made:
    made = Made()
    for network in networks:
        made.network(network, 0.3)
        for k, method in enumerate(METHODS):
            made.score(network, method, mean, output="probability", noise=k + 5)
    return made


@pytest.mark.parametrize(("mean", "said"), [(0.1, "holds"), (0.6, "fails")])
def test_logits_against_probabilities(mean, said):
    made = after_softmax(mean)
    for k, method in enumerate(METHODS):  # a network that the paper says nothing of
        made.score("small_vit", method, 0.3, noise=k)
        made.score("small_vit", method, 0.9 - mean, output="probability", noise=k)
    assert made.tuned("small_vit").verdict("I9") == said
    assert made.contrasts("I9")["decides"].sum() == 2


def test_methods_that_explain_no_logit_have_no_part_in_it():
    made = after_softmax(0.1)
    for network in ("small_resnet", "small_vgg"):
        for method in ("RISE", "RISE-U", "Rollout"):
            made.score(network, method, 0.3)
    assert made.verdict("I9") == "holds"  # three of three, not three of six


def test_probabilities_on_one_of_the_two_networks_are_not_enough():
    made = after_softmax(0.1, ["small_resnet"])
    assert made.finding("I9")["why"] == "no run of small_vgg"
    made.network("small_vgg", 0.3)
    assert made.finding("I9")["why"] == "small_vgg: no method explains the probability"
    made = after_softmax(0.1)
    made.score("small_vgg", "Saliency", 0.3).score("small_vgg", "IG-U", 0.3)
    made.score("small_vgg", "IG-SG", 0.3)  # three of six have both arms: no majority
    assert made.verdict("I9") == "undecided"


def test_equal_maps_of_both_outputs_count_for_neither():
    made = after_softmax(0.1)
    for network in ("small_resnet", "small_vgg"):
        for method in ("IG-U", "Saliency", "Layer-CAM"):
            made.score(network, method, 0.3).score(network, method, 0.3, output="probability")
    assert made.verdict("I9") == "undecided"


def updated(made: Made, mean: float, methods=RAW) -> Made:
    for k, method in enumerate(methods):
        made.score("small_resnet", method, mean, protocol="ids_updated", noise=k)
    for k, method in enumerate(CAMS):
        made.score("small_resnet", method, 0.3, protocol="ids_updated", noise=k + 9)
    return made


def test_incremental_deletion():
    blind = signed(0.3, 0.1, "ids")
    assert blind.verdict("I11") == "undecided"  # nothing says what updated maps do
    assert "no run of IxG on small_resnet by ids_updated" in blind.finding("I11")["why"]
    assert updated(blind, 0.6).verdict("I11") == "holds"
    assert updated(signed(0.3, 0.1, "ids"), 0.2).verdict("I11") == "fails"  # below the best other
    assert updated(signed(0.1, 0.3, "ids"), 0.6).verdict("I11") == "fails"
    some = updated(signed(0.3, 0.1, "ids"), 0.6, ["IxG"])
    assert some.verdict("I11") == "undecided"
    assert "no run of IG on small_resnet by ids_updated" in some.finding("I11")["why"]
    assert updated(signed(0.3, 0.1, "ids", without="IG"), 0.6).verdict("I11") == "undecided"


def test_the_best_of_the_methods_that_suit_any_network():
    made = Made().tuned("small_resnet").score("small_resnet", "Grad-CAM", 0.9)
    for k, method in enumerate(AGNOSTIC):
        made.score("small_resnet", method, 0.5 if method == "IG-U" else 0.1, noise=k)
    assert made.verdict("A1") == "holds"
    del made.scores[-1]
    assert made.verdict("A1") == "undecided"
    assert made.score("small_resnet", AGNOSTIC[-1], 0.7).verdict("A1") == "fails"


@pytest.mark.parametrize(("mean", "said"), [(0.3, "holds"), (0.302, "fails")])
def test_cams_with_one_score(mean, said):
    made = Made().tuned("small_resnet").score("small_resnet", "Grad-CAM", 0.3)
    assert made.verdict("A2") == "undecided"
    assert made.score("small_resnet", "XGrad-CAM", mean).verdict("A2") == said


def test_a_reason_stands_only_where_something_is_open():
    made = smoothed(0.5, SMOOTHED[:1])
    row = made.finding("I3")
    assert (row["verdict"], row["undecided"], row["why"]) == ("fails", 2, "")


def test_two_results_of_a_cell_leave_it_open_and_are_told():
    made = smoothed(0.1)
    made.score("small_resnet", "IxG", 0.9, noise=4)
    assert made.verdict("I3") == "undecided"
    assert "several results of IxG on small_resnet by idsds" in made.finding("I3")["why"]
    (note,) = made.evidence.notes
    assert "IxG on small_resnet by idsds: several results with one seed" in note
    made.score("small_resnet", "IxG", 0.3, seed="1").score("small_resnet", "IxG-SG", 0.1, seed="1")
    made.tuned("small_resnet", seed="1")
    assert made.verdict("I3") == "holds"  # another seed has one result each


def test_few_defined_images_decide_nothing():
    for defined, said in ((19, "undecided"), (21, "holds")):
        made = smoothed(0.1, SMOOTHED[1:])
        made.score("small_resnet", "IxG", 0.3, noise=1)
        made.score("small_resnet", "IxG-SG", 0.1, noise=2, defined=defined)
        assert made.verdict("I3") == said
    made = smoothed(0.1, SMOOTHED[1:])
    for method, mean in (("IxG", 0.3), ("IxG-SG", 0.1)):
        made.score("small_resnet", method, mean, images=100, defined=45)
    assert "defined on 45 of 100 images, too few" in made.finding("I3")["why"]


def test_scores_of_other_images_are_not_compared():
    made = smoothed(0.1, SMOOTHED[1:])
    made.score("small_resnet", "IxG", 0.3).score("small_resnet", "IxG-SG", 0.1, first=30)
    assert "too few shared images" in made.finding("I3")["why"]


def test_half_of_the_methods_is_no_majority():
    def said(*verdicts: str, **about) -> str:
        each = [DesignContrast(what="", protocol="idsds", verdict=one) for one in verdicts]
        return counted(each, "designs", **about).verdict

    assert said("holds", "holds", "fails", "fails") == "undecided"
    assert said("holds", "holds", "undecided", "undecided") == "undecided"
    assert said("holds", "holds", "holds", "fails") == "holds"
    assert said("holds", "fails", "fails") == "fails"
    assert said("holds", "holds", members=4) == said() == "undecided"
    assert said("holds", why="no run") == "undecided"


def test_an_interval_of_one_image_decides_nothing():
    gain = Gain(value=1.0, against=0.0, effect=1.0, draws=column(1.0).scores, units=1, each=(1.0,))
    assert DesignContrast.of(gain, "a", "idsds", of_images=1).verdict == "undecided"
