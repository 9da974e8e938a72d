"""Score many methods on many probes of one backbone, from forwards that all of them share."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import torch
from torch import Tensor

from trainables.attribution.attribution import Attribution
from trainables.batch import Batch
from trainables.evaluator import full_size_maps, rows_of
from trainables.judged_probes import Judged, JudgedProbes
from trainables.passes import Passes

if TYPE_CHECKING:
    from trainables.probe_judgement import ProbeJudgement

HOST_BYTES = 2**28
"""What the maps of one forward's explanations may take on the host."""
ACCELERATOR_BYTES = 2**33
"""The same on an accelerator."""
VALUES_A_PIXEL = 16
"""Numbers that an explanation takes a pixel while it is made and judged: a gradient at the input
and its product with the image, of three or six channels each, the map, and what is made of it."""
DEAD, SCALE = "dead_map", "map_scale"
"""Rows beside those of the protocols: 1 where a map has no positive value, and the mean of its
positive part."""


@dataclass
class PackScored:
    """What one batch gave.

    Attributes:
        rows: tables of ROWS; the result's id stands in the place of the method's key.
        failed: reason and trace of each result that has no rows, by its id.
        forwards: image-forwards that it took.
    """

    rows: list[pa.Table] = field(default_factory=list)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    forwards: int = 0


class PackScorer:
    """Everything that a bundle of evaluations asks of the maps of its probes.

    The explanations of an image are its classes for every probe; they share its forward through
    the backbone, and a backward runs through the head of one probe. What a protocol asks the
    network about maps of one probe, that probe alone answers.

    Args:
        probes: with the weights.
        results: whose rows are wanted.
        budget_bytes: what explanations may take at once; by the device if 0.

    Attributes:
        failed: methods that raised on a probe, with reason and trace; they are not tried again.
    """

    def __init__(
        self, probes: JudgedProbes, results: Sequence[ProbeJudgement], budget_bytes: int = 0
    ) -> None:
        self.probes, self.results, self.budget_bytes = probes, results, budget_bytes
        self.failed: dict[tuple[Judged, Attribution], tuple[str, str]] = {}

    def images_at_once(self, targets: int, pixels: int, device: torch.device) -> int:
        """How many images of so many pixels and targets each all probes can share a forward of."""
        judged = {result.judged for result in self.results}
        return max(1, self._most(pixels, device) // max(1, len(judged) * targets))

    def _most(self, pixels: int, device: torch.device) -> int:
        """Explanations that there is room for at once."""
        default = HOST_BYTES if device.type == "cpu" else ACCELERATOR_BYTES
        return (self.budget_bytes or default) // (4 * VALUES_A_PIXEL * pixels)

    def __call__(self, batch: Batch) -> PackScored:
        """Rows of a batch of images with equally many explanations each."""
        scored = PackScored()
        if not len(batch.targets):
            return scored
        most = self._most(batch.images[0, 0].numel(), batch.images.device)
        size = max(1, most // len(batch.targets))
        for judged, methods in self._groups():
            for start in range(0, len(judged), size):
                self._score(batch, judged[start : start + size], methods, scored)
        for result in self.results:
            reason = self.failed.get((result.judged, result.attribution))
            if reason:
                scored.failed[result.result_id] = reason
        return scored

    def _groups(self) -> Iterator[tuple[list[Judged], list[Attribution]]]:
        """Methods that are asked for by the same probes go together."""
        asked: dict[Attribution, dict[Judged, None]] = {}
        for result in self.results:
            if (result.judged, result.attribution) not in self.failed:
                asked.setdefault(result.attribution, {})[result.judged] = None
        groups: dict[tuple[Judged, ...], list[Attribution]] = {}
        for method, judged in asked.items():
            groups.setdefault(tuple(judged), []).append(method)
        yield from ((list(judged), methods) for judged, methods in groups.items())

    def _score(
        self,
        batch: Batch,
        judged: Sequence[Judged],
        methods: Sequence[Attribution],
        scored: PackScored,
    ) -> None:
        """Rows of some methods on some probes, from one forward.

        What raises is tried again with each probe alone: one with broken weights fails alone.
        """
        again: list[Attribution] = []
        wide = for_each(batch, len(judged), self.probes.classes)
        with self.probes.asked(judged) as model, Passes(model, wide) as passes:
            ready = []
            for method in methods:
                try:
                    passes.expect(method.needs(model))
                    ready.append(method)
                except Exception as error:  # a plug-in's error is its own: the trace is kept
                    self._fail(judged, method, error, traceback.format_exc())
            for method in ready:
                try:
                    maps = full_size_maps(method, passes).unflatten(0, (len(judged), -1))
                    tables = [
                        table
                        for one, own in zip(judged, maps, strict=True)
                        for table in self._judge(batch, one, method, own, passes)
                    ]
                except Exception as error:  # as above
                    if len(judged) == 1:
                        self._fail(judged, method, error, traceback.format_exc())
                    else:
                        again.append(method)
                    continue
                scored.rows += tables
            scored.forwards += passes.counts.forwards
        for one in judged if again else ():
            self._score(batch, [one], again, scored)

    def _judge(
        self, batch: Batch, one: Judged, method: Attribution, maps: Tensor, passes: Passes
    ) -> Iterator[pa.Table]:
        """Tables of what is wanted of a method's maps of one probe, (N, H, W)."""
        wanted = [r for r in self.results if (r.judged, r.attribution) == (one, method)]
        protocols = dict.fromkeys(protocol for result in wanted for protocol in result.protocols)
        tables: dict[str, pa.Table] = {}
        explain = partial(full_size_maps, method)
        with ExitStack() as stack:
            own = passes
            if passes.model.answers > 1:
                alone = stack.enter_context(self.probes.asked([one]))
                own = stack.enter_context(Passes(alone, batch, parent=passes))
            for protocol in protocols:
                scores, traces = protocol.traced(own, maps, explain)
                tables[protocol.key] = rows_of(batch, method.key, protocol.key, scores, traces)
        positive = maps.relu().mean((1, 2))
        for key, values in ((DEAD, positive == 0), (SCALE, positive)):
            tables[key] = rows_of(batch, method.key, key, values, None)
        for result in wanted:
            for key in (*(protocol.key for protocol in result.protocols), DEAD, SCALE):
                yield with_method(tables[key], result.result_id)

    def _fail(
        self, judged: Sequence[Judged], method: Attribution, error: Exception, trace: str
    ) -> None:
        for one in judged:
            self.failed[one, method] = (f"{type(error).__name__}: {error}", trace)


def for_each(batch: Batch, probes: int, classes: int) -> Batch:
    """The batch with every explanation asked of each probe, those of the first probe first."""
    if probes == 1:
        return batch
    column = torch.arange(probes, device=batch.targets.device) * classes
    count = len(batch.targets)
    return replace(
        batch,
        image_index=batch.image_index.repeat(probes),
        targets=batch.targets.repeat(probes) + column.repeat_interleave(count),
        masks=None if batch.masks is None else batch.masks.repeat(probes, 1, 1),
        segments=None if batch.segments is None else batch.segments.repeat(probes, 1, 1),
    )


def with_method(rows: pa.Table, key: str) -> pa.Table:
    """The rows under another name of the method."""
    column = rows.schema.get_field_index("method_key")
    names = pa.array([key] * len(rows), pa.string())
    return rows.set_column(column, rows.schema.field(column), names)
