"""Designs as tables: networks before and after fine-tuning, scores, findings."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from analysis.design_methods import in_order
from analysis.designs import (
    DEFAULT,
    FINETUNED,
    FIXED,
    LOGIT,
    MARK,
    OUTSIDE,
    PLAIN,
    PROBABILITY,
    TUNED,
    UPDATED,
)
from analysis.findings.design_evidence import DesignEvidence
from analysis.findings.design_finding import LEAST_DEFINED
from analysis.findings.design_methods import plain_networks
from analysis.findings.finding import FAILS, UNDECIDED
from analysis.paper_tables import ACCURACIES, DATASET
from analysis.tables import NONE, WIDTH, percent

RARE = "?"
"""Of a score that is the mean over less than LEAST_DEFINED of the images."""


def networks_table(evidence: DesignEvidence) -> pd.DataFrame:
    """Every fine-tuning that was compared with its start: accuracies in percent, best method."""
    rows, inside = [], evidence.passing
    for row in _tuned(evidence).to_dict("records"):
        key = (str(row["network"]), str(row["setting"]), str(row["seed"]))
        protocol = TUNED if key in inside else OUTSIDE
        method, value = evidence.best(key[0], protocol, *key[1:])
        rows.append(
            {
                "network": _short(row["network"]),
                "deletions": row["setting"],
                "seed": key[2],
                "top-1": _pair(row, "accuracy"),
                "worst patch": _pair(row, "corrupted_accuracy"),
                "in domain": "yes" if key in inside else "no: SDS",
                "best method": method or NONE,
                "score": _three(value),
            }
        )
    return pd.DataFrame(rows)


def likeness_table(evidence: DesignEvidence) -> pd.DataFrame:
    """How alike two networks are: a network before and after, and the unrelated pair."""
    rows = [
        {
            "networks": f"{_short(row['network'])} before and after {row['setting']}, "
            f"seed {row['seed']}"
            if row["pair"] == FINETUNED
            else f"{_short(row['beside'])} and {_short(row['network'])}, unrelated",
            "MAD probability": _three(row["mad_softmax"]),
            "MAD Grad-CAM": _three(row["mad_grad_cam"]),
            "top 9 shared, %": percent(row["overlap_at_9"], 0),
        }
        for row in evidence.comparisons.to_dict("records")
    ]
    return pd.DataFrame(rows)


def accuracies_table(evidence: DesignEvidence) -> pd.DataFrame:
    """The paper's table 3 beside ours, in percent; empty where no network is one of it."""
    rows = []
    for row in _tuned(evidence).to_dict("records"):
        paper = ACCURACIES.get(str(row["network"]))
        if paper and (row["dataset"], row["setting"]) == (DATASET, DEFAULT):
            before, after, worst_before, worst_after = map(percent, paper)
            rows.append(
                {
                    "network": row["network"],
                    "seed": row["seed"],
                    "top-1": _pair(row, "accuracy"),
                    "the paper's": f"{before} / {after}",
                    "worst patch": _pair(row, "corrupted_accuracy"),
                    "paper's worst": f"{worst_before} / {worst_after}",
                }
            )
    return pd.DataFrame(rows)


def scores_table(evidence: DesignEvidence, protocol: str = TUNED) -> pd.DataFrame:
    """Mean score of every method on every network: a row a method, a column a network.

    In hundredths, at the paper's grid and baseline, of logits, over seeds. For TUNED, a fine-tuned
    network that is not in domain has its SDS, and MARK behind its name. A score that is defined
    seldom has RARE behind it.
    """
    rows = evidence.scores
    rows = rows[(rows["output"] == LOGIT) & (rows["setting"] == DEFAULT)]
    chosen = rows[rows["protocol"] == protocol]
    if protocol == TUNED:
        others = rows[(rows["protocol"] == OUTSIDE) & ~rows["network"].isin(set(chosen["network"]))]
        chosen = pd.concat([chosen, others.assign(network=others["network"] + MARK)])
    cells = chosen.groupby(["method", "network"]).agg({"value": "mean", "defined": "min"})
    marks = np.where(cells["defined"] < LEAST_DEFINED, RARE, "")
    cells["text"] = [_hundredths(v) + mark for v, mark in zip(cells["value"], marks, strict=True)]
    wide = cells["text"].unstack().fillna(NONE).rename_axis(columns=None)
    names = [n + m for n in evidence.networks for m in ("", MARK) if n + m in wide]
    table = wide.loc[in_order(list(wide.index)), names].reset_index()
    return table.rename(columns=_short)


def protocols_table(evidence: DesignEvidence) -> pd.DataFrame:
    """Every method under every protocol, in hundredths.

    On the networks that the paper compares methods on, of logits but for "after softmax".
    """
    names = {
        (TUNED, LOGIT): "IDSDS",
        (TUNED, PROBABILITY): "after softmax",
        (OUTSIDE, LOGIT): "SDS fine-tuned",
        (PLAIN, LOGIT): "SDS",
        (FIXED, LOGIT): "IDS",
        (UPDATED, LOGIT): "IDS updated",
    }
    rows, found = evidence.scores[evidence.scores["setting"] == DEFAULT], []
    for network in plain_networks(evidence):
        part = rows[rows["network"] == network]
        means = part.groupby(["method", "protocol", "output"])["value"].mean()
        for method in in_order(list(dict.fromkeys(part["method"]))):
            cells = {
                name: _hundredths(means.get((method, *key), np.nan)) for key, name in names.items()
            }
            found.append({"network": _short(network), "method": method, **cells})
    table = pd.DataFrame(found)
    return table.loc[:, [not table[name].eq(NONE).all() for name in table]]


def side_by_side(table: pd.DataFrame, width: int = WIDTH) -> list[pd.DataFrame]:
    """A wide table as several that fit the width, each with the first column."""

    def wide(name: str) -> int:
        return max(map(len, [name, *table[name]])) + 2

    parts: list[list[str]] = []
    first, *others = map(str, table.columns)
    left = 0
    for name in others:
        if not parts or wide(name) > left:
            parts.append([first])
            left = width - wide(first) + 2
        parts[-1].append(name)
        left -= wide(name)
    each = -(-len(others) // max(1, len(parts)))  # as many in each, if they fit
    even = [[first, *others[i : i + each]] for i in range(0, len(others), each)]
    if all(sum(map(wide, names)) - 2 <= width for names in even):
        parts = even
    found = [table[names] for names in parts]
    return [part[(part[part.columns[1:]] != NONE).any(axis=1)] for part in found]


def findings_table(findings: pd.DataFrame) -> pd.DataFrame:
    """Every finding with its verdict and how many comparisons hold."""
    deciding = findings["holding"] + findings["failing"] + findings["undecided"]
    counts = zip(findings["holding"], findings["failing"], deciding, strict=True)
    return pd.DataFrame(
        {
            "id": findings["id"],
            "the paper says": findings["claim"],
            "these runs": findings["verdict"],
            "for / against / of": [f"{h} / {f} / {n}" if n else NONE for h, f, n in counts],
        }
    )


def reasons(findings: pd.DataFrame, contrasts: pd.DataFrame) -> list[str]:
    """What findings fail by, and what leaves them open; a sentence each."""
    said = []
    for row in findings.to_dict("records"):
        if row["verdict"] == FAILS:
            own = contrasts[(contrasts["finding"] == row["id"]) & contrasts["decides"]]
            by = own.loc[own["verdict"] == FAILS, "what"]
            said.append(f"{row['id']} fails on: {'; '.join(by)}.")
        if row["verdict"] == UNDECIDED:
            said.append(f"{row['id']} is open: {row['why']}.")
    return said


def contrasts_table(contrasts: pd.DataFrame) -> pd.DataFrame:
    """Every comparison with its effect, interval and images."""
    rows = contrasts.to_dict("records")
    return pd.DataFrame(
        {
            "finding": contrasts["finding"],
            "comparison": contrasts["what"],
            "decides": contrasts["decides"].map({True: "yes", False: ""}),
            "verdict": contrasts["verdict"],
            "effect": [_three(row["effect"]) for row in rows],
            "interval": [
                NONE if pd.isna(row["low"]) else f"{row['low']:+.3f} to {row['high']:+.3f}"
                for row in rows
            ],
            "images": [
                f"{row['images']} of {row['of_images']}" if row["of_images"] else NONE
                for row in rows
            ],
            "open, because": contrasts["why"].replace("", NONE),
        }
    )


def _tuned(evidence: DesignEvidence) -> pd.DataFrame:
    return evidence.comparisons[evidence.comparisons["pair"] == FINETUNED]


def _short(network: str) -> str:
    """A network's name without what all of the sample's have."""
    return network.removeprefix("small_")


def _pair(row: dict[Hashable, Any], name: str) -> str:
    return f"{percent(row[f'{name}_before'])} / {percent(row[f'{name}_after'])}"


def _hundredths(value: float) -> str:
    return NONE if pd.isna(value) else f"{100 * value:.1f}"


def _three(value: float) -> str:
    return NONE if pd.isna(value) else f"{value:.3f}"
