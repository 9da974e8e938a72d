"""Compute evaluations of probes side by side: parts on disk, and each result put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from trainables.batch import Batch
from trainables.conclusion import conclude
from trainables.judged_probes import JudgedProbes
from trainables.metrics.box_size import means_by_box_size
from trainables.pack_scorer import CROSS_ENTROPY, SCALE, PackScorer
from trainables.parts import about, parts_of, write_part
from trainables.protocol_evaluation import PART_IMAGES
from trainables.trial import Trial

if TYPE_CHECKING:
    from trainables.probe_judgement import ProbeJudgement

Batches = Callable[[PackScorer, list[int]], Iterator[Batch]]
"""Makes batches of the images at some positions, each of images with equally many explanations."""


@dataclass(frozen=True)
class Pictures:
    """What some evaluations are scored on.

    Attributes:
        ids: names of the images, or of the mosaics.
        batches: makes batches of some of them, given by their positions in ``ids``.
        skipped: why an image could not be read, by name; it counts as scored.
        metrics: about their choice, by key.
        expecting: told which positions will be asked for, part after part, before the first is.
    """

    ids: Sequence[str]
    batches: Batches
    skipped: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    expecting: Callable[[list[list[int]]], AbstractContextManager[None]] = lambda _: nullcontext()


def judge(trials: Mapping[ProbeJudgement, Trial], probes: JudgedProbes, pictures: Pictures) -> None:
    """Score the maps of evaluations on the same images, and put each one's rows together.

    What an earlier call left is not scored again. Evaluations that are equally far go on together.

    Args:
        trials: of the evaluations, all of one bundle.
        probes: that they judge.
        pictures: that their methods explain.
    """
    result, trial = next(iter(trials.items()))
    parts = trial.storage / "parts" / result.bundle
    ids, skipped = pictures.ids, pictures.skipped
    wanted = {*ids, *skipped}
    equally_far: dict[frozenset[str], list[ProbeJudgement]] = {}
    said = [about(path) for path in parts_of(parts)]
    for result in trials:
        done = {
            name for part in said if result.result_id in part.result_ids for name in part.image_ids
        }
        left = frozenset(wanted - done)
        equally_far.setdefault(left, []).append(result)
    for left, results in equally_far.items():
        result_ids = [result.result_id for result in results]
        damaged = {name: why for name, why in skipped.items() if name in left}
        if damaged:
            write_part(parts, result_ids, sorted(damaged), (), damaged, {})
        scorer = PackScorer(probes, results)
        rows = [row for row, name in enumerate(ids) if name in left]
        cuts = [rows[start : start + PART_IMAGES] for start in range(0, len(rows), PART_IMAGES)]
        with pictures.expecting(cuts):
            for part in cuts:
                scored = [scorer(batch) for batch in pictures.batches(scorer, part)]
                failed = {key: why for one in scored for key, why in one.failed.items()}
                tables = [table for one in scored for table in one.rows]
                write_part(parts, result_ids, [ids[row] for row in part], tables, {}, failed)
                if len(failed) == len(results):
                    break
    for result, trial in trials.items():
        more = partial(about_maps, result, pictures)
        try:
            reason, trace = conclude(
                result, trial, parts, wanted, part_key=result.result_id, more=more
            )
        except ValueError as error:  # too many damaged images
            reason, trace = str(error), ""
        if reason:
            trial.fail(reason, trace)
    forget(parts, {result.result_id for result in trials}, trial.storage)


def about_maps(result: ProbeJudgement, pictures: Pictures, rows: pa.Table) -> dict[str, float]:
    """Share of the maps without a positive value, the scale of the others, and EPG by box size.

    The scale is the median over the maps of their mean positive part. Also the mean cross-entropy
    of the classes that are explained, and what the pictures say of themselves.
    """

    def of(key: str) -> pa.Table:
        return rows.filter(np.isin(rows["protocol_key"], [key]))

    scale, entropies = (of(key)["score"].to_numpy() for key in (SCALE, CROSS_ENTROPY))
    metrics = {
        **pictures.metrics,
        "dead_map_fraction": float((scale == 0).mean()) if len(scale) else float("nan"),
        CROSS_ENTROPY: float(entropies.mean()) if len(entropies) else float("nan"),
        "map_scale": float(np.median(scale[scale > 0])) if (scale > 0).any() else float("nan"),
    }
    for protocol in result.protocols:
        if "boxes" in protocol.requires:
            mine = of(protocol.key)
            area = mine["box_area_fraction"].to_numpy()
            metrics |= means_by_box_size(protocol, mine["score"].to_numpy(), area)
    return {f"{result.split}/{key}": value for key, value in metrics.items()}


def forget(parts: Path, result_ids: set[str], storage: Path) -> None:
    """Remove the parts that nobody needs: those of a method that failed too, it is tried again."""
    for path in parts_of(parts):
        others = set(about(path).result_ids) - result_ids
        if all((storage / other / "result.json").exists() for other in others):
            path.unlink()
    if parts.is_dir() and not parts_of(parts):
        parts.rmdir()
