"""Networks as they were and fine-tuned for deleted patches, and what methods score on them."""

from __future__ import annotations

import re

import pandas as pd

from analysis.findings.finding import NAN
from analysis.probing import column
from analysis.runs import Runs

EVALUATION, COMPARISON = "protocol_evaluation", "network_comparison"
TUNED, PLAIN, FIXED, UPDATED = "idsds", "sds", "ids", "ids_updated"
"""Protocols: single deletion on a network that knows deletions, on one that does not, incremental
deletion with maps made once, and with maps made anew at each step."""
DEFAULT = "p16_zero"
"""The paper's grid and baseline."""
LOGIT, PROBABILITY = "logit", "probability"
DIFFERENCES = ("mad_softmax", "mad_grad_cam", "overlap_at_9")
ACCURACIES = tuple(
    f"{what}_{when}" for what in ("accuracy", "corrupted_accuracy") for when in ("before", "after")
)


def scored(runs: Runs) -> pd.DataFrame:
    """Every finished evaluation under every deletion protocol.

    Returns:
        Columns result_id, network, ``finetuned`` (grid and baseline it was fine-tuned with, or
        empty), seed, method (without the name of a set), output, ``key`` (of the protocol),
        protocol (TUNED, PLAIN, FIXED or UPDATED), ``setting`` (grid and baseline of the protocol)
        and ``value`` (mean over the split).
    """
    rows = runs.finished[runs.finished["kind"] == EVALUATION]
    described = pd.DataFrame(
        {
            "result_id": rows["result_id"],
            **{name: column(rows, f"tag.{name}") for name in ("network", "finetuned", "output")},
            "method": column(rows, "tag.method"),
            "of_set": column(rows, "attribution.of_set").astype(str)
            + column(rows, "attribution.of.of_set").astype(str),
            "seed": _nearest(rows, "seed"),
        }
    )
    described["method"] = [
        method.replace(f"_{of_set}", "") if of_set else method
        for method, of_set in zip(described["method"], described.pop("of_set"), strict=True)
    ]
    logged = runs.history.assign(protocol=runs.history["metric"].map(protocol_of))
    logged = logged[logged["protocol"] != ""].rename(columns={"metric": "key"})
    logged["setting"] = logged["key"].map(setting_of)
    names = ["result_id", "key", "protocol", "setting", "value"]
    return described.merge(logged[names], on="result_id").reset_index(drop=True)


def compared(runs: Runs) -> pd.DataFrame:
    """Every finished comparison of two networks.

    Returns:
        Columns result_id, pair (finetuned or unrelated), network, beside, setting, seed,
        DIFFERENCES, ACCURACIES and ``in_domain`` (1, 0; NaN for an unrelated pair).
    """
    rows = runs.finished[runs.finished["kind"] == COMPARISON]
    found = pd.DataFrame(
        {
            "result_id": rows["result_id"],
            **{name: column(rows, f"tag.{name}") for name in ("pair", "network", "beside")},
            "setting": column(rows, "tag.finetuned"),
            "seed": _nearest(rows, "seed"),
        }
    )
    values = runs.history.pivot_table(index="result_id", columns="metric", values="value")
    for name in (*DIFFERENCES, *ACCURACIES, "in_domain"):
        known = values[name] if name in values else pd.Series(dtype=float)
        found[name] = found["result_id"].map(known).astype(float)
    return found.reset_index(drop=True)


def protocol_of(key: str) -> str:
    """Which of the protocols a metric's key belongs to; empty for other metrics."""
    if key.endswith("_defined_fraction"):
        return ""
    if re.match(r"ids_.*updated|ids_updated", key):
        return UPDATED
    (name, *_) = key.split("_", 1)
    return name if name in (TUNED, PLAIN, FIXED) else ""


def setting_of(key: str) -> str:
    """Grid and baseline of a deletion protocol's key: ``p16_zero`` of ``idsds``."""
    patches = re.search(r"_p(\d+)", key)
    baseline = next((name for name in ("random", "blur") if f"_{name}" in key), "zero")
    return f"p{patches[1] if patches else 16}_{baseline}"


def best(scores: pd.DataFrame, network: str, protocol: str = TUNED) -> tuple[str, float]:
    """The method with the highest mean on a network, of logits, and its mean; empty if none."""
    rows = scores[
        (scores["network"] == network)
        & (scores["protocol"] == protocol)
        & (scores["output"] == LOGIT)
        & (scores["setting"] == DEFAULT)
    ]
    means = rows.groupby("method")["value"].mean().dropna()
    return (str(means.idxmax()), float(means.max())) if len(means) else ("", NAN)


def _nearest(rows: pd.DataFrame, name: str) -> pd.Series:
    """The parameter of the training that is judged: ``of.seed`` before ``second.of.seed``."""
    found = pd.Series("", index=rows.index, dtype=object)
    for path in (f"of.{name}", f"second.of.{name}"):
        values = column(rows, path).astype(str)
        found = found.where(found != "", values)
    return found.replace("", "0").map(lambda seed: f"{float(seed):g}")  # numbers where all are
