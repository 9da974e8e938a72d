"""Score many methods on many probes of one backbone, from forwards that all of them share."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
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
from trainables.metrics.metric import Metric
from trainables.passes import Passes

if TYPE_CHECKING:
    from trainables.probe_judgement import ProbeJudgement

HOST_BYTES = 2**28
"""What the maps of one forward's explanations may take on the host."""
ACCELERATOR_BYTES = 2**33
"""The same on an accelerator."""
VALUES_A_PIXEL = 24
"""Numbers that an explanation takes a pixel while it is made and judged: a gradient at the input,
of six channels at most, three times while it is put in order, the map, and what is made of it."""
SCALE, CROSS_ENTROPY = "map_scale", "ce_loss"
"""Rows beside those of the protocols: the mean of a map's positive part, 0 for a dead one; the
cross-entropy of the class that is explained, which no gauge changes."""
Protocols = dict[str, Metric]
"""By key."""


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
        self.probes, self.budget_bytes = probes, budget_bytes
        self.failed: dict[tuple[Judged, Attribution], tuple[str, str]] = {}
        self._judged = len({result.judged for result in results})
        self._wanted: dict[Attribution, dict[Judged, dict[str, Protocols]]] = {}
        for result in results:  # keys and ids are made once: they take longer than small maps
            of_probe = self._wanted.setdefault(result.attribution, {})
            protocols = {protocol.key: protocol for protocol in result.protocols}
            of_probe.setdefault(result.judged, {})[result.result_id] = protocols

    def images_at_once(self, targets: int, pixels: int, device: torch.device) -> int:
        """How many images of so many pixels and targets each all probes can share a forward of."""
        return max(1, self._most(pixels, device) // max(1, self._judged * targets))

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
        for (one, method), reason in self.failed.items():
            scored.failed |= dict.fromkeys(self._wanted[method][one], reason)
        return scored

    def _groups(self) -> list[tuple[tuple[Judged, ...], list[Attribution]]]:
        """Methods that are asked for by the same probes go together."""
        groups: dict[tuple[Judged, ...], list[Attribution]] = {}
        for method, of_probe in self._wanted.items():
            judged = tuple(one for one in of_probe if (one, method) not in self.failed)
            groups.setdefault(judged, []).append(method)
        return list(groups.items())

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
        again, alone = list[Attribution](), dict[Judged, Passes]()
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
                    logits = passes.logits.unflatten(1, (len(judged), -1)).unbind(1)
                    tables = [
                        table
                        for one, own, said in zip(judged, maps, logits, strict=True)
                        for table in self._judge(batch, one, method, own, said, passes, alone)
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
        self,
        batch: Batch,
        one: Judged,
        method: Attribution,
        maps: Tensor,
        logits: Tensor,
        passes: Passes,
        alone: dict[Judged, Passes],
    ) -> Iterator[pa.Table]:
        """Tables of what is wanted of a method's maps (N, H, W) of one probe, whose logits (B, K).

        Only a protocol that asks the network runs it, and what does not depend on the maps is asked
        once for all methods: ``alone`` remembers the passes of each probe.
        """
        wanted = self._wanted[method][one]
        protocols = {key: p for of_one in wanted.values() for key, p in of_one.items()}
        found: dict[str, tuple[Tensor, Tensor | None]]
        found = {
            SCALE: (maps.relu().mean((1, 2)), None),
            CROSS_ENTROPY: (cross_entropies(logits, batch), None),
        }
        with self.probes.asked([one]) as model:
            if one not in alone:
                several = passes.model.answers > 1
                alone[one] = Passes(model, batch, parent=passes) if several else passes
            for key, protocol in protocols.items():
                found[key] = protocol.traced(alone[one], maps, partial(full_size_maps, method))
        for result_id, of_one in wanted.items():
            for key in (*of_one, SCALE, CROSS_ENTROPY):
                yield rows_of(batch, result_id, key, *found[key])

    def _fail(
        self, judged: Sequence[Judged], method: Attribution, error: Exception, trace: str
    ) -> None:
        for one in judged:
            self.failed[one, method] = (f"{type(error).__name__}: {error}", trace)


def cross_entropies(logits: Tensor, batch: Batch) -> Tensor:
    """Minus the logarithm of the softmax of each explained class, (N,), of logits (B, K)."""
    return -logits.log_softmax(1)[batch.image_index, batch.targets]


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
