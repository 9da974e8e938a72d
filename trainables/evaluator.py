"""Score many methods by many protocols, batch after batch, from shared passes."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
from torch import Tensor

from trainables.attribution.attribution import Attribution
from trainables.batch import Batch
from trainables.metrics.metric import Metric
from trainables.models.network import Model, evaluating
from trainables.passes import Feature, Passes

ROWS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("target", pa.int32(), nullable=False),
        pa.field("box_area_fraction", pa.float32()),
        pa.field("method_key", pa.string(), nullable=False),
        pa.field("protocol_key", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # NaN where undefined
        pa.field("trace", pa.list_(pa.float32())),
    ]
)
"""One score: of an explanation (an image and a class), by a method, under a protocol. The trace is
what lies behind the score: a curve, or counts that are pooled over the images."""


@dataclass
class Scored:
    """What one batch gave.

    Attributes:
        rows: a table of ROWS for each method and protocol that worked.
        maps: full-size maps of each method that worked, (N, H, W).
        failed: reason and trace of each method that did not.
        forwards: image-forwards that it took.
    """

    rows: list[pa.Table] = field(default_factory=list)
    maps: dict[str, Tensor] = field(default_factory=dict)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    forwards: int = 0

    def fail(self, method: Attribution, error: Exception, trace: str) -> None:
        """Remember why a method has no rows."""
        reason = f"{type(error).__name__}: {error}"
        self.failed[method.key] = (reason, trace)


@dataclass(frozen=True, eq=False)
class Evaluator:
    """A model with everything that is asked of its maps.

    Attributes:
        model: with its weights, on its device.
        protocols: those of each method.
    """

    model: Model
    protocols: Mapping[Attribution, Sequence[Metric]]

    def __call__(self, batch: Batch) -> Scored:
        """Scores of a batch. A method that raises loses its own rows; the others go on."""
        scored = Scored()
        if not len(batch.targets):  # nothing to explain
            return scored
        with evaluating(self.model.module), Passes(self.model, batch) as passes:
            for method, protocols in self.protocols.items():
                try:
                    passes.expect(method.needs(self.model))
                    passes.expect(Feature(layer=k) for p in protocols for k in p.layers)
                except Exception as error:  # a plug-in's error is its own: the trace is kept
                    scored.fail(method, error, traceback.format_exc())
            for method, protocols in self.protocols.items():
                if method.key in scored.failed:
                    continue
                explain = partial(full_size_maps, method)
                try:
                    maps = explain(passes)
                    tables = [
                        rows_of(
                            batch,
                            method.key,
                            protocol.key,
                            *protocol.traced(passes, maps, explain),
                        )
                        for protocol in protocols
                    ]
                except Exception as error:  # as above
                    scored.fail(method, error, traceback.format_exc())
                    continue
                scored.rows += tables
                scored.maps[method.key] = maps
            scored.forwards = passes.counts.forwards
        return scored


def full_size_maps(method: Attribution, passes: Passes) -> Tensor:
    """Maps of a method at image size, (N, H, W)."""
    return method.at_image_size(method(passes), passes)


def rows_of(
    batch: Batch, method_key: str, protocol_key: str, scores: Tensor, traces: Tensor | None
) -> pa.Table:
    """A table of ROWS, one row an explanation."""
    count = len(batch.targets)
    area = None if batch.masks is None else batch.masks.float().mean((1, 2)).cpu().numpy()
    columns = {
        "image_id": [batch.image_ids[i] for i in batch.image_index.tolist()],
        "target": batch.targets.cpu().numpy().astype(np.int32),
        "box_area_fraction": pa.nulls(count, pa.float32()) if area is None else area,
        "method_key": [method_key] * count,
        "protocol_key": [protocol_key] * count,
        "score": scores.double().cpu().numpy(),
        "trace": pa.nulls(count, pa.list_(pa.float32()))
        if traces is None
        else traces.float().cpu().tolist(),
    }
    return pa.table(columns, schema=ROWS)
