"""Who pays for explanations: only annotated images, where the others do not change their maps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.trainables.networks import CLASSES, pictures, tiny_bcos_model, tiny_model
from trainables import guided_training
from trainables.attribution.attribution import Attribution
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.coupling import coupled_behind
from trainables.flops import FlopCounter
from trainables.guided_training import guided_step
from trainables.losses.localization import L1, Energy
from trainables.models.bcos_norms import BatchNormUncentered2d
from trainables.models.network import DEPTHS, Model
from trainables.passes import Passes

ANNOTATED = torch.tensor([False, True, False, False, True])
WEIGHT = 0.3


def batch_of(n: int) -> Batch:
    """Images with a box each; the last but one has no explanation."""
    masks = torch.zeros(n, 12, 12, dtype=torch.bool)
    for i in range(n):
        masks[i, i % 5 : i % 5 + 6, 3:9] = True
    index = torch.tensor([i for i in range(n + 1) if i != n - 1])
    ids = [f"image {i}" for i in range(n + 1)]
    return Batch(
        images=pictures(n + 1),
        image_ids=ids,
        image_index=index,
        targets=index % CLASSES,
        masks=masks,
    )


def labels_of(batch: Batch) -> Tensor:
    return functional.one_hot(torch.arange(len(batch.images)) % CLASSES, CLASSES).double()


def gradients_of(model: Model) -> list[Tensor]:
    return [p.grad for p in model.module.parameters() if p.grad is not None]


def everybody_explained(
    model: Model, batch: Batch, annotated: Tensor, attribution: Attribution
) -> tuple[float, float]:
    """The step as the paper's code makes it: all are explained, the unannotated thrown away."""
    loss = L1()
    with Passes(model, batch, create_graph=True) as passes:
        maps = attribution.at_image_size(loss.prepare(attribution(passes)), passes)
        localization = loss(maps, batch.masks)[annotated].sum()
        plain = functional.binary_cross_entropy_with_logits(passes.logits, labels_of(batch))
        (plain + WEIGHT * localization).backward(inputs=list(model.module.parameters()))
    return plain.item(), localization.item()


@pytest.fixture
def opened(monkeypatch):
    """The passes that steps open."""
    seen: list[Passes] = []

    class Watched(Passes):
        def __enter__(self):
            seen.append(self)
            return super().__enter__()

    monkeypatch.setattr(guided_training, "Passes", Watched)
    return seen


@pytest.mark.parametrize("method", [InputXGradient, GradCam])
@pytest.mark.parametrize("layer", DEPTHS)
@pytest.mark.parametrize("norm", [False, True], ids=["alone", "batch statistics"])
def test_the_step_is_that_in_which_everybody_is_explained(norm, layer, method, opened):
    batch, attribution = batch_of(5), method(layer=layer)
    expected = tiny_model(norm=norm, training=True)
    values = everybody_explained(expected, batch, ANNOTATED, attribution)
    model = tiny_model(norm=norm, training=True)
    ours = guided_step(model, batch, labels_of(batch), ANNOTATED, attribution, L1(), WEIGHT)
    torch.testing.assert_close(ours, values, rtol=1e-9, atol=1e-12)
    for one, other in zip(gradients_of(model), gradients_of(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    (passes,) = opened
    assert passes.counts.forwards == 6
    split = not norm and layer != "final"
    assert len(passes.batch.images) == (2 if split else 6)
    assert len(passes.batch.targets) == (5 if norm and layer != "final" else 2)
    if layer == "input":
        assert passes.counts.backwards["input"] == (6 if norm else 2)


def flops(model: Model, batch: Batch, annotated: Tensor, layer: str) -> int:
    def step() -> None:
        method = InputXGradient(layer=layer)
        guided_step(model, batch, labels_of(batch), annotated, method, Energy(), WEIGHT)

    step()  # the first one also finds out what lies behind the layer
    with FlopCounter() as counter:
        step()
    return counter.total


@pytest.mark.parametrize("layer", DEPTHS)
def test_one_annotated_image_of_64_costs_a_few_per_cent_at_most(layer):
    batch = batch_of(63)
    one, nobody = torch.arange(63) == 7, torch.zeros(63, dtype=torch.bool)
    for norm in (False, True):
        model = tiny_model(norm=norm, training=True)
        plain, guided = (flops(model, batch, who, layer) for who in (nobody, one))
        if layer == "final" or not norm:
            assert plain <= guided <= 1.03 * plain
        else:
            everybody = flops(model, batch, torch.ones(63, dtype=torch.bool), layer)
            assert guided == pytest.approx(everybody, rel=1e-3)


class Late(nn.Module):
    """A norm before the layer, one inside it, one behind it."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.last = last  # the order of definition is not that of running
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.middle = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x))).mean((2, 3))


@pytest.mark.parametrize(
    ("last", "coupled"),
    [
        (nn.BatchNorm2d(4), True),
        (nn.SyncBatchNorm(4), True),
        (BatchNormUncentered2d(4), True),
        (nn.BatchNorm2d(4, track_running_stats=False), True),
        (nn.InstanceNorm2d(4, track_running_stats=True), False),
        (nn.GroupNorm(2, 4), False),
        (nn.Identity(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_batch_statistics_count_where_they_run_behind_the_layer(last, coupled):
    module = Late(last).double().train()
    model = Model(module, {"input": "", "final": "middle"}, lambda images: images)
    images = pictures(2)
    if not isinstance(last, nn.SyncBatchNorm):  # which no forward on a processor takes
        before = {k: t.clone() for k, t in module.state_dict().items()}
        assert coupled_behind(model, ["final"], images) is coupled
        assert all(torch.equal(t, before[k]) for k, t in module.state_dict().items())
        assert module.training
        assert coupled_behind(model, ["first"], images)
    assert coupled_behind(model, ["input"], images)
    module.eval()
    always = isinstance(last, nn.BatchNorm2d) and last.running_mean is None
    assert coupled_behind(model, ["input"], images) is always


def test_statistics_before_the_layer_keep_the_batch_together(opened):
    batch, attribution = batch_of(5), InputXGradient(layer="last")
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        module = Late(nn.Conv2d(4, CLASSES, 3, stride=2)).double().train()
        models.append(Model(module, {"input": ""}, lambda images: images))
    values = everybody_explained(models[0], batch, ANNOTATED, attribution)
    step = (batch, labels_of(batch), ANNOTATED, attribution, L1(), WEIGHT)
    torch.testing.assert_close(guided_step(models[1], *step), values, rtol=1e-9, atol=1e-12)
    (passes,) = opened
    assert (len(passes.batch.images), len(passes.batch.targets)) == (6, 2)
    for one, other in zip(*map(gradients_of, models), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_bcos_network_is_coupled_by_its_uncentered_norms():
    model = tiny_bcos_model(training=True)
    assert coupled_behind(model, ["mid3"], pictures(1))
    assert not coupled_behind(model, ["final"], pictures(1))
    assert not coupled_behind(tiny_bcos_model(), ["input"], pictures(1))


def test_a_batch_keeps_what_belongs_to_the_chosen_explanations_and_images():
    batch = batch_of(5)
    segments = batch.masks.to(torch.int8)
    chosen = torch.tensor([False, True, False, True, True])
    some = replace(batch, segments=segments, labels=torch.arange(6)).explaining(chosen)
    assert some.image_index.tolist() == [1, 3, 5]
    assert torch.equal(some.masks, batch.masks[chosen])
    assert torch.equal(some.segments, segments[chosen])
    assert len(some.images) == 6
    alone, order = some.explained_alone()
    assert order.tolist() == [1, 3, 5, 0, 2, 4]
    assert torch.equal(alone.images, batch.images[order[:3]])
    assert list(alone.image_ids) == ["image 1", "image 3", "image 5"]
    assert alone.image_index.tolist() == [0, 1, 2]
    assert alone.targets.tolist() == some.targets.tolist()
    assert alone.labels.tolist() == [1, 3, 5]
