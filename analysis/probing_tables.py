"""Probes as tables for people, in percent and points."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.probing import (
    BCE,
    BCE_UNIFORM,
    CE,
    EVALUATIONS,
    LOSSES,
    unit_of,
)
from analysis.tables import NONE, mean_and_sd, number, percent

REASONS_SHOWN = 2
"""Comparisons behind a verdict; the CSV has all."""


def points(value: float) -> str:
    """A difference in points with its sign: +12.3."""
    return NONE if pd.isna(value) else f"{100 * value:+.1f}"


def span(low: float, high: float) -> str:
    """An interval of differences: +1.0 to +12.3."""
    return NONE if pd.isna(low) else f"{points(low)} to {points(high)}"


def accuracy_table(accuracies: pd.DataFrame) -> pd.DataFrame:
    """By backbone, pre-training and probe; * is not above its untrained control."""
    titles = {"accuracy": "accuracy", "f1": "F1"}
    table = pd.DataFrame(
        {
            "setting": [
                _joined(r, "dataset", "backbone", "variant") + f" · {titles[r['metric']]}"
                for r in accuracies.to_dict("records")
            ],
            "pre-training": accuracies["pretraining"],
            "probe": accuracies["probe"],
        }
    )
    for loss, title in LOSSES.items():
        if f"{loss}_mean" not in accuracies:
            continue
        marks = accuracies.get(f"{loss}_exceeds", pd.Series("", index=accuracies.index))
        cells = zip(accuracies[f"{loss}_mean"], accuracies[f"{loss}_sd"], marks, strict=True)
        table[title] = [mean_and_sd(m, s) + (" *" if mark == "no" else "") for m, s, mark in cells]
    if "control_low" in accuracies:
        ends = zip(accuracies["control_low"], accuracies["control_high"], strict=True)
        table["untrained, 95 %"] = [
            NONE if pd.isna(low) else f"{percent(low)} to {percent(high)}" for low, high in ends
        ]
        table["seeds"] = accuracies["seeds"].map(number)
        table["paper"] = accuracies["published"].replace("", NONE)
    return table


def loss_table(contrasts: pd.DataFrame) -> pd.DataFrame:
    """GridPG from CE to BCE, by backbone, pre-training, probe and method.

    Args:
        contrasts: comparisons of P1 and P9, as ``probe_verdicts`` gives them.
    """
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    names = ("dataset", "backbone", "variant", "images", "pretraining", "probe", "method", "metric")
    for row in contrasts.to_dict("records"):
        key = tuple(str(row[name]) for name in names)
        cell = rows.setdefault(
            key,
            {
                "setting": _joined(row, "dataset", "backbone", "variant")
                + f" · {row['images']} images · {row['metric']}",
                "pre-training": row["pretraining"],
                "probe": row["probe"],
                "method": row["method"],
                "CE": NONE,
                "BCE": NONE,
                "Δ (95 %)": NONE,
                "1/C": NONE,
                "Δ 1/C (95 %)": NONE,
                "paper": NONE,
                "": "",
            },
        )
        value, effect = ("BCE", "Δ (95 %)") if row["loss"] == BCE else ("1/C", "Δ 1/C (95 %)")
        cell["CE"] = percent(row["against"]) if cell["CE"] == NONE else cell["CE"]
        cell[value] = percent(row["value"])
        cell[effect] = _with_interval(row)
        cell["paper"] = row["published"] or cell["paper"]
        if row["decides"]:
            cell[""] = row["verdict"]
    titles = ["setting", "pre-training", "probe", "method", "CE", "BCE", "Δ (95 %)", "1/C"]
    return pd.DataFrame(list(rows.values()), columns=[*titles, "Δ 1/C (95 %)", "paper", ""])


def gauge_table(gauges: pd.DataFrame) -> pd.DataFrame:
    """GridPG with and without the class mean of the last layer, in percent and points."""
    table = pd.DataFrame(
        {
            "setting": [
                _joined(r, "dataset", "backbone", "probe", "variant") + f" · {r['images']} images"
                for r in gauges.to_dict("records")
            ],
            "pre-training": gauges["pretraining"],
            "method": gauges["method"],
            "BCE is": gauges["loss"].map(lambda loss: LOSSES.get(loss, loss)),
        }
    )
    titles = {
        "ce": "CE",
        "ce_centered": "centred",
        "ce_exchanged": "with BCE's",
        "bce": "BCE",
        "bce_centered": "centred ",
    }
    for name, title in titles.items():
        table[title] = gauges[name].map(percent)
    table["gain"] = gauges["gain"].map(points)
    table["centred  "] = gauges["centered_gain"].map(points)
    table["gone"] = [NONE if pd.isna(v) else f"{100 * v:.0f} %" for v in gauges["share"]]
    return table


def shift_table(shifts: pd.DataFrame) -> pd.DataFrame:
    """GridPG and cross-entropy, where any run says it, by the size of the common shift."""
    place = ("dataset", "backbone", "probe", "loss")
    table = pd.DataFrame(
        {
            "setting": [_joined(r, *place) for r in shifts.to_dict("records")],
            "pre-training": shifts["pretraining"],
            "method": shifts["method"],
            "alpha": shifts["alpha"].map(number),
            "before": shifts["before"].map(percent),
            "shifted": shifts["grid_pg"].map(percent),
            "change (95 %)": [_with_interval(r, "gain") for r in shifts.to_dict("records")],
        }
    )
    if shifts["ce_loss"].isna().all():
        return table
    pairs = zip(shifts["ce_loss_before"], shifts["ce_loss"], strict=True)
    return table.assign(**{"CE": [f"{_loss(before)} → {_loss(after)}" for before, after in pairs]})


def depth_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One to three layers side by side: accuracy, and localization of each method."""
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    layers = sorted({int(n) for n in rows["layers"]})
    titles = {"accuracy": "accuracy", "f1": "F1"}
    for row in rows.to_dict("records"):
        start = {
            "setting": _joined(row, "dataset", "backbone", "variant"),
            "pre-training": row["pretraining"],
            "probe": row["form"],
            "loss": LOSSES.get(row["loss"], row["loss"]),
        }
        shown = [(titles[row["metric"]], row["accuracy"])]
        if row["method"]:
            shown.append((f"{row['method']} {row['protocol']}", row["score"]))
        for what, value in shown:
            key = (*start.values(), what)
            cell = cells.setdefault(key, {**start, "of": what} | {f"{n}": NONE for n in layers})
            cell[str(row["layers"])] = percent(value)
    table = pd.DataFrame(list(cells.values()))
    columns = ["setting", "pre-training", "probe", "loss", "of", *map(str, layers)]
    return table.reindex(columns=columns).rename(
        columns={str(n): f"{n} layer{'s' * (n > 1)}" for n in layers}
    )


def dead_table(dead: pd.DataFrame) -> pd.DataFrame:
    """Share of the maps without anything positive, by loss."""
    table = pd.DataFrame(
        {
            "setting": [_joined(r, "dataset", "backbone") for r in dead.to_dict("records")],
            "maps of": dead["kind"].map(EVALUATIONS),
            "chosen": dead["images"],
            "method": dead["method"],
        }
    )
    for loss in (CE, BCE, BCE_UNIFORM):
        table[LOSSES[loss]] = dead[loss].map(percent)
    return table


def findings_table(findings: pd.DataFrame) -> pd.DataFrame:
    """Every finding with its verdict, its effect, and what decides."""
    return findings_compact(findings).assign(
        **{
            "seeds": findings["seeds"].map(number),
            "images": findings["units"].map(number),
            "fails, or is open": findings["decided_by"].map(_first),
            "beside": findings["note"].replace("", NONE),
        }
    )


def findings_compact(findings: pd.DataFrame) -> pd.DataFrame:
    """The same in the 100 columns of a terminal."""
    counts = findings[["holding", "failing", "undecided"]].sum(axis=1)
    ends = zip(findings["effect_low"], findings["effect_high"], strict=True)
    return pd.DataFrame(
        {
            "id": findings["id"],
            "the paper says": findings["claim"],
            "these runs": findings["verdict"].where(counts > 0, "no runs"),
            "hold": [
                f"{holding} of {n}" if n else NONE
                for holding, n in zip(findings["holding"], counts, strict=True)
            ],
            "fail": findings["failing"].map(number),
            "open": findings["undecided"].map(number),
            "effect": [
                points(low) if pd.isna(low) or low == high else f"{points(low)} to {points(high)}"
                for low, high in ends
            ],
        }
    )


def contrasts_table(contrasts: pd.DataFrame) -> pd.DataFrame:
    """Every comparison; those that only stand beside are in brackets."""
    rows = contrasts.to_dict("records")
    where = ("dataset", "backbone", "pretraining", "probe", "variant")
    return pd.DataFrame(
        {
            "finding": contrasts["finding"],
            "where": [_joined(r, *where) or NONE for r in rows],
            "method": contrasts["method"].replace("", NONE),
            "comparison": contrasts["what"],
            "by": contrasts["metric"],
            "on": [f"{r['units']} {r['images']}".strip() for r in rows],
            "paired": contrasts["paired"].map({True: "yes", False: "no"}),
            "seeds": contrasts["seeds"].map(number),
            "value": [_shown(r, "value") for r in rows],
            "against": [_shown(r, "against") for r in rows],
            "effect": [_shown(r, "effect", "+") for r in rows],
            "95 %": [
                NONE
                if pd.isna(r["low"])
                else f"{_shown(r, 'low', '+')} to {_shown(r, 'high', '+')}"
                for r in rows
            ],
            "p, Holm": contrasts["p_holm"].map(lambda p: NONE if pd.isna(p) else f"{p:.3f}"),
            "verdict": [r["verdict"] if r["decides"] else f"({r['verdict']})" for r in rows],
            "why": contrasts["why"].replace("", NONE),
            "published": contrasts["published"].replace("", NONE),
        }
    )


def _joined(row: dict[Any, Any], *names: str) -> str:
    return " · ".join(str(row[name]) for name in names if row.get(name))


def _with_interval(row: dict[Any, Any], stem: str = "") -> str:
    """An effect with its interval: +12.3 (+1.0 to +23.5)."""
    names = (stem, f"{stem}_low", f"{stem}_high") if stem else ("effect", "low", "high")
    effect, low, high = (float(str(row[name])) for name in names)
    return points(effect) if pd.isna(low) else f"{points(effect)} ({span(low, high)})"


def _shown(row: dict[Any, Any], name: str, sign: str = "") -> str:
    """A number of a comparison in percent or points, of an entropy in bits."""
    unit = unit_of(row["metric"])
    return NONE if pd.isna(row[name]) else f"{unit * row[name]:{sign}.{1 if unit > 1 else 2}f}"


def _loss(value: float) -> str:
    return NONE if pd.isna(value) else f"{value:.4f}"


def _first(reasons: str) -> str:
    """The first reasons of many."""
    parts = reasons.split("; ")
    more = f"; and {len(parts) - REASONS_SHOWN} more" if len(parts) > REASONS_SHOWN else ""
    return ("; ".join(parts[:REASONS_SHOWN]) or NONE) + more
