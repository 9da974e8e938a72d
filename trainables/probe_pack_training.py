"""A pack of probes on one frozen backbone: one stream of features, trainings of their own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trainables.frozen_features import BatchFeatures, FrozenBackbone, SplitFeatures, in_order
from trainables.models.probed import features_kind
from trainables.pooled_head import Linear, LinearBank, shape_of
from trainables.probe_learner import FAULTS, Learner
from trainables.team import Dismissed
from trainables.trial import Trial

if TYPE_CHECKING:
    from trainables.probe_training import ProbeTraining

FUSED: bool | None = None
"""Whether linear heads of equal shape are one matrix product. None: on an accelerator, where many
small launches cost more than what they compute. On a CPU each head is computed by itself, and a
result has the same bits whatever shares its pack; fused, the same but for 1e-5."""


def train_pack(trials: Sequence[Trial], probes: Sequence[ProbeTraining]) -> None:
    """Train probes of one pack on the same batches, each through the backbone once.

    Each learner goes its own way: who has other epochs before it, fewer of them, or has failed,
    sits an epoch out, and that changes nothing for the others.

    Args:
        trials: one a probe, of one bundle.
        probes: what the trials compute.

    Raises:
        Dismissed: this worker is not the first, and the training is over.
    """
    lead, first = trials[0], probes[0]
    images = {split: lead.images(split) for split in first.splits}
    model = first.backbone.build(lead)
    features, backbone = features_kind(model), FrozenBackbone(model)
    learners = []
    for trial, probe in zip(trials, probes, strict=True):
        try:
            learners.append(Learner.start(trial, probe, features, list(images.values())))
        except FAULTS as error:  # data or a checkpoint that do not suit it
            trial.fail(f"{type(error).__name__}: {error}")
    splits = {split: SplitFeatures(backbone, its) for split, its in images.items()}
    learning = [learner for learner in learners if not learner.over]
    kinds = {learner.head.kind for learner in learning}
    if learning and first.augmentation == "none":
        splits["train"].keep(kinds)
    if learning and lead.team.leads:
        splits["val"].keep(kinds)
    for epoch in range(1, max((probe.epochs for probe in probes), default=0) + 1):
        active = [learner for learner in learners if learner.learns_in(epoch)]
        if not active:
            continue
        train_epoch(lead, first, active, splits["train"], epoch)
        if lead.team.leads:
            evaluate(active, splits, epoch)
        else:
            for learner in active:
                learner.count_epoch({})
    if not lead.team.leads:
        raise Dismissed
    for learner in learners:
        if not learner.failed:
            learner.finish(
                skipped=dict(images["train"].skipped), backbone_forwards=backbone.forwards
            )


def train_epoch(
    lead: Trial,
    first: ProbeTraining,
    learners: Sequence[Learner],
    features: SplitFeatures,
    epoch: int,
) -> None:
    """Every batch of an epoch: one forward of the backbone, a step of each learner."""
    images, team = features.images, lead.team
    heads = Heads(learners)
    augment = first.augmentation_of(lead, len(images), epoch)
    for learner in learners:
        learner.head.module.train()
    steps = len(first.batch_starts(len(images)))
    with closing(first.batches(lead, epoch)) as batches:
        for number, batch in batches:
            mine = team.share_of(batch)
            labels = torch.from_numpy(images.labels[mine]).to(lead.device, torch.float32)
            losses = heads.backward(features.of(mine, augment), labels)
            for learner, loss in losses.items():
                weights = list(learner.head.module.parameters())
                shared = team.sum_up(weights, {"loss": loss}, len(mine) / len(batch))
                learner.step(shared["loss"], epoch, number, steps)


def evaluate(learners: Sequence[Learner], splits: dict[str, SplitFeatures], epoch: int) -> None:
    """End an epoch: scores on validation, after the last also on test; checkpoint; tell."""
    metrics = {
        learner: {"train/loss": float(np.mean(learner.losses))}
        for learner in learners
        if not learner.failed
    }
    for split, features in splits.items():
        if split == "train":
            continue
        ending = split == "test"
        asked = [
            learner
            for learner, so_far in metrics.items()
            if not learner.failed
            and (not ending or learner.training.is_over([*learner.state.history, so_far]))
        ]
        for learner, logits in logits_of(asked, features).items():
            if not np.isfinite(logits).all():
                rate = learner.optimizer.param_groups[0]["lr"]
                learner.diverged(f"logits are no numbers after epoch {epoch}", rate)
                continue
            scores = learner.scores(logits, features.images.labels)
            metrics[learner] |= {f"{split}/{key}": value for key, value in scores.items()}
    for learner, its in metrics.items():
        if not learner.failed:
            learner.end_epoch(its)


@torch.no_grad()
def logits_of(learners: Sequence[Learner], features: SplitFeatures) -> dict[Learner, np.ndarray]:
    """Logits of each learner on a split, (N, K), float64: one forward of the backbone a batch."""
    if not learners:
        return {}
    heads = Heads(learners)
    for learner in learners:
        learner.head.module.eval()
    found: dict[Learner, list[Tensor]] = {}
    chunks = in_order(features.images)
    with features.images.expecting(chunks):
        for chunk in chunks:
            for learner, logits in heads(features.of(chunk)).items():
                found.setdefault(learner, []).append(logits)
    return {
        learner: torch.cat(parts).double().cpu().numpy()
        for learner, parts in found.items()
        if not learner.failed
    }


class Heads:
    """The heads of some learners, linear ones of equal shape as one product if that is wanted.

    A head that raises fails its own probe.

    Attributes:
        learners: who is asked: those that have not failed.
    """

    def __init__(self, learners: Sequence[Learner]):
        self._all = list(learners)
        alike: dict[tuple[int, ...], list[tuple[Learner, Linear]]] = {}
        for learner in learners:
            last = learner.head.last
            if last is not None and learner.head.kind == "pooled":
                alike.setdefault(shape_of(last), []).append((learner, last))
        fused = learners[0].trial.device.type != "cpu" if FUSED is None else FUSED
        self._banks = [
            ([learner for learner, _ in members], LinearBank([last for _, last in members]))
            for members in alike.values()
            if fused and len(members) > 1
        ]

    @property
    def learners(self) -> list[Learner]:
        return [learner for learner in self._all if not learner.failed]

    def __call__(self, features: BatchFeatures) -> dict[Learner, Tensor]:
        """Logits of each learner, (B, K)."""
        outputs = self._banked(features)
        found = {}
        for learner in self.learners:
            with learner.failing_alone():
                found[learner] = self._logits(learner, features, outputs)
        return found

    def backward(self, features: BatchFeatures, labels: Tensor) -> dict[Learner, float]:
        """Loss of each learner, whose weights get their gradients."""
        outputs = self._banked(features)
        losses = {}
        for learner in self.learners:
            with learner.failing_alone():
                learner.optimizer.zero_grad()
                loss = learner.loss(self._logits(learner, features, outputs), labels)
                loss.backward()
                losses[learner] = loss.detach()
        for members, bank in self._banks:
            bank.spread(features.pooled, [outputs[learner] for learner in members])
        values = torch.stack(list(losses.values())).tolist() if losses else []  # one wait for all
        return dict(zip(losses, values, strict=True))

    def _logits(
        self, learner: Learner, features: BatchFeatures, outputs: dict[Learner, Tensor]
    ) -> Tensor:
        if learner in outputs:
            return learner.head.logits(outputs[learner])
        return learner.head(features)

    def _banked(self, features: BatchFeatures) -> dict[Learner, Tensor]:
        for kind in {learner.head.kind for learner in self.learners}:
            getattr(features, kind)  # here: what the backbone or its images raise concerns all
        return {
            learner: output
            for members, bank in self._banks
            for learner, output in zip(members, bank(features.pooled), strict=True)
        }
