"""A published classifier is judged as it is: its file, head and all, is its one epoch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.trainables.conftest import Bench
from tests.trainables.scenes import BASELINE
from trainables.models.pretrained import pretrained_of
from trainables.published_classifier import PublishedClassifier
from trainables.training import restore
from trainables.trial import Trial


@pytest.fixture
def published(tmp_path) -> PublishedClassifier:
    torch.manual_seed(5)
    weights = BASELINE.network.build(3).module.state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "net.pth")
    return PublishedClassifier(
        network=BASELINE.network,
        data=BASELINE.data,
        image_size_px=BASELINE.image_size_px,
        pretrained=pretrained_of(tmp_path / "net.pth"),
    )


def test_nothing_is_trained(published, splits, tmp_path):
    bench = Bench(tmp_path / "storage", splits)
    feeds = {
        (published.dataset.result_id, split, published.size_px): feed
        for (_, split, _), feed in bench.feeds.items()
    }
    trial = Trial(published, bench.storage, feeds, bench.events.append)
    published.compute(trial)
    summary = trial.summary_of(published)
    assert summary["epoch"] == 1
    model = published.network.build(3)
    restore(trial, published, summary, 1, model)
    torch.manual_seed(5)
    for name, tensor in published.network.build(3).module.state_dict().items():
        assert torch.equal(model.module.state_dict()[name], tensor), name
    ((step, metrics),) = [(e["step"], e["metrics"]) for e in bench.events if e["event"] == "epoch"]
    assert step == 1
    assert 0 <= metrics["val/accuracy"] <= 1
    assert not (trial.folder / "checkpoint.safetensors").exists()


def test_a_head_of_other_classes_is_refused(published, splits, tmp_path):
    torch.manual_seed(0)
    save_file(BASELINE.network.build(4).module.state_dict(), tmp_path / "four.safetensors")
    other = replace(published, pretrained=pretrained_of(tmp_path / "four.safetensors"))
    bench = Bench(tmp_path / "storage", splits)
    feeds = {
        (other.dataset.result_id, split, other.size_px): feed
        for (_, split, _), feed in bench.feeds.items()
    }
    with pytest.raises(ValueError, match=r"fc.weight \(4, 16\) for \(3, 16\)"):
        other.compute(Trial(other, bench.storage, feeds, bench.events.append))


def test_its_epochs_are_one(published):
    with pytest.raises(ValueError, match="epochs = 2"):
        replace(published, epochs=2)
    assert published.label.startswith("published small_resnet_width4 pretrained_")
