"""Put the scores of a result together: means, rows, curves, traces, examples."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.manifest import MAX_SKIPPED_FRACTION, check_skipped
from trainables.example_maps import leave_examples
from trainables.metrics.curve import CurveMetric
from trainables.parts import (
    about,
    discard,
    done_ids,
    gather,
    mean_curve,
    parts_of,
    traces_of,
)
from trainables.traces import leave_traces, traces_name
from trainables.trial import Trial

if TYPE_CHECKING:
    from trainables.grid_evaluation import GridEvaluation
    from trainables.probe_judgement import ProbeJudgement
    from trainables.protocol_evaluation import ProtocolEvaluation


def conclude(
    result: ProtocolEvaluation | GridEvaluation | ProbeJudgement,
    trial: Trial,
    parts: Path,
    wanted: Collection[str],
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
    *,
    part_key: str = "",
    more: Callable[[pa.Table], Mapping[str, float]] = lambda _: {},
) -> tuple[str, str]:
    """Put a result's rows together, report means and leave rows and curves.

    Args:
        result: whose rows they are.
        trial: that it is told through.
        parts: folder of the parts.
        wanted: images that must be there.
        max_skipped_fraction: of damaged images among them.
        part_key: what the parts call the method, if not by its key.
        more: further metrics, from all rows of the result; those that belong to none of its
            protocols are not kept.

    Returns:
        Why the result failed, and the trace; empty where it did not.

    Raises:
        ValueError: too many of the images are damaged.
    """
    said = [about(path) for path in parts_of(parts)]
    said = [part for part in said if result.result_id in part.result_ids]
    key = part_key or result.attribution.key
    for part in said:
        if key in part.failed:
            return part.failed[key]
    missing = set(wanted) - {image_id for part in said for image_id in part.image_ids}
    if missing:
        reason = f"{len(missing)} images were not scored, first {min(missing)}"
        return f"{reason}; run the command again", ""
    skipped = {i: why for part in said for i, why in part.skipped.items() if i in wanted}
    check_skipped(result.label, len(wanted) - len(skipped), skipped, max_skipped_fraction)
    rows = gather(parts, result.result_id, key, wanted)
    metrics: dict[str, float] = {"images": float(len(wanted))}
    metrics["skipped_images"] = float(len(skipped))
    metrics |= more(rows)
    rows = rows.filter(np.isin(rows["protocol_key"], [p.key for p in result.protocols]))
    column = rows.schema.get_field_index("method_key")
    method_key = pa.array([result.attribution.key] * len(rows), pa.string())
    rows = rows.set_column(column, rows.schema.field(column), method_key)
    curves: dict[str, np.ndarray] = {}
    files: dict[str, str] = {}
    for protocol in result.protocols:
        mine = rows.filter(np.asarray(rows["protocol_key"]) == protocol.key)
        scores, traces = mine["score"].to_numpy(), traces_of(mine)
        metrics[f"{result.split}/{protocol.key}"] = protocol.reduce(scores, traces)
        metrics[f"{result.split}/{protocol.key}_defined_fraction"] = protocol.defined_fraction(
            scores
        )
        if isinstance(protocol, CurveMetric) and traces is not None:
            mean = mean_curve(traces)
            if len(mean):
                curves[protocol.key] = np.hstack([np.array(protocol.steps)[:, None], mean])
        if protocol.leaves_traces and traces is not None:
            files[traces_name(protocol)] = leave_traces(trial, protocol, mine, traces)
    pq.write_table(rows.drop(["trace"]), trial.artifacts / "rows.parquet")
    if curves:
        with (trial.artifacts / "curves.npz").open("wb") as file:
            np.savez(file, **curves)  # type: ignore[arg-type]
    leave_examples(parts / "maps", result.attribution.key, trial.artifacts / "examples.npz")
    trial.report(1, metrics)
    kept = {"files": files} if files else {}
    trial.finish({"images": len(wanted), "skipped": sorted(skipped), **kept})
    return "", ""


def conclude_all(
    bundle: Mapping[ProtocolEvaluation, Trial],
    parts: Path,
    wanted: Collection[str],
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
) -> set[str]:
    """Put the results of a bundle together, and drop their parts.

    Args:
        bundle: results that were scored together, each with the trial that it is told through.
        parts: folder of their parts.
        wanted: images that must be there.
        max_skipped_fraction: of damaged images among them.

    Returns:
        Ids of the results that failed, which their trials were told.
    """
    failed = set[str]()
    for result, trial in bundle.items():
        try:
            reason, trace = conclude(result, trial, parts, wanted, max_skipped_fraction)
        except Exception as error:  # a plug-in's reduction fails its own result, never the others
            reason, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        if reason:
            trial.fail(reason, trace)
            failed.add(result.result_id)
    if set(wanted) <= done_ids(parts, [result.result_id for result in bundle]):
        discard(parts)  # also what failed: it is tried again from nothing
    return failed
