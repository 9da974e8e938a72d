"""Traces that evaluations keep for other results: what lies behind their scores."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from trainables.checkpoint import write_bytes
from trainables.metrics.metric import Metric
from trainables.trial import Trial

if TYPE_CHECKING:
    from trainables.protocol_evaluation import ProtocolEvaluation


def leave_traces(trial: Trial, protocol: Metric, rows: pa.Table, traces: np.ndarray) -> str:
    """Keep the traces of a protocol for other results; returns the sha256 of the file."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        image_ids=np.array(rows["image_id"].to_pylist(), dtype=np.str_),
        targets=rows["target"].to_numpy(),
        scores=rows["score"].to_numpy(),
        traces=traces.astype(np.float32),
    )
    write_bytes(trial.folder / traces_name(protocol), buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def kept_traces(
    trial: Trial, evaluation: ProtocolEvaluation, protocol: Metric
) -> dict[str, np.ndarray]:
    """What `leave_traces` kept: image_ids (N,), targets (N,), scores (N,), traces (N, S).

    Raises:
        FileNotFoundError: the evaluation has left nothing.
    """
    path = trial.storage / evaluation.result_id / traces_name(protocol)
    if not path.exists():
        raise FileNotFoundError(f"{path}: {evaluation.label} has left no traces; launch it again")
    with np.load(path) as file:
        return dict(file)


def traces_name(protocol: Metric) -> str:
    """File of a protocol's traces in the folder of the evaluation."""
    return f"{protocol.key}.npz"
