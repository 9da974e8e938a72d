"""Trained probes of one backbone, each in a gauge, ready to be asked together."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_pipelines.image_set import ImageSet
from trainables.backbone import Backbone
from trainables.checkpoint import load_weights, write_bytes
from trainables.gauge import AsTrained, Gauge, last_layer
from trainables.models.network import Model
from trainables.models.probe import ProbeHead
from trainables.models.probe_pack import pack_model
from trainables.models.probed import features_kind
from trainables.passes import Passes
from trainables.probe_training import ProbeTraining
from trainables.scoring import batches
from trainables.training import weights_path
from trainables.trial import Trial


@dataclass(frozen=True)
class Judged:
    """A trained probe in a gauge."""

    of: ProbeTraining
    gauge: Gauge


class JudgedProbes:
    """Probes with their weights on their one frozen backbone, on the trial's device.

    Args:
        trial: of one of the evaluations; the trainings' files are read through it.
        judged: probes of one backbone.
        images: what they are judged on; a gauge may go by the mean of their features.

    Attributes:
        classes: number of logits of each.
    """

    def __init__(self, trial: Trial, judged: Sequence[Judged], images: ImageSet) -> None:
        self.trial, self.classes = trial, len(images.classes)
        backbone = judged[0].of.backbone
        self.network, self.backbone = backbone.architecture, backbone.build(trial)
        self.features = features_kind(self.backbone)
        self.heads = {one: self.trained(one.of) for one in dict.fromkeys(judged)}
        self._packs: dict[tuple[Judged, ...], tuple[Model, nn.Module]] = {}
        means = self.mean_features([one for one in self.heads if one.gauge.by_feature], images)
        for one, head in self.heads.items():
            others = tuple(self.trained(other) for other in one.gauge.dependencies)
            one.gauge.apply(head, others, means.get(one))

    def trained(self, of: ProbeTraining) -> ProbeHead:
        """A probe's head as its training left it."""
        summary = self.trial.summary_of(of)
        head = of.probe.head(self.features, self.classes)
        path = weights_path(self.trial.storage / of.result_id, summary["epoch"])
        load_weights(path, head, summary["weights"][str(summary["epoch"])])
        return head.to(self.trial.device)

    @contextmanager
    def asked(self, judged: Sequence[Judged]) -> Iterator[Model]:
        """One model of these probes: class c of the p-th has its logit in column p K + c.

        All models are the one backbone with another head: the model is that of the innermost
        ``with`` block. Eval mode, no parameter takes a gradient.
        """
        module, place, chosen = self.backbone.module, self.network.head_at, tuple(judged)
        before = module.get_submodule(place)
        if chosen not in self._packs:
            heads = [self.heads[one] for one in chosen]
            outputs = [one.of.output for one in chosen]
            model = pack_model(self.backbone, heads, self.classes, outputs)
            model.module.eval().requires_grad_(False)
            self._packs[chosen] = model, module.get_submodule(place)
        model, pack = self._packs[chosen]
        module.set_submodule(place, pack)
        try:
            yield model
        finally:
            module.set_submodule(place, before)

    def logits(self, judged: Sequence[Judged], images: ImageSet) -> NDArray[np.float32]:
        """Logits of the probes on a split, (P, M, K); each image goes through the backbone once."""
        parts = []
        with self.asked(judged) as model:
            for batch in batches(model, images, self.trial.device, explained=False):
                with Passes(model, batch) as passes:
                    parts.append(passes.logits.float().cpu().numpy())
        found: NDArray[np.float32] = np.concatenate(parts).reshape(
            len(images), len(judged), self.classes
        )
        return found.swapaxes(0, 1)

    def mean_features(self, judged: Sequence[Judged], images: ImageSet) -> dict[Judged, Tensor]:
        """Mean over images and places of what the last layer of each takes, (D,)."""
        sums: dict[Judged, list[Tensor]] = {one: [] for one in judged}

        def add(one: Judged, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            taken = inputs[0].detach().double()
            # every image has equally many places
            sums[one].append(taken.mean((2, 3)).sum(0) if taken.ndim == 4 else _sum(taken))

        with ExitStack() as hooks:
            for one in judged:
                layer = last_layer(self.heads[one])
                hooks.callback(layer.register_forward_pre_hook(partial(add, one)).remove)
            if judged:
                self.logits(judged, images)
        return {
            one: (torch.stack(parts).sum(0) / len(images)).float() for one, parts in sums.items()
        }


def _sum(taken: Tensor) -> Tensor:
    """Over images of the mean over tokens: (B, T, D) or (B, D) to (D,)."""
    return (taken.mean(1) if taken.ndim == 3 else taken).sum(0)


def split_logits(
    trial: Trial, trainings: Sequence[ProbeTraining], split: str, images: ImageSet
) -> list[NDArray[np.float32]]:
    """Logits of trained probes on a split, (M, K) each, as they were trained.

    They are kept beside the results, so that all who choose images by them share one run through
    the split; those that are missing are computed side by side, one run for each backbone.
    """
    paths = {one: logits_path(trial, one, split) for one in trainings}
    missing: dict[Backbone, list[ProbeTraining]] = {}
    for one, path in paths.items():
        if not path.exists():
            missing.setdefault(one.backbone, []).append(one)
    for probes in missing.values():
        judged = [Judged(one, AsTrained()) for one in probes]
        for one, logits in zip(
            probes, JudgedProbes(trial, judged, images).logits(judged, images), strict=True
        ):
            buffer = io.BytesIO()
            np.save(buffer, logits)
            write_bytes(paths[one], buffer.getvalue())
    return [np.load(paths[one]) for one in trainings]


def logits_path(trial: Trial, training: ProbeTraining, split: str) -> Path:
    """Where the logits of a training lie; its name holds the hash of the weights."""
    summary = trial.summary_of(training)
    weights = summary["weights"][str(summary["epoch"])][:16]
    return trial.storage / "logits" / f"{training.result_id}-{split}-{weights}.npy"
