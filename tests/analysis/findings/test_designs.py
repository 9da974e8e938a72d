"""Findings I1 to I11: every path to a verdict, on scores that are made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import designs_tables
from analysis.designs import best, protocol_of, setting_of
from analysis.designs_plots import best_figure, best_reading, channels_figure
from analysis.designs_report import DesignFrames
from analysis.findings.contrast import Contrast
from analysis.findings.design_evidence import DesignEvidence, counted
from analysis.findings.designs import accuracy_against_best, design_verdicts
from analysis.probing_rows import Column, RowScores

IMAGES = np.array([f"image {i}" for i in range(40)], dtype=object)
METHODS = ("input_x_gradient", "integrated_gradients", "grad_cam")


def column(mean: float, seed: int = 0) -> Column:
    """Scores of 40 images around a mean, the same noise for each seed."""
    noise = np.random.default_rng(seed).normal(0, 0.02, len(IMAGES))
    unknown = np.full(len(IMAGES), np.nan)
    return Column(IMAGES, np.zeros(len(IMAGES), int), mean + noise - noise.mean(), unknown)


class Made:
    """Evidence, put together score by score."""

    def __init__(self) -> None:
        self.scores: list[dict[str, Any]] = []
        self.comparisons: list[dict[str, Any]] = []
        self.kept: dict[str, dict[str, Column]] = {}

    def score(
        self, network: str, method: str, mean: float, *, protocol: str = "idsds", key: str = "",
        output: str = "logit", setting: str = "p16_zero", seed: str = "0", noise: int = 0,
    ) -> Made:  # fmt: skip
        result_id = f"{len(self.scores):016x}"
        self.kept[result_id] = {key or protocol: column(mean, noise)}
        self.scores.append(
            {
                "result_id": result_id, "network": network, "method": method, "value": mean,
                "protocol": protocol, "key": key or protocol, "output": output,
                "setting": setting, "seed": seed,
                "finetuned": setting if protocol == "idsds" else "",
            }
        )  # fmt: skip
        return self

    def tuned(self, network: str, *, passes: bool = True, accuracy: float = 0.8) -> Made:
        rose = 0.1 if passes else -0.1
        self.comparisons.append(
            {
                "result_id": f"c{len(self.comparisons)}", "pair": "finetuned", "network": network,
                "beside": network, "setting": "p16_zero", "seed": "0", "mad_softmax": 0.05,
                "mad_grad_cam": 0.04, "overlap_at_9": 0.5, "accuracy_before": accuracy,
                "accuracy_after": accuracy, "corrupted_accuracy_before": 0.4,
                "corrupted_accuracy_after": 0.4 + rose, "in_domain": float(passes),
            }
        )  # fmt: skip
        return self

    def network(self, name: str, mean: float, **about: Any) -> Made:
        """A fine-tuned network on which every method scores about the same."""
        for k, method in enumerate(METHODS):
            self.score(name, method, mean + 0.01 * k, noise=k)
        return self.tuned(name, **about)

    @property
    def evidence(self) -> DesignEvidence:
        rows: Any = None
        names = ("pair", "network", "setting", "in_domain", "accuracy_after")
        comparisons = pd.DataFrame(self.comparisons, columns=None if self.comparisons else names)
        columns = ("network", "method", "protocol", "output", "setting", "value", "result_id")
        scores = pd.DataFrame(self.scores, columns=None if self.scores else columns)
        return DesignEvidence(
            scores=scores, comparisons=comparisons, rows=RowScores(rows, self.kept)
        )


def verdict(made: Made, finding: str) -> str:
    findings, _ = design_verdicts(made.evidence)
    return str(findings.set_index("id").loc[finding, "verdict"])


def test_nothing_at_all_leaves_everything_open():
    findings, contrasts = design_verdicts(Made().evidence)
    assert findings["verdict"].tolist() == ["undecided"] * 11
    assert findings["why"].str.len().gt(0).all()
    assert len(contrasts) <= 1


@pytest.mark.parametrize(
    ("finding", "better", "worse"),
    [
        ("I4", "small_resnet", "small_deep_resnet"),
        ("I5", "small_resnet", "small_wide_resnet"),
        ("I6", "small_fixup_resnet", "small_resnet"),
        ("I7", "small_xresnet", "small_fixup_resnet"),
        ("I8", "small_vgg", "small_resnet"),
        ("I8", "small_resnet", "small_vit"),
    ],
)
def test_a_majority_of_methods_decides_on_designs(finding, better, worse):
    assert verdict(Made().network(better, 0.3).network(worse, 0.1), finding) == "holds"
    assert verdict(Made().network(better, 0.1).network(worse, 0.3), finding) == "fails"
    assert verdict(Made().network(better, 0.3).network(worse, 0.3), finding) == "undecided"
    assert verdict(Made().network(better, 0.3), finding) == "undecided"


def test_a_network_that_is_not_in_domain_leaves_it_open():
    made = Made().network("small_resnet", 0.3).network("small_deep_resnet", 0.1, passes=False)
    findings, _ = design_verdicts(made.evidence)
    row = findings.set_index("id").loc["I4"]
    assert row["verdict"] == "undecided"
    assert "small_deep_resnet does not pass the gate" in row["why"]
    assert "from 40.0 to 30.0" in row["why"]
    made.comparisons = made.comparisons[:1]
    assert "nothing says" in design_verdicts(made.evidence)[0].set_index("id").loc["I4", "why"]


def test_neighbours_of_a_chain_all_count():
    chain = {"resnet18": 0.5, "resnet50": 0.4, "resnet101": 0.3, "resnet152": 0.2}
    made = Made()
    for name, mean in chain.items():
        made.network(name, mean)
    assert verdict(made, "I4") == "holds"
    made = Made()
    for name, mean in {**chain, "resnet152": 0.35}.items():
        made.network(name, mean)
    assert verdict(made, "I4") == "fails"


@pytest.mark.parametrize(("mean", "said"), [(0.5, "holds"), (0.2, "fails")])
def test_self_explaining_networks_meet_the_best_method_of_the_plain_one(mean, said):
    made = Made().network("small_resnet", 0.3)
    made.score("small_bagnet", "bagnet", mean, noise=3).tuned("small_bagnet")
    assert verdict(made, "I1") == said
    assert best(made.evidence.scores, "small_resnet") == ("grad_cam", pytest.approx(0.32))


def signed(made: Made, low: float, high: float, protocol: str = "idsds") -> Made:
    for k, method in enumerate(METHODS[:2]):
        made.score("small_resnet", method, high, protocol=protocol, noise=k)
        made.score("small_resnet", f"{method}_abs", low, protocol=protocol, noise=k + 5)
    return made


@pytest.mark.parametrize(("low", "high", "said"), [(0.1, 0.3, "holds"), (0.3, 0.1, "fails")])
def test_signed_maps_against_absolute_ones(low, high, said):
    assert verdict(signed(Made().tuned("small_resnet"), low, high), "I2") == said
    assert verdict(signed(Made(), high, low, "ids"), "I11") == said
    assert verdict(signed(Made(), low, high, "ids_updated"), "I11") == said


@pytest.mark.parametrize(("mean", "said"), [(0.1, "holds"), (0.5, "fails"), (0.3, "undecided")])
def test_smoothing(mean, said):
    made = Made().network("small_resnet", 0.3)
    made.score("small_resnet", "smooth_grad_input_x_gradient", mean, noise=7)
    assert verdict(made, "I3") == said


@pytest.mark.parametrize(("mean", "said"), [(0.1, "holds"), (0.6, "fails")])
def test_logits_against_probabilities(mean, said):
    made = Made().network("small_resnet", 0.3)
    for k, method in enumerate(METHODS):
        made.score("small_resnet", method, mean, output="probability", noise=k + 5)
    assert verdict(made, "I9") == said


def test_equal_maps_of_both_outputs_count_for_neither():
    made = Made().tuned("small_resnet")
    made.score("small_resnet", "rollout", 0.3)
    made.score("small_resnet", "rollout", 0.3, output="probability")
    assert verdict(made, "I9") == "undecided"


@pytest.mark.parametrize(("sign", "said"), [(-1, "holds"), (1, "fails")])
def test_accuracy_against_the_best_score(sign, said):
    made = Made()
    for k in range(6):
        made.network(f"network {k}", 0.3 + sign * 0.05 * k, accuracy=0.5 + 0.05 * k)
    made.network("another", 0.9, accuracy=0.9, passes=False)
    assert verdict(made, "I10") == said
    table = accuracy_against_best(made.evidence)
    assert table["in_domain"].tolist() == [True] * 6 + [False]
    assert "6 networks in domain" in best_reading(table)
    best_figure(table, "caption")


def test_half_of_the_methods_is_no_majority():
    def said(*lows: float) -> str:
        each = [
            Contrast(what="", metric="idsds", verdict="", low=low, high=low + 0.1) for low in lows
        ]
        return counted(each, "designs").verdict

    assert said(0.1, 0.1, -0.3, -0.3) == said(0.1, 0.1, -0.05, -0.05) == "undecided"
    assert said(0.1, 0.1, 0.1, -0.3) == "holds"
    assert said(0.1, -0.3, -0.3) == "fails"
    assert counted([], "designs").verdict == "undecided"


@pytest.mark.parametrize(
    ("key", "protocol", "setting"),
    [
        ("idsds", "idsds", "p16_zero"),
        ("idsds_p64_blur", "idsds", "p64_blur"),
        ("sds_color_and_inverse", "sds", "p16_zero"),
        ("sds_p4_color_and_inverse_random", "sds", "p4_random"),
        ("ids", "ids", "p16_zero"),
        ("ids_updated", "ids_updated", "p16_zero"),
        ("ids_defined_fraction", "", "p16_zero"),
        ("epg", "", "p16_zero"),
    ],
)
def test_keys_of_protocols(key, protocol, setting):
    assert (protocol_of(key), setting_of(key)) == (protocol, setting)


def test_correlations_over_methods():
    made = Made()
    for k, method in enumerate("abcd"):
        made.score("resnet50", method, 0.1 * k)
        made.score("resnet50", method, 0.1 * k, protocol="sds")
        made.score("resnet50", method, -0.1 * k, protocol="ids")
        made.score("resnet50", method, 0.1 * k, setting="p64_zero", key="idsds_p64")
        made.score("resnet50", method, -0.1 * k, seed="1")
    agreement = designs_tables.agreement(made.evidence).set_index(["protocol", "other"])
    assert agreement.loc[("sds", "ids"), "spearman"] == -1
    assert agreement.loc[("sds", "ids"), "published"] == 0.640
    stability = designs_tables.stability(made.evidence).set_index(["one", "other"])
    assert stability.loc[("seed 0", "seed 1"), "spearman"] == -1
    assert stability.loc[("p16_zero", "p64_zero"), "published"] == 0.90


def test_the_report_shows_it_all(monkeypatch):
    made = Made().network("small_resnet", 0.3).network("small_deep_resnet", 0.1, passes=False)
    monkeypatch.setattr(DesignEvidence, "of", classmethod(lambda cls, runs: made.evidence))
    runs: Any = type("Runs", (), {"arrays": lambda *_: {}})()
    frames = DesignFrames.of(runs)
    text = frames.terminal()
    assert max(map(len, text.splitlines())) <= 100
    for word in ("80.0 / 80.0", "40.0 / 30.0", "deep_resnet", "I11"):
        assert word in text
    assert "1 of 2 fine-tuned networks are in domain." in frames.short_lines()
    assert frames.blocks(runs)
    assert set(frames.csvs()) >= {"designs_findings", "designs_scores"}


def test_channels_are_drawn_side_by_side():
    arrays = {
        "rows": np.zeros((2, 5, 9), int),
        "images": np.zeros((1, 8, 8, 3), np.uint8),
        "channels": np.arange(5),
    }
    assert len(channels_figure(arrays, "title", "caption").axes) == 4
