"""ADP and PIC against the authors' arrays, a plain loop and known values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.trainables.attribution.idsds_golden import arrays
from tests.trainables.metrics.ltx_golden import classes_of, model_of, normalized
from tests.trainables.metrics.plain_removal import probability
from tests.trainables.networks import pictures, tiny_model
from trainables.batch import Batch
from trainables.metrics.confidence import Adp, Pic, to_full_range
from trainables.metrics.reference_class import ReferenceClass
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.network import evaluating
from trainables.passes import Passes


def labeled(images: Tensor, index: list[int], targets: list[int], labels: list[int]) -> Batch:
    return Batch(
        images=images,
        image_ids=[str(i) for i in range(len(images))],
        image_index=torch.tensor(index),
        targets=torch.tensor(targets),
        labels=torch.tensor(labels),
    )


@pytest.mark.parametrize("norm", ["imagenet", "half"])
@pytest.mark.parametrize(
    ("which", "reference"),
    [("target", "ground_truth"), ("predicted", "ground_truth"), ("predicted", "predicted")],
)
def test_scores_are_the_authors(norm: str, which: str, reference: ReferenceClass):
    golden, model = arrays("explainer_and_vit/metrics_cnn"), model_of(norm)
    classes = classes_of(norm, which)
    batch = labeled(normalized(norm), list(range(12)), [0] * 12, classes.tolist())
    with Passes(model, batch) as passes:
        torch.testing.assert_close(passes.logits, golden[f"logits_{norm}"], atol=1e-4, rtol=1e-4)
        for cls in (Adp, Pic):
            metric = cls(normalization="none", reference_class=reference)
            mean = metric(passes, golden["maps"][:, 0]).mean()
            theirs = golden[f"{metric.name.upper()}_{norm}_{which}"]
            assert 100 * float(mean) == pytest.approx(float(theirs), abs=1e-3)
        assert passes.counts.forwards == 12 + 12  # both from the same forwards


@pytest.mark.parametrize("reference", ["ground_truth", "predicted"])
def test_several_explanations_of_an_image_equal_a_plain_loop(reference: ReferenceClass):
    model, images = tiny_model(), pictures(2)
    index, labels = [1, 0, 1], [3, 1]
    batch = labeled(images, index, [2, 0, 3], labels)
    maps = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0)).double()
    with Passes(model, batch) as passes:
        adp = Adp(reference_class=reference)(passes, maps)
        pic = Pic(reference_class=reference)(passes, maps)
        assert passes.counts.forwards == 2 + 3
    for n, image in enumerate(index):
        low, high = maps[n].min(), maps[n].max()
        seen = images[image] * (maps[n] - low) / (high - low)
        top = int(model.module(images[image][None]).argmax())
        class_ = top if reference == "predicted" else labels[image]
        whole, through = (probability(model, x, class_) for x in (images[image], seen))
        assert float(adp[n]) == pytest.approx(max(0.0, whole - through) / whole, abs=1e-12)
        assert float(pic[n]) == float(whole < through)


def test_a_map_of_ones_drops_nothing_and_raises_nothing():
    model, batch = tiny_model(), labeled(pictures(3), [0, 1, 2], [0, 1, 2], [0, 1, 2])
    ones = torch.ones(3, 12, 12, dtype=torch.float64)
    with Passes(model, batch) as passes:
        assert Adp(normalization="none")(passes, ones).tolist() == [0, 0, 0]
        assert Pic(normalization="none")(passes, ones).tolist() == [0, 0, 0]


def test_a_constant_map_has_no_scale_and_costs_no_forward():
    model, batch = tiny_model(), labeled(pictures(2), [0, 1], [0, 1], [0, 1])
    maps = torch.ones(2, 12, 12, dtype=torch.float64)
    maps[1, 3, 4] = 2
    with Passes(model, batch) as passes:
        for metric in (Adp(), Pic()):
            scores = metric(passes, maps)
            assert math.isnan(scores[0])
            assert math.isfinite(scores[1])
            assert metric.defined_fraction(scores.numpy()) == 0.5
        assert passes.counts.forwards == 2 + 1


def test_the_product_is_one_of_pixels_whatever_the_encoding():
    """Also behind the six channels of a B-cos network: white seen through 0.4 is a gray of 102."""
    network = SmallBcosResNet()
    pixels = torch.randint(256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    pixels = 5 * (pixels // 5)
    torch.manual_seed(0)
    model = network.build(4)
    batch = labeled(network.encode(pixels.byte()), [0, 1], [0, 1], [0, 1])
    maps = torch.full((2, 16, 16), 0.4)
    maps[:, :8] = 0.8
    with evaluating(model.module), Passes(model, batch) as passes:
        adp = Adp(normalization="none")(passes, maps)
        seen = model.encode((pixels * maps[:, None]).round().byte())
        with torch.no_grad():
            whole, through = (model.module(x).softmax(1)[[0, 1], [0, 1]]
                              for x in (batch.images, seen))  # fmt: skip
    torch.testing.assert_close(adp, ((whole - through) / whole).clamp(min=0), atol=1e-5, rtol=0)


def test_undefined_where_the_clean_probability_is_zero():
    model = tiny_model()
    model.module.fc.weight.data.zero_()
    model.module.fc.bias.data = torch.tensor([0.0, -1e6, 0.0, 0.0], dtype=torch.float64)
    batch = labeled(pictures(1), [0], [0], [1])
    with Passes(model, batch) as passes:
        assert math.isnan(Adp()(passes, torch.rand(1, 12, 12)))
        assert Pic()(passes, torch.rand(1, 12, 12)) == 0


def test_full_range_is_signed():
    maps = torch.tensor([[[-2.0, 0.0], [1.0, 2.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    assert to_full_range(maps)[0].tolist() == [[0, 0.5], [0.75, 1]]
    assert to_full_range(maps)[1].isnan().all()


def test_what_is_missing_is_said():
    batch = Batch.single(pictures(1), torch.tensor([0]))
    with Passes(tiny_model(), batch) as passes:
        with pytest.raises(ValueError, match="no labels; say 'predicted'"):
            Adp()(passes, torch.rand(1, 12, 12))
        with pytest.raises(ValueError, match=r"maps within \[-1, 3\].*min_max"):
            Adp(normalization="none", reference_class="predicted")(
                passes, torch.tensor([-1.0, 3.0]).repeat(1, 12, 6)
            )
