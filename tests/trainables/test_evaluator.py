"""Methods x protocols on one batch: shared forwards, whole rows, failures that stay alone."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest
import torch

import trainables.metrics  # noqa: F401  (registers its classes)
from tests.trainables.networks import tiny_model
from tests.trainables.plugins import Needy, Raising, RaisingMetric
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient, Saliency
from trainables.batch import Batch
from trainables.evaluator import ROWS, Evaluator, full_size_maps
from trainables.metrics.complexity import Entropy, Gini
from trainables.metrics.localization import Epg
from trainables.metrics.perturbation_curves import Deletion, Pos
from trainables.metrics.single_deletion import Sds
from trainables.passes import Passes

SIZE_PX = 12
IMAGES = 3


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def batch(model):
    """Three images, the second with two classes."""
    generator = torch.Generator().manual_seed(0)
    size = (IMAGES, 3, SIZE_PX, SIZE_PX)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    masks = torch.zeros(4, SIZE_PX, SIZE_PX, dtype=torch.bool)
    masks[:, :6, :3] = True
    return Batch(
        images=model.encode(pixels),
        image_ids=["a", "b", "c"],
        image_index=torch.tensor([0, 1, 1, 2]),
        targets=torch.tensor([3, 0, 2, 1]),
        masks=masks,
    )


def frame(tables) -> pd.DataFrame:
    """All rows."""
    return pa.concat_tables(tables).to_pandas()


def without(batch: Batch) -> Batch:
    """The same images, nothing explained."""
    nothing = torch.empty(0, dtype=torch.long)
    return Batch(
        images=batch.images, image_ids=batch.image_ids, image_index=nothing, targets=nothing
    )


def keys(tables) -> list[tuple[str, str]]:
    """(method, protocol) of each table."""
    return [(t["method_key"][0].as_py(), t["protocol_key"][0].as_py()) for t in tables]


def test_a_row_for_each_image_class_method_and_protocol(model, batch):
    methods, protocols = (InputXGradient(), GradCam()), (Sds(patches=4), Epg())
    scored = Evaluator(model, dict.fromkeys(methods, protocols))(batch)
    assert keys(scored.rows) == [(m.key, p.key) for m in methods for p in protocols]
    for table in scored.rows:
        assert table.schema == ROWS
        assert table["image_id"].to_pylist() == ["a", "b", "b", "c"]
        assert table["target"].to_pylist() == [3, 0, 2, 1]
        assert table["box_area_fraction"].to_pylist() == [0.125] * 4
        assert table["trace"].null_count == 4
    assert scored.failed == {}


def test_scores_are_those_of_each_method_and_protocol_alone(model, batch):
    methods, protocols = (InputXGradient(), GradCam(), Saliency()), (Sds(patches=4), Gini())
    scored = Evaluator(model, dict.fromkeys(methods, protocols))(batch)
    tables = iter(scored.rows)
    for method in methods:
        for protocol in protocols:
            with Passes(model, batch) as passes:
                passes.expect(method.needs(model))
                alone = protocol(passes, full_size_maps(method, passes))
            together = torch.tensor(next(tables)["score"].to_pylist(), dtype=torch.float64)
            torch.testing.assert_close(
                together, alone.double(), rtol=1e-9, atol=1e-12, equal_nan=True
            )


def test_one_forward_and_one_deletion_of_each_cell_serve_all(model, batch):
    """1 + 16 forwards an image: two methods, two protocols, whose deletions are the same."""
    protocols = (Sds(), Sds(drop_output="probability"))
    methods = (InputXGradient(), GradCam())
    scored = Evaluator(model, dict.fromkeys(methods, protocols))(single(batch))
    assert scored.forwards == IMAGES * (1 + 16)


def test_curves_over_the_same_steps_share_their_forwards(model, batch):
    """Pos and deletion remove the same nine tenths from each image."""
    scored = Evaluator(model, {InputXGradient(): (Pos(), Deletion())})(single(batch))
    assert scored.failed == {}
    assert scored.forwards == IMAGES * (1 + 9)
    for table in scored.rows:
        assert {len(trace) for trace in table["trace"].to_pylist()} == {10}


def single(batch: Batch) -> Batch:
    """The same images, each with its one true class."""
    targets = torch.tensor([3, 0, 1])
    return Batch(
        images=batch.images,
        image_ids=batch.image_ids,
        image_index=torch.arange(IMAGES),
        targets=targets,
        labels=targets,
    )


def test_each_method_has_its_own_protocols(model, batch):
    protocols = {InputXGradient(): (Gini(),), GradCam(): (Gini(), Entropy())}
    scored = Evaluator(model, protocols)(batch)
    assert keys(scored.rows) == [(m.key, p.key) for m, own in protocols.items() for p in own]


@pytest.mark.parametrize("method", [Raising(), Needy()], ids=lambda m: m.name)
def test_a_method_that_raises_loses_its_own_rows_alone(model, batch, method):
    protocols = (Sds(patches=4), Gini())
    sound = Evaluator(model, dict.fromkeys((InputXGradient(), GradCam()), protocols))(batch)
    methods = (InputXGradient(), method, GradCam())
    scored = Evaluator(model, dict.fromkeys(methods, protocols))(batch)
    pd.testing.assert_frame_equal(frame(scored.rows), frame(sound.rows))
    assert scored.maps.keys() == sound.maps.keys()
    ((reason, trace),) = scored.failed.values()
    assert scored.failed.keys() == {method.key}
    assert reason.startswith("RuntimeError: no ")
    assert "Traceback" in trace


def test_a_protocol_that_raises_takes_its_method_along(model, batch):
    """Half of a method's rows would be taken for all of them."""
    protocols = {InputXGradient(): (Gini(), RaisingMetric()), GradCam(): (Gini(),)}
    scored = Evaluator(model, protocols)(batch)
    assert keys(scored.rows) == [(GradCam().key, Gini().key)]
    assert scored.failed[InputXGradient().key][0] == "RuntimeError: no score today"
    assert scored.maps.keys() == {GradCam().key}


def test_a_batch_without_explanations_costs_nothing(model, batch):
    scored = Evaluator(model, {InputXGradient(): (Sds(),)})(without(batch))
    assert (scored.rows, scored.failed, scored.forwards) == ([], {}, 0)


def test_an_evaluation_leaves_the_model_as_it_was(model, batch):
    module = model.module
    hooks = [len(m._forward_hooks) for m in module.modules()]
    state = {name: t.clone() for name, t in module.state_dict().items()}
    module.train()
    Evaluator(model, {Raising(): (Sds(),), GradCam(): (Gini(),)})(batch)
    assert module.training
    module.eval()
    assert [len(m._forward_hooks) for m in module.modules()] == hooks
    for name, t in module.state_dict().items():
        assert torch.equal(t, state[name])
