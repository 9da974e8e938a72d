"""Two networks side by side: the differences by hand, the gate, and who may be compared."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainables.attribution.idsds_golden import NETWORKS, arrays, network
from tests.trainables.test_idsds_finetuning import CELL_PX, SingleBench, singles
from tests.trainables.test_idsds_finetuning import START as SMALL_START
from tests.trainables.test_idsds_finetuning import TUNED as SMALL_TUNED
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.metrics.network_response import NetworkResponse, Responses, min_max
from trainables.metrics.randomization import cell_means
from trainables.metrics.single_deletion import Idsds, Sds
from trainables.models.network import evaluating
from trainables.network_comparison import NetworkComparison, is_in_domain, overlap, top_images
from trainables.passes import Passes
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.traces import kept_traces
from trainables.training import Training
from trainables.trial import Trial

RESPONSE = NetworkResponse(channels=4, grid=4)
START = replace(SMALL_START, epochs=5)  # it learns, so that the four accuracies differ
TUNED = replace(SMALL_TUNED, start=START, step_epochs=3)
BEFORE = ProtocolEvaluation(of=START, attribution=GradCam(), protocols=(Sds(), RESPONSE))
AFTER = ProtocolEvaluation(of=TUNED, attribution=GradCam(), protocols=(Idsds(), RESPONSE))
PAIR = NetworkComparison(first=BEFORE, second=AFTER)


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> SingleBench:
    splits = {"train": singles(80, 0), "val": singles(24, 1)}
    bench = SingleBench(tmp_path_factory.mktemp("compared"), splits)
    for result in (START, TUNED, BEFORE, AFTER, PAIR):
        assert bench.run(result), bench.events
    return bench


def test_the_differences_are_those_of_what_both_said(compared):
    ((_, metrics),) = compared.history(PAIR)
    trial = Trial(PAIR, compared.storage, compared.feeds, compared.events.append)
    said = [kept_traces(trial, one, RESPONSE) for one in (BEFORE, AFTER)]
    first, second = (RESPONSE.responses(one["traces"].astype(np.float64)) for one in said)
    gap = np.abs(first.probability - second.probability).mean()
    assert metrics["val/mad_softmax"] == pytest.approx(gap, rel=1e-5)
    gap = np.abs(first.maps - second.maps).mean()
    assert metrics["val/mad_grad_cam"] == pytest.approx(gap, rel=1e-5)
    assert metrics["val/in_domain"] == is_in_domain(
        {key.removeprefix("val/"): value for key, value in metrics.items()}
    )


def right_with_and_without_cells(bench: SingleBench, training: Training) -> tuple[float, float]:
    """Share of images that are classified correctly, and whichever cell is deleted; one by one."""
    images, model = bench.splits["val"], START.network.build(3)
    model.module.load_state_dict(bench.weights(training, bench.summary(training)["epoch"]))
    model.module.eval()
    whole, worst = [], []
    for i in range(len(images)):
        x, (target,) = model.encode(torch.from_numpy(images.images([i]))), images.positives(i)
        copies = [x]
        for top in range(0, images.size_px, CELL_PX):
            for left in range(0, images.size_px, CELL_PX):
                copies.append(x.clone())
                copies[-1][..., top : top + CELL_PX, left : left + CELL_PX] = 0
        with torch.no_grad():
            right = [int(model.module(copy).argmax()) == target for copy in copies]
        whole.append(right[0])
        worst.append(all(right[1:]))
    return float(np.mean(whole)), float(np.mean(worst))


def test_accuracies_are_those_of_a_plain_loop(compared):
    ((_, metrics),) = compared.history(PAIR)
    before, after = (right_with_and_without_cells(compared, one) for one in (START, TUNED))
    names = ("accuracy_before", "corrupted_accuracy_before",
             "accuracy_after", "corrupted_accuracy_after")  # fmt: skip
    expected = dict(zip((f"val/{name}" for name in names), (*before, *after), strict=True))
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert len(set(expected.values())) == 4  # or a mistaken one would not be seen


class Told:
    """A trial that keeps what it is told."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def report(self, step: int, metrics: dict[str, float]) -> None:
        self.metrics = metrics

    def finish(self, summary: dict[str, int]) -> None:
        assert summary == {"images": 6}


def said_of(name: str, response: NetworkResponse) -> tuple[Responses, float]:
    """What one of the authors' networks says of its images, and its corrupted accuracy."""
    golden, model = arrays(f"idsds/{name}"), network(name)
    batch = Batch.single(golden["images"], golden["targets"])
    with evaluating(model.module), Passes(model, batch) as passes:
        passes.expect(GradCam().needs(model))
        scores, traces = response.traced(passes, golden["map.Grad-CAM"][:, 0])
    assert traces is not None
    return response.responses(traces.numpy()), response.reduce(scores.numpy())


def test_the_differences_of_the_authors_networks_by_hand(monkeypatch):
    """From the stored logits and maps alone: tiny_gap beside tiny_vgg, an unrelated pair."""
    (first, worst), (second, other) = (said_of(n, NetworkResponse(grid=64)) for n in NETWORKS)
    told, said = Told(), (np.arange(6), (first, second), (worst, other))
    monkeypatch.setattr(NetworkComparison, "said", lambda *_: said)
    monkeypatch.setattr(NetworkComparison, "leave_top_images", lambda *_: None)
    replace(PAIR, second=BEFORE).compute(told)
    gap, vgg = (arrays(f"idsds/{n}") for n in NETWORKS)
    assert all(torch.equal(gap[key], vgg[key]) for key in ("images", "targets"))

    of_probability = of_maps = as_stored = 0.0
    correct, whatever_is_deleted = {"before": 0, "after": 0}, {"before": 0, "after": 0}
    for n, target in enumerate(gap["targets"].tolist()):
        probabilities, scaled, stored = [], [], []
        for when, golden in (("before", gap), ("after", vgg)):
            logits = golden["logits"][n].tolist()
            powers = [math.exp(logit) for logit in logits]
            probabilities.append(powers[target] / sum(powers))
            correct[when] += logits.index(max(logits)) == target
            right = [
                one.index(max(one)) == target
                for one in golden["derived.G4.masked_logits"][n].tolist()
            ]
            whatever_is_deleted[when] += min(right)
            pixels = golden["map.Grad-CAM"][n].flatten().tolist()
            stored.append(pixels)
            low, high = min(pixels), max(pixels)
            scaled.append([(pixel - low) / (high - low or 1) for pixel in pixels])
        of_probability += abs(probabilities[0] - probabilities[1]) / 6
        for one, another in zip(*scaled, strict=True):
            of_maps += abs(one - another) / (6 * 64 * 64)
        for one, another in zip(*stored, strict=True):
            as_stored += abs(one - another) / (6 * 64 * 64)

    assert told.metrics["val/mad_softmax"] == pytest.approx(of_probability, abs=1e-6)
    assert of_probability == pytest.approx(0.16736, abs=1e-5)
    assert told.metrics["val/mad_grad_cam"] == pytest.approx(of_maps, abs=1e-12)
    assert of_maps == pytest.approx(0.20687, abs=1e-5)
    # theirs are scaled before they are enlarged, so that their largest pixel is below 1
    assert as_stored == pytest.approx(0.20326, abs=1e-5)
    assert abs(of_maps - as_stored) < 0.02 * as_stored
    assert correct == {"before": 2, "after": 0}
    assert whatever_is_deleted == {"before": 2, "after": 0}
    for when in correct:
        worst = whatever_is_deleted[when] / 6
        assert told.metrics[f"val/accuracy_{when}"] == pytest.approx(correct[when] / 6)
        assert told.metrics[f"val/corrupted_accuracy_{when}"] == pytest.approx(worst)
    assert "val/in_domain" not in told.metrics


def test_the_grid_of_the_maps_moves_their_difference_little():
    """Averaging over a cell lowers it: by 2 % on ours, 8 % on one of 7 x 7 cells."""
    maps = [min_max(arrays(f"idsds/{name}")["map.Grad-CAM"][:, 0]) for name in NETWORKS]
    found = {}
    for grid in (64, NetworkResponse().grid, 7):
        first, second = (cell_means(one, grid) for one in maps)
        found[grid] = float((first - second).abs().mean())
    expected = {64: 0.20687, 14: 0.20268, 7: 0.19072}
    assert found == pytest.approx(expected, abs=1e-5)


def test_top_images_are_left_with_their_pictures(compared):
    left = np.load(compared.folder(PAIR) / "artifacts" / "channels.npz")
    assert left["image_ids"].shape == (2, 4, 9)
    images = compared.splits["val"]
    where = np.searchsorted(images.image_ids, left["image_ids"])
    np.testing.assert_array_equal(
        left["images"][left["rows"]],
        images.images(where.ravel())
        .transpose(0, 2, 3, 1)
        .reshape(*where.shape, *left["images"].shape[1:]),
    )


def test_overlap_is_the_share_in_common():
    first = np.array([[5.0, 0], [4, 1], [3, 2], [2, 3]])
    second = np.array([[0.0, 0], [9, 1], [8, 2], [7, 3]])
    assert top_images(first, 2).tolist() == [[0, 1], [3, 2]]
    assert overlap(first, second, 2) == 0.75
    assert overlap(first, first, 2) == 1


def test_overlap_at_nine_equals_a_plain_count():
    """Of 30 images, with ties: the first of equals comes first."""
    rng = np.random.default_rng(3)
    first, second = (rng.integers(0, 12, (30, 5)).astype(float) for _ in range(2))
    shares = []
    for channel in range(5):
        tops = []
        for responses in (first, second):
            column = enumerate(-responses[:, channel])
            strongest = sorted((value, image) for image, value in column)[:9]
            tops.append({image for _, image in strongest})
        shares.append(len(tops[0] & tops[1]) / 9)
    assert 0 < min(shares) < max(shares) < 1
    assert overlap(first, second) == pytest.approx(sum(shares) / 5, abs=1e-12)


TABLE_3 = {
    "resnet18": (69.76, 70.55, 30.84, 43.42),
    "resnet50": (76.12, 76.92, 41.94, 53.97),
    "resnet101": (77.38, 77.90, 45.30, 55.90),
    "resnet152": (78.32, 78.78, 46.91, 57.52),
    "wide_resnet50_2": (78.47, 78.47, 47.42, 57.68),
    "fixup_resnet50": (75.81, 75.14, 42.50, 49.34),
    "xresnet50": (73.51, 73.28, 39.46, 48.05),
    "vgg16": (71.59, 72.07, 36.39, 46.31),
    "vit_base_patch16": (81.43, 82.74, 57.92, 64.55),
    "bcos_resnet50": (75.88, 75.81, 34.13, 38.26),
    "bagnet33": (64.21, 68.37, 47.36, 55.21),
}
"""The paper's accuracies in percent: clean and corrupted, each before and after fine-tuning."""


@pytest.mark.parametrize("name", TABLE_3)
def test_every_network_of_the_paper_passes_the_gate(name):
    clean, tuned, worst, worst_tuned = TABLE_3[name]
    metrics = {"accuracy_before": clean, "accuracy_after": tuned}
    metrics |= {"corrupted_accuracy_before": worst, "corrupted_accuracy_after": worst_tuned}
    shares = {key: value / 100 for key, value in metrics.items()}
    assert is_in_domain(shares)
    assert not is_in_domain(shares | {"accuracy_after": (clean - 1.01) / 100})
    assert not is_in_domain(shares | {"corrupted_accuracy_after": worst / 100})


def test_by_how_much_deletions_became_known_in_the_paper():
    """By subtraction; its table prints 10.50 for ResNet-101."""
    rose = {name: round(row[3] - row[2], 2) for name, row in TABLE_3.items()}
    assert rose["resnet101"] == 10.60
    assert (min(rose.values()), max(rose.values())) == (4.13, 12.58)
    assert max(row[0] - row[1] for row in TABLE_3.values()) == pytest.approx(0.67)


@pytest.mark.parametrize(
    ("clean", "worst", "counts"),
    [((0.8, 0.8), (0.3, 0.4), True), ((0.8, 0.79), (0.3, 0.31), True),
     ((0.8, 0.78), (0.3, 0.6), False), ((0.8, 0.9), (0.4, 0.4), False)],
)  # fmt: skip
def test_the_gate(clean, worst, counts):
    metrics = dict(
        zip(("accuracy_before", "accuracy_after"), clean, strict=True),
        corrupted_accuracy_before=worst[0],
        corrupted_accuracy_after=worst[1],
    )
    assert is_in_domain(metrics) == counts


def test_only_what_was_asked_alike_is_compared():
    with pytest.raises(ValueError, match="no network_response"):
        NetworkComparison(first=replace(BEFORE, protocols=(Sds(),)), second=AFTER).check()
    other = replace(AFTER, attribution=InputXGradient())
    with pytest.raises(ValueError, match="differ in more than the network"):
        NetworkComparison(first=BEFORE, second=other).check()
    asked = replace(AFTER, protocols=(replace(RESPONSE, patches=4),))
    with pytest.raises(ValueError, match="was not asked network_response"):
        NetworkComparison(first=BEFORE, second=asked).check()
    PAIR.check()
    assert (PAIR.tags["pair"], PAIR.tags["finetuned"]) == ("finetuned", "p16_zero")
    unrelated = NetworkComparison(first=BEFORE, second=BEFORE).tags
    assert (unrelated["pair"], unrelated["finetuned"]) == ("unrelated", "")
