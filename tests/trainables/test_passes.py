"""Shared passes: right numbers, each pass once, and nothing left behind."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.trainables.networks import CLASSES, PATHS, gradient_of, hooks_of, pictures, tiny_model
from trainables import guided_training
from trainables.arrangement import Arrangement
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.batch import Batch
from trainables.footprint import bytes_per_image
from trainables.guided_training import guided_step
from trainables.losses.localization import Energy
from trainables.models.network import DEPTHS, Model, evaluating
from trainables.passes import Feature, Gradient, Passes, Slab, upsample

ALL = [Gradient(layer=depth) for depth in DEPTHS]
INDEX, TARGETS = [2, 0, 2, 2, 4, 0], [1, 0, 3, 0, 2, 3]
"""Six explanations of five images; images 1 and 3 have none."""


def batch_of(index: list[int], targets: list[int], images: Tensor | None = None) -> Batch:
    images = pictures(max(index, default=0) + 1) if images is None else images
    return Batch(
        images=images,
        image_ids=[f"image {i}" for i in range(len(images))],
        image_index=torch.tensor(index, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
    )


@pytest.fixture(params=["rounds", "repeated"])
def arranged(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whatever is cheaper, one arrangement is taken."""
    ways = {
        "rounds": lambda index, images, layers: Arrangement.in_rounds(index),
        "repeated": lambda index, images, layers: Arrangement.repeated(index, images),
    }
    monkeypatch.setattr(Arrangement, "cheapest", ways[request.param])
    return request.param


@pytest.mark.usefixtures("arranged")
@pytest.mark.parametrize("layer", DEPTHS)
def test_each_explanation_equals_that_of_its_image_alone(layer):
    model, batch = tiny_model(), batch_of(INDEX, TARGETS)
    with Passes(model, batch) as passes:
        gradients = passes.get(Gradient(layer=layer))
        features = passes.feature(layer)
        logits = passes.logits
    assert len(gradients) == len(features) == len(INDEX)
    for n, (image, target) in enumerate(zip(INDEX, TARGETS, strict=True)):
        alone = gradient_of(model, batch.images[[image]], torch.tensor([target]), layer)
        torch.testing.assert_close(gradients[[n]], alone, rtol=1e-10, atol=1e-14)
        single = Batch.single(batch.images[[image]], torch.tensor([target]))
        with Passes(model, single) as one:
            torch.testing.assert_close(features[[n]], one.feature(layer), rtol=1e-10, atol=1e-14)
            torch.testing.assert_close(logits[[image]], one.logits, rtol=1e-10, atol=1e-14)


def test_repeated_images_give_the_numbers_of_rounds(monkeypatch):
    model, batch, found = tiny_model(), batch_of(INDEX, TARGETS), []
    for way in (
        lambda i, b, _: Arrangement.in_rounds(i),
        lambda i, b, _: Arrangement.repeated(i, b),
    ):
        monkeypatch.setattr(Arrangement, "cheapest", way)
        with Passes(model, batch) as passes:
            passes.expect(ALL)
            found.append((passes.logits, *(passes.get(need) for need in ALL)))
    for in_rounds, repeated in zip(*found, strict=True):
        torch.testing.assert_close(repeated, in_rounds, rtol=1e-10, atol=1e-14)


@pytest.mark.usefixtures("arranged")
def test_images_without_an_explanation_keep_their_logits():
    model, images = tiny_model(), pictures(5)
    with Passes(model, batch_of(INDEX, TARGETS, images)) as passes:
        passes.get(Gradient(layer="mid2"))
        torch.testing.assert_close(passes.logits, model.module(images).detach())


def test_a_batch_without_explanations_has_logits_and_empty_gradients():
    model, images = tiny_model(), pictures(3)
    with Passes(model, batch_of([], [], images)) as passes:
        assert InputXGradient(layer="final")(passes).shape == (0, 3, 3)
        assert torch.equal(passes.logits, model.module(images).detach())
        assert passes.counts.backwards.total() == 0
    with Passes(model, batch_of([], [], images)) as passes:
        assert passes.logits.grad_fn is None
        assert passes.counts.forwards == 3


def test_three_targets_at_the_final_layer_cost_one_forward():
    model = tiny_model()
    with evaluating(model.module), Passes(model, batch_of([0, 0, 0], [3, 0, 2])) as passes:
        maps = InputXGradient(layer="final")(passes)
        assert passes.logits.shape == (1, CLASSES)
    assert passes.counts.forwards == 1
    assert passes.counts.backwards == {"final": 3}
    assert len(maps) == 3


def test_images_are_repeated_where_that_costs_less():
    model, index = tiny_model(), [0, 0, 0, 0, 1, 2, 3]
    for layer, forwards, backwards in (("input", 7, 7), ("final", 4, 16)):
        with (
            evaluating(model.module),
            Passes(model, batch_of(index, [0, 1, 2, 3, 0, 0, 0])) as passes,
        ):
            passes.get(Gradient(layer=layer))
        assert passes.counts.forwards == forwards
        assert passes.counts.backwards[layer] == backwards


def test_layers_that_are_expected_together_share_forward_and_backwards():
    model, batch = tiny_model(), batch_of([0, 1, 1], [0, 1, 2])
    with evaluating(model.module):
        with Passes(model, batch) as together:
            together.expect(ALL)
            shared = [together.get(need) for need in ALL]
            _ = together.logits, together.feature("mid1")
        assert together.counts.forwards == 2
        assert together.counts.backwards == dict.fromkeys(DEPTHS, 4)  # 2 images, 2 rounds
        for need, gradient in zip(ALL, shared, strict=True):
            with Passes(model, batch) as alone:
                assert torch.equal(alone.get(need), gradient)
            reached = DEPTHS[DEPTHS.index(need.layer) :]
            assert alone.counts.backwards == dict.fromkeys(reached, 4)  # none below the layer


def test_any_module_is_a_layer():
    model, batch = tiny_model(), batch_of([0, 1], [1, 2])
    with Passes(model, batch) as passes:
        passes.expect([Gradient(layer="layer2.0"), Gradient(layer="final")])
        gradient = passes.get(Gradient(layer="layer2.0"))
        assert passes.counts.forwards == 2
    alone = gradient_of(model, batch.images, batch.targets, "layer2.0")
    torch.testing.assert_close(gradient, alone)


def test_a_wider_need_after_the_forward_is_an_error():
    with Passes(tiny_model(), batch_of([0], [1])) as passes:
        passes.expect([Gradient(layer="final")])
        _ = passes.logits
        passes.expect([Gradient(layer="final")])
        with pytest.raises(RuntimeError, match=r"'mid1' was not expected .*expected: final"):
            passes.expect([Gradient(layer="mid1")])
        with pytest.raises(RuntimeError, match="'input' was not expected"):
            GradCam(layer="input")(passes)
        assert passes.counts.forwards == 1


def test_an_unknown_layer_is_refused_and_the_known_are_listed():
    with (
        Passes(tiny_model(), batch_of([0], [1])) as passes,
        pytest.raises(
            ValueError, match="unknown layer 'conv9'; known depths: input, mid1, mid2, mid3, final"
        ),
    ):
        passes.get(Gradient(layer="conv9"))


def test_passes_answer_only_inside_their_context():
    passes = Passes(tiny_model(), batch_of([0], [1]))
    with pytest.raises(RuntimeError, match="with"):
        passes.get(Gradient(layer="final"))
    with passes:
        passes.get(Gradient(layer="final"))
    with pytest.raises(RuntimeError, match="with"):
        _ = passes.logits


@dataclass(frozen=True, kw_only=True)
class Doubled:
    """Twice the gradient; remembers how often it was computed."""

    layer: str
    computed: ClassVar[list[str]] = []

    def compute(self, passes: Passes) -> Tensor:
        self.computed.append(self.layer)
        return 2 * passes.get(Gradient(layer=self.layer))


def test_a_request_is_computed_once():
    Doubled.computed.clear()
    with Passes(tiny_model(), batch_of([0, 1], [1, 2])) as passes:
        passes.expect(ALL)
        first = passes.get(Doubled(layer="mid1"))
        assert passes.get(Doubled(layer="mid1")) is first
        passes.get(Doubled(layer="final"))
        InputXGradient(layer="mid1")(passes)
        GradCam(layer="mid1")(passes)
    assert Doubled.computed == ["mid1", "final"]
    assert passes.counts.forwards == 2


class TestNothingIsLeft:
    """Hooks, kept tensors and requires_grad are gone at the end, whatever happened."""

    def test_after_the_end(self):
        model, batch = tiny_model(), batch_of([0, 0], [1, 2])
        with Passes(model, batch) as passes:
            passes.expect([Gradient(layer="input"), Gradient(layer="layer3.0")])
            passes.get(Gradient(layer="input"))
            assert hooks_of(model.module) > 0
        assert hooks_of(model.module) == 0
        assert not batch.images.requires_grad
        assert all(p.grad is None for p in model.module.parameters())

    def test_after_a_forward_that_raises(self):
        model = tiny_model()
        model.module.layer3.register_forward_pre_hook(_raise)
        before = hooks_of(model.module)
        with Passes(model, batch_of([0], [1])) as passes:
            passes.expect([Gradient(layer="layer2.0"), Gradient(layer="final")])
            with pytest.raises(OSError, match="on purpose"):
                passes.get(Gradient(layer="final"))
        assert hooks_of(model.module) == before

    def test_after_an_attribution_that_raises(self, monkeypatch):
        model = tiny_model()
        monkeypatch.setattr(InputXGradient, "attribute", _raise)
        with pytest.raises(OSError, match="on purpose"):
            explain_twice(model)
        assert hooks_of(model.module) == 0

    def test_after_children_and_other_models(self):
        model, other = tiny_model(), tiny_model(seed=1)
        first = torch.tensor([0])
        with Passes(model, batch_of([0], [1])) as passes:
            with passes.on(pictures(1), image_index=first, of=first, model=other) as child:
                assert child.logits.shape == (1, CLASSES)
            assert hooks_of(model.module) > 0  # a child's end is not the root's
        assert hooks_of(model.module) == hooks_of(other.module) == 0


def explain_twice(model: Model) -> None:
    with Passes(model, batch_of([0], [1])) as passes:
        GradCam()(passes)
        InputXGradient(layer="final")(passes)


def _raise(*_: object) -> Tensor:
    raise OSError("on purpose")


class InPlace(nn.Module):
    """Changes the output of its middle layer after it was handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(3, 4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu_(self.layer1(x)).mean((2, 3))


@pytest.mark.parametrize("create_graph", [False, True])
def test_an_in_place_operation_behind_a_kept_feature_is_refused(create_graph):
    model = Model(InPlace(), {"input": "", "mid1": "layer1"}, lambda images: images)
    with (
        Passes(model, batch_of([0], [1]), create_graph=create_graph) as passes,
        pytest.raises(RuntimeError, match="in-place operation changed the kept feature 'mid1'"),
    ):
        passes.get(Gradient(layer="mid1"))


def test_an_in_place_operation_on_a_frozen_network_is_refused():
    model = Model(InPlace(), {"input": "", "mid1": "layer1"}, lambda images: images)
    with (
        evaluating(model.module),
        Passes(model, batch_of([0], [1])) as passes,
        pytest.raises(RuntimeError, match="in-place"),
    ):
        passes.get(Gradient(layer="mid1"))


class TestChildren:
    """Passes about other images or another model."""

    def test_targets_masks_and_image_ids_follow_from_the_parent(self):
        masks = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0)) > 0.5
        batch = Batch(
            images=pictures(2),
            image_ids=["a", "b"],
            image_index=torch.tensor([1, 0, 1]),
            targets=torch.tensor([3, 1, 2]),
            masks=masks,
        )
        with Passes(tiny_model(), batch) as passes:
            of, index = torch.tensor([2, 1, 0, 2]), torch.tensor([0, 1, 2, 3])
            with passes.on(pictures(4), image_index=index, of=of) as child:
                assert child.batch.targets.tolist() == [2, 1, 3, 2]
                assert list(child.batch.image_ids) == ["b", "a", "b", "b"]
                assert child.batch.masks is not None
                assert torch.equal(child.batch.masks, masks[of])

    def test_what_a_child_runs_counts_into_the_root(self):
        model, other = tiny_model(), tiny_model(seed=1)
        of = torch.tensor([0, 0, 0])
        with Passes(model, batch_of([0], [1])) as passes:
            GradCam()(passes)
            with passes.on(pictures(3), image_index=torch.arange(3), of=of) as child:
                child.get(Gradient(layer="final"))
                with child.on(
                    pictures(2), image_index=torch.arange(2), of=of[:2], model=other
                ) as grandchild:
                    grandchild.get(Gradient(layer="final"))
            assert passes.counts.forwards == 1 + 3 + 2
            assert passes.counts.backwards["final"] == 1 + 3 + 2
        assert grandchild.counts is passes.counts

    def test_a_child_asks_about_its_own_images_and_model(self):
        other, images = tiny_model(seed=1), pictures(2, seed=5)
        of = torch.tensor([0, 0])
        with Passes(tiny_model(), batch_of([0], [1])) as passes:
            passes.get(Gradient(layer="mid2"))
            with passes.on(images, image_index=torch.arange(2), of=of, model=other) as child:
                gradient = child.get(Gradient(layer="mid2"))
        alone = gradient_of(other, images, torch.tensor([1, 1]), "mid2")
        torch.testing.assert_close(gradient, alone)

    def test_models_that_come_and_go_are_all_watched(self):
        images, first = pictures(1), torch.tensor([0])
        with Passes(tiny_model(), batch_of([0], [1])) as passes:
            for seed in range(12):  # a new module may take the place of one that is gone
                other = tiny_model(seed=seed)
                with passes.on(images, image_index=first, of=first, model=other) as child:
                    found = child.get(Gradient(layer="mid2"))
                alone = gradient_of(other, images, torch.tensor([1]), "mid2")
                torch.testing.assert_close(found, alone)
                assert passes.counts.forwards == 2 * (seed + 1)
                del other, child

    def test_passes_of_others_are_counted_and_change_no_answer(self):
        model, images = tiny_model(), pictures(3)
        with Passes(model, batch_of([0], [1])) as passes:
            passes.expect([Gradient(layer="mid2")])
            before = passes.feature("mid2")
            gradient_of(model, images, torch.tensor([0, 1, 2]), "input")  # as captum would
            assert passes.counts.forwards == 1 + 3
            assert passes.counts.backwards == dict.fromkeys(DEPTHS, 3)
            assert torch.equal(passes.feature("mid2"), before)
            passes.get(Gradient(layer="mid2"))
        assert passes.counts.backwards["mid2"] == 3 + 1
        assert passes.counts.backwards["mid1"] == 3


def known_cost(model: Model, images: Tensor) -> int:
    """Bytes of an image, measured."""
    one = Batch.single(images[:1], torch.tensor([0]))
    with evaluating(model.module), Passes(model, one) as passes:
        passes.get(Gradient(layer="input"))
    cost = bytes_per_image(model.module, images)
    assert cost is not None
    return cost


def pairs(first: Tensor, second: Tensor) -> list[tuple[int, int]]:
    return list(zip(first.tolist(), second.tolist(), strict=True))


class TestSlabs:
    """Perturbed copies come in pieces that fit the byte budget."""

    def slabs(self, model: Model, batch: Batch, samples: int, budget_bytes: int) -> list[Slab]:
        with Passes(model, batch, budget_bytes=budget_bytes) as passes:
            return list(passes.slabs(samples))

    @pytest.mark.parametrize("room", [1, 2, 4, 100])
    def test_every_copy_comes_once_with_all_explanations_of_its_image(self, room):
        model, batch = tiny_model(), batch_of(INDEX, TARGETS)
        cost = known_cost(model, batch.images)
        slabs = self.slabs(model, batch, 7, room * cost)
        copies = [pair for slab in slabs for pair in pairs(slab.sample, slab.image)]
        assert sorted(copies) == [(s, i) for s in range(7) for i in (0, 2, 4)]
        seen = [pair for slab in slabs for pair in pairs(slab.sample[slab.index], slab.of)]
        assert sorted(seen) == [(s, n) for s in range(7) for n in range(len(INDEX))]
        for slab in slabs:
            assert torch.equal(slab.image[slab.index], batch.image_index[slab.of])

    @pytest.mark.parametrize("targets", [1, 4])
    def test_a_slab_fits_the_budget_whether_images_go_in_rounds_or_are_repeated(self, targets):
        index = [0] * targets + [1, 2, 3]  # four targets of one image, one of each other
        model, batch = tiny_model(), batch_of(index, [k % CLASSES for k in range(len(index))])
        cost, forwards = known_cost(model, batch.images), []
        for room in (1, 3, 5, 8):
            with (
                evaluating(model.module),
                Passes(model, batch, budget_bytes=room * cost + cost // 2) as passes,
            ):
                for slab in passes.slabs(5):
                    before = passes.counts.forwards
                    images = batch.images[slab.image]
                    child = passes.on(images, image_index=slab.index, of=slab.of)
                    child.get(Gradient(layer="input"))
                    assert 1 <= passes.counts.forwards - before <= room
                forwards.append(passes.counts.forwards)
        if targets == 1:
            assert forwards == [20] * 4
        else:
            assert max(forwards) > 20  # some were repeated

    def test_the_first_is_small_while_it_is_unknown_what_an_image_costs(self):
        model, batch = tiny_model(), batch_of([0, 1, 2], [0, 1, 2])
        assert bytes_per_image(model.module, batch.images) is None
        sizes = []
        with evaluating(model.module), Passes(model, batch, budget_bytes=2**20) as passes:
            for slab in passes.slabs(4):
                images = batch.images[slab.image]
                _ = passes.on(images, image_index=slab.index, of=slab.of).logits
                sizes.append(len(slab.image))
            assert sizes == [1, 11]
            assert [len(slab.image) for slab in passes.slabs(4)] == [12]

    def test_a_forward_of_the_batch_itself_tells_the_cost_too(self):
        model, batch = tiny_model(), batch_of([0, 1, 2], [0, 1, 2])
        with Passes(model, batch, budget_bytes=2**20) as passes:
            _ = passes.logits
            assert [len(slab.image) for slab in passes.slabs(4)] == [12]

    def test_a_training_step_is_not_slowed_by_measuring(self):
        model, batch = tiny_model(training=True), batch_of([0, 1], [0, 1])
        with Passes(model, batch, create_graph=True) as passes:
            _ = passes.logits
        assert bytes_per_image(model.module, batch.images) is None

    def test_there_are_none_without_explanations_or_samples(self):
        model = tiny_model()
        assert self.slabs(model, batch_of([], [], pictures(3)), 5, 2**20) == []
        assert self.slabs(model, batch_of([0], [1]), 0, 2**20) == []

    def test_sums_over_slabs_do_not_depend_on_the_budget(self):
        model, batch = tiny_model(), batch_of(INDEX, TARGETS)
        cost, found = known_cost(model, batch.images), []
        for room in (1, 4, 100):
            with evaluating(model.module), Passes(model, batch, budget_bytes=room * cost) as passes:
                total = torch.zeros(len(INDEX), *batch.images.shape[1:], dtype=torch.float64)
                for slab in passes.slabs(5):
                    images = batch.images[slab.image] * (1 + slab.sample.view(-1, 1, 1, 1))
                    child = passes.on(images, image_index=slab.index, of=slab.of)
                    total.index_add_(0, slab.of, child.get(Gradient(layer="input")))
            found.append(total)
        torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(found[2], found[0], rtol=1e-10, atol=1e-13)
        for n, (image, target) in enumerate(zip(INDEX, TARGETS, strict=True)):
            copies = torch.stack([batch.images[image] * (1 + s) for s in range(5)])
            alone = gradient_of(model, copies, torch.full((5,), target), "input").sum(0)
            torch.testing.assert_close(found[0][n], alone, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("need", [Gradient(layer="input"), Feature(layer="final"), None])
    def test_what_a_slab_held_is_gone_when_the_next_one_runs(self, need):
        model, batch = tiny_model(), batch_of(INDEX, TARGETS)
        cost = known_cost(model, batch.images)
        held: list[weakref.ref[object]] = []
        handle = model.module.layer2.register_forward_hook(
            lambda _module, _inputs, out: held.append(weakref.ref(out))
        )
        gc.disable()  # nothing may wait for the collector of cycles
        try:
            with evaluating(model.module), Passes(model, batch, budget_bytes=4 * cost) as passes:
                for slab in passes.slabs(6):
                    assert all(ref() is None for ref in held)
                    images = batch.images[slab.image]
                    child = passes.on(images, image_index=slab.index, of=slab.of)
                    held.append(weakref.ref(child))
                    _ = child.get(need) if need else child.logits
                    if isinstance(need, Gradient):  # the graph ends with the answer
                        assert all(ref() is None for ref in held[:-2] + held[-1:])
                    del child
        finally:
            gc.enable()
            handle.remove()
        assert len(held) >= 8


class TestTraining:
    """The graph is kept, and the batch is one."""

    @pytest.mark.parametrize(("create_graph", "training"), [(True, False), (False, True)])
    def test_two_explanations_of_one_image_are_refused(self, create_graph, training):
        model = tiny_model(training=training)
        with pytest.raises(ValueError, match="at most one explanation"):
            Passes(model, batch_of([0, 1, 0], [0, 1, 2]), create_graph=create_graph)

    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize("layer", DEPTHS)
    def test_weight_gradients_equal_a_plain_double_backward(self, layer, training):
        index, targets = [0, 2, 3], [1, 0, 3]  # image 1 has no label
        images = pictures(4)
        model, plain = tiny_model(training=training), tiny_model(training=training)
        with Passes(model, batch_of(index, targets, images), create_graph=True) as passes:
            maps = InputXGradient(layer=layer)(passes)
            (maps.square().sum() + passes.logits.sigmoid().sum()).backward()

        x, features = images.clone().requires_grad_(), dict[str, Tensor]()
        features["input"] = x
        for depth, path in PATHS.items():
            if path:
                plain.module.get_submodule(path).register_forward_hook(
                    lambda _m, _i, out, depth=depth: features.update({depth: out})
                )
        logits = plain.module(x)
        summed = logits[torch.tensor(index), torch.tensor(targets)].sum()
        (g,) = torch.autograd.grad(summed, features[layer], create_graph=True)
        plain_maps = (g * features[layer]).sum(1)[index]
        (plain_maps.square().sum() + logits.sigmoid().sum()).backward()

        torch.testing.assert_close(maps, plain_maps, rtol=1e-12, atol=0)
        for ours, theirs in zip(model.module.parameters(), plain.module.parameters(), strict=True):
            assert ours.grad is not None
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-13)

    def test_batch_statistics_couple_the_maps_and_are_updated_once(self):
        images = pictures(3)
        model = tiny_model(training=True)
        norm = model.module.layer1[1]
        before = norm.num_batches_tracked.item()
        with Passes(model, batch_of([0, 1, 2], [0, 1, 2], images), create_graph=True) as passes:
            together = InputXGradient()(passes).detach()
            _ = passes.logits
        assert norm.num_batches_tracked.item() == before + 1
        with Passes(model, batch_of([0], [0], images), create_graph=True) as passes:
            left_out = InputXGradient()(passes).detach()
        assert not torch.allclose(together[0], left_out[0], rtol=0.05)

    def test_a_method_that_is_not_differentiable_is_refused(self, monkeypatch):
        monkeypatch.setattr(GradCam, "differentiable", False)
        with (
            Passes(tiny_model(), batch_of([0], [1]), create_graph=True) as passes,
            pytest.raises(ValueError, match="grad_cam cannot be trained through"),
        ):
            GradCam()(passes)

    @pytest.mark.parametrize("layer", DEPTHS)
    def test_a_guided_step_is_one_forward_and_two_backwards(self, layer, monkeypatch):
        opened: list[Passes] = []

        class Watched(Passes):
            def __enter__(self):
                opened.append(self)
                return super().__enter__()

        monkeypatch.setattr(guided_training, "Passes", Watched)
        masks = torch.zeros(3, 12, 12, dtype=torch.bool)
        masks[:, 3:8, 2:9] = True
        batch = Batch.single(pictures(3), torch.tensor([0, 1, 2]), masks)
        everything = torch.ones(3, dtype=torch.bool)
        labels = functional.one_hot(batch.targets, CLASSES).double()
        attribution = InputXGradient(layer=layer)
        guided_step(
            tiny_model(training=True), batch, labels, everything, attribution, Energy(), 0.1
        )
        (passes,) = opened
        assert passes.counts.forwards == 3
        explained = DEPTHS[DEPTHS.index(layer) :]  # the explanation ends at its layer
        trained = DEPTHS[1:]  # the outer backward ends at the first weights, never at the pixels
        expected = {depth: 3 * (depth in explained) + 3 * (depth in trained) for depth in DEPTHS}
        assert passes.counts.backwards == {depth: n for depth, n in expected.items() if n}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_ids": ["a"]}, "2 images with 1 ids"),
        ({"targets": torch.tensor([0])}, "1 targets with 2 image indices"),
        (
            {"masks": torch.zeros(2, 6, 6, dtype=torch.bool)},
            r"masks \(2, 6, 6\) for 2 explanations",
        ),
    ],
)
def test_a_batch_that_disagrees_with_itself_is_refused(changed, message):
    fields = {
        "images": pictures(2),
        "image_ids": ["a", "b"],
        "image_index": torch.tensor([0, 1]),
        "targets": torch.tensor([0, 1]),
    }
    with pytest.raises(ValueError, match=message):
        Batch(**(fields | changed))


def test_upsampling_keeps_size_type_and_mean():
    maps = pictures(2)[:, 0, :3, :3]
    assert upsample(maps, (3, 3), "bilinear") is maps
    nearest = upsample(maps, (12, 9), "nearest")
    assert torch.equal(nearest[:, ::4, ::3], maps)
    bilinear = upsample(maps, (12, 9), "bilinear")
    assert bilinear.dtype == maps.dtype
    expected = functional.interpolate(maps[None], (12, 9), mode="bilinear", align_corners=False)[0]
    assert torch.equal(bilinear, expected)
    assert upsample(maps[:0], (12, 9), "bilinear").shape == (0, 12, 9)
