"""Several workers: each image once over all of them, and the gradients of the whole batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import distributed

from tests.trainables.scenes import BASELINE, GUIDED, squares
from trainables.attribution.gradient import InputXGradient
from trainables.guided_training import guided_step
from trainables.losses.localization import Energy
from trainables.models.fixup_resnet import SmallFixupResNet
from trainables.scoring import batch_of
from trainables.team import LostTeammateError, Team
from trainables.training import in_every_training
from trainables.trial import Trial


def batches_of(training, bench, team: Team) -> list[np.ndarray]:
    trial = Trial(training, bench.storage, bench.feeds, bench.events.append, team)
    return [batch for _, batch in training._batches(trial, 1)]


@pytest.mark.parametrize(("size", "batch_size"), [(2, 8), (3, 8), (5, 13), (4, 39)])
@pytest.mark.parametrize("shuffle", ["all", "windows"])
def test_each_image_is_seen_once_over_all_workers(size, batch_size, shuffle, empty_bench):
    training = replace(BASELINE, workers=size, batch_size=batch_size, shuffle=shuffle)
    seen = []
    for rank in range(size):
        team = Team(rank, size)
        shares = [team.share_of(batch) for batch in batches_of(training, empty_bench, team)]
        assert all(len(share) for share in shares)
        seen += shares
    assert sorted(np.concatenate(seen)) == list(range(40))


def test_the_order_in_windows_is_another_one_of_the_same_seed_and_epoch(empty_bench):
    training = replace(BASELINE, shuffle="windows")
    (one, again) = (batches_of(training, empty_bench, Team()) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    whole = batches_of(BASELINE, empty_bench, Team())
    assert not np.array_equal(np.concatenate(one), np.concatenate(whole))


def test_gradients_of_shares_add_up_to_those_of_the_batch(monkeypatch):
    """The mean over images and the sum over maps, without batch statistics."""
    torch.manual_seed(0)
    images, chosen = squares(7, 0), np.arange(7)
    targets = np.array([images.positives(i)[0] for i in chosen])
    model = SmallFixupResNet().build(3)
    with torch.no_grad():
        for p in model.module.parameters():
            p += 0.05 * torch.randn_like(p)
    weights = list(model.module.parameters())

    def step(mine: np.ndarray, weight: float) -> dict[str, float]:
        model.module.zero_grad()
        batch = batch_of(model, images, torch.device("cpu"), mine, mine, targets[mine])
        labels = torch.from_numpy(images.labels[mine]).float()
        used = torch.ones(len(mine), dtype=torch.bool)
        method = InputXGradient(layer="final")
        loss, _ = guided_step(model, batch, labels, used, method, Energy(), weight)
        return {"loss": loss}

    whole = step(chosen, 0.3)
    expected = [p.grad.clone() for p in weights]
    sums: list[torch.Tensor] = []

    def all_reduce(tensor: torch.Tensor) -> None:
        """Both workers here, one after the other: the second finds the sum."""
        if len(sums) < 2:
            sums.append(tensor.clone())
        else:
            tensor += sums.pop(0)
            sums.append(tensor)

    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    for rank in range(2):
        mine = Team(rank, 2).share_of(chosen)
        losses = step(mine, 0.3 / (len(mine) / 7))
        losses = Team(rank, 2).sum_up(weights, losses, len(mine) / 7)
    assert losses == pytest.approx(whole, rel=1e-6)
    for p, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-5, atol=1e-6)
    assert max(float(gradient.abs().max()) for gradient in expected) > 1e-2


def test_a_parameter_that_no_worker_has_a_gradient_for_keeps_none(monkeypatch):
    monkeypatch.setattr(distributed, "all_reduce", lambda _: None)
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    used.grad = torch.tensor([2.0, 4.0])
    assert Team(0, 2).sum_up([used, unused], {"loss": 3.0}, 0.5) == {"loss": 1.5}
    assert used.grad.tolist() == [1.0, 2.0]
    assert unused.grad is None


def test_a_lost_worker_is_no_failure_of_the_result(monkeypatch):
    def broken(_: torch.Tensor) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(distributed, "all_reduce", broken)
    with pytest.raises(LostTeammateError, match="Connection closed by peer"):
        Team(0, 2).sum_up([torch.ones(1, requires_grad=True)], {}, 0.5)


def test_every_training_of_a_result_gets_its_workers():
    several = in_every_training(GUIDED, workers=2, shuffle="windows")
    assert (several.workers, several.start.workers) == (2, 2)
    assert several.reference.of == several.start
    assert several.result_id != GUIDED.result_id
    assert in_every_training(GUIDED).result_id == GUIDED.result_id


def test_more_workers_than_images_of_a_batch_are_refused():
    with pytest.raises(ValueError, match="workers = 9: each needs an image of a batch"):
        replace(BASELINE, workers=9)
