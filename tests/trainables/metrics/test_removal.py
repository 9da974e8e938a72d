"""Removals: each image is run once, whoever asks; ties by index; black is encoded."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from tests.trainables.metrics.plain_removal import removed
from tests.trainables.networks import CLASSES, pictures, tiny_model
from trainables.baselines import Blur, Random, Zero
from trainables.batch import Batch
from trainables.footprint import bytes_per_image
from trainables.metrics.perturbation import EachAlone, Held, fill_images, said_of
from trainables.metrics.removal import Feature, Order, Removals, places
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.network import Model
from trainables.models.small_resnet import SmallResNet
from trainables.passes import Passes

TENTHS = [Fraction(k, 10) for k in range(10)]


def several() -> Batch:
    """Five explanations of three images, out of order."""
    index, targets = torch.tensor([2, 0, 2, 1, 0]), torch.tensor([1, 0, 3, 2, 2])
    return Batch(images=pictures(3), image_ids=["a", "b", "c"], image_index=index, targets=targets)


def maps_of(n: int, seed: int = 0) -> Tensor:
    """Maps of few values: many ties."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, (n, 12, 12), generator=generator).double()


def test_equal_features_go_by_index_in_both_orders():
    maps = torch.tensor([[[0.0, 1.0], [-0.0, 1.0]]])
    assert places(maps, "ascending").tolist() == [[[0, 2], [1, 3]]]
    assert places(maps, "descending").tolist() == [[[2, 0], [3, 1]]]


@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("fill", ["black", Zero(), Random(), Blur(size_px=5)], ids=str)
def test_logits_are_those_of_images_without_their_first_pixels(order: Order, fill):
    model, batch, maps = tiny_model(), several(), maps_of(5)
    fills = torch.zeros_like(batch.images) if fill == "black" else fill.images(batch)
    with Passes(model, batch) as passes:
        request = Removals(maps=Held(maps), order=order, fill=fill)
        logits = passes.get(request).logits([*TENTHS, Fraction(1)])
    for n, image in enumerate(batch.image_index.tolist()):
        for k in range(11):
            plain = removed(batch.images[image], maps[n], fills[image], 144 * k // 10, order)
            torch.testing.assert_close(logits[n, k], model.module(plain[None])[0])


def test_counts_are_exact_floors():
    """0.7 * 90 px is 62.99999999999999 in floating point."""
    images = torch.rand(1, 3, 9, 10, dtype=torch.float64)
    seen: list[Tensor] = []
    model = Model(Watched(seen), {"input": ""}, lambda pixels: pixels.double() / 255)
    with Passes(model, Batch.single(images, torch.tensor([0]))) as passes:
        maps = torch.arange(90.0).view(1, 9, 10)
        passes.get(Removals(maps=Held(maps), order="ascending", fill="black")).logits(TENTHS)
    black = (torch.cat(seen) == 0).all(1).flatten(1).sum(1)
    assert sorted(black.tolist()) == [9 * k for k in range(10)]


class Watched(nn.Module):
    """Keeps what it is given."""

    def __init__(self, seen: list[Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return x.mean((2, 3))


def test_what_was_asked_for_is_not_run_again():
    model, batch, maps = tiny_model(), several(), maps_of(5)
    with Passes(model, batch) as passes:
        first = passes.get(Removals(maps=Held(maps), order="ascending", fill="black"))
        first.logits(TENTHS)
        assert passes.counts.forwards == 3 + 9 * 5
        again = passes.get(Removals(maps=Held(maps.detach()), order="ascending", fill="black"))
        assert again is first
        again.logits([Fraction(k, 20) for k in range(20)])  # every other one is known
        assert passes.counts.forwards == 3 + 9 * 5 + 10 * 5
        again.logits(TENTHS)
        assert passes.counts.forwards == 3 + 19 * 5


def test_other_maps_share_nothing_also_where_memory_is_the_same():
    maps = maps_of(2)
    held = Held(maps)
    assert held == Held(maps)
    assert held == Held(maps.detach())
    assert hash(held) == hash(Held(maps.detach()))
    assert held != Held(maps.clone())
    assert held != Held(maps.flip(2))
    assert held != Held(maps.view(2, 6, 24))
    assert held != Held(maps.transpose(1, 2))
    assert held != maps
    maps += 1
    assert held != Held(maps)


@pytest.mark.parametrize("images_at_once", [1, 2, 7])
def test_slabs_of_any_size_give_the_same_logits(images_at_once: int):
    model, batch, maps = tiny_model(), several(), maps_of(5)
    request = Removals(maps=Held(maps), order="descending", fill="black")
    with Passes(model, batch) as passes:
        whole = passes.get(request).logits(TENTHS)
    cost = bytes_per_image(model.module, batch.images) or 1
    largest: list[int] = []
    handle = model.module.register_forward_pre_hook(lambda _m, x: largest.append(len(x[0])))
    with Passes(model, batch, budget_bytes=cost * images_at_once) as passes:
        passes.logits  # noqa: B018
        largest.clear()
        slabs = passes.get(request).logits(TENTHS)
    handle.remove()
    assert max(largest) == images_at_once
    torch.testing.assert_close(slabs, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("feature", ["pixel", "value"])
def test_values_go_one_by_one_in_the_order_of_their_pixels(feature: Feature):
    images = 1 + torch.rand(1, 3, 2, 2, dtype=torch.float64)
    seen: list[Tensor] = []
    model = Model(Watched(seen), {"input": ""}, lambda pixels: pixels.double() / 255)
    maps = torch.tensor([[[2.0, 1.0], [3.0, 0.0]]])
    with Passes(model, Batch.single(images, torch.tensor([0]))) as passes:
        request = Removals(maps=Held(maps), order="ascending", fill="black", feature=feature)
        passes.get(request).logits([Fraction(1, 4), Fraction(5, 12)])
    perturbed = torch.cat(seen)[1:]
    quarter, more = (
        {tuple(place) for place in (image == 0).nonzero().tolist()}
        for image in (perturbed[0], perturbed[-1])
    )
    assert quarter == {(c, 1, 1) for c in range(3)}
    values = {(0, 0, 1), (1, 0, 1)} if feature == "value" else set()
    assert more == quarter | values


def test_black_is_what_the_network_makes_of_black_pixels():
    for network in (SmallResNet(), SmallBcosResNet()):
        encode = network.encode
        model = Model(nn.Identity(), {"input": ""}, encode)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (2, 3, 4, 5), generator=generator, dtype=torch.uint8)
        gone = torch.rand(2, 1, 4, 5, generator=generator) < 0.5
        batch = Batch.single(encode(pixels), torch.zeros(2, dtype=torch.long))
        black = fill_images(Passes(model, batch), "black")
        encoded = encode(torch.where(gone, torch.zeros_like(pixels), pixels))
        torch.testing.assert_close(torch.where(gone, black, batch.images), encoded)


def test_an_explanation_has_an_image_of_its_own_and_costs_nothing():
    batch = several()
    with Passes(tiny_model(), batch) as passes:
        alone = passes.get(EachAlone()).batch
        assert passes.counts.forwards == 0
    assert torch.equal(alone.images, batch.images[batch.image_index])
    assert list(alone.image_ids) == ["c", "a", "c", "b", "a"]
    assert torch.equal(alone.targets, batch.targets)


def test_what_logits_say_of_a_class():
    passes = Passes(tiny_model(), several())
    logits = torch.randn(3, 2, CLASSES, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([1, 0, 3])
    for n, c in enumerate(classes.tolist()):
        for k in range(2):
            assert said_of(passes, logits, classes)[n, k] == logits[n, k].softmax(0)[c]
            hit = float(logits[n, k].argmax() == c)
            assert said_of(passes, logits, classes, "hit")[n, k] == hit
    assert said_of(passes, logits[:, 0], classes).shape == (3,)
