"""Designs as tables: networks before and after fine-tuning, scores, findings."""

from __future__ import annotations

import pandas as pd

from analysis.design_methods import in_order
from analysis.designs import (
    DEFAULT,
    FINETUNED,
    FIXED,
    LOGIT,
    OUTSIDE,
    PLAIN,
    PROBABILITY,
    TUNED,
    UPDATED,
)
from analysis.findings.design_evidence import DesignEvidence, passing
from analysis.findings.design_methods import plain_networks
from analysis.paper_tables import ACCURACIES, DATASET
from analysis.tables import NONE, WIDTH, percent

MARK = "*"
"""Of a network whose score is an SDS."""


def networks_table(evidence: DesignEvidence) -> pd.DataFrame:
    """Every fine-tuning that was compared with its start: accuracies in percent, best method."""
    rows, inside = [], passing(evidence.comparisons)
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


def scores_frame(evidence: DesignEvidence, protocol: str = TUNED) -> pd.DataFrame:
    """Mean score of every method on every network: a row a method, a column a network.

    At the paper's grid and baseline, of logits, over seeds. For TUNED, a fine-tuned network that is
    not in domain has its SDS, and MARK behind its name.
    """
    rows = evidence.scores
    rows = rows[(rows["output"] == LOGIT) & (rows["setting"] == DEFAULT)]
    chosen = rows[rows["protocol"] == protocol]
    if protocol == TUNED:
        others = rows[
            (rows["protocol"] == OUTSIDE) & ~rows["network"].isin(set(chosen["network"]))
        ]
        chosen = pd.concat([chosen, others.assign(network=others["network"] + MARK)])
    order = {name: k for k, name in enumerate(evidence.networks)}
    chosen = chosen.sort_values(
        "network", key=lambda names: names.str.removesuffix(MARK).map(order), kind="stable"
    )
    wide = chosen.pivot_table(index="method", columns="network", values="value", sort=False)
    return wide.reindex(in_order(list(wide.index))).rename_axis(columns=None).reset_index()


def protocols_frame(evidence: DesignEvidence) -> pd.DataFrame:
    """Every method under every protocol, on the networks that the paper compares methods on.

    Returns:
        Columns network, method, and a score by IDSDS, IDSDS after the softmax, SDS, IDS and IDS
        with updated maps, NaN where there is none.
    """
    rows = evidence.scores
    rows = rows[rows["network"].isin(plain_networks(evidence)) & (rows["setting"] == DEFAULT)]
    names = {
        (TUNED, LOGIT): "IDSDS",
        (TUNED, PROBABILITY): "after softmax",
        (OUTSIDE, LOGIT): "SDS fine-tuned",
        (PLAIN, LOGIT): "SDS",
        (FIXED, LOGIT): "IDS",
        (UPDATED, LOGIT): "IDS updated",
    }
    told = [names.get(key, "") for key in zip(rows["protocol"], rows["output"], strict=True)]
    rows = rows.assign(told=told)[[name != "" for name in told]]
    wide = rows.pivot_table(index=["network", "method"], columns="told", values="value")
    wide = wide.reindex(columns=[name for name in names.values() if name in wide])
    wide = wide.rename_axis(columns=None).reset_index()
    order = {method: k for k, method in enumerate(in_order(list(dict.fromkeys(wide["method"]))))}
    return wide.sort_values(["network", "method"], key=lambda v: v.map(order).fillna(0) if
                            v.name == "method" else v, ignore_index=True)  # fmt: skip


def hundredths(frame: pd.DataFrame) -> pd.DataFrame:
    """The scores of a frame in hundredths, under short names of networks."""
    table = frame.copy()
    for name in table.select_dtypes("number").columns:
        table[name] = [NONE if pd.isna(v) else f"{100 * v:.1f}" for v in table[name]]
    if "network" in table:
        table["network"] = table["network"].map(_short)
    return table.rename(columns=_short)


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
    return [table[names] for names in parts]


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


def reasons(findings: pd.DataFrame) -> list[str]:
    """What leaves findings open, a sentence each."""
    rows = findings[findings["verdict"] == "undecided"].to_dict("records")
    return [f"{row['id']} is open: {row['why']}." for row in rows]


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


def _pair(row: dict[str, float], name: str) -> str:
    return f"{percent(row[f'{name}_before'])} / {percent(row[f'{name}_after'])}"


def _three(value: float) -> str:
    return NONE if pd.isna(value) else f"{value:.3f}"
