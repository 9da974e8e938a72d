"""Probes made by hand: every accuracy and score is said, so that one number turns a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.findings.contrast import Contrast, ProbeFinding, ProbeVerdict
from analysis.findings.probe_evidence import ProbeEvidence
from analysis.probing import PROBE, family_of
from analysis.probing_rows import RowScores
from analysis.runs import Runs

MOSAICS, SIDE = 24, 3
KNOWN = ("several", "form", "layers", "rest", "seed")
"""What evaluations know of their probe, beside what makes it one."""


@dataclass
class Probes:
    """Rows of runs and of their scores, as trials leave them."""

    make_runs: Callable[..., Runs]
    rows: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[tuple[str, int, dict[str, float]]] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    def probe(
        self,
        loss: str = "bce",
        accuracy: float = 0.8,
        *,
        backbone: str = "small_resnet",
        pretraining: str = "moco_v2",
        probe: str = "conventional",
        seed: int = 0,
        layout: str = "imagenet",
        status: str = "FINISHED",
        **parameters: Any,
    ) -> str:
        """A training after two epochs, on 200 validation images. Its result id, made once."""
        name = f"{probe}-{loss}-{backbone}-{pretraining}-{layout}-{seed}"
        if any(row["result_id"] == name for row in self.rows):
            return name
        form, _, layers = probe.partition("_l")
        row = {
            "result_id": name,
            "kind": "probe_training",
            "status": status,
            "label": f"{probe} {loss} probe on {backbone} {pretraining} seed {seed}",
            "tag.backbone": backbone,
            "tag.pretraining": pretraining,
            "tag.probe": probe,
            "tag.loss": loss,
            "probe.name": form,
            "probe.layers": int(layers or 1),
            "objective": loss.partition("_")[0],
            "off_target": "uniform" if loss.endswith("uniform") else "zero",
            "data.name": "digit_scenes",
            "data.layout": layout,
            "data.images_val": 200,
            "seed": seed,
        }
        self.rows.append(row | parameters)
        if status == "FINISHED":
            for epoch, value in ((1, accuracy - 0.1), (2, accuracy)):
                metrics = {"val/accuracy": value, "val/f1": value, "val/map": value}
                self.epochs.append((name, epoch, metrics))
        return name

    def mosaics(
        self,
        of: str,
        scores: float | np.ndarray = 0.5,
        *,
        method: str = "lrp",
        gauge: str = "as_trained",
        images: str = "common",
        names: Sequence[str] | None = None,
        side: int = SIDE,
        status: str = "FINISHED",
        logged: Mapping[str, float] | None = None,
        **parameters: Any,
    ) -> str:
        """An evaluation on MOSAICS mosaics: a level with noise, or every score (G, side²)."""
        cells = side * side
        if isinstance(scores, float):
            shared = np.random.default_rng(5).normal(0, 0.05, (MOSAICS, cells))
            own = np.random.default_rng([*of.encode(), *gauge.encode()])
            scores = scores + shared + own.normal(0, 0.01, shared.shape)
        names = names or [f"grid{k:04d}-{images}" for k in range(len(scores))]
        rows = {
            "image_id": np.repeat(names, cells),
            "target": np.tile(np.arange(cells), len(scores)),
            "score": scores.ravel(),
        }
        key = "grid_pg" if side == SIDE else f"grid_pg_n{side}"
        metrics = {f"val/{key}": float(np.nanmean(scores)), "val/dead_map_fraction": 0.1}
        metrics[f"val/{key}_defined_fraction"] = float(np.isfinite(scores).mean())
        more = {"side": side, "gauge.name": gauge, "images": images, **parameters}
        kind = more.pop("kind", "probe_grid_evaluation")
        table = pd.DataFrame(rows).assign(protocol_key=key)
        metrics |= logged or {}
        return self._evaluation(kind, of, method, table, metrics, status, more)

    def images(
        self,
        of: str,
        protocols: Mapping[str, np.ndarray | float],
        *,
        method: str = "lrp",
        areas: Sequence[float] | np.ndarray | None = None,
        **parameters: Any,
    ) -> str:
        """An evaluation on 40 images, one explanation each: a level with noise, or every score."""
        parts, metrics = [], {}
        for key, scores in protocols.items():
            if isinstance(scores, float):
                shared = np.random.default_rng(6).normal(0, 0.05, 40)
                scores = scores + shared + np.random.default_rng([*of.encode()]).normal(0, 0.01, 40)
            names = [f"img{k:02d}" for k in range(len(scores))]
            part = pd.DataFrame({"image_id": names, "target": 0, "score": scores})
            area = np.linspace(0.05, 0.95, len(scores)) if areas is None else np.asarray(areas)
            parts.append(part.assign(protocol_key=key, box_area_fraction=area))
            metrics |= {f"val/{key}": float(np.mean(scores)), f"val/{key}_defined_fraction": 1.0}
            metrics |= {f"val/{key}_area0-0.25": 0.1, f"val/{key}_area0-0.25_rows": 3.0}
        more = {"gauge.name": "as_trained", "images": "all", **parameters}
        table = pd.concat(parts)
        return self._evaluation("probe_evaluation", of, method, table, metrics, "FINISHED", more)

    def _evaluation(
        self,
        kind: str,
        of: str,
        method: str,
        table: pd.DataFrame,
        metrics: dict[str, float],
        status: str,
        parameters: dict[str, Any],
    ) -> str:
        name = f"{kind}-{method}-{len(self.rows)}"
        row = {
            "result_id": name,
            "kind": kind,
            "status": status,
            "start": of,
            "label": f"{method} of {of}",
            "attribution.name": method,
            "split": "val",
            "seed": 0,
        }
        self.rows.append(row | parameters)
        if status == "FINISHED":
            self.epochs.append((name, 1, metrics))
            self.tables[name] = table
        return name

    def clear(self) -> None:
        """Forget everything."""
        for part in (self.rows, self.epochs, self.tables):
            part.clear()

    def controls(self, accuracy: float = 0.2, **fields: Any) -> Probes:
        """The same probe without training, by every loss."""
        for loss in ("ce", "bce", "bce_uniform"):
            self.probe(loss, accuracy, pretraining="none", **fields)
        return self

    def pair(
        self,
        ce: float,
        bce: float,
        *,
        accuracies: tuple[float, float] = (0.8, 0.8),
        loss: str = "bce",
        method: str = "lrp",
        **fields: Any,
    ) -> Probes:
        """A probe by each loss, scored on the same mosaics, with a control."""
        if not any(r["result_id"] == self.name("ce", **fields) for r in self.rows):
            self.controls(**{k: v for k, v in fields.items() if k != "pretraining"})
            self.mosaics(self.probe("ce", accuracies[0], **fields), ce, method=method)
        self.mosaics(self.probe(loss, accuracies[1], **fields), bce, method=method)
        return self

    @staticmethod
    def name(
        loss: str,
        *,
        backbone: str = "small_resnet",
        pretraining: str = "moco_v2",
        probe: str = "conventional",
        seed: int = 0,
        layout: str = "imagenet",
    ) -> str:
        return f"{probe}-{loss}-{backbone}-{pretraining}-{layout}-{seed}"

    def runs(self) -> Runs:
        found = self.make_runs(list(reversed(self.rows)), self.epochs)
        named = [name for name in found.parameters if not name.startswith("tag.")]
        return replace(found, parameters=tuple(named))

    def evidence(self) -> ProbeEvidence:
        """What ``ProbeEvidence.of`` makes of the runs, without the way through them: quick."""
        metrics = {result_id: found for result_id, _, found in self.epochs}
        known: dict[str, dict[str, Any]] = {}
        evaluated, values, losses = [], [], []
        for row in self.rows:
            here = {name: row[name] for name in ("result_id", "status", "kind")}
            found = metrics.get(row["result_id"], {})
            if row["kind"] == "probe_training":
                known[row["result_id"]] = {**here, **described(row), **reached(row, found)}
            else:
                gauge, other = row["gauge.name"], row.get("gauge.other.objective", "")
                start = {k: known[row["start"]][k] for k in (*PROBE, *KNOWN)}
                own = {
                    "training": row["start"],
                    "method": row["attribution.name"],
                    "attribution": row["attribution.name"],
                    "gauge": f"{gauge} {other}".strip(),
                    "alpha": row.get("gauge.alpha", np.nan),
                    "images": row["images"],
                    "side": row.get("side", np.nan),
                    "choice": "",
                    "dead": found.get("val/dead_map_fraction", np.nan),
                }
                evaluated.append({**here, **start, **own, "split": "val"})
                for key, value in found.items():
                    name = key.removeprefix("val/")
                    if name == "ce_loss":
                        losses.append({"result_id": row["result_id"], "value": value})
                    if family_of(name) and not name.endswith("_rows") and "defined" not in name:
                        protocol, _, area = name.partition("_area")
                        of = {"result_id": row["result_id"], "protocol": protocol, "area": area}
                        values.append({**of, "family": family_of(name), "value": value})
        columns = ["result_id", "protocol", "family", "area", "value"]
        return ProbeEvidence(
            trained=pd.DataFrame(list(known.values())),
            evaluated=pd.DataFrame(evaluated),
            values=pd.DataFrame(values, columns=columns),
            losses=pd.DataFrame(losses, columns=["result_id", "value"]),
            rows=RowScores(self.make_runs([], [])),
        )

    def judged(self, finding: ProbeFinding) -> ProbeVerdict:
        return finding.verdict(self.evidence())

    def deciding(self, finding: ProbeFinding) -> list[Contrast]:
        return self.judged(finding).deciding

    def only(self, finding: ProbeFinding) -> Contrast:
        """The one comparison that decides."""
        (found,) = self.deciding(finding)
        return found

    def whole(self) -> Probes:
        """A little of everything: two backbones and pre-trainings, depths, gauges, shifts."""
        for backbone, method in (("small_resnet", "lrp"), ("small_bcos_resnet", "bcos")):
            deeper = ("conventional_l2", "bcos", "bcos_l2") if method == "lrp" else ()
            for probe in ("conventional", *deeper):
                self.controls(backbone=backbone, probe=probe)
                linear = probe == "conventional"
                losses = ("ce", "bce", "bce_uniform") if linear else ("ce", "bce")
                names = ("moco_v2", "dino") if linear else ("moco_v2",)
                for pretraining, loss in product(names, losses):
                    fields = {"backbone": backbone, "pretraining": pretraining, "probe": probe}
                    deep = 0.1 * probe.endswith("_l2")
                    of = self.probe(loss, 0.7 + deep + 0.05 * (loss == "bce"), **fields)
                    level = 0.4 + 0.2 * (loss != "ce") + deep
                    self.mosaics(of, level, method=method)
                    if linear:
                        self.mosaics(of, level - 0.05, method="grad_cam")
                        self.mosaics(of, 0.45, method=method, gauge="centered")
                        scores = {"entropy": 9 - level, "gini": level, "epg": level}
                        self.images(of, scores | {"pixel_deletion": level}, method=method)
            of = self.name("ce", backbone=backbone)
            other = {"gauge.other.objective": "bce", "gauge.other.off_target": "zero"}
            self.mosaics(of, 0.7, method=method, gauge="exchanged", **other)
            for alpha in (5.0, 20.0):
                shift = {"gauge": "shifted", "gauge.alpha": alpha}
                self.mosaics(of, 0.4 - 0.01 * alpha, method=method, **shift)
        self.controls(layout="voc", probe="bcos").controls(layout="voc", probe="bcos_l2")
        for layers in (1, 2):
            of = self.probe("bce", 0.6, layout="voc", probe="bcos" if layers == 1 else "bcos_l2")
            self.images(of, {"epg": 0.4 + 0.1 * layers}, method="bcos")
        return self


def described(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a training is."""
    probe, layout = row["tag.probe"], row["data.layout"]
    return {
        "dataset": f"digit_scenes {layout}",
        "backbone": row["tag.backbone"],
        "pretraining": row["tag.pretraining"],
        "probe": probe,
        "loss": row["tag.loss"],
        "several": layout == "voc",
        "form": row["probe.name"],
        "layers": row["probe.layers"],
        "seed": str(row["seed"]),
        "variant": "",
        "rest": probe.partition("_l")[0],
    }


def reached(row: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    """What a training reached."""
    if not metrics:
        return dict.fromkeys(("epoch", "split", "accuracy", "f1", "map", "units"), np.nan)
    named = {name.removeprefix("val/"): value for name, value in metrics.items()}
    return {"epoch": 2, "split": "val", **named, "units": row["data.images_val"]}


@pytest.fixture
def probes(make_runs: Callable[..., Runs], monkeypatch: pytest.MonkeyPatch) -> Probes:
    found = Probes(make_runs)

    def table(_: Runs, result_id: str, __: str) -> pd.DataFrame:
        return found.tables.get(result_id, pd.DataFrame())

    monkeypatch.setattr(Runs, "table", table)
    return found
