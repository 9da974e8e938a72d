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
from trainables.probe_learner import Learner
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
        except (ValueError, RuntimeError) as error:  # data or a checkpoint that do not suit it
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
            end_epoch(active, splits, epoch)
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
            for learner, loss in zip(heads.learners, losses, strict=True):
                weights = list(learner.head.module.parameters())
                shared = team.sum_up(weights, {"loss": loss}, len(mine) / len(batch))
                learner.step(shared["loss"], epoch, number, steps)
            heads.learners = [learner for learner in heads.learners if not learner.failed]


def end_epoch(learners: Sequence[Learner], splits: dict[str, SplitFeatures], epoch: int) -> None:
    """Evaluate, and the test split where it was the last epoch; checkpoint; tell."""
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
        for learner, logits in zip(asked, logits_of(asked, features), strict=True):
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
def logits_of(learners: Sequence[Learner], features: SplitFeatures) -> list[np.ndarray]:
    """Logits of each learner on a split, (N, K), float64: one forward of the backbone a batch."""
    if not learners:
        return []
    heads = Heads(learners)
    for learner in learners:
        learner.head.module.eval()
    found: list[list[Tensor]] = [[] for _ in learners]
    chunks = in_order(features.images)
    with features.images.expecting(chunks):
        for chunk in chunks:
            for parts, logits in zip(found, heads(features.of(chunk)), strict=True):
                parts.append(logits)
    return [torch.cat(parts).double().cpu().numpy() for parts in found]


class Heads:
    """The heads of some learners, linear ones of equal shape as one product if that is wanted.

    Attributes:
        learners: who is asked; one that fails may be taken out.
    """

    def __init__(self, learners: Sequence[Learner]):
        self.learners = list(learners)
        alike: dict[tuple[int, ...], list[tuple[Learner, Linear]]] = {}
        for learner in learners:
            last = learner.head.last
            if last is not None and learner.head.kind == "pooled":
                alike.setdefault(shape_of(last), []).append((learner, last))
        fused = learners[0].trial.device.type != "cpu" if FUSED is None else FUSED
        self.banks = [
            ([learner for learner, _ in members], LinearBank([last for _, last in members]))
            for members in alike.values()
            if fused and len(members) > 1
        ]

    def __call__(self, features: BatchFeatures) -> list[Tensor]:
        """Logits of each learner, (B, K)."""
        outputs = self._banked(features)
        return [
            learner.head.logits(outputs[learner]) if learner in outputs else learner.head(features)
            for learner in self.learners
        ]

    def backward(self, features: BatchFeatures, labels: Tensor) -> list[float]:
        """Loss of each learner, whose weights get their gradients."""
        outputs = self._banked(features)
        losses = []
        for learner in self.learners:
            learner.optimizer.zero_grad()
            banked = outputs.get(learner)
            logits = learner.head(features) if banked is None else learner.head.logits(banked)
            loss = learner.loss(logits, labels)
            loss.backward()
            losses.append(loss.detach())
        for members, bank in self.banks:
            bank.spread(features.pooled, [outputs[learner] for learner in members])
        values: list[float] = torch.stack(losses).tolist() if losses else []  # one wait for all
        return values

    def _banked(self, features: BatchFeatures) -> dict[Learner, Tensor]:
        return {
            learner: output
            for members, bank in self.banks
            for learner, output in zip(members, bank(features.pooled), strict=True)
        }
