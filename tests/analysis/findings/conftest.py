"""Trainings made by hand: every number of a curve is said, so that one number turns a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pandas as pd
import pytest

from analysis.findings.evidence import Evidence
from analysis.findings.finding import Comparison, Finding, Verdict
from analysis.guidance import BASELINE, SETTING

Point = tuple[float, float, float]
"""F1, EPG, IoU."""
NETWORKS = {"vanilla": "resnet50", "xdnn": "xresnet50", "bcos": "bcos_resnet50"}
METHODS = {"vanilla": "input_x_gradient", "xdnn": "input_x_gradient", "bcos": "bcos"}
LAMBDAS = (1.0, 2.0, 3.0)
BASE: Point = (0.80, 0.30, 0.20)


@dataclass
class Trainings:
    """Curves and baselines; ``test`` and ``val`` are the same unless said."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    beside: list[dict[str, Any]] = field(default_factory=list)

    def setting(self, kind: str, layer: str, **changes: Any) -> dict[str, Any]:
        usual = {
            "dataset": "voc2007",
            "network": NETWORKS.get(kind, kind),
            "attribution": METHODS.get(kind, "input_x_gradient"),
            "layer": layer,
            "annotated_fraction": 1.0,
            "dilation": 0.0,
            "variant": "",
        }
        return usual | {name: value for name, value in changes.items() if name in SETTING}

    def curve(
        self,
        kind: str,
        layer: str,
        loss: str,
        points: Sequence[Point],
        *,
        seed: int = 0,
        lambda_loc: float = 1.0,
        status: str = "FINISHED",
        **changes: Any,
    ) -> Trainings:
        """One training; its points are its epochs."""
        common = self.setting(kind, layer, **changes)
        common |= {"loss": loss, "seed": seed, "lambda_loc": lambda_loc, "status": status}
        name = f"{kind}-{layer}-{loss}-{lambda_loc:g}-{seed}"
        common["result_id"] = changes.get("result_id", name)
        other = {k: v for k, v in changes.items() if k.startswith(("test_", "val_"))}
        for epoch, point in enumerate(points, 1):
            self.rows.append({**common, "epoch": epoch, **metrics(point), **other})
        return self

    def base(
        self, kind: str, layer: str, point: Point = BASE, *, seed: int = 0, **changes: Any
    ) -> Trainings:
        """The evaluation of a baseline."""
        row = self.setting(kind, layer, **changes) | metrics(point)
        names = {"seed": seed, "reference": BASELINE, "epoch": 1}
        self.beside.append({**row, **names, "result_id": f"base-{kind}-{layer}-{seed}"})
        return self

    def evidence(self) -> Evidence:
        rows = pd.DataFrame(self.rows)
        guided = rows.drop_duplicates([*SETTING, "loss", "seed", "lambda_loc"])
        done = rows[rows["status"] == "FINISHED"].reset_index(drop=True)
        blank = self.setting("", "") | {"seed": 0, "reference": "", **metrics(BASE)}
        references = pd.DataFrame(self.beside or [blank])
        return Evidence.of(guided, done, references if self.beside else references.iloc[:0])

    def whole(
        self,
        points: Mapping[str, Sequence[Point]],
        layers: Sequence[str] = ("input", "final"),
        datasets: Sequence[str] = ("voc2007", "coco2014"),
    ) -> Trainings:
        """The same curves for every dataset, kind of network and lambda."""
        for dataset, kind, layer in product(datasets, NETWORKS, layers):
            self.base(kind, layer, dataset=dataset)
            for (loss, curve), weight in product(points.items(), LAMBDAS):
                self.curve(kind, layer, loss, curve, dataset=dataset, lambda_loc=weight)
        return self

    def change(self, where: Mapping[str, Any], **values: Any) -> Trainings:
        """Other values in the rows that agree with all of these."""
        found = [row for row in self.rows if all(row[k] == v for k, v in where.items())]
        if not found:
            raise ValueError(f"no row with {where}")
        for row in found:
            row |= values
        return self

    def drop(self, **where: Any) -> Trainings:
        """Without the rows that agree with all of these."""
        self.rows = [row for row in self.rows if any(row[k] != v for k, v in where.items())]
        return self

    def judged(self, finding: Finding) -> Verdict:
        return finding.verdict(self.evidence())

    def only(self, finding: Finding, what: str = "") -> Comparison:
        """The one comparison of this name."""
        (found,) = (c for c in self.judged(finding).comparisons if what in c.key.what)
        return found


def metrics(point: Point) -> dict[str, float]:
    f1, epg, iou = point
    values = {"f1": f1, "map": f1, "epg": epg, "box_iou": iou, "box_iou_tuned": iou}
    return {f"{split}_{name}": v for split in ("val", "test") for name, v in values.items()}


@pytest.fixture
def trainings() -> Trainings:
    return Trainings()
