"""What guided trainings say, seed by seed: fronts, chosen models, and their baselines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import guidance
from analysis.choice import choices
from analysis.findings.finding import NAN
from analysis.findings.model import NO_MODEL, Model
from analysis.findings.paper_grid import LAMBDAS, PAPERS, is_paired, kind_of
from analysis.guidance import BASELINE, CURVE, SETTING, words
from analysis.pareto import BINNING, pareto_front
from analysis.styles import label


class Setting(NamedTuple):
    """The columns of ``guidance.SETTING``."""

    dataset: str
    network: str
    attribution: str
    layer: str
    annotated_fraction: float
    dilation: float
    variant: str

    @property
    def kind(self) -> str:
        """The paper's kind of the network."""
        return kind_of(self.network)

    @property
    def is_papers(self) -> bool:
        """Whether it is a network of the paper, trained as the others of its kind."""
        return self.network in PAPERS and self.variant == ""

    @property
    def rest(self) -> str:
        """How boxes were used and what else differs, for people."""
        said = words(self._asdict())
        return ", ".join(
            filter(None, (said[name] for name in ("annotated_fraction", "dilation", "variant")))
        )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All guided trainings of a report, judged by F1 or by mAP."""

    guided: pd.DataFrame
    candidates: pd.DataFrame
    references: pd.DataFrame
    waterbirds: pd.DataFrame = field(default_factory=pd.DataFrame)
    """As ``waterbirds.COLUMNS`` say."""
    accuracy: str
    """``f1`` or ``map``."""
    front: pd.DataFrame
    """As ``guidance.front`` returns it."""
    baselines: dict[tuple[Any, ...], dict[Any, Any]]
    """The baseline by SETTING and seed."""
    wanted: dict[tuple[Any, ...], set[float]]
    """Lambdas asked for by CURVE."""
    finished: dict[tuple[Any, ...], set[float]]
    """Lambdas that have finished, by CURVE."""

    @classmethod
    def of(
        cls,
        guided: pd.DataFrame,
        candidates: pd.DataFrame,
        references: pd.DataFrame,
        waterbirds: pd.DataFrame | None = None,
        accuracy: str = "f1",
    ) -> Evidence:
        """From the frames of ``guidance``.

        Departs: judged by mAP only epochs count that were tested. Trainings test their front by mAP
            as well as by F1; of one that tested by F1 alone that front, the best F1 and the last
            epoch are all there is.
        """
        tested = candidates if accuracy == "f1" else candidates.dropna(subset=f"test_{accuracy}")
        front = guidance.front(tested, accuracy=accuracy)
        beside = references[references["reference"] == BASELINE]
        done = guided[guided["status"] == "FINISHED"]
        return cls(
            guided=guided,
            candidates=candidates,
            references=references,
            waterbirds=pd.DataFrame() if waterbirds is None else waterbirds,
            accuracy=accuracy,
            front=front,
            baselines=_records(beside, [*SETTING, "seed"]),
            wanted=_lambdas(guided),
            finished=_lambdas(done),
        )

    @classmethod
    def of_waterbirds(cls, rows: pd.DataFrame) -> Evidence:
        """Trainings by groups alone, as ``waterbirds.COLUMNS`` say."""
        columns = [*CURVE, "lambda_loc", "epoch", "status", "reference", "result_id"]
        metrics = [f"{split}_{m}" for split in ("val", "test") for m in guidance.METRICS]
        nothing = pd.DataFrame(columns=[*columns, *metrics])
        return cls.of(nothing, nothing, nothing, rows)

    @cached_property
    def fronts(self) -> dict[tuple[Any, ...], list[dict[Any, Any]]]:
        """Pareto-dominant rows by CURVE."""
        found: dict[tuple[Any, ...], list[dict[Any, Any]]] = {}
        for row in self.front.to_dict("records"):
            found.setdefault(tuple(row[name] for name in CURVE), []).append(row)
        return found

    @cached_property
    def chosen(self) -> dict[tuple[Any, ...], dict[Any, Any]]:
        """Rows of ``choices`` by CURVE and metric."""
        best = choices(self.front, self.references, self.accuracy)
        return _records(best, [*CURVE, "chosen_by"])

    @cached_property
    def by_map(self) -> Evidence:
        """The same runs judged by mAP."""
        frames = (self.guided, self.candidates, self.references, self.waterbirds)
        return Evidence.of(*frames, accuracy="map")

    @cached_property
    def of_papers_grid(self) -> Evidence:
        """What was asked for as the paper ran it: its networks, all lambdas, nothing else varied.

        A loss was trained with all lambdas if there are LAMBDAS of them, whichever; those of group
        trainings are not looked at.
        """
        weights: dict[tuple[Any, ...], set[float]] = {}
        for key, lambdas in self.wanted.items():
            weights.setdefault(key[:-1], set()).update(lambdas)
        whole = {key for key, lambdas in weights.items() if len(lambdas) >= LAMBDAS}
        wanted = {
            key: lambdas
            for key, lambdas in self.wanted.items()
            if key[:-1] in whole and Setting(*key[:-2]).is_papers
        }
        rows = self.waterbirds
        if not rows.empty:
            plain = rows["network"].isin(PAPERS) & (rows["variant"] == "")
            rows = rows[plain | (rows["loss"] == BASELINE)]
        if len(wanted) == len(self.wanted) and len(rows) == len(self.waterbirds):
            return self
        return replace(self, wanted=wanted, waterbirds=rows)

    def settings(
        self,
        layers: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        *,
        paired: bool = True,
        plain: bool = True,
    ) -> list[Setting]:
        """Settings that a training was asked for.

        Args:
            layers: only these; all if None.
            kinds: only these kinds of networks; all if None, those of no kind included.
            paired: only with the paper's method for the network.
            plain: only with all boxes as they are.
        """
        found = dict.fromkeys(Setting(*key[:-2]) for key in self.wanted)
        return [
            setting
            for setting in found
            if (layers is None or setting.layer in layers)
            and (kinds is None or setting.kind in kinds)
            and (not paired or is_paired(setting.network, setting.attribution))
            and (not plain or (setting.annotated_fraction == 1 and setting.dilation == 0))
        ]

    def asked(self, setting: Setting, losses: Iterable[str]) -> list[str]:
        """Those of the losses that this setting was to be trained with."""
        present = {key[-2] for key in self.wanted if key[:-2] == setting}
        return [loss for loss in losses if loss in present]

    def seeds(self, *pools: tuple[Setting, str]) -> list[Any]:
        """Seeds for which every pool was asked for in full; if there are none, in part.

        A seed that repeats some lambdas only tells the spread, and decides nothing.
        """
        in_part, in_full = [], []
        for setting, loss in pools:
            asked = {
                key[-1]: lambdas
                for key, lambdas in self.wanted.items()
                if key[:-1] == (*setting, loss)
            }
            everything = set().union(*asked.values())
            in_part.append(set(asked))
            in_full.append({seed for seed, lambdas in asked.items() if lambdas == everything})
        if not pools:
            return []
        return sorted(set.intersection(*in_full) or set.intersection(*in_part))

    def unfinished(self, setting: Setting, loss: str, seed: Any) -> str:
        """What is missing of a pool; empty if nothing is."""
        everything = set().union(
            *(lambdas for key, lambdas in self.wanted.items() if key[:-1] == (*setting, loss))
        )
        missing = len(everything - self.finished.get((*setting, loss, seed), set()))
        return f"{label(loss)}: {missing} of {len(everything)} runs missing" if missing else ""

    def points(
        self, setting: Setting, loss: str, seed: Any, metric: str
    ) -> tuple[np.ndarray, int, tuple[str, ...]]:
        """The front in two dimensions: chosen on validation, with its test values.

        Returns:
            F1 or mAP and the metric on test, (n, 2), NaN where untested; which of the n has most of
            the metric on validation (of equals the smallest lambda, then the earliest epoch; 0 if
            there is none); the ids of the runs.
        """
        members = self.fronts.get((*setting, loss, seed), [])
        members = sorted(members, key=lambda row: (row["lambda_loc"], row["epoch"]))
        val, test = (
            np.array([[row[f"{split}_{m}"] for m in (self.accuracy, metric)] for row in members])
            for split in ("val", "test")
        )
        if not members:
            return np.empty((0, 2)), 0, ()
        kept = pareto_front(val, binning=BINNING)
        best = int(val[kept, 1].argmax()) if len(kept) else 0
        return test[kept].astype(np.float64), best, tuple(members[i]["result_id"] for i in kept)

    def baseline(self, setting: Setting, seed: Any, metric: str) -> Model:
        """The checkpoint that trainings start from."""
        row = self.baselines.get((*setting, seed), {})
        value = float(row.get(f"test_{metric}", NAN))
        return Model(
            value=value,
            accuracy=float(row.get(f"test_{self.accuracy}", NAN)),
            complete=not math.isnan(value),
            results=(row["result_id"],) if row else (),
            why="no evaluation of the baseline" if math.isnan(value) else "",
        )

    def best(
        self, setting: Setting, losses: Sequence[str], seed: Any, chosen_by: str, metric: str = ""
    ) -> Model:
        """The best of the losses' models that keep enough accuracy.

        Args:
            setting: where.
            losses: the best validation score among them decides.
            seed: of which seed.
            chosen_by: metric of which the highest validation score is taken.
            metric: what of it is looked at; the same unless given.
        """
        found, why = [], []
        for loss in losses:
            row = self.chosen.get((*setting, loss, seed, chosen_by), {})
            why.append(self.unfinished(setting, loss, seed))
            if pd.notna(row.get("epoch", NAN)):
                found.append(row)
            elif not why[-1] and not row:
                why[-1] = f"{label(loss)}: no finite scores"
        lacking = "; ".join(filter(None, why))
        if math.isnan(self.baseline_accuracy(setting, seed)):
            return Model(value=NAN, complete=False, why="no evaluation of the baseline")
        if not found:
            none = NAN if lacking else -math.inf
            return Model(value=none, complete=not lacking, why=lacking or NO_MODEL)
        row = max(found, key=lambda row: row[f"val_{chosen_by}"])
        value = float(row.get(f"test_{metric or chosen_by}", NAN))
        untested = "not tested" if math.isnan(value) else ""
        return Model(
            value=value,
            accuracy=float(row[f"test_{self.accuracy}"]),
            complete=not lacking and not untested,
            results=(row["result_id"],),
            why=lacking or untested,
        )

    def baseline_accuracy(self, setting: Setting, seed: Any) -> float:
        """F1 or mAP of the baseline on validation, which chosen models are held against."""
        return float(self.baselines.get((*setting, seed), {}).get(f"val_{self.accuracy}", NAN))


def _records(rows: pd.DataFrame, by: Sequence[str]) -> dict[tuple[Any, ...], dict[Any, Any]]:
    return {tuple(row[name] for name in by): row for row in rows.to_dict("records")}


def _lambdas(guided: pd.DataFrame) -> dict[tuple[Any, ...], set[float]]:
    found: dict[tuple[Any, ...], set[float]] = {}
    for *key, weight in zip(*(guided[name] for name in (*CURVE, "lambda_loc")), strict=True):
        found.setdefault(tuple(key), set()).add(weight)
    return found
