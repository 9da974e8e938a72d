"""A published fine-tuned network is judged as it is, by the deletions that it is said to know."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainables.test_idsds_finetuning import START, TUNED, SingleBench, singles
from trainables.attribution.gradient import InputXGradient
from trainables.baselines import Blur
from trainables.deletion_protocol import deletion_protocol
from trainables.metrics.network_response import NetworkResponse
from trainables.metrics.single_deletion import Idsds, Sds
from trainables.models.pretrained import pretrained_of
from trainables.network_comparison import NetworkComparison
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.published_finetuning import PublishedFinetuning


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> SingleBench:
    """A classifier and its fine-tuned self are there."""
    splits = {"train": singles(40, 0), "val": singles(16, 1)}
    bench = SingleBench(tmp_path_factory.mktemp("tuned"), splits)
    for result in (START, TUNED):
        assert bench.run(result), bench.events
    return bench


def published_in(folder: Path, bench: SingleBench) -> PublishedFinetuning:
    """What the bench has fine-tuned, as a file of the paper's authors."""
    weights = bench.weights(TUNED, bench.summary(TUNED)["epoch"])
    content = {
        "epoch": 30,
        "state_dict": {f"module.{key}": tensor for key, tensor in weights.items()},
        "args": argparse.Namespace(lr=0.001),
    }
    torch.save(content, folder / "tuned.pth.tar")
    return PublishedFinetuning(start=START, pretrained=pretrained_of(folder / "tuned.pth.tar"))


def test_nothing_is_trained_and_the_metrics_are_those_of_the_fine_tuning(bench, tmp_path):
    published = published_in(tmp_path, bench)
    assert bench.run(published), bench.events[-1]
    assert bench.summary(published)["epoch"] == 1
    weights = bench.weights(published, 1)
    assert all(torch.equal(weights[k], t) for k, t in bench.weights(TUNED, 3).items())
    ((epoch, metrics),) = bench.history(published)
    *_, (_, tuned) = bench.history(TUNED)
    assert epoch == 1
    assert metrics == {k: v for k, v in tuned.items() if not k.startswith("train")}
    assert not (bench.folder(published) / "checkpoint.safetensors").exists()


def test_it_is_judged_in_its_domain_beside_what_it_was(bench, tmp_path):
    published = replace(published_in(tmp_path, bench), patches=4, baseline_image=Blur())
    protocol = deletion_protocol(published, 4, Blur())
    assert protocol == Idsds(patches=4, baseline=Blur())
    assert deletion_protocol(published) == Sds()
    asked = NetworkResponse(patches=4, baseline=Blur())
    before, after = (
        ProtocolEvaluation(of=of, attribution=InputXGradient(), protocols=(judged, asked))
        for of, judged in ((START, Sds(patches=4, baseline=Blur())), (published, protocol))
    )
    assert after.tags["finetuned"] == "p4_blur"
    pair = NetworkComparison(first=before, second=after)
    pair.check()
    assert pair.related


def test_a_file_that_does_not_fit_is_refused_before_anything_runs(bench, tmp_path):
    published = published_in(tmp_path, bench)
    with pytest.raises(ValueError, match=r"fc.weight \(3, 16\) for \(10, 16\)"):  # ten digits
        published.check()
    with pytest.raises(ValueError, match="7 x 7 px has no grid"):
        replace(published, start=replace(START, image_size_px=7), patches=64).check()


def test_what_it_says_of_itself(bench, tmp_path):
    published = published_in(tmp_path, bench)
    key = published.pretrained.key
    assert published.label == (f"published finetuning 16 patches, zero small_resnet_width4 {key}")
    assert published.splits == ("val",)
    assert published.cost({"val": 10}) == 10
    with pytest.raises(ValueError, match="epochs = 2: the one epoch"):
        replace(published, epochs=2)
