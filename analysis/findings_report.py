"""What the paper says and what runs show, as tables and sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.choice import TOLERANCE
from analysis.document import Block, Heading, Paragraph, Table
from analysis.findings.finding import FAILS, HOLDS, UNDECIDED, WEAK, every
from analysis.guidance import TITLES
from analysis.pareto import BINNING
from analysis.tables import NONE, mean_and_sd, number, percent

TITLE = "What the paper says (R1-R13)"
PAPER = (
    "Model Guidance (Rao et al., ICCV 2023): each sentence as a set of comparisons. On these runs: "
    "from the comparisons that the runs were made for, whatever part of the paper's grid they are. "
    "On its grid: as the paper says it, on its datasets and its own networks, each loss with three "
    "lambdas and nothing else varied; what is missing leaves it undecided. A comparison holds or "
    "fails if all seeds say so, and one seed is enough to say it, without a deviation. Everything "
    "is chosen on validation and compared on test, so a missing run of either side leaves it open; "
    f"fronts in steps of {100 * BINNING:g} points; 'best' is within {100 * TOLERANCE:g} points of "
    "the baseline's F1. Effects are in points: the lowest and highest of the comparisons' means, "
    "and the largest standard deviation over seeds."
)
BY_SETTING = "By setting, all of its comparisons together, without the exceptions R1 and R2 admit:"
SHOWN = ("R1", "R2")
"""Findings that have a sentence of their own in short."""
RUNS_SHOWN, REASONS_SHOWN = 4, 2
"""Runs named behind a comparison, and comparisons behind a verdict; the CSV has all."""


def sentences_table(findings: pd.DataFrame) -> pd.DataFrame:
    """Every finding in full, and where the paper has it."""
    names = {"id": "id", "says": "the paper says", "source": "where"}
    return findings[list(names)].rename(columns=names)


def findings_table(findings: pd.DataFrame) -> pd.DataFrame:
    """Every finding with its verdicts, its effect, and what decides or is missing."""
    return pd.DataFrame(
        {
            "id": findings["id"],
            "the paper says": findings["claim"],
            "these runs": findings["on_runs"],
            "hold": _holding(findings),
            "effect": [_span(row) for row in findings.to_dict("records")],
            "seeds": findings["seeds"].map(number),
            "its grid": findings["on_grid"],
            "fails, or is open": findings["decided_by"].map(_first),
            "the grid lacks": findings["needs"].map(_first),
            "beside": findings["note"].replace("", NONE),
        }
    )


def findings_compact(findings: pd.DataFrame) -> pd.DataFrame:
    """The same in the 100 columns of a terminal."""
    return pd.DataFrame(
        {
            "id": findings["id"],
            "the paper says": findings["claim"],
            "these runs": findings["on_runs"],
            "hold": _holding(findings),
            "effect": [_span(row) for row in findings.to_dict("records")],
            "its grid": findings["on_grid"],
        }
    )


def settings_table(comparisons: pd.DataFrame) -> pd.DataFrame:
    """What each finding comes to at each setting, judged by F1: holds (3 of 3)."""
    rows = comparisons[comparisons["decides"] & comparisons["network"].ne("")]
    rows = rows[rows["accuracy"] == "F1"]
    where = [_where(row) for row in rows.to_dict("records")]
    found: dict[str, dict[str, str]] = {}
    for (place, finding), part in rows.groupby([where, "finding"], sort=False):
        said = part["verdict"].tolist()
        cell = f"{every(said)} ({said.count(HOLDS)} of {len(said)})"
        found.setdefault(str(place), {})[str(finding)] = cell
    names = dict.fromkeys(rows["finding"])
    table = pd.DataFrame([{"where": place, **cells} for place, cells in found.items()])
    return table.reindex(columns=["where", *names]).fillna(NONE)


def comparisons_table(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Every comparison, in percent and points; those that only stand beside are in brackets."""
    rows = comparisons.to_dict("records")
    return pd.DataFrame(
        {
            "finding": comparisons["finding"],
            "by": comparisons["accuracy"],
            "where": [_where(row) for row in rows],
            "comparison": comparisons["what"],
            "metric": comparisons["metric"].map(lambda name: TITLES.get(name, name)),
            "seeds": comparisons["seeds"].map(number),
            "value": comparisons["value"].map(percent),
            "against": comparisons["against"].map(percent),
            "effect": [mean_and_sd(row["effect"], row["sd"]) for row in rows],
            "accuracy": comparisons["accuracy_effect"].map(percent),
            "C(A,B)": comparisons["covers"].map(percent),
            "C(B,A)": comparisons["covered"].map(percent),
            "verdict": [r["verdict"] if r["decides"] else f"({r['verdict']})" for r in rows],
            "why": comparisons["why"].replace("", NONE),
            "published": comparisons["published"].replace("", NONE),
            "runs": [_runs(row["results"]) for row in rows],
        }
    )


def findings_blocks(findings: pd.DataFrame, comparisons: pd.DataFrame) -> list[Block]:
    """The section of a report."""
    by_setting = settings_table(comparisons)
    each: list[Block] = [Paragraph(BY_SETTING), Table(by_setting)] if len(by_setting) else []
    return [
        Heading(TITLE),
        Paragraph(PAPER),
        Table(findings_table(findings)),
        *each,
        Table(sentences_table(findings), folded="The sentences in full"),
        Table(comparisons_table(comparisons), folded=f"All {len(comparisons)} comparisons"),
    ]


def finding_sentences(findings: pd.DataFrame) -> list[str]:
    """The first two findings, and how many of all come to what; a line each."""
    lines = [
        f"The paper says ({row['id']}): {row['claim']}. These runs: {row['on_runs']}, "
        f"{_comparisons_of(row)}. Its grid: {row['on_grid']}."
        for row in findings[findings["id"].isin(SHOWN)].to_dict("records")
    ]
    asked = findings[["holding", "failing", "undecided"]].sum(axis=1) > 0
    said = []
    for verdict in (HOLDS, WEAK, FAILS, UNDECIDED):
        ids = findings.loc[asked & (findings["on_runs"] == verdict), "id"]
        if len(ids):
            said.append(f"{verdict} {', '.join(ids)}")
    if not asked.all():
        said.append(f"no runs for {', '.join(findings.loc[~asked, 'id'])}")
    return [*lines, f"The paper's sentences on these runs: {'; '.join(said)}."]


def _holding(findings: pd.DataFrame) -> list[str]:
    return [_holding_of(row) for row in findings.to_dict("records")]


def _comparisons_of(row: dict[Any, Any]) -> str:
    found = _holding_of(row)
    return "no comparison" if found == NONE else f"{found} comparisons hold"


def _holding_of(row: dict[Any, Any]) -> str:
    """How many of the comparisons on these runs hold."""
    count = row["holding"] + row["failing"] + row["undecided"]
    return f"{row['holding']} of {count}" if count else NONE


def _span(row: dict[Any, Any]) -> str:
    """The effects of a finding: -1.0 to 12.3 (sd 0.8)."""
    low, high = percent(row["effect_low"]), percent(row["effect_high"])
    span = low if low == high else f"{low} to {high}"
    return span if pd.isna(row["sd"]) else f"{span} (sd {percent(row['sd'])})"


def _first(reasons: str) -> str:
    """The first reasons of many."""
    parts = reasons.split("; ")
    more = f"; and {len(parts) - REASONS_SHOWN} more" if len(parts) > REASONS_SHOWN else ""
    return ("; ".join(parts[:REASONS_SHOWN]) or NONE) + more


def _where(row: dict[Any, Any]) -> str:
    names = ("dataset", "network", "attribution", "layer", "variant")
    return " · ".join(row[name] for name in names if row[name]) or NONE


def _runs(results: str) -> str:
    ids = results.split()
    more = f" and {len(ids) - RUNS_SHOWN} more" if len(ids) > RUNS_SHOWN else ""
    return (", ".join(result[:12] for result in ids[:RUNS_SHOWN]) or NONE) + more
