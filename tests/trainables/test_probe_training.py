"""What a probe's training is: its recipe, its rates, what it sees of an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainables.scenes import BASELINE, SIZE_PX, Feed, squares
from trainables.backbone import UntrainedBackbone
from trainables.models.bagnet import SmallBagNet
from trainables.models.probe import BcosProbe, ConventionalProbe
from trainables.probe_recipes import RECIPES, recipe
from trainables.probe_training import ProbeTraining
from trainables.trial import Trial, feed_key

PROBE = ProbeTraining(
    backbone=UntrainedBackbone(network=BASELINE.network),
    probe=ConventionalProbe(),
    data=BASELINE.data,
    image_size_px=SIZE_PX,
)
STEPS = 4
"""Of an epoch."""


def rates(training: ProbeTraining) -> list[float]:
    return [
        training.rate_in(epoch, step, STEPS)
        for epoch in range(1, training.epochs + 1)
        for step in range(1, STEPS + 1)
    ]


def torch_rates(training: ProbeTraining) -> list[float]:
    """By torch's schedulers: the warm-up is stepped each step, the fall each epoch after it."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    rise, fall = (torch.optim.SGD([parameter], lr=training.learning_rate) for _ in range(2))
    warm = training.warmup_epochs * STEPS
    start = training.warmup_start if warm else 1.0
    warmup = torch.optim.lr_scheduler.LinearLR(rise, start, total_iters=warm)
    after: torch.optim.lr_scheduler.LRScheduler
    if training.schedule == "cosine":
        after = torch.optim.lr_scheduler.CosineAnnealingLR(
            fall, training.epochs - training.warmup_epochs
        )
    else:
        after = torch.optim.lr_scheduler.MultiStepLR(fall, list(training.step_epochs))
    found = []
    for epoch in range(training.epochs):
        for _ in range(STEPS):
            scale = rise.param_groups[0]["lr"] / training.learning_rate
            found.append(fall.param_groups[0]["lr"] * scale)
            rise.step()
            warmup.step()
        fall.step()
        if training.schedule == "step" or epoch >= training.warmup_epochs:
            after.step()
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_rates_are_those_of_torchs_schedulers(name):
    training = replace(PROBE, **recipe(name))
    assert rates(training) == pytest.approx(torch_rates(training), rel=1e-9)


def test_a_constant_rate_still_warms_up_and_a_short_training_ends_within_the_warm_up():
    constant = replace(PROBE, schedule="constant", epochs=3, warmup_epochs=1, learning_rate=1.0)
    assert rates(constant)[:5] == pytest.approx([0.01, 0.2575, 0.505, 0.7525, 1.0])
    assert rates(constant)[4:] == [1.0] * 8
    short = replace(PROBE, epochs=2, warmup_epochs=5)
    assert rates(short)[-1] < 0.4 * short.learning_rate


def test_the_recipes_are_those_of_the_paper_and_its_code():
    paper = replace(PROBE, **recipe("paper"))
    assert paper == PROBE  # the defaults
    step = replace(PROBE, **recipe("code_step"))
    assert [step.rate_in(e, 1, STEPS) for e in (1, 60, 61, 81)] == pytest.approx([30, 30, 3, 0.3])
    optimizer = step.optimizer(torch.nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    several = replace(PROBE, **recipe("code_multi_label"))
    assert several.rate_in(1, 1, STEPS) == pytest.approx(30e-7)
    assert several.rate_in(50, 1, STEPS) == pytest.approx(30e-8)
    with pytest.raises(ValueError, match="unknown recipe 'adam'; known: paper, "):
        recipe("adam")


@pytest.fixture
def trial(tmp_path) -> Trial:
    feeds = {feed_key(PROBE, "train"): Feed(squares(12, 0))}
    return Trial(PROBE, tmp_path, feeds, lambda event: None)


@pytest.mark.parametrize("augmentation", ["flip", "crop"])
def test_what_is_seen_is_a_function_of_seed_epoch_and_image(augmentation, trial):
    training = replace(PROBE, augmentation=augmentation)
    images = trial.images("train")

    def seen(epoch, indices, of=trial):
        augment = training.augmentation_of(of, len(images), epoch)
        assert augment is not None
        return augment(images.images(indices), indices)

    everything = np.arange(12)
    first = seen(1, everything)
    assert first.shape == (12, 3, SIZE_PX, SIZE_PX)
    mixed = np.array([7, 2, 11])
    assert np.array_equal(seen(1, mixed), first[mixed])
    assert not np.array_equal(seen(2, everything), first)
    other = Trial(replace(PROBE, seed=1), trial.storage, {}, lambda event: None)
    assert not np.array_equal(seen(1, everything, other), first)


def test_a_flip_shows_an_image_or_its_mirror_image(trial):
    images, everything = trial.images("train"), np.arange(12)
    augment = replace(PROBE, augmentation="flip").augmentation_of(trial, 12, 1)
    assert augment is not None
    pictures = images.images(everything)
    turned = [
        np.array_equal(one, whole[..., ::-1])
        for one, whole in zip(augment(pictures, everything), pictures, strict=True)
    ]
    same = [
        np.array_equal(a, b) for a, b in zip(augment(pictures, everything), pictures, strict=True)
    ]
    assert all(a != b for a, b in zip(turned, same, strict=True))
    assert 0 < sum(turned) < 12
    assert replace(PROBE, augmentation="none").augmentation_of(trial, 12, 1) is None


def test_no_batch_is_a_single_image(trial):
    training = replace(PROBE, batch_size=11)
    assert [len(batch) for _, batch in training.batches(trial, 1)] == [12]
    assert training.batch_starts(12) == [0]
    assert training.batch_starts(13) == [0, 11]


def test_a_pack_is_what_can_share_a_batch_and_its_forward():
    same = [
        replace(PROBE, probe=BcosProbe(layers=3), learning_rate=1.0, epochs=7),
        replace(PROBE, objective="bce", off_target="uniform", schedule="step", patience=3),
    ]
    assert {p.bundle for p in same} == {PROBE.bundle}
    other = [
        {"batch_size": 8}, {"image_size_px": 48}, {"augmentation": "flip"}, {"crop_scale": 0.5},
        {"seed": 1}, {"shuffle": "windows"}, {"workers": 2},
        {"backbone": UntrainedBackbone(network=BASELINE.network, seed=1)},
    ]  # fmt: skip
    bundles = {replace(PROBE, **values).bundle for values in other}
    assert len(bundles | {PROBE.bundle}) == len(other) + 1
    assert len({p.result_id for p in (*same, PROBE)}) == 3


@pytest.mark.parametrize(
    "wrong",
    [{"crop_scale": 0.0}, {"momentum": 1.0}, {"warmup_epochs": -1}, {"warmup_start": 2.0}],
)
def test_values_out_of_range_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"ProbeTraining\.{name} = .*must lie in"):
        replace(PROBE, **wrong)


def test_a_network_without_features_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="cannot be probed"):
        replace(PROBE, backbone=UntrainedBackbone(network=SmallBagNet())).check()
