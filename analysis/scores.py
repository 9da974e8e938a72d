"""Scores of methods as matrices: a row per explanation, a column per method."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.paper_tables import paper_name
from analysis.runs import Runs

KINDS = {
    "protocol_evaluation": ("images", "seed", "explained_class"),
    "grid_evaluation": ("images", "side", "grids", "confidence", "seed"),
}
"""Results that hold scores of one method on one network, and the parameters that, beside the split,
say which explanations were made: methods are compared on equal ones only."""
ROWS, CURVES = "rows.parquet", "curves.npz"
"""Where such a result keeps its scores, and the mean curves of protocols that have any."""
FIRST = ("idsds", "sds", "ids")
"""Protocols that stand first in reports; the others follow by name."""
REFERENCE_LINES = ("uniform", "random", "center_gaussian", "edges")
"""Methods that look at no model: nothing that fails to beat them explains anything."""


@dataclass(frozen=True)
class Scores:
    """What the methods scored on one network under one protocol."""

    setting: str
    """The network and its images, as a title."""
    protocol: str
    higher_is_better: bool
    methods: pd.DataFrame
    """One row per column of ``values``: method (its key), label (for people), paper (the paper's
    name, where it was run as there), reference_line, result_id."""
    images: np.ndarray
    """(N,) int, the image of each explanation; one number an image in all of the setting."""
    values: np.ndarray
    """(N, M) float64, NaN where undefined."""


def evaluated(runs: Runs) -> pd.DataFrame:
    """Every finished evaluation by protocols, with the ``setting`` that it belongs to.

    A setting is a trained network with a choice of images and classes; where there is one choice of
    mosaics, too, they belong to it.

    Returns:
        Columns setting, network, dataset, start, subject (the training), split, those of KINDS,
        result_id, and of the method attribution (its name), of_set, baseline, absolute, squared;
        oldest first.
    """
    rows = runs.finished[runs.finished["kind"].isin(KINDS)]
    choices = dict.fromkeys(("split", *(name for names in KINDS.values() for name in names)))
    found = pd.DataFrame(
        {
            "result_id": rows["result_id"],
            "start": rows["start"],
            "subject": rows["label"].str.extract(" of (.*)$", expand=False).fillna(""),
            "network": _nested(rows, r"network\.name"),
            "dataset": _nested(rows, r"data(set)?\.name"),
            **{name: _column(rows, name) for name in choices},
            "attribution": _column(rows, "attribution.name"),
            "of_set": _column(rows, "attribution.of_set"),
            "baseline": _column(rows, "attribution.baseline.name"),
            "absolute": _column(rows, "attribution.absolute") == "True",
            "squared": _column(rows, "attribution.squared") == "True",
        }
    )
    found["subject"] = found["subject"].where(found["subject"] != "", found["network"])
    found.insert(0, "setting", _titles(found, rows["kind"]))
    return found.reset_index(drop=True)


def read_scores(runs: Runs, evaluated: pd.DataFrame) -> tuple[list[Scores], list[str]]:
    """The scores of every setting and protocol, and a sentence for each thing left out.

    Of several results of one method's key the newest counts. Where methods of a setting have not
    scored the same explanations, those that all of them scored are left.

    Args:
        runs: where they are kept.
        evaluated: as ``evaluated`` gives it.
    """
    found: list[Scores] = []
    notes: list[str] = []
    for setting, rows in evaluated.groupby("setting", sort=False):
        columns: dict[str, dict[str, tuple[pd.Series, pd.DataFrame]]] = {}
        known: pd.Index = pd.Index([], dtype=object)
        for _, row in rows.iterrows():
            table = runs.table(row["result_id"], ROWS)
            if table.empty:
                notes.append(f"{row['result_id']} of {setting} has no scores and is left out.")
                continue
            names = table["image_id"].cat.categories
            known = known.append(names[~names.isin(known)])
            numbers = known.get_indexer(names)[table["image_id"].cat.codes]
            table = table.assign(image=numbers).drop(columns="image_id")
            for (protocol, method), part in table.groupby(
                ["protocol_key", "method_key"], observed=True
            ):
                columns.setdefault(str(protocol), {})[str(method)] = (row, part)
        for protocol in sorted(columns, key=_place):
            methods = columns[protocol]
            direction = runs.directions.get(protocol)
            if direction not in ("max", "min"):
                notes.append(
                    f"No run says whether more or less of {protocol} is better: it is not ranked."
                )
                continue
            images, values = _aligned([part for _, part in methods.values()])
            most = max(len(part) for _, part in methods.values())
            if len(values) < most:
                notes.append(
                    f"{protocol} of {setting}: {most - len(values)} explanations were not scored "
                    "for all methods and are left out."
                )
            described = pd.DataFrame([_method(key, row) for key, (row, _) in methods.items()])
            found.append(
                Scores(str(setting), protocol, direction == "max", described, images, values)
            )
    return found, list(dict.fromkeys(notes))


def read_curves(runs: Runs, evaluated: pd.DataFrame, scores: Sequence[Scores]) -> pd.DataFrame:
    """The mean curves of every protocol that has any.

    Returns:
        Columns setting, protocol, method, label, reference_line, x, mean, low, high.
    """
    arrays = {result_id: runs.arrays(result_id, CURVES) for result_id in evaluated["result_id"]}
    parts = []
    for one in scores:
        for _, method in one.methods.iterrows():
            curve = arrays[method["result_id"]].get(one.protocol)
            if curve is not None and len(curve):
                part = pd.DataFrame(curve, columns=["x", "mean", "low", "high"])
                names = {name: method[name] for name in ("method", "label", "reference_line")}
                parts.append(part.assign(setting=one.setting, protocol=one.protocol, **names))
    columns = ["setting", "protocol", "method", "label", "reference_line"]
    columns += ["x", "mean", "low", "high"]
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def _method(key: str, row: pd.Series) -> dict[str, object]:
    of_set, attribution = row["of_set"], row["attribution"]
    paper = paper_name(of_set, attribution, row["baseline"], row["absolute"], row["squared"])
    plain = paper or key.replace(f"_{of_set}", "")
    return {
        "method": key,
        "label": f"{plain} *" if of_set else key,
        "paper": paper,
        "reference_line": attribution in REFERENCE_LINES,
        "result_id": row["result_id"],
    }


def _place(protocol: str) -> tuple[int, str]:
    """Where a protocol stands in reports."""
    return (FIRST.index(protocol) if protocol in FIRST else len(FIRST)), protocol


def _aligned(tables: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
    """Image of each explanation that all tables hold, (N,), and their scores side by side, (N, M).

    Equal tables, which is what evaluations leave, are put together without a look-up.
    """
    keys = [t[["image", "target"]].to_numpy() for t in tables]
    if all(np.array_equal(key, keys[0]) for key in keys[1:]):
        return keys[0][:, 0], np.stack([t["score"].to_numpy(np.float64) for t in tables], axis=1)
    columns = []
    for table in tables:
        column = table.drop_duplicates(["image", "target"]).set_index(["image", "target"])
        columns.append(column["score"].astype(np.float64))
    joined = pd.concat(columns, axis=1, join="inner").sort_index()
    return joined.index.get_level_values("image").to_numpy(), joined.to_numpy()


def _titles(rows: pd.DataFrame, kinds: pd.Series) -> pd.Series:
    """A title for each setting: the trained network, its split, and what else tells it apart."""
    title = rows["subject"].astype(str)
    if rows.groupby("subject")["start"].nunique().max() != 1:
        title = title + " (" + rows["start"].str[:6] + ")"
    title = title + " · " + rows["split"].astype(str)
    for kind, names in KINDS.items():
        own = kinds == kind
        for name in names:
            if rows.loc[own, name].nunique(dropna=False) > 1:
                title = title.where(~own, title + f" · {name} " + rows[name].astype(str))
    return title


def _nested(rows: pd.DataFrame, pattern: str) -> pd.Series:
    """The parameter of that name nearest to what is judged: ``of.network.name`` before others."""
    columns = map(str, rows.columns)
    names = [name for name in columns if re.fullmatch(rf"of\.([\w.]+\.)?{pattern}", name)]
    found = pd.Series("", index=rows.index, dtype=object)
    for name in sorted(names, key=len):
        found = found.where(found != "", rows[name].fillna(""))
    return found


def _column(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column as texts, empty where there is none."""
    if name not in rows:
        return pd.Series("", index=rows.index, dtype=object)
    return rows[name].astype(object).where(rows[name].notna(), "")
