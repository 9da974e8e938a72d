"""What a network says of each image, against plain loops and the arrays of the authors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainables.attribution.idsds_golden import NETWORKS, arrays, network
from tests.trainables.networks import pictures, tiny_model
from trainables.attribution.baseline_maps import UniformMap
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.baselines import Zero
from trainables.batch import Batch
from trainables.evaluator import Evaluator
from trainables.metrics.network_response import NetworkResponse
from trainables.metrics.single_deletion import Sds
from trainables.models.network import evaluating
from trainables.passes import Passes

RESPONSE = NetworkResponse(channels=3, grid=4)


def worst_by_hand(masked: np.ndarray, labels: np.ndarray) -> list[bool]:
    """Whether each image has its label's logit on top in every deletion; (B, P, K) and (B,)."""
    right = []
    for rows, label in zip(masked, labels, strict=True):
        smallest = 1
        for row in rows:
            smallest = min(smallest, int(all(row[label] >= other for other in row)))
        right.append(smallest == 1)
    return right


@pytest.mark.parametrize("name", NETWORKS)
def test_on_the_authors_networks_it_is_what_their_arrays_say(name: str) -> None:
    golden, model = arrays(f"idsds/{name}"), network(name)
    predicted = golden["logits"].argmax(1)
    with torch.no_grad():
        feature = model.module.features(golden["images"])
    for labels in (golden["targets"], predicted):
        batch = Batch.single(golden["images"], labels)
        with evaluating(model.module), Passes(model, batch) as passes:
            passes.expect(GradCam().needs(model))
            scores, traces = RESPONSE.traced(passes, golden["map.Grad-CAM"][:, 0])
        assert traces is not None
        said = RESPONSE.responses(traces.double().numpy())
        masked = golden["derived.G4.masked_logits"].numpy()
        assert scores.tolist() == worst_by_hand(masked, labels.numpy())
        assert said.correct.tolist() == (predicted == labels).tolist()
        for found, logits, label in zip(said.probability, golden["logits"], labels, strict=True):
            powers = [math.exp(logit) for logit in logits.tolist()]
            assert found == pytest.approx(powers[int(label)] / sum(powers), abs=1e-6)
        chosen = np.sort(np.random.default_rng(0).permutation(feature.shape[1])[:3])
        np.testing.assert_allclose(said.channels, feature[:, chosen].amax((2, 3)), rtol=1e-12)


def test_corrupted_accuracy_is_that_counted_in_the_authors_arrays() -> None:
    """Two of six targets are on top, in every deletion as well. Of the six classes that are on top
    of the whole images, images 3 and 5 lose theirs: one to cell 10, the other to nine cells."""
    golden, model = arrays("idsds/tiny_gap"), network("tiny_gap")
    predicted = golden["logits"].argmax(1)
    assert predicted.tolist() == [0, 7, 7, 7, 7, 7]
    lost = golden["derived.G4.masked_logits"].argmax(2) != predicted[:, None]
    assert lost.sum(1).tolist() == [0, 0, 0, 1, 0, 9]
    assert lost[3].nonzero().tolist() == [[10]]
    for labels, counted in ((golden["targets"], 2 / 6), (predicted, 4 / 6)):
        with evaluating(model.module), Passes(model, Batch.single(golden["images"], labels)) as p:
            scores = NetworkResponse()(p, golden["map.Grad-CAM"][:, 0])
        assert NetworkResponse().reduce(scores.numpy()) == pytest.approx(counted)


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_scaled_pixel_by_pixel_and_then_averaged(name: str) -> None:
    golden, model = arrays(f"idsds/{name}"), network(name)
    maps = golden["map.Grad-CAM"][:, 0]
    with (
        evaluating(model.module),
        Passes(model, Batch.single(golden["images"], golden["targets"])) as passes,
    ):
        passes.expect(GradCam().needs(model))
        _, traces = RESPONSE.traced(passes, 7 * maps - 3)
    assert traces is not None
    found = RESPONSE.responses(traces.numpy()).maps
    for one, cells in zip(maps.numpy(), found, strict=True):
        low, reach = one.min(), (one.max() - one.min()) or 1.0
        sums = [0.0] * 16
        for y in range(64):
            for x in range(64):
                sums[y // 16 * 4 + x // 16] += (one[y, x] - low) / reach
        np.testing.assert_allclose(cells, np.array(sums) / 256, rtol=0, atol=1e-12)
    dead = {"tiny_gap": [4], "tiny_vgg": [1]}[name]  # a dead map stays zero
    assert np.flatnonzero((found == 0).all(1)).tolist() == dead


def test_the_deletions_of_the_score_serve_it():
    model = tiny_model()
    batch = Batch.single(pictures(2), torch.tensor([0, 1]))
    maps = torch.zeros(2, 12, 12, dtype=torch.float64)
    with evaluating(model.module), Passes(model, batch) as passes:
        passes.expect(GradCam().needs(model))
        Sds()(passes, maps)
        RESPONSE.traced(passes, maps)
        assert passes.counts.forwards == 2 * 17


@pytest.mark.parametrize("method", [InputXGradient(), UniformMap()], ids=lambda m: m.name)
def test_it_stands_beside_any_method(method):
    """The layer whose channels respond is announced, also where no method looks at it."""
    batch = replace(Batch.single(pictures(2), torch.tensor([0, 1])), labels=torch.tensor([0, 1]))
    scored = Evaluator(tiny_model(), {method: (RESPONSE,)})(batch)
    assert not scored.failed
    assert len(scored.rows) == 1
    assert scored.forwards == 2 * 17


@pytest.mark.parametrize("fields", [{"channels": 0}, {"grid": 0}, {"channel_seed": -1}])
def test_counts_are_checked(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields))} = {next(iter(fields.values()))}"):
        NetworkResponse(**fields, baseline=Zero())
