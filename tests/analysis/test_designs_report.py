"""The report on designs: its tables fit and mark what they must, its correlations are of equals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import designs_agreement as agreeing
from analysis import designs_tables as shown
from analysis import tables
from analysis.design_methods import ORDER
from analysis.designs_plots import best_figure, best_reading, channels_figure
from analysis.designs_report import NETWORKS, NOTHING, DesignFrames
from analysis.findings.design_accuracy import accuracy_against_best
from analysis.findings.design_evidence import DesignEvidence
from analysis.paper_tables import ACCURACIES, PUBLISHED
from sweeps.idsds_recipes import IMAGENET, SAMPLE
from tests.analysis.made_designs import Made


def frames(made: Made, monkeypatch: pytest.MonkeyPatch) -> tuple[DesignFrames, Any]:
    """Frames of made evidence, and runs without files."""
    monkeypatch.setattr(DesignEvidence, "of", classmethod(lambda cls, runs: made.evidence))
    runs: Any = type("Runs", (), {"arrays": lambda *_: {}})()
    return DesignFrames.of(runs), runs


def test_the_report_shows_it_all(monkeypatch):
    made = Made().network("small_resnet", 0.3).network("small_deep_resnet", 0.1, passes=False)
    made.unrelated("small_deep_resnet", "small_resnet")
    report, runs = frames(made, monkeypatch)
    text = report.terminal()
    assert max(map(len, text.splitlines())) <= tables.WIDTH
    for word in ("80.0 / 80.0", "40.0 / 30.0", "deep_resnet*", "no: SDS", "I11", "unrelated"):
        assert word in text
    assert "I4 is open: small_deep_resnet does not pass the gate" in text.replace("\n", " ")
    report, _ = frames(made.network("small_wide_resnet", 0.9), monkeypatch)
    said = report.terminal().replace("\n", " ")
    assert "I5 fails on: small_resnet over small_wide_resnet (0 of 3 me" in said
    report, runs = frames(made, monkeypatch)
    assert "In domain: 2 of 3 fine-tunings." in report.short_lines()
    assert len(report.blocks(runs)) > 10
    assert set(report.csvs()) >= {"designs_findings", "designs_scores"}


def test_scores_are_shown_before_any_comparison_has_finished(monkeypatch):
    made = Made().methods("small_resnet", 0.3, protocol="sds")
    report, runs = frames(made, monkeypatch)
    assert "IxG" in report.terminal()
    assert report.blocks(runs)
    assert made.methods("small_resnet", 0.3).evidence.scores["protocol"].eq("idsds").sum() == 0
    assert "resnet*" in frames(made, monkeypatch)[0].terminal()
    compared, runs = frames(Made().tuned("small_resnet"), monkeypatch)
    assert "no: SDS" not in compared.terminal()
    assert compared.blocks(runs)
    empty, runs = frames(Made(), monkeypatch)
    assert (empty.terminal(), empty.blocks(runs), empty.short_lines()) == ("", [], [NOTHING])


@pytest.mark.parametrize("recipe", [SAMPLE, IMAGENET])
def test_tables_fit_a_terminal_uncut(recipe):
    made = Made()
    for network in recipe.designs:
        made.tuned(network)
        for method in ORDER:
            made.score(network, method, -0.123, images=20)
    parts = [tables.text(one) for one in shown.side_by_side(shown.scores_table(made.evidence))]
    parts.append(tables.text(shown.networks_table(made.evidence)))
    text = "\n".join(parts)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= tables.WIDTH
    for word in [*ORDER, *(name.removeprefix("small_") for name in recipe.designs)]:
        assert word in text


def test_a_row_of_networks_is_that_of_its_setting_and_seed():
    made = Made().network("small_resnet", 0.3)
    made.tuned("small_resnet", setting="p64_zero")
    made.tuned("small_resnet", seed="1", passes=False)
    made.score("small_resnet", "IG-U", 0.111, setting="p64_zero")
    made.score("small_resnet", "Saliency", 0.222, seed="1")
    table = shown.networks_table(made.evidence).set_index(["deletions", "seed"])
    columns = ["in domain", "best method", "score"]
    assert table.loc[("p16_zero", "0"), columns].tolist() == ["yes", "Grad-CAM", "0.320"]
    assert table.loc[("p64_zero", "0"), columns].tolist() == ["yes", "IG-U", "0.111"]
    assert table.loc[("p16_zero", "1"), columns].tolist() == ["no: SDS", "Saliency", "0.222"]


def test_scores_say_where_they_are_none_of_the_domain_or_seldom_defined():
    made = Made().network("small_resnet", 0.3).network("small_vit", 0.2, passes=False)
    made.score("small_resnet", "Layer-CAM", 0.5, defined=10)
    table = shown.scores_table(made.evidence).set_index("method")
    assert list(table) == ["resnet", "vit*"]
    assert table["resnet"].tolist() == ["30.0", "31.0", "32.0", "50.0?"]
    assert table.loc["IxG", "vit*"] == "20.0"


def test_every_protocol_has_a_column():
    made = Made().network("small_resnet", 0.3)
    made.score("small_resnet", "IG", 0.25, output="probability")
    made.score("small_resnet", "IG", 0.9, protocol="ids")
    table = shown.protocols_table(made.evidence).set_index("method")
    assert table.loc["IG"].tolist() == ["resnet", "31.0", "25.0", "90.0"]


def test_what_the_report_says_of_the_papers_accuracies_is_what_its_table_has():
    gains = [100 * (after - before) for _, _, before, after in ACCURACIES.values()]
    changes = [100 * (after - before) for before, after, _, _ in ACCURACIES.values()]
    assert f"gains {min(gains):.1f} to {max(gains):.1f} points" in NETWORKS
    assert f"changes by {min(changes):+.1f} to {max(changes):+.1f}" in NETWORKS


def test_the_papers_accuracies_stand_beside_those_of_its_networks():
    assert set(ACCURACIES) < set(IMAGENET.designs)
    assert shown.accuracies_table(Made().tuned("resnet50").evidence).empty
    made = Made("imagenet").tuned("resnet50").tuned("vgg13").tuned("resnet50", setting="p4_zero")
    (row,) = shown.accuracies_table(made.evidence).to_dict("records")
    assert row["the paper's"] == "76.1 / 76.9"
    assert row["paper's worst"] == "41.9 / 54.0"


def ranked(made: Made, network: str, signs: dict[tuple[str, str, str], int]) -> Made:
    """Four methods in an order, or in the reverse, by protocol, setting and seed."""
    for (protocol, setting, seed), sign in signs.items():
        if protocol == "idsds":
            made.tuned(network, setting=setting, seed=seed)
        for k, method in enumerate("abcd"):
            about = {"protocol": protocol, "setting": setting, "seed": seed}
            made.score(network, method, 0.1 * sign * k, **about)
    return made


def test_correlations_over_methods_and_seeds_of_both():
    made = ranked(
        Made(),
        "small_resnet",
        {
            ("idsds", "p16_zero", "0"): 1,
            ("sds", "p16_zero", "0"): 1,
            ("ids", "p16_zero", "0"): -1,
            ("idsds", "p64_zero", "0"): 1,
            ("idsds", "p16_zero", "1"): -3,  # would turn the mean over seeds
        },
    )
    pairs = agreeing.agreement(made.evidence).set_index(["one", "other"])["spearman"]
    assert pairs.to_dict() == {("idsds", "sds"): 1, ("idsds", "ids"): -1, ("sds", "ids"): -1}
    pairs = agreeing.stability(made.evidence).set_index(["one", "other"])["spearman"]
    assert pairs.to_dict() == {("p16_zero", "p64_zero"): 1, ("seed 0", "seed 1"): -1}
    for row in made.comparisons[1:]:
        row["in_domain"] = 0.0
    pairs = agreeing.stability(made.evidence).set_index(["one", "other"])["spearman"]
    assert pairs.to_dict() == {("p16_zero", "p64_zero*"): 1, ("seed 0", "seed 1*"): -1}


def test_a_network_that_is_not_in_domain_agrees_with_nothing():
    made = Made().network("small_resnet", 0.3, passes=False)
    made.methods("small_resnet", 0.3, protocol="sds").methods("small_resnet", 0.3, protocol="ids")
    pairs = agreeing.agreement(made.evidence)[["one", "other"]].to_numpy().tolist()
    assert pairs == [["sds", "ids"]]
    assert agreeing.stability(made.evidence).empty


@pytest.mark.parametrize(
    ("network", "dataset", "without", "stands"),
    [
        ("resnet50", "imagenet", "", True),
        ("resnet50", "imagenet", "IG", False),
        ("resnet50", "digit_scenes", "", False),
        ("resnet18", "imagenet", "", False),
    ],
)
def test_the_papers_correlations_stand_beside_equals_only(network, dataset, without, stands):
    made = Made(dataset).tuned(network).tuned(network, seed="1")
    for method, (idsds, ids, sds, _) in PUBLISHED.items():
        if method != without:
            made.score(network, method, idsds).score(network, method, idsds, seed="1")
            made.score(network, method, sds, protocol="sds")
            made.score(network, method, ids, protocol="ids")
    table = agreeing.agreement(made.evidence).set_index(["one", "other"])
    expected = {("idsds", "sds"): 0.899, ("idsds", "ids"): 0.371, ("sds", "ids"): 0.640}
    assert table["published"].notna().tolist() == [stands] * 3
    if stands:
        for pair, rho in expected.items():
            assert table.loc[pair, "spearman"] == pytest.approx(rho, abs=5e-4)
            assert table.loc[pair, "published"] == pytest.approx(rho, abs=5e-4)
    (row,) = agreeing.stability(made.evidence).to_dict("records")
    assert (row["spearman"], row["published"] == 0.996) == (1.0, stands)
    assert "the paper's" in agreeing.correlations_table(table.reset_index()) or not stands


def test_pictures():
    made = Made().network("small_resnet", 0.3).network("small_vit", 0.2, passes=False)
    best = accuracy_against_best(made.evidence)
    assert "1 network is in domain" in best_reading(best)
    assert [text.get_text() for text in best_figure(best, "caption").axes[0].texts] == ["1", "2"]
    several = pd.DataFrame(
        [(f"n{k}", 0.5 + 0.1 * k, "IG", 0.5 - 0.1 * k, True) for k in range(3)], columns=list(best)
    )
    assert "Spearman -1.00; n0 leads with IG at 0.500" in best_reading(several)
    assert "nan" not in best_reading(several.assign(best=0.5))
    arrays = {
        "rows": np.zeros((2, 5, 9), int),
        "images": np.zeros((1, 8, 8, 3), np.uint8),
        "channels": np.arange(5),
    }
    assert len(channels_figure(arrays, "title", "caption").axes) == 4
