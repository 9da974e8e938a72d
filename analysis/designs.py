"""Networks as they were and fine-tuned for deleted patches, and what methods score on them."""

from __future__ import annotations

import re

import pandas as pd

from analysis.design_methods import method_names
from analysis.probing import column
from analysis.runs import Runs

EVALUATION, COMPARISON = "protocol_evaluation", "network_comparison"
TUNED, OUTSIDE, PLAIN, FIXED, UPDATED = "idsds", "sds_finetuned", "sds", "ids", "ids_updated"
"""Protocols: single deletion on a network that knows deletions, on one that was fine-tuned and does
not, on one that was not; incremental deletion with maps made once, and anew at each step."""
MARK = "*"
"""Of what was fine-tuned and does not know deletions: its score is an SDS."""
DEFAULT = "p16_zero"
"""The paper's grid and baseline."""
LOGIT, PROBABILITY = "logit", "probability"
FINETUNED, UNRELATED = "finetuned", "unrelated"
"""Pairs of networks that are compared."""
CELL = ("network", "method", "protocol", "output", "setting", "seed")
"""What one result is expected for."""
DIFFERENCES = ("mad_softmax", "mad_grad_cam", "overlap_at_9")
ACCURACIES = tuple(
    f"{what}_{when}" for what in ("accuracy", "corrupted_accuracy") for when in ("before", "after")
)
SINGLE = re.compile(
    r"(?P<protocol>idsds|sds)(_p(?P<patches>4|64))?(_color_and_inverse)?"
    r"(_(?P<baseline>random|blur|uniform))?(?P<drop>_probability)?"
)
"""Keys of single deletion that are read. Networks that read the inverse colors are deleted to what
the others are."""
DEFINED = "_defined_fraction"


def scored(runs: Runs) -> pd.DataFrame:
    """Every finished evaluation under every deletion protocol that is read.

    Returns:
        Columns result_id, network, dataset, seed (of the training that is judged), method (the
        paper's name), output (what it explains), ``key`` (of the protocol), protocol (TUNED, PLAIN,
        FIXED or UPDATED), ``setting`` (grid and baseline of the protocol), ``value`` (mean over the
        split) and ``defined`` (share of the explanations that it is a mean of; NaN if no run says).
    """
    rows = runs.finished[runs.finished["kind"] == EVALUATION]
    described = pd.DataFrame(
        {
            "result_id": rows["result_id"],
            "network": column(rows, "tag.network"),
            "output": column(rows, "tag.output"),
            "method": method_names(rows),
            "dataset": _nearest(rows, r"of\.([\w.]+\.)?data(set)?\.name"),
            "seed": _seeds(rows, "of"),
        }
    )
    logged = runs.history.rename(columns={"metric": "key"})
    read = logged["key"].map(protocol_of)
    logged = logged.assign(
        protocol=[protocol for protocol, _ in read], setting=[setting for _, setting in read]
    )
    found = described.merge(logged[logged["protocol"] != ""], on="result_id")
    shares = logged[logged["key"].str.endswith(DEFINED)]
    shares = shares.assign(key=shares["key"].str.removesuffix(DEFINED), defined=shares["value"])
    found = found.merge(
        shares[["result_id", "key", "defined"]], on=["result_id", "key"], how="left"
    )
    matching = ~found["key"].str.endswith("_probability") | (found["output"] == PROBABILITY)
    names = ["result_id", "network", "dataset", "seed", "method", "output"]
    names += ["key", "protocol", "setting", "value", "defined"]
    return found.loc[matching, names].reset_index(drop=True)


def unread(runs: Runs) -> list[str]:
    """Keys of deletion protocols that ``scored`` does not read, by name."""
    keys = sorted(set(runs.history["metric"]))
    return [
        key
        for key in keys
        if re.match(r"(idsds|sds|ids)(_|$)", key)
        and not key.endswith((DEFINED, "_rows"))
        and not protocol_of(key)[0]
    ]


def compared(runs: Runs) -> pd.DataFrame:
    """Every finished comparison of two networks.

    Returns:
        Columns result_id, pair (FINETUNED or UNRELATED), network, beside, dataset, setting, seed,
        DIFFERENCES, ACCURACIES and ``in_domain`` (1, 0; NaN for an unrelated pair).
    """
    rows = runs.finished[runs.finished["kind"] == COMPARISON]
    found = pd.DataFrame(
        {
            "result_id": rows["result_id"],
            **{name: column(rows, f"tag.{name}") for name in ("pair", "network", "beside")},
            "dataset": _nearest(rows, r"second\.of\.([\w.]+\.)?data(set)?\.name"),
            "setting": column(rows, "tag.finetuned"),
            "seed": _seeds(rows, "second.of"),
        }
    )
    values = runs.history.pivot_table(index="result_id", columns="metric", values="value")
    for name in (*DIFFERENCES, *ACCURACIES, "in_domain"):
        known = values[name] if name in values else pd.Series(dtype=float)
        found[name] = found["result_id"].map(known).astype(float)
    return found.reset_index(drop=True)


def protocol_of(key: str) -> tuple[str, str]:
    """Protocol and setting of a metric's key: idsds, p16_zero; both empty for other metrics."""
    if key in (FIXED, UPDATED):
        return key, DEFAULT
    found = SINGLE.fullmatch(key)
    if found is None:
        return "", ""
    return found["protocol"], f"p{found['patches'] or 16}_{found['baseline'] or 'zero'}"


def _seeds(rows: pd.DataFrame, training: str) -> pd.Series:
    """Seeds of trainings as texts: 1, or 1 (from 0) where a classifier of another was fine-tuned.

    A published classifier has no seed.
    """
    own, start = (
        # numbers are 0.0 where other results have none
        column(rows, f"{training}.{name}").replace("", 0).map(lambda seed: f"{float(seed):g}")
        for name in ("seed", "start.seed")
    )
    trained = column(rows, f"{training}.start.name") == "classifier_training"
    return own.where(~trained | (own == start), own + " (from " + start + ")")


def _nearest(rows: pd.DataFrame, pattern: str) -> pd.Series:
    """The parameter of that name with the fewest steps to it that a row has."""
    found = pd.Series("", index=rows.index, dtype=object)
    for name in sorted((n for n in map(str, rows) if re.fullmatch(pattern, n)), key=len):
        found = found.where(found != "", column(rows, name))
    return found
