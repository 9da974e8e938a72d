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
from analysis.runs import Runs

MOSAICS, SIDE = 24, 3


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
        """A training after two epochs, on 200 validation images. Its result id."""
        name = f"{probe}-{loss}-{backbone}-{pretraining}-{layout}-{seed}"
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
        kind, table = "probe_grid_evaluation", pd.DataFrame(rows).assign(protocol_key=key)
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
            texts = dict.fromkeys(["image_id", "protocol_key"], "category")
            self.tables[name] = table.assign(method_key=method).astype(texts)
        return name

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

    def judged(self, finding: ProbeFinding) -> ProbeVerdict:
        return finding.verdict(ProbeEvidence.of(self.runs()))

    def deciding(self, finding: ProbeFinding) -> list[Contrast]:
        return self.judged(finding).deciding

    def only(self, finding: ProbeFinding) -> Contrast:
        """The one comparison that decides."""
        (found,) = self.deciding(finding)
        return found

    def whole(self) -> Probes:
        """A little of everything: two backbones and pre-trainings, depths, gauges, shifts."""
        for backbone, method in (("small_resnet", "lrp"), ("small_bcos_resnet", "bcos")):
            for form, layers in product(("conventional", "bcos"), (1, 2, 3)):
                probe = form if layers == 1 else f"{form}_l{layers}"
                self.controls(backbone=backbone, probe=probe)
                for pretraining, loss in product(("moco_v2", "dino"), ("ce", "bce", "bce_uniform")):
                    fields = {"backbone": backbone, "pretraining": pretraining, "probe": probe}
                    of = self.probe(loss, 0.7 + 0.05 * layers, **fields)
                    level = 0.4 + 0.3 * (loss != "ce") + 0.05 * layers
                    self.mosaics(of, level, method=method)
                    self.mosaics(of, level - 0.05, method="grad_cam")
                    if probe == "conventional":
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


@pytest.fixture
def probes(make_runs: Callable[..., Runs], monkeypatch: pytest.MonkeyPatch) -> Probes:
    found = Probes(make_runs)

    def table(_: Runs, result_id: str, __: str) -> pd.DataFrame:
        return found.tables.get(result_id, pd.DataFrame())

    monkeypatch.setattr(Runs, "table", table)
    return found
