"""Self-supervised training: resumes bit for bit, and what it leaves is a backbone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainables.scenes import BASELINE
from trainables.backbone import TrainedBackbone, UntrainedBackbone
from trainables.knn_evaluation import KnnEvaluation
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.small_resnet import SmallResNet
from trainables.ssl.byol import Byol
from trainables.ssl.dino import Dino
from trainables.ssl.moco_v2 import MocoV2
from trainables.ssl.view import View
from trainables.ssl_training import SslTraining
from trainables.trial import Trial

VIEW = View(size_px=16, blur=0.2)
MOCO = SslTraining(
    network=SmallResNet(width=4),
    data=BASELINE.data,
    image_size_px=BASELINE.size_px,
    method=MocoV2(view=VIEW, queue=16, channels=8, momentum=0.9),
    epochs=2,
    batch_size=9,
    learning_rate=3e-3,
    optimizer_name="adam",
)
BYOL = replace(
    MOCO,
    network=SmallBcosResNet(width=4),
    method=Byol(view=VIEW, other_view=VIEW, hidden=8, channels=6, momentum=0.9),
    optimizer_name="lars",
    decays="weights",
)
DINO = replace(
    MOCO,
    method=Dino(
        view=VIEW,
        other_view=VIEW,
        local_view=replace(VIEW, size_px=8),
        local_views=1,
        hidden=8,
        bottleneck=6,
        prototypes=12,
    ),
    optimizer_name="adamw",
    gradient_limit=3.0,
)


class Killed(BaseException):
    """What a dead process looks like from inside: nothing catches it."""


@pytest.mark.parametrize(
    "training",
    [MOCO, *(pytest.param(more, marks=pytest.mark.slow) for more in (BYOL, DINO))],
    ids=lambda t: t.method.name,
)
def test_a_resumed_training_equals_an_undisturbed_one(training, bench, tmp_path):
    assert bench.run(training), bench.events[-1]
    undisturbed = bench.history(training)
    assert [step for step, _ in undisturbed] == [0, 1, 2]
    assert set(undisturbed[0][1]) == {"val/knn_accuracy_untrained"}
    assert set(undisturbed[1][1]) == {"train/loss", "val/knn_accuracy"}
    other = bench.beside(tmp_path / "beside")

    def dying(event):
        if event.get("step") == 1:
            raise Killed

    with pytest.raises(Killed):
        other.run_with(dying, training)
    assert not (other.folder(training) / "result.json").exists()
    assert other.run(training)
    assert other.history(training) == undisturbed
    mine, theirs = bench.weights(training), other.weights(training)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert other.kept_epochs(training) == [2]
    assert other.summary(training) == bench.summary(training)


def test_the_weights_are_a_backbone_and_the_reference_is_the_untrained_one(bench):
    assert bench.run(MOCO)
    judged = {}
    for backbone in (TrainedBackbone(of=MOCO), UntrainedBackbone(network=MOCO.network)):
        result = KnnEvaluation(backbone=backbone, data=MOCO.data, image_size_px=MOCO.image_size_px)
        assert bench.run(result), bench.events[-1]
        ((_, metrics),) = bench.history(result)
        judged[backbone.pretraining] = metrics["val/knn_accuracy"]
    history = dict(bench.history(MOCO))
    assert judged == {
        "moco_v2": history[2]["val/knn_accuracy"],
        "none": history[0]["val/knn_accuracy_untrained"],
    }


def test_views_are_a_function_of_seed_epoch_and_image(bench):
    images = bench.splits["train"]
    trial = Trial(MOCO, bench.storage, bench.feeds, bench.events.append)
    few, more = np.array([3, 5]), np.array([0, 5, 3, 7])
    seen = MOCO.seen(trial, images.images(few), 1, few)
    among = MOCO.seen(trial, images.images(more), 1, more)
    for one, other in zip(seen, among, strict=True):
        assert (one.int() - other[[2, 1]].int()).abs().max() <= 1
    assert not torch.equal(*seen)  # the two views of an image differ
    assert not torch.equal(seen[0], MOCO.seen(trial, images.images(few), 2, few)[0])
    elsewhere = Trial(replace(MOCO, seed=1), bench.storage, bench.feeds, bench.events.append)
    assert not torch.equal(seen[0], MOCO.seen(elsewhere, images.images(few), 1, few)[0])


def test_features_are_judged_as_often_as_asked(bench):
    seldom = replace(MOCO, epochs=3, judged_every=2)
    assert bench.run(seldom), bench.events[-1]
    told = {step for step, metrics in bench.history(seldom) if "val/knn_accuracy" in metrics}
    assert told == {2, 3}


def test_the_rate_rises_and_falls():
    training = replace(MOCO, epochs=6, warmup_epochs=2, learning_rate=1.0)
    rates = [training.rate_at(epoch) for epoch in range(1, 7)]
    cosine = [(np.cos(np.pi * k / 4) + 1) / 2 for k in range(4)]
    assert rates == pytest.approx([0.5, 1.0, *cosine])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars"])
def test_norms_and_biases_may_be_spared_from_decay(name):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    training = replace(MOCO, optimizer_name=name, weight_decay=0.1, decays="weights")
    groups = training.optimizer(module).param_groups
    decays = {p.ndim: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {2: 0.1, 1: 0.0}


def test_what_cannot_be_trained_is_refused(bench):
    with pytest.raises(ValueError, match="workers = 2"):
        replace(MOCO, workers=2)
    with pytest.raises(ValueError, match="warmup_epochs = 2: fewer"):
        replace(MOCO, warmup_epochs=2)
    lonely = replace(MOCO, batch_size=len(bench.splits["train"]) - 1)
    assert not bench.run(lonely)
    assert "batch by itself" in bench.reason(lonely)
