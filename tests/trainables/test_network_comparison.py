"""Two networks side by side: the differences by hand, the gate, and who may be compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.trainables.test_idsds_finetuning import START, TUNED, SingleBench, singles
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.metrics.network_response import NetworkResponse
from trainables.metrics.single_deletion import Idsds, Sds
from trainables.network_comparison import NetworkComparison, is_in_domain, overlap, top_images
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.traces import kept_traces
from trainables.trial import Trial

RESPONSE = NetworkResponse(channels=4, grid=4)
BEFORE = ProtocolEvaluation(of=START, attribution=GradCam(), protocols=(Sds(), RESPONSE))
AFTER = ProtocolEvaluation(of=TUNED, attribution=GradCam(), protocols=(Idsds(), RESPONSE))
PAIR = NetworkComparison(first=BEFORE, second=AFTER)


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> SingleBench:
    splits = {"train": singles(40, 0), "val": singles(16, 1)}
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
    assert metrics["val/accuracy_before"] == first.correct.mean()
    assert metrics["val/corrupted_accuracy_after"] == said[1]["scores"].mean()
    (_, finetuning) = compared.history(TUNED)[-1]
    assert metrics["val/corrupted_accuracy_after"] == finetuning["val/corrupted_accuracy"]
    assert metrics["val/in_domain"] == is_in_domain(
        {key.removeprefix("val/"): value for key, value in metrics.items()}
    )


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
