"""Probes and what was asked of them as frames: a row a training, an evaluation, a score."""

from __future__ import annotations

import re
from collections.abc import Collection

import pandas as pd

from analysis.runs import Runs

TRAINING, REFERENCE = "probe_training", "classifier_training"
EVALUATIONS = {
    "probe_evaluation": "images",
    "probe_grid_evaluation": "mosaics",
    "grid_evaluation": "mosaics",
}
"""Kinds of runs that score maps of a probe, or of a network trained as a whole, and on what."""
KINDS = (TRAINING, "probe_evaluation", "probe_grid_evaluation")
"""Kinds of runs that this report is about."""
CE, BCE, BCE_UNIFORM = "ce", "bce", "bce_uniform"
LOSSES = {CE: "CE", BCE: "BCE", BCE_UNIFORM: "BCE 1/C"}
"""Losses and what tables call them: BCE wants 0 of an absent class (the paper's text) or 1/C (its
code)."""
UNTRAINED = "none"
"""The pre-training of a backbone that has none: its probes are the control."""
AS_TRAINED, CENTERED, EXCHANGED, SHIFTED = "as_trained", "centered", "exchanged", "shifted"
"""Gauges: what was done to the class mean of a probe's last layer before it was explained."""
FAMILIES = ("grid_pg", "epg", "gini", "entropy", "pixel_deletion")
"""What maps are scored by; a key is one of these names and what differs from its defaults."""
SEVERAL = ("voc", "coco")
"""How layouts and data are called that have several classes an image: their probes are judged by
F1, others by accuracy."""
PROBE = ("dataset", "backbone", "pretraining", "probe", "loss", "variant")
"""What makes a probe; ``variant`` names what else differs between trainings (``epochs=8``)."""
SCORED = ("method", "gauge", "images", "choice")
"""What makes an evaluation of a probe; ``images`` is own, common or all, ``choice`` names what else
differs between evaluations of a method (``side=2``)."""
OWN = "own"
"""Images that a probe chose for itself."""
OWN_HEAD = "own classifier"
"""What stands for the probe of a network that was trained as a whole."""
CROSS_ENTROPY = ("ce_loss", "cross_entropy", "loss")
"""What evaluations may call the cross-entropy of the probe that they explain."""
DEAD = "dead_map_fraction"
BIAS, LAYERS = r"_bias-?[\d.e+-]+", r"_l\d+"
"""Parts of a probe's key: the logit bias, which CE does not feel and which is left out where that
leaves probes apart, and the layers."""


def trained(runs: Runs) -> pd.DataFrame:
    """Every training of a probe, whatever its status, and the networks trained as a whole.

    Returns:
        Columns result_id, status, kind, PROBE, ``several`` (classes an image), ``form`` (of the
        probe: conventional or bcos), ``layers``, ``rest`` (the probe but for its layers), ``seed``
        (own and the backbone's, as one text), ``split`` and ``units`` (its images, NaN if no run
        says), ``accuracy``, ``f1``, ``map`` there, after the ``epoch`` that counts.
    """
    rows = runs.runs[runs.runs["kind"].isin([TRAINING, REFERENCE])]
    whole = rows["kind"] == REFERENCE
    found = pd.DataFrame(
        {
            "result_id": rows["result_id"],
            "status": rows["status"],
            "kind": rows["kind"],
            "dataset": datasets(rows),
            "backbone": column(rows, "tag.backbone").where(~whole, column(rows, "network.name")),
            "pretraining": column(rows, "tag.pretraining").where(~whole, "supervised"),
            "probe": column(rows, "tag.probe").where(~whole, OWN_HEAD),
            "loss": column(rows, "tag.loss").where(~whole, column(rows, "objective")),
            "several": _several(rows),
            "form": column(rows, "probe.name"),
            "layers": pd.to_numeric(column(rows, "probe.layers"), errors="coerce"),
            "seed": _seeds(rows),
        }
    )
    known = r"(name|threads|seed|objective|off_target|(probe|backbone|data)\..*)"
    others = [name for name in runs.parameters if not re.fullmatch(known, name)]
    own = found["backbone"].where(whole, "")  # each network has a recipe of its own
    found["variant"] = _differences(rows, found["dataset"] + found["kind"] + own, others)
    data, backbones = (_below(runs, part) for part in ("data", "backbone"))
    found["pretraining"] = _told_apart(
        found, rows, ["dataset", "backbone", "pretraining"], backbones
    )
    found["dataset"] = _told_apart(found, rows, ["dataset"], data)
    plain = found["probe"].str.replace(BIAS, "", regex=True)
    same = found.assign(plain=plain).groupby([*PROBE[:3], "plain", "loss", "variant"])
    if same["probe"].nunique().max() == 1:
        found["probe"] = plain
    found["rest"] = found["probe"].str.replace(LAYERS, "", regex=True)
    return found.merge(_last(runs), on="result_id", how="left").reset_index(drop=True)


def evaluated(runs: Runs, trained: pd.DataFrame) -> pd.DataFrame:
    """Every evaluation of a probe's maps, whatever its status.

    Args:
        runs: where they are kept.
        trained: as ``trained`` gives it: what is known of a probe is known there.

    Returns:
        Columns result_id, status, kind, ``training`` (result id), PROBE, several, form, layers,
        rest, SCORED, ``attribution`` (its name), ``alpha`` (of a shift), ``side``, ``split``,
        ``seed`` (the probe's and its own) and ``dead`` (share of the maps without anything
        positive). An exchanged gauge names the loss of the probe whose class mean is carried.
    """
    rows = runs.runs[runs.runs["kind"].isin(list(EVALUATIONS))]
    attribution = column(rows, "attribution.name")
    own_seed = column(rows, "seed").astype(str)
    other = column(rows, "gauge.other.objective")
    uniform = (other == BCE) & (column(rows, "gauge.other.off_target") == "uniform")
    other = other.where(~uniform, BCE_UNIFORM)
    gauge = column(rows, "gauge.name").replace("", AS_TRAINED)
    found = pd.DataFrame(
        {
            "result_id": rows["result_id"],
            "status": rows["status"],
            "kind": rows["kind"],
            "training": rows["start"],
            "method": _methods(rows, attribution),
            "attribution": attribution,
            "gauge": gauge.where(gauge != EXCHANGED, gauge + " " + other),
            "alpha": pd.to_numeric(column(rows, "gauge.alpha"), errors="coerce"),
            "images": column(rows, "images").replace("", OWN),
            "side": pd.to_numeric(column(rows, "side"), errors="coerce"),
            "split": column(rows, "split"),
        }
    )
    known = r"(name|threads|seed|images|compared|(of|attribution|gauge|protocols)(\..*)?)"
    others = [name for name in runs.parameters if not re.fullmatch(known, name)]
    found["choice"] = _differences(rows, rows["kind"] + attribution, others)
    names = [*PROBE, "several", "form", "layers", "rest", "seed"]
    probes = trained[["result_id", *names]].rename(columns={"result_id": "training"})
    found = found.merge(probes, on="training", how="inner")
    several = own_seed.nunique() > 1
    by_id = pd.Series(own_seed.to_numpy(), index=rows["result_id"].to_numpy(), dtype=object)
    if several:
        found["seed"] = found["seed"] + "." + found["result_id"].map(by_id)
    return found.merge(_dead(runs), on="result_id", how="left").reset_index(drop=True)


def values(runs: Runs, evaluated: pd.DataFrame) -> pd.DataFrame:
    """Every mean that finished evaluations logged.

    Returns:
        Columns result_id, ``protocol`` (key), ``family`` of FAMILIES, ``area`` (0.25-0.5; empty for
        boxes of all sizes), value, defined_fraction.
    """
    done = evaluated[evaluated["status"] == "FINISHED"]
    rows = runs.history.merge(done[["result_id", "split"]], on=["result_id", "split"])
    rows = rows.sort_values("step", kind="stable").drop_duplicates(
        ["result_id", "metric"], keep="last"
    )
    suffix = "_defined_fraction"
    shares = rows[rows["metric"].str.endswith(suffix)]
    shares = shares.assign(metric=shares["metric"].str.removesuffix(suffix))
    shares = shares.rename(columns={"value": "defined_fraction"})
    rows = rows.assign(family=rows["metric"].map(family_of))
    rows = rows[(rows["family"] != "") & ~rows["metric"].str.endswith((suffix, "_rows"))]
    rows = rows.merge(
        shares[["result_id", "metric", "defined_fraction"]], on=["result_id", "metric"], how="left"
    )
    parts = rows["metric"].str.extract(r"^(?P<protocol>.+?)(?:_area(?P<area>[\d.]+-[\d.]+))?$")
    rows = rows.assign(protocol=parts["protocol"], area=parts["area"].fillna(""))
    names = ["result_id", "protocol", "family", "area", "value", "defined_fraction"]
    return rows[names].reset_index(drop=True)


def cross_entropies(runs: Runs) -> pd.DataFrame:
    """The mean cross-entropy that evaluations logged of the probe they explained, if any did.

    Returns:
        Columns result_id, value.
    """
    rows = runs.history[runs.history["metric"].isin(CROSS_ENTROPY)]
    evaluations = runs.runs.loc[runs.runs["kind"].isin(list(EVALUATIONS)), "result_id"]
    rows = rows[rows["result_id"].isin(evaluations)]
    return rows.drop_duplicates("result_id", keep="last")[["result_id", "value"]]


def family_of(protocol: str) -> str:
    """Which of FAMILIES a key is of; empty for any other."""
    of = [name for name in FAMILIES if protocol == name or protocol.startswith(f"{name}_")]
    return of[0] if of else ""


def unit_of(protocol: str) -> float:
    """What a score is shown in: percent, or bits as they are."""
    return 1.0 if family_of(protocol) == "entropy" else 100.0


def column(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column, with empty texts for what is missing."""
    if name not in rows:
        return pd.Series("", index=rows.index, dtype=object)
    return rows[name].astype(object).where(rows[name].notna(), "")


def datasets(rows: pd.DataFrame) -> pd.Series:
    """What the data of each run are called, with the layout where they have one."""
    names, layouts = (column(rows, f"data.{part}") for part in ("name", "layout"))
    return (names.astype(str) + " " + layouts.astype(str)).str.strip()


def _several(rows: pd.DataFrame) -> pd.Series:
    names, layouts = (column(rows, f"data.{part}") for part in ("name", "layout"))
    return layouts.where(layouts != "", names).astype(str).str.startswith(SEVERAL)


def _seeds(rows: pd.DataFrame) -> pd.Series:
    """Own seed and, where backbones differ in theirs, that one: 0, 0/1."""
    found = column(rows, "seed").astype(str)
    names = [f"backbone.{part}seed" for part in ("", "of.")]
    backbones = [column(rows, name).astype(str) for name in names]
    joined = backbones[0] + backbones[1]
    return found + "/" + joined if joined[joined != ""].nunique() > 1 else found


def _methods(rows: pd.DataFrame, attribution: pd.Series) -> pd.Series:
    """The method's key, which begins the label; its name where the label begins otherwise."""
    first = rows["label"].str.split(n=1).str[0].fillna("")
    pairs = zip(first, attribution, strict=True)
    keys = [key if key == name or key.startswith(f"{name}_") else name for key, name in pairs]
    return pd.Series(keys, index=rows.index, dtype=object)


def _below(runs: Runs, part: str) -> list[str]:
    """Parameters of the data or the backbone, but for seeds, in which one name may differ."""
    known = rf"{part}\.(?!.*(seed|threads|fingerprint|root)$).*"
    return [name for name in runs.parameters if re.fullmatch(known, name)]


def _told_apart(
    found: pd.DataFrame, rows: pd.DataFrame, by: list[str], names: list[str]
) -> pd.Series:
    """The last column of ``by``, with the parameters in which rows that agree in all differ."""
    alike = zip(*(found[name].astype(str) for name in by), strict=True)
    groups = pd.Series(["\0".join(key) for key in alike], index=rows.index, dtype=object)
    differences = _differences(rows, groups, names)
    return found[by[-1]] + differences.map(lambda text: f" ({text})" if text else "")


def _differences(rows: pd.DataFrame, groups: pd.Series, names: Collection[str]) -> pd.Series:
    """For each row the parameters in which rows of its group differ: ``epochs=8, workers=2``."""
    text = pd.Series("", index=rows.index, dtype=object)
    for _, part in rows.groupby(groups):
        differing = [name for name in names if part[name].nunique(dropna=False) > 1]
        for index in part.index if differing else ():
            said = [(name, part[name][index]) for name in differing]
            # whole numbers come as 8.0 where other results have no such parameter
            texts = [f"{n}={v:g}" if isinstance(v, float) else f"{n}={v}" for n, v in said]
            text[index] = ", ".join(texts)
    return text


def _last(runs: Runs) -> pd.DataFrame:
    """What trainings reached: a probe at its last epoch, a whole network where it was best.

    On test if it was tested, else on validation.
    """
    names = ("accuracy", "f1", "map")
    wanted = [f"{split}_{name}" for split in ("test", "val") for name in names]
    kinds, objective = (
        column(runs.runs, name).set_axis(runs.runs["result_id"]) for name in ("kind", "objective")
    )
    epochs = runs.epochs().reindex(columns=["result_id", "epoch", *wanted])
    kind = epochs["result_id"].map(kinds)
    epochs = epochs[kind.isin([TRAINING, REFERENCE]) & epochs[wanted].notna().any(axis=1)]
    by_f1 = epochs["result_id"].map(objective) == BCE
    selected = epochs["val_f1"].where(by_f1, epochs["val_accuracy"])
    place = selected.where(epochs["result_id"].map(kinds) == REFERENCE, epochs["epoch"])
    # of equal ones the first is selected, as in the training
    order = epochs.assign(place=place).sort_values(["place", "epoch"], ascending=[False, True])
    rows = order.drop_duplicates("result_id")
    tested = rows[["test_accuracy", "test_f1"]].notna().any(axis=1)
    found = rows[["result_id", "epoch"]].assign(split=tested.map({True: "test", False: "val"}))
    for name in names:
        found[name] = rows[f"test_{name}"].where(tested, rows[f"val_{name}"])
    return found.merge(_units(runs), on=["result_id", "split"], how="left")


def _units(runs: Runs) -> pd.DataFrame:
    """Images of each split: logged by the run, else a parameter of its data."""
    logged = runs.history[runs.history["metric"] == "images"]
    parts = [logged.rename(columns={"value": "units"})]
    for split in ("val", "test"):
        said = pd.to_numeric(column(runs.runs, f"data.images_{split}"), errors="coerce")
        parts.append(runs.runs[["result_id"]].assign(split=split, units=said))
    rows = pd.concat(parts)[["result_id", "split", "units"]].dropna()
    return rows.drop_duplicates(["result_id", "split"])


def _dead(runs: Runs) -> pd.DataFrame:
    rows = runs.history[runs.history["metric"] == DEAD].drop_duplicates("result_id", keep="last")
    return rows[["result_id", "value"]].rename(columns={"value": "dead"})
