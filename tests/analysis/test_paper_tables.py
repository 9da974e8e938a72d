"""The published numbers are those of the paper, and its methods are found by their settings."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import trainables.attribution  # noqa: F401  (registers the methods)
from analysis.designs_agreement import correlation, published_agreement
from analysis.paper_tables import (
    AS_RUN,
    NAMES,
    OF_ITS_OWN,
    PROTOCOLS,
    PUBLISHED,
    is_papers,
    paper_name,
    published,
)
from trainables.attribution.sets import idsds_as_run
from trainables.result import parameters


def test_numbers_have_the_rank_correlations_that_the_tables_have() -> None:
    columns = dict(zip(PROTOCOLS, np.array(list(PUBLISHED.values())).T, strict=True))
    expected = {
        ("idsds", "ids"): 0.371,
        ("idsds", "sds"): 0.899,
        ("idsds", "funny_birds"): 0.674,
        ("ids", "sds"): 0.640,
        ("ids", "funny_birds"): 0.378,
        ("sds", "funny_birds"): 0.644,
    }
    for one, other in combinations(PROTOCOLS, 2):
        found = spearmanr(columns[one], columns[other]).statistic
        assert found == pytest.approx(expected[one, other], abs=5e-4)


def test_correlations_that_stand_beside_ours_are_those_of_the_numbers() -> None:
    """Of all 19 methods, by the same function as ours."""
    table = pd.DataFrame.from_dict(PUBLISHED, orient="index", columns=list(PROTOCOLS))
    table = table.rename_axis("method").reset_index()
    stated = {
        ("idsds", "sds"): 0.899,
        ("idsds", "ids"): 0.371,
        ("sds", "ids"): 0.640,
        ("idsds", "funny_birds"): 0.674,
        ("sds", "funny_birds"): 0.644,
        ("ids", "funny_birds"): 0.378,
    }
    for pair, rho in stated.items():
        one, other = (
            table[["method", name]].set_axis(["method", "value"], axis=1) for name in pair
        )
        found, methods = correlation(one, other, ["method"])
        assert len(methods) == 19
        assert round(found, 3) == rho
        if "funny_birds" not in pair:
            assert published_agreement()[frozenset(pair)] == pytest.approx(found)


def test_every_published_method_has_its_settings() -> None:
    assert PUBLISHED.keys() | OF_ITS_OWN.keys() | {"Rollout", "CheferLRP"} == set(NAMES.values())
    assert len(NAMES) == 23


def test_numbers_are_of_methods_as_run_only() -> None:
    assert paper_name(AS_RUN, "integrated_gradients", "uniform", True) == "IG-U abs."
    assert paper_name("", "integrated_gradients", "uniform", True) == ""
    assert paper_name(AS_RUN, "lime") == ""


def test_methods_with_their_own_network_have_one_number() -> None:
    assert published("B-cos", "idsds") == 0.314
    assert np.isnan(published("B-cos", "ids"))
    assert np.isnan(published("Grad-CAM", "idsds_p4"))
    assert is_papers("B-cos", "bcos_resnet50", "imagenet")
    assert not is_papers("B-cos", "resnet50", "imagenet")
    assert is_papers("Grad-CAM", "resnet50", "imagenet")


def test_each_method_of_the_set_is_known_by_its_parameters() -> None:
    found = []
    for method in idsds_as_run():
        said = parameters(method)
        flags = [said.get(name) == "True" for name in ("absolute", "squared")]
        found.append(
            paper_name(said["of_set"], said["name"], said.get("baseline.name", ""), *flags)
        )
    assert sorted(found) == sorted(NAMES.values())
