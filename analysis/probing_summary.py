"""What probes reach and how their maps score, side by side, as frames."""

from __future__ import annotations

import pandas as pd

from analysis.findings.probe_evidence import Probe, ProbeEvidence, layered
from analysis.findings.probe_losses import LINEAR, loss_contrasts
from analysis.findings.probing_numbers import accuracy_beside
from analysis.probing import BCE, CE, LOSSES, OWN_HEAD, UNTRAINED


def accuracies(evidence: ProbeEvidence) -> pd.DataFrame:
    """What every probe reaches, beside the same probe on the untrained network.

    Returns:
        Columns dataset, backbone, pretraining, probe, variant, metric, of each loss (ce, bce,
        bce_uniform) ``*_mean``, ``*_sd`` (over seeds) and ``*_exceeds`` (its control's interval;
        empty where it is a control or there is none), ``control_low``, ``control_high`` (of the
        losses' controls the lowest and the highest end), images, seeds, published.
    """
    groups: dict[Probe, dict[str, Probe]] = {}
    for probe in evidence.probes(control=True):
        groups.setdefault(probe._replace(loss=""), {})[probe.loss] = probe
    rows = []
    for place, by_loss in groups.items():
        row: dict[str, object] = {k: v for k, v in place.named.items() if k != "loss"}
        row["metric"] = evidence.metric(next(iter(by_loss.values())))
        lows, highs, units, seeds = [], [], [], []
        for loss in LOSSES:
            mine = by_loss.get(loss)
            value, images, each = evidence.share(mine) if mine else (float("nan"), 0, ())
            row[f"{loss}_mean"] = value
            row[f"{loss}_sd"] = pd.Series(each, dtype=float).std()
            row[f"{loss}_exceeds"] = ""
            if each:
                units.append(images)
                seeds.append(len(each))
            if mine and place.pretraining != UNTRAINED:
                low, high = evidence.chance(mine)
                lows.append(low)
                highs.append(high)
                known = low == low and value == value
                row[f"{loss}_exceeds"] = ("yes" if value > high else "no") if known else ""
        row["control_low"] = pd.Series(lows, dtype=float).min()
        row["control_high"] = pd.Series(highs, dtype=float).max()
        row["images"], row["seeds"] = min(units, default=float("nan")), min(seeds, default=0)
        linear = all(
            evidence.first(next(iter(by_loss.values())), k) == v for k, v in LINEAR.items()
        )
        row["published"] = accuracy_beside(place.kind, place.pretraining) if linear else ""
        rows.append(row)
    stems = [f"{loss}_{end}" for loss in LOSSES for end in ("mean", "sd", "exceeds")]
    place_names = ["dataset", "backbone", "pretraining", "probe", "variant", "metric"]
    ends = ["control_low", "control_high", "images", "seeds", "published"]
    return pd.DataFrame(rows, columns=[*place_names, *stems, *ends])


def references(evidence: ProbeEvidence) -> pd.DataFrame:
    """Networks that were trained as a whole, in the columns of ``accuracies`` that they have."""
    rows = evidence.trained
    rows = rows[(rows["probe"] == OWN_HEAD) & (rows["status"] == "FINISHED")]
    metric = rows["several"].map({True: "f1", False: "accuracy"})
    scores = [row[name] for (_, row), name in zip(rows.iterrows(), metric, strict=True)]
    rows = rows.assign(metric=metric, score=scores)
    found = []
    for key, part in rows.groupby(["dataset", "backbone", "variant", "metric"], sort=False):
        row: dict[str, object] = dict(
            zip(["dataset", "backbone", "variant", "metric"], key, strict=True)
        )
        row |= {"pretraining": "end to end", "probe": OWN_HEAD, "seeds": part["seed"].nunique()}
        for loss in (CE, BCE):
            values = part.loc[part["loss"] == loss, "score"].astype(float)
            row |= {f"{loss}_mean": values.mean(), f"{loss}_sd": values.std()}
        found.append(row)
    return pd.DataFrame(found)


def depth_rows(evidence: ProbeEvidence) -> pd.DataFrame:
    """Accuracy (or F1) and localization by the layers of a probe.

    Returns:
        Columns dataset, backbone, pretraining, ``form``, loss, variant, layers, metric (accuracy or
        f1), accuracy, method, images, protocol, score; the last four are empty, or NaN, where no
        maps were scored.
    """
    rows = []
    for group in layered(evidence, evidence.probes()):
        for probe in group:
            value, _, _ = evidence.share(probe)
            metric = evidence.metric(probe)
            row = {name: getattr(probe, name) for name in ("dataset", "backbone", "pretraining")}
            row |= {"form": evidence.first(probe, "rest"), "loss": probe.loss}
            row |= {"variant": probe.variant, "layers": int(evidence.first(probe, "layers"))}
            row |= {"metric": metric, "accuracy": value}
            scored = []
            for way, protocol, decides in evidence.scored(
                probe, "epg" if metric == "f1" else "grid_pg"
            ):
                if decides:
                    mean = evidence.mean(probe, way, protocol)
                    named = {"method": way.method, "images": way.images, "protocol": protocol}
                    scored.append({**row, **named, "score": mean})
            nothing = {"method": "", "images": "", "protocol": "", "score": float("nan")}
            rows += scored or [{**row, **nothing}]
    names = ["dataset", "backbone", "pretraining", "form", "loss", "variant", "layers", "metric"]
    names += ["accuracy", "method", "images", "protocol", "score"]
    return pd.DataFrame(rows, columns=names)


def arrows(evidence: ProbeEvidence) -> pd.DataFrame:
    """What ``arrows_figure`` draws: each linear probe by BCE over its twin by CE."""
    found, several = [], evidence.trained["dataset"].nunique() > 1
    sides = evidence.evaluated.groupby("result_id")["side"].first()
    for probe, _, contrast in loss_contrasts(evidence, "grid_pg", "above", **LINEAR):
        if contrast.decides and contrast.effect == contrast.effect:
            rival = evidence.partner(probe)
            found.append(
                {
                    "panel": " · ".join([probe.backbone, *([probe.dataset] if several else [])]),
                    "method": contrast.method,
                    "pretraining": probe.pretraining,
                    "chance": 1 / sides[contrast.results[0]] ** 2,
                    "accuracy_ce": evidence.share(rival)[0],
                    "accuracy_bce": evidence.share(probe)[0],
                    "score_ce": contrast.against,
                    "score_bce": contrast.value,
                    "read": not evidence.unread(probe, rival),
                }
            )
    names = ["panel", "method", "pretraining", "chance", "accuracy_ce", "accuracy_bce"]
    return pd.DataFrame(found, columns=[*names, "score_ce", "score_bce", "read"])
