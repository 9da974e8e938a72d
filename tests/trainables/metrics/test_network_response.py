"""What a network says of each image, against plain loops and the arrays of the authors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.trainables.attribution.idsds_golden import arrays, network
from tests.trainables.networks import pictures, tiny_model
from trainables.attribution.cam import GradCam
from trainables.baselines import Zero
from trainables.batch import Batch
from trainables.metrics.network_response import NetworkResponse
from trainables.metrics.single_deletion import Sds
from trainables.models.network import evaluating
from trainables.passes import Passes

RESPONSE = NetworkResponse(channels=3, grid=4)


def test_on_the_authors_network_it_is_what_their_arrays_say():
    golden, model = arrays("idsds/tiny_gap"), network("tiny_gap")
    batch = Batch.single(golden["images"], golden["targets"])
    maps = golden["map.Grad-CAM"][:, 0]
    with evaluating(model.module), Passes(model, batch) as passes:
        passes.expect(GradCam().needs(model))
        scores, traces = RESPONSE.traced(passes, maps)
    said = RESPONSE.responses(traces.double().numpy())
    targets = golden["targets"].numpy()
    worst = [
        all(row.argmax() == target for row in rows)
        for rows, target in zip(golden["derived.G4.masked_logits"].numpy(), targets, strict=True)
    ]
    assert scores.tolist() == worst
    logits = golden["logits"].double()
    rows = torch.arange(len(targets))
    expected = logits.softmax(1)[rows, golden["targets"]]
    np.testing.assert_allclose(said.probability, expected, atol=1e-6)
    assert said.correct.tolist() == (logits.argmax(1) == golden["targets"]).tolist()
    with torch.no_grad():
        features = model.module.get_submodule(model.path_of("final"))
        seen = []
        handle = features.register_forward_hook(lambda *given: seen.append(given[2]))
        model.module(golden["images"])
        handle.remove()
    chosen = np.sort(np.random.default_rng(0).permutation(seen[0].shape[1])[:3])
    np.testing.assert_allclose(said.channels, seen[0][:, chosen].amax((2, 3)), rtol=1e-5)
    assert said.maps.shape == (6, 16)
    assert said.maps[4].tolist() == [0.0] * 16  # the dead map of class 9
    assert (said.maps.max(1)[[0, 1, 2, 3, 5]] == 1).all()


def test_the_deletions_of_the_score_serve_it():
    model = tiny_model()
    batch = Batch.single(pictures(2), torch.tensor([0, 1]))
    maps = torch.zeros(2, 12, 12, dtype=torch.float64)
    with evaluating(model.module), Passes(model, batch) as passes:
        passes.expect(GradCam().needs(model))
        Sds()(passes, maps)
        RESPONSE.traced(passes, maps)
        assert passes.counts.forwards == 2 * 17


@pytest.mark.parametrize("fields", [{"channels": 0}, {"grid": 0}, {"channel_seed": -1}])
def test_counts_are_checked(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields))} = {next(iter(fields.values()))}"):
        NetworkResponse(**fields, baseline=Zero())
