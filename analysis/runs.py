"""Many MLflow runs as plain frames: the one place of the analysis that knows MLflow."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from analysis.address import Unavailable, probe, redacted

log = logging.getLogger(__name__)

OF_A_RUN = ("result_id", "run_id", "status", "kind", "label", "reason", "start", "started")
"""Columns of ``Runs.runs`` that every result has; the others are parameters and metrics."""
TAGS = (
    *("backbone", "pretraining", "probe", "loss"),
    *("network", "finetuned", "method", "output", "pair", "beside"),
)
"""Tags that describe a probe, and what is judged of which network; columns ``tag.<name>`` where any
run has one."""
PAGE = 1000
"""Runs asked for at once."""
CONNECTIONS = 8
"""Histories asked for at once, of a server; SQLite would not go faster by more than one."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What MLflow holds of some results of one experiment.

    Identity is the result: where several runs bear one result_id, a finished one stands before the
    others and a newer one before an older one.
    """

    experiment: str
    tracking_uri: str
    runs: pd.DataFrame
    """One row per result: OF_A_RUN, ``tag.<name>`` of TAGS, every parameter under its own name
    (numbers as numbers), and every metric without a split (``seconds``, ``iou_threshold``)."""
    parameters: tuple[str, ...]
    """The columns of ``runs`` that are part of the identity."""
    history: pd.DataFrame
    """One row per logged value: result_id, split (train, val, test), metric, step (epoch, from 1),
    value. A step that was logged twice counts once, with the value of the later time."""
    directions: Mapping[str, str] = field(default_factory=dict)
    """Which way each metric key is better, ``max`` or ``min``, as the newest run that says so."""

    @property
    def finished(self) -> pd.DataFrame:
        """The rows of ``runs`` whose result is complete."""
        return self.runs[self.runs["status"] == "FINISHED"]

    def epochs(self) -> pd.DataFrame:
        """One row per (result_id, epoch), a column per evaluated metric: ``val_f1``, ``test_epg``.

        A metric that was not logged at an epoch is NaN there.
        """
        rows = self.history[self.history["split"].isin(["val", "test"])]
        rows = rows.assign(column=rows["split"] + "_" + rows["metric"], epoch=rows["step"])
        wide = rows.pivot(index=["result_id", "epoch"], columns="column", values="value")
        return wide.rename_axis(columns=None).reset_index()

    def arrays(self, result_id: str, artifact: str) -> dict[str, np.ndarray]:
        """The arrays of an ``.npz`` artifact of a result, by name; {} without such an artifact."""
        content = self._content(result_id, artifact)
        if content is None:
            return {}
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)

    def table(self, result_id: str, artifact: str) -> pd.DataFrame:
        """The rows of a ``.parquet`` artifact of a result; no rows or columns without one.

        Texts come as categories: a column of a million image ids takes no more room than numbers.
        """
        content = self._content(result_id, artifact)
        if content is None:
            return pd.DataFrame()
        return pq.read_table(io.BytesIO(content)).to_pandas(strings_to_categorical=True)

    def _content(self, result_id: str, artifact: str) -> bytes | None:
        (run_id,) = self.runs.loc[self.runs["result_id"] == result_id, "run_id"]
        return _artifact(MlflowClient(self.tracking_uri), run_id, artifact)


def load(experiment: str, tracking_uri: str, result_ids: Collection[str] | None = None) -> Runs:
    """Read the results of an experiment, all or some; nothing is written.

    Args:
        experiment: name of the sweep.
        tracking_uri: MLflow's store; asked for a sign of life first.
        result_ids: only these and what they start from, wherever they were computed: a result that
            another experiment already had is found there. All results of the experiment otherwise.

    Raises:
        Unavailable: the store does not answer, or the experiment is unknown.
    """
    client, experiment_id = _open(experiment, tracking_uri)
    found = _by_result(_search(client, [experiment_id]))
    if result_ids is not None:
        found = _wanted(client, experiment_id, found, set(result_ids))
    rows, parameters = _rows(found.values())
    connections = CONNECTIONS if tracking_uri.startswith("http") else 1
    return Runs(
        experiment=experiment,
        tracking_uri=tracking_uri,
        runs=rows,
        parameters=parameters,
        history=_history(client, found, connections),
        directions=_directions(found.values()),
    )


def launched(experiment: str, tracking_uri: str, launch: str | None = None) -> list[str]:
    """The result ids that a launch asked for, as its ``sweep.json`` says.

    Args:
        experiment: name of the sweep.
        tracking_uri: MLflow's store; asked for a sign of life first.
        launch: run id of the launch, or how it begins; the newest launch if None.

    Raises:
        Unavailable: the store does not answer, or there is no such experiment or launch.
    """
    client, experiment_id = _open(experiment, tracking_uri)
    launches = _search(client, [experiment_id], "tags.kind = 'launch'")
    known = [run.info.run_id for run in launches]
    for run_id in known:
        if run_id.startswith(launch or ""):
            content = _artifact(client, run_id, "sweep.json")
            if content is not None:
                return list(json.loads(content)["results"])
    what = "a launch with sweep.json" if launch is None else f"launch {launch!r}"
    raise Unavailable(
        f"{what} not found in experiment {experiment!r}; launches, newest first: "
        f"{', '.join(known[:5]) or 'none'}; --all takes every result of the experiment"
    )


def _open(experiment: str, tracking_uri: str) -> tuple[MlflowClient, str]:
    probe(tracking_uri)
    client = MlflowClient(tracking_uri)
    try:
        found = client.get_experiment_by_name(experiment)
        if found is not None:
            return client, found.experiment_id
        known = sorted(e.name for e in client.search_experiments() if e.name != "Default")
    except MlflowException as error:
        line = str(error).splitlines()[0]
        raise Unavailable(f"MLflow at {redacted(tracking_uri)}: {line}") from None
    raise Unavailable(
        f"unknown experiment {experiment!r} at {redacted(tracking_uri)}; "
        f"known: {', '.join(known) or 'none, run a sweep first'}"
    )


def _search(
    client: MlflowClient, experiment_ids: list[str], where: str = "tags.result_id != ''"
) -> list[Run]:
    """All runs that fit, newest first. Tags cannot be filtered with IN: every page is read."""
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            experiment_ids,
            where,
            max_results=PAGE,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        found.extend(page)
        token = page.token
        if not token:
            return found


def _by_result(runs: Iterable[Run]) -> dict[str, Run]:
    """One run per result: finished before unfinished, else the first given."""
    chosen: dict[str, Run] = {}
    for run in runs:
        result_id = run.data.tags["result_id"]
        known = chosen.setdefault(result_id, run)
        if known is not run:
            log.warning("result %s has several runs", result_id)
            if "FINISHED" == run.info.status != known.info.status:
                chosen[result_id] = run
    return chosen


def _wanted(
    client: MlflowClient, experiment_id: str, found: dict[str, Run], wanted: set[str]
) -> dict[str, Run]:
    """The wanted runs and, over any number of steps, those that they start from."""
    elsewhere: dict[str, Run] | None = None
    chosen: dict[str, Run] = {}
    while wanted:
        if elsewhere is None and not wanted <= found.keys():
            others = [
                e.experiment_id
                for e in client.search_experiments()
                if e.experiment_id != experiment_id
            ]
            elsewhere = _by_result(_search(client, others)) if others else {}
        known = {**(elsewhere or {}), **found}
        chosen |= {result_id: known[result_id] for result_id in wanted if result_id in known}
        starts = {run.data.tags.get("start", "") for run in chosen.values()}
        wanted = (starts & known.keys() if elsewhere is not None else starts - {""}) - chosen.keys()
    return chosen


def _rows(runs: Iterable[Run]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The frame ``Runs.runs`` and which of its columns are parameters; both in a fixed order."""
    rows: list[dict[str, Any]] = []
    parameters: set[str] = set()
    metrics: set[str] = set()
    for run in runs:
        tags = run.data.tags
        row: dict[str, Any] = {name: tags.get(name, "") for name in OF_A_RUN}
        row["run_id"] = run.info.run_id
        row["status"] = run.info.status
        row["started"] = pd.Timestamp(run.info.start_time, unit="ms", tz="UTC")
        taken = run.data.params.keys() & set(OF_A_RUN)
        if taken:
            raise ValueError(
                f"run {run.info.run_id}: parameters {sorted(taken)} bear the name of a column"
            )
        numbers = {key: value for key, value in run.data.metrics.items() if "/" not in key}
        row |= {f"tag.{name}": tags[name] for name in TAGS if name in tags}
        rows.append(numbers | row | run.data.params)
        parameters |= run.data.params.keys()
        metrics |= numbers.keys()
    tagged = [f"tag.{name}" for name in TAGS if any(f"tag.{name}" in row for row in rows)]
    frame = pd.DataFrame(
        rows, columns=[*OF_A_RUN, *tagged, *sorted(parameters), *sorted(metrics - parameters)]
    )
    for name in parameters:
        frame[name] = _numbers(frame[name])
    frame = frame.sort_values(["started", "result_id"], ignore_index=True)
    return frame, tuple(sorted(parameters))


def _directions(runs: Iterable[Run]) -> dict[str, str]:
    """The tags ``direction.<key>`` of all runs."""
    prefix, found = "direction.", dict[str, str]()
    for run in sorted(runs, key=lambda run: run.info.start_time):
        tags = run.data.tags.items()
        found |= {key.removeprefix(prefix): text for key, text in tags if key.startswith(prefix)}
    return found


def _numbers(column: pd.Series) -> pd.Series:
    """The column as numbers if all of its texts are numbers; unchanged otherwise."""
    values = {text: _number(text) for text in column.dropna().unique()}
    return column if None in values.values() else pd.to_numeric(column.map(values))


def _number(text: str) -> int | float | None:
    """The number that prints as this text. An id such as 12e45678 prints as no number."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if str(value) == text:
            return value
    return None


def _history(client: MlflowClient, runs: dict[str, Run], connections: int) -> pd.DataFrame:
    """The frame ``Runs.history``."""
    wanted = [
        (result_id, run.info.run_id, key)
        for result_id, run in runs.items()
        for key in run.data.metrics
        if "/" in key
    ]
    with ThreadPoolExecutor(connections) as pool:
        histories = list(pool.map(lambda w: client.get_metric_history(w[1], w[2]), wanted))
    rows = [
        (result_id, *key.split("/", 1), metric.timestamp, metric.step, metric.value)
        for (result_id, _, key), history in zip(wanted, histories, strict=True)
        for metric in history
    ]
    columns = ["result_id", "split", "metric", "timestamp", "step", "value"]
    frame = pd.DataFrame(rows, columns=columns).sort_values("timestamp", kind="stable")
    cell = ["result_id", "split", "metric", "step"]
    return frame.drop_duplicates(cell, keep="last").sort_values(cell, ignore_index=True)[
        [*cell, "value"]
    ]


def _artifact(client: MlflowClient, run_id: str, name: str) -> bytes | None:
    """The content of an artifact, or None if the run has none of that name."""
    if name not in {file.path for file in client.list_artifacts(run_id)}:
        return None
    # A report downloads many small files; a progress bar for each would bury its tables.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory(prefix="analysis-") as folder:
        return Path(client.download_artifacts(run_id, name, folder)).read_bytes()
