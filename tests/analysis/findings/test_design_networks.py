"""Findings on networks, I1, I4 to I8 and I10, on scores that are made up; and the gate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.findings.design_accuracy import accuracy_against_best, rank_test
from analysis.findings.design_cells import Cell
from analysis.findings.design_networks import ARCHITECTURES, DEPTHS
from tests.analysis.made_designs import METHODS, Made


@pytest.mark.parametrize(
    ("finding", "better", "worse"),
    [
        ("I4", "small_resnet", "small_deep_resnet"),
        ("I5", "small_resnet", "small_wide_resnet"),
        ("I6", "small_fixup_resnet", "small_resnet"),
        ("I7", "small_xresnet", "small_fixup_resnet"),
    ],
)
def test_a_majority_of_methods_decides_on_designs(finding, better, worse):
    def said(one: float, other: float) -> str:
        return Made().network(better, one).network(worse, other).verdict(finding)

    assert [said(0.3, 0.1), said(0.1, 0.3), said(0.3, 0.3)] == ["holds", "fails", "undecided"]
    assert Made().network(better, 0.3).finding(finding)["why"] == f"no run of {worse}"


@pytest.mark.parametrize(("finding", "chain"), [("I8", ARCHITECTURES[1]), ("I4", DEPTHS[0])])
def test_all_of_a_chain_counts(finding, chain):
    made = Made()
    for k, name in enumerate(chain):
        made.network(name, 0.5 - 0.1 * k)
    assert made.verdict(finding) == "holds"
    for left_out in chain:
        made = Made()
        for k, name in enumerate(chain):
            if name != left_out:
                made.network(name, 0.5 - 0.1 * k)
        assert made.verdict(finding) == "undecided"
        assert made.finding(finding)["why"] == f"no run of {left_out}"
    made = Made()
    for k, name in enumerate(chain[:-1]):
        made.network(name, 0.5 + 0.1 * k)
    assert made.verdict(finding) == "fails"  # whatever the last one says


def test_a_network_of_another_question_asks_for_no_chain():
    made = Made().network("small_resnet", 0.1).network("small_fixup_resnet", 0.3)
    assert made.network("small_vgg", 0.3).verdict("I6") == "holds"
    assert made.network("small_vgg_bn", 0.9).verdict("I6") == "fails"
    assert made.network("small_xvgg", 0.9).finding("I7")["holding"] == 1


def test_grids_beside_the_papers_neither_count_nor_replace_it():
    made = Made().network("small_resnet", 0.3).network("small_deep_resnet", 0.1)
    for name, mean in (("small_resnet", 0.1), ("small_deep_resnet", 0.3)):
        for setting in ("p4_zero", "p64_zero"):
            made.tuned(name, setting=setting).methods(name, mean, setting=setting)
        for method in ("IG-U", "Saliency", "RISE", "RISE-U"):
            made.score(name, method, mean, setting="p4_zero")
    assert made.verdict("I4") == "holds"
    (what,) = [what for what in made.contrasts("I4").index if "methods for" in what]
    assert f"{len(METHODS)} of {len(METHODS)} methods for" in what
    made = Made()
    for name, mean in (("small_resnet", 0.3), ("small_deep_resnet", 0.1)):
        made.tuned(name, setting="p4_zero").methods(name, mean, setting="p4_zero")
    assert made.verdict("I4") == "undecided"


def test_a_method_that_one_of_two_networks_lacks_after_fine_tuning_is_missing():
    made = Made().network("small_resnet", 0.3).network("small_deep_resnet", 0.1)
    for method in ("IG-U", "Saliency", "RISE"):  # judged on both before
        for name in ("small_resnet", "small_deep_resnet"):
            made.score(name, method, 0.2, protocol="sds")
        made.score("small_resnet", method, 0.2)
    assert made.verdict("I4") == "undecided"  # three of six for
    made = Made().network("small_resnet", 0.3).network("small_deep_resnet", 0.1)
    made.score("small_resnet", "BagNet", 0.1)  # suits but one
    assert made.verdict("I4") == "holds"


def test_self_explaining_networks_meet_the_best_method_of_the_plain_one():
    def said(bcos: float | None, bagnet: float | None) -> str:
        made = Made().network("small_resnet", 0.3)
        if bcos is not None:
            made.score("small_bcos_resnet", "B-cos", bcos, noise=3).tuned("small_bcos_resnet")
        if bagnet is not None:
            made.score("small_bagnet", "BagNet", bagnet, noise=4).tuned("small_bagnet")
        return made.verdict("I1")

    assert said(0.5, 0.5) == "holds"
    assert said(0.5, 0.2) == said(0.2, None) == "fails"
    assert said(0.5, None) == said(None, 0.5) == "undecided"


def test_the_best_method_is_defined_on_enough_images():
    made = Made().network("small_resnet", 0.3)
    assert made.evidence.best("small_resnet") == ("Grad-CAM", pytest.approx(0.32))
    made.score("small_resnet", "Layer-CAM", 0.9, defined=2)
    assert made.evidence.best("small_resnet") == ("Grad-CAM", pytest.approx(0.32))
    made.score("small_resnet", "XGrad-CAM", 0.9, defined=39)
    assert made.evidence.best("small_resnet")[0] == "XGrad-CAM"


def test_a_network_that_is_not_in_domain_leaves_it_open():
    made = Made().network("small_resnet", 0.3).network("small_deep_resnet", 0.1, passes=False)
    assert made.verdict("I4") == "undecided"
    assert "small_deep_resnet does not pass the gate" in made.finding("I4")["why"]
    assert "worst patch 40.0 to 30.0" in made.finding("I4")["why"]
    assert set(made.contrasts("I4")["verdict"]) == {"undecided"}
    made.comparisons = made.comparisons[:1]
    assert "no finished comparison says whether small_deep_resnet" in made.finding("I4")["why"]


def test_the_gate_is_that_of_a_seed_and_a_setting():
    made = Made().network("small_resnet", 0.3)
    made.methods("small_resnet", 0.9, seed="1").tuned("small_resnet", seed="1", passes=False)
    made.methods("small_resnet", 0.8, seed="2")  # nothing says what this one is
    made.methods("small_resnet", 0.7, setting="p4_zero")
    evidence = made.evidence
    inside = evidence.scores[evidence.scores["protocol"] == "idsds"]
    assert set(zip(inside["setting"], inside["seed"], strict=True)) == {("p16_zero", "0")}
    assert set(evidence.scores["protocol"]) == {"idsds", "sds_finetuned"}
    assert list(evidence.columns(Cell("small_resnet", "IG"))) == ["0"]
    assert evidence.best("small_resnet")[1] == pytest.approx(0.32)
    made.comparisons[0]["in_domain"] = 0.0
    made.comparisons[1]["corrupted_accuracy_before"] = 0.123
    made.comparisons[0]["in_domain"] = np.nan
    assert "12.3" in made.evidence.gate("small_resnet")  # the one that fails is quoted


def accuracies(made: Made, sign: int, count: int) -> Made:
    for k in range(count):
        made.network(f"network {k}", 0.3 + sign * 0.05 * k, accuracy=0.5 + 0.05 * k)
    return made


@pytest.mark.parametrize(("sign", "said"), [(-1, "holds"), (1, "fails")])
def test_accuracy_against_the_best_score(sign, said):
    made = accuracies(Made(), sign, 6).network("another", 0.9, accuracy=0.9, passes=False)
    assert made.verdict("I10") == said
    table = accuracy_against_best(made.evidence)
    assert table["in_domain"].tolist() == [True] * 6 + [False]
    made.tuned("unjudged", accuracy=0.95)
    assert made.verdict("I10") == said
    (what,) = made.contrasts("I10").index
    assert what.endswith("6 networks, without unjudged (no score)")


def test_four_networks_are_too_few_and_other_settings_are_not_averaged():
    assert "4 networks in domain" in accuracies(Made(), -1, 4).finding("I10")["why"]
    made = Made().network("small_resnet", 0.3, accuracy=0.8)
    made.tuned("small_resnet", setting="p64_zero", accuracy=0.2)
    made.methods("small_resnet", 0.9, setting="p64_zero")
    (row,) = accuracy_against_best(made.evidence).to_dict("records")
    assert (row["accuracy"], row["best"]) == (0.8, pytest.approx(0.32))


def test_the_test_of_ranks_counts_all_orders():
    ranks = np.arange(5.0)
    assert rank_test(ranks, -ranks) == (-1.0, pytest.approx(2 / 120))
    assert rank_test(ranks[:4], -ranks[:4])[1] == pytest.approx(2 / 24)
    many, noise = np.arange(12.0), np.random.default_rng(0).normal(size=12)
    rho, p = rank_test(many, noise)
    expected = stats.spearmanr(many, noise)
    assert (rho, p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
