"""What is read of runs on designs: methods by the paper's names, protocols, pairs of networks."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pandas as pd
import pytest

from analysis.design_methods import (
    ATTENTION,
    CAMS,
    ONE_ARM,
    OWN,
    RAW,
    SIGNED,
    SMOOTHED,
    absolute,
    method_names,
)
from analysis.designs import CELL, compared, protocol_of, scored, unread
from analysis.runs import OF_A_RUN, TAGS, Runs
from sweeps.idsds_models import IdsdsModels
from trainables.attribution.after_softmax import AfterSoftmax
from trainables.attribution.sets import idsds_as_run
from trainables.models.user_network import network_of
from trainables.network_comparison import NetworkComparison
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.result import Result, parameters

LEFT_OUT = {"RISE", "RISE-U", "IG-SG", "IG-SG abs.", "IG-SG-SQ"}
"""What the sample does without."""
SIGNED_ON_SAMPLE = [method for method in SIGNED if method not in LEFT_OUT]


def runs_of(results: list[Result], values: dict[str, float] | None = None) -> Runs:
    """Results as MLflow tells them once they have finished: every protocol logged one value."""
    rows: list[dict[str, Any]] = []
    history: list[tuple[str, str, str, int, float]] = []
    for result in results:
        row = dict.fromkeys(OF_A_RUN, "")
        row |= {"result_id": result.result_id, "status": "FINISHED", "kind": result.name}
        row |= {f"tag.{name}": text for name, text in result.tags.items() if name in TAGS}
        rows.append(row | parameters(result))
        keys = dict(values or {})
        for protocol in getattr(result, "protocols", ()):
            keys |= {protocol.key: 0.5, f"{protocol.key}_defined_fraction": 0.75}
        history += [(result.result_id, "val", key, 1, value) for key, value in keys.items()]
    names = ["result_id", "split", "metric", "step", "value"]
    return Runs(
        experiment="designs",
        tracking_uri="",
        runs=pd.DataFrame(rows),
        parameters=(),
        history=pd.DataFrame(history, columns=names),
    )


@lru_cache
def asked(kind: type, **flags: Any) -> list[Any]:
    """What the sweep asks for of a kind; no file is read."""
    sweep = IdsdsModels(data_root="nowhere", **flags)
    return [result for result in sweep.results(sweep.data()) if isinstance(result, kind)]


def test_the_sweeps_own_methods_bear_the_papers_names():
    results = asked(ProtocolEvaluation, models=("small_resnet",))
    scores = scored(runs_of(results))
    assert not scores.duplicated(list(CELL)).any()
    everywhere = {*SIGNED_ON_SAMPLE, *map(absolute, SIGNED_ON_SAMPLE), "Saliency", *CAMS}
    assert set(scores["method"]) == everywhere
    known = scores.groupby(["protocol", "output"])["method"].agg(set)
    assert known["idsds", "logit"] == known["idsds", "probability"] == everywhere
    assert known["sds", "logit"] == known["ids", "logit"] == everywhere
    for method in SIGNED_ON_SAMPLE:  # the pairs of I2, I3 and I11
        assert {method, absolute(method)} <= known["idsds", "logit"] & known["ids", "logit"]
    pairs = [pair for pair in SMOOTHED if pair[0] not in LEFT_OUT]
    assert len(pairs) == 2
    assert {method for pair in pairs for method in pair} <= known["idsds", "logit"]
    assert set(RAW) & known["ids_updated", "logit"] == {"IxG"}  # one pass
    assert set(scores["network"]) == {"small_resnet"}
    assert set(scores["dataset"]) == {"digit_scenes"}
    tuned = scores[scores["protocol"] == "idsds"]
    assert set(zip(tuned["setting"], tuned["seed"], strict=True)) == {
        *((setting, "0") for setting in ("p16_zero", "p4_zero", "p64_zero")),
        *(("p16_random", "0"), ("p16_blur", "0"), ("p16_zero", "1 (from 0)")),
    }
    assert set(scores.loc[scores["protocol"] == "sds", "seed"]) == {"0"}
    assert set(scores["value"]) == {0.5}
    assert set(scores["defined"]) == {0.75}
    assert len(scores) == sum(
        protocol_of(protocol.key)[0] != "" for one in results for protocol in one.protocols
    )


@pytest.mark.parametrize(
    ("network", "named"),
    [
        ("small_vit", {"rollout": "Rollout", "transformer_attribution": "CheferLRP"}),
        ("small_bcos_resnet", {"bcos": "B-cos"}),
        ("small_bagnet", {"bagnet": "BagNet"}),
    ],
)
def test_methods_of_one_kind_of_network_bear_them_too(network, named):
    sweep = IdsdsModels(data_root="nowhere", softmax_models=(network,))
    classifier = sweep.classifier(network_of(network), sweep.data(), 0, None)
    variants = sweep.variants(classifier.network, 0)
    tuned = sweep.finetuned(classifier, variants[0])
    methods = [method for method in idsds_as_run() if method.name in named]
    outputs = sweep.outputs(classifier.network)
    before = sweep.evaluations(classifier, methods, variants)
    results = [*before, *sweep.evaluations(tuned, methods, variants, outputs)]
    scores = scored(runs_of(results))
    assert set(scores["method"]) == set(named.values()) <= {*ATTENTION, *OWN}
    assert set(scores["setting"]) == {"p16_zero"}
    for method in methods:  # three results, two where it has one arm
        one = scores[scores["method"] == named[method.name]]
        assert len(one) == 3 - (method.explains != "logit")
    assert set(scores["protocol"]) == {"sds", "idsds"}


def test_all_of_the_papers_methods_have_one_name_each():
    found = asked(
        ProtocolEvaluation, models=("small_resnet",), methods=("idsds_as_run",), stability=False
    )
    after = [r for r in found if isinstance(r.attribution, AfterSoftmax)]
    before = [r for r in found if r.of.name == "idsds_finetuning" and r not in after]
    every = {*SIGNED, *map(absolute, SIGNED), "IG-SG-SQ", "Saliency", "RISE", "RISE-U", *CAMS}
    for results, names in ((before, every), (after, every - set(ONE_ARM))):
        scores = scored(runs_of(results))
        assert sorted(scores["method"]) == sorted(names)


def test_the_methods_of_one_arm_are_those_that_explain_no_logit():
    methods = [
        {"name": "protocol_evaluation"} | {f"attribution.{k}": v for k, v in parameters(m).items()}
        for m in idsds_as_run()
        if m.explains != "logit"
    ]
    assert set(method_names(pd.DataFrame(methods))) == set(ONE_ARM)


def test_of_two_variants_the_one_of_the_papers_code_bears_the_name():
    models = ("small_resnet",)
    both = asked(ProtocolEvaluation, models=models, methods=("idsds_as_run", "corrected"))
    names = set(scored(runs_of(both))["method"])
    assert {"IxG", "input_x_gradient", "Grad-CAM", "grad_cam", "IG-U abs."} <= names
    alone = asked(ProtocolEvaluation, models=models, methods=("input_x_gradient", "lime"))
    assert set(scored(runs_of(alone))["method"]) == {"IxG", "lime_n60"}


def test_of_two_variants_of_none_the_name_is_nobodys():
    (one, *_), (other, *_) = (
        asked(ProtocolEvaluation, models=("small_resnet",), methods=("smooth_grad_cam_pp",)),
        asked(ProtocolEvaluation, models=("small_resnet",), methods=("grad_cam",)),
    )
    runs = runs_of([one, other])
    assert set(scored(runs)["method"]) == {"SG-CAM++", "Grad-CAM"}
    runs.runs["attribution.name"] = "grad_cam"
    assert set(scored(runs)["method"]) == {one.attribution.key, "grad_cam"}


@pytest.mark.parametrize(
    ("key", "protocol", "setting"),
    [
        ("idsds", "idsds", "p16_zero"),
        ("idsds_p64_blur", "idsds", "p64_blur"),
        ("idsds_uniform", "idsds", "p16_uniform"),
        ("idsds_blur_probability", "idsds", "p16_blur"),
        ("sds_color_and_inverse", "sds", "p16_zero"),
        ("sds_p4_color_and_inverse_random", "sds", "p4_random"),
        ("ids", "ids", "p16_zero"),
        ("ids_updated", "ids_updated", "p16_zero"),
        *(
            (key, "", "")
            for key in ("ids_defined_fraction", "ids_k16", "ids_descending", "ids_updated_k16")
        ),
        *((key, "", "") for key in ("idsds_worst", "idsds_p64_blur_sigma3", "sds_zero", "epg")),
    ],
)
def test_keys_of_protocols(key, protocol, setting):
    assert protocol_of(key) == (protocol, setting)


def test_keys_that_are_not_read_are_told():
    (result, *_) = asked(ProtocolEvaluation, models=("small_resnet",))
    values = {"ids_k16": 0.1, "idsds_worst": 0.2, "epg": 0.3, "ids_k16_defined_fraction": 1.0}
    runs = runs_of([result], {**values, "idsds_probability": 0.4})
    assert unread(runs) == ["ids_k16", "idsds_worst"]
    assert not scored(runs)["key"].isin([*values, "idsds_probability"]).any()  # logits explained


def test_the_sweeps_own_comparisons_are_read():
    models = ("small_resnet", "small_vgg")
    results = asked(
        NetworkComparison, models=models, methods=("grad_cam",), patches=(4, 16), seeds=(0, 3),
        stability=False,
    )  # fmt: skip
    found = compared(runs_of(results, {"in_domain": 1.0, "accuracy_after": 0.9}))
    tuned = found[found["pair"] == "finetuned"]
    names = ["network", "setting", "seed"]
    assert set(tuned[names].itertuples(index=False, name=None)) == {
        (network, setting, seed)
        for network in models
        for setting in ("p4_zero", "p16_zero")
        for seed in ("0", "3")
    }
    assert (tuned["in_domain"] == 1).all()
    assert tuned["mad_softmax"].isna().all()
    assert set(found["dataset"]) == {"digit_scenes"}
    assert len(found) - len(tuned) >= 2
