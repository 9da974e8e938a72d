"""Frames as tables for people. Percent stands here and in plots only."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from analysis.choice import CHOSEN_BY
from analysis.guidance import METRICS, in_order, words
from analysis.runs import Runs

NONE = "\N{EN DASH}"
"""What is printed where there is no value."""
WIDTH = 100
"""Columns of the terminal that ``text`` fits its tables to."""


def percent(value: float, digits: int = 1) -> str:
    """A fraction as a percentage without the sign: 0.123 becomes 12.3."""
    return NONE if pd.isna(value) else f"{100 * value:.{digits}f}"


def mean_and_sd(mean: float, sd: float) -> str:
    """Percentages over seeds: 12.3 ± 0.4, or the value alone where there is one seed."""
    return percent(mean) if pd.isna(sd) else f"{percent(mean)} ± {percent(sd)}"


def number(value: float) -> str:
    """A number in its shortest form: 0.005, 12, 3.4e-05."""
    return NONE if pd.isna(value) else f"{value:g}"


def ratio(value: float) -> str:
    """A ratio with one digit: 12.3."""
    return NONE if pd.isna(value) else f"{value:.1f}"


def setting_names(rows: pd.DataFrame) -> pd.Series:
    """The columns of SETTING as one line per row."""
    return rows.apply(lambda r: " · ".join(filter(None, words(r.to_dict()).values())), axis=1)


def counts_table(runs: Runs) -> pd.DataFrame:
    """How many results of each kind have each status."""
    counts = runs.runs.groupby(["kind", "status"]).size().unstack(fill_value=0)
    return counts.astype(str).rename_axis(columns=None).reset_index()


def failures_table(runs: Runs) -> pd.DataFrame:
    """Results that are not complete, with the reason that was written down."""
    rows = runs.runs[runs.runs["status"] != "FINISHED"]
    names = ["label", "status", "reason"]
    return rows[names].rename(columns={"label": "result"}).replace("", NONE)


def self_checks_table(runs: Runs) -> pd.DataFrame:
    """Analytic identities that maps had to meet: how many results were checked, how many hold.

    Columns: identity, checked, hold, largest error (relative), results that break it.
    """
    found, prefix, suffix = [], "self_check.", ".error"
    for column in sorted(map(str, runs.finished)):
        if not (column.startswith(prefix) and column.endswith(suffix)):
            continue
        name = column.removeprefix(prefix).removesuffix(suffix)
        rows = runs.finished[runs.finished[column].notna()]
        holds = rows[f"{prefix}{name}.holds"] == 1
        found.append(
            {
                "identity": name.replace("_", " "),
                "checked": str(len(rows)),
                "hold": str(int(holds.sum())),
                "largest error": f"{rows[column].max():.1e}",
                "broken by": ", ".join(rows.loc[~holds, "label"]) or NONE,
            }
        )
    names = ["identity", "checked", "hold", "largest error", "broken by"]
    return pd.DataFrame(found, columns=names)


def fronts_table(front: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """Every member of every front below its references: validation / test, in percent."""
    rows = pd.concat([references.rename(columns={"reference": "loss"}), front])
    rows = in_order(rows, ["lambda_loc", "epoch"])
    table = pd.DataFrame(
        {
            "setting": setting_names(rows) if len(rows) else [],
            "loss": rows["loss"],
            "seed": rows["seed"].map(number),
            "lambda": rows["lambda_loc"].map(number),
            "epoch": rows["epoch"].map(number),
        }
    )
    for metric, title in METRICS.items():
        pairs = zip(rows[f"val_{metric}"], rows[f"test_{metric}"], strict=True)
        table[title] = [f"{percent(val)} / {percent(test)}" for val, test in pairs]
    return table


def summary_table(summary: pd.DataFrame) -> pd.DataFrame:
    """What each loss reaches on test with the model chosen on validation: mean ± sd, in percent."""
    table = pd.DataFrame(
        {
            "setting": setting_names(summary) if len(summary) else [],
            "loss": summary["loss"],
            "seeds": summary["seeds"].map(number),
        }
    )
    quantities = {}
    for metric in CHOSEN_BY:
        quantities[metric] = f"best {METRICS[metric]}"
        quantities[f"{metric}_f1"] = f"F1 at best {METRICS[metric]}"
    for quantity, title in {**quantities, "hypervolume": "hypervolume"}.items():
        columns = zip(summary[f"{quantity}_mean"], summary[f"{quantity}_sd"], strict=True)
        table[title] = [mean_and_sd(mean, sd) for mean, sd in columns]
    return table


def control_table(control: pd.DataFrame) -> pd.DataFrame:
    """The positive control: validation EPG in percent, differences in points."""
    return pd.DataFrame(
        {
            "setting": setting_names(control) if len(control) else [],
            "lambda": control["lambda_loc"].map(number),
            "seeds": control["seeds"].map(number),
            "EPG, lambda = 0": list(map(mean_and_sd, control["control"], control["control_sd"])),
            "EPG, guided": list(map(mean_and_sd, control["guided"], control["guided_sd"])),
            "difference": control["difference"].map(percent),
            "spread": control["spread"].map(percent),
            "ratio": control["ratio"].map(ratio),
            "verdict": control["verdict"],
        }
    )


def grouped(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """A table by its setting, which becomes the title; one part without a title if it has none."""
    if "setting" not in table:
        return [("", table)]
    return [
        (str(name), part.drop(columns="setting"))
        for name, part in table.groupby("setting", sort=False)
    ]


def text(table: pd.DataFrame, width: int = WIDTH) -> str:
    """A table for a terminal: aligned, numbers to the right, long texts cut to fit the width."""
    parts = []
    for title, part in grouped(table):
        rows = part.astype(str).to_numpy().tolist()
        cells = [
            [" ".join(cell.split()) for cell in row]
            for row in [list(map(str, part.columns)), *rows]
        ]
        numeric = [is_numeric([row[i] for row in cells[1:]]) for i in range(len(cells[0]))]
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        over = sum(widths) + 2 * (len(widths) - 1) - width
        while over > 0:
            longest = max(range(len(widths)), key=lambda i: widths[i])
            cut = min(over, max(1, widths[longest] // 4))
            widths[longest] -= cut
            over -= cut
        lines = [_cut(title, width)] if title else []
        for row in cells:
            fitted = [_cut(cell, w) for cell, w in zip(row, widths, strict=True)]
            aligned = [
                cell.rjust(w) if right else cell.ljust(w)
                for cell, w, right in zip(fitted, widths, numeric, strict=True)
            ]
            lines.append("  ".join(aligned).rstrip())
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    parts = []
    for title, part in grouped(table):
        names = list(map(str, part.columns))
        rows = part.astype(str).to_numpy().tolist()
        numeric = [is_numeric([row[i] for row in rows]) for i in range(len(names))]
        lines = [f"**{title}**\n"] if title else []
        lines.append(_markdown_row(names))
        lines.append(_markdown_row(["---:" if right else "---" for right in numeric]))
        lines += [_markdown_row(row) for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column reads as numbers, which stand to the right."""
    return all(re.match(rf"[-+]?(\d|inf)|{NONE}", cell) for cell in cells)


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"
