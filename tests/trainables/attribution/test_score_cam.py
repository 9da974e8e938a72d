"""Score-CAM against a plain version, one forward a mask, and its readings against each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.trainables.networks import CLASSES, pictures, tiny_model
from trainables.attribution.score_cam import ScoreCam
from trainables.baselines import Blur, Zero
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.passes import Passes

TARGETS = torch.tensor([2, 0, 3, 1])
CHANNELS = {"mid2": 5, "final": 7}


def maps_of(method: ScoreCam, model: Model, **options: int) -> Tensor:
    batch = Batch.single(pictures(4), TARGETS)
    with evaluating(model.module), Passes(model, batch, **options) as passes:
        return method(passes)


def feature_of(model: Model, image: Tensor, layer: str) -> Tensor:
    kept: list[Tensor] = []
    module = model.module.get_submodule(model.path_of(layer))
    handle = module.register_forward_hook(lambda _module, _inputs, out: kept.append(out))
    model.module(image[None])
    handle.remove()
    return kept[0][0]


@torch.no_grad()
def plain(
    model: Model,
    image: Tensor,
    target: int,
    layer: str,
    *,
    score: str = "logit",
    softmax: bool = True,
    increase: bool = True,
    tried: list[int] | None = None,
) -> Tensor:
    """The published algorithm, one channel and one forward at a time: (h, w)."""

    def score_of(picture: Tensor) -> float:
        logits = model.module(picture[None])[0]
        kinds = {"logit": logits, "probability": logits.softmax(0), "sigmoid": logits.sigmoid()}
        return float(kinds[score][target])

    feature, weights = feature_of(model, image, layer), []
    feature = feature if tried is None else feature[tried]
    for channel in feature:
        mask = functional.interpolate(
            channel[None, None], size=image.shape[1:], mode="bilinear", align_corners=False
        )[0, 0]
        spread = float(mask.max() - mask.min())
        mask = (mask - mask.min()) / spread if spread else torch.zeros_like(mask)
        base = score_of(torch.zeros_like(image)) if increase else 0.0
        weights.append(score_of(image * mask) - base)
    w = torch.tensor(weights, dtype=torch.float64)
    w = w.softmax(0) if softmax else w
    return torch.einsum("d,dhw->hw", w, feature).clamp(min=0)


@pytest.mark.parametrize("layer", CHANNELS)
@pytest.mark.parametrize("score", ["logit", "probability", "sigmoid"])
@pytest.mark.parametrize(
    ("softmax", "increase"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_every_reading_is_the_algorithm_mask_by_mask(layer, score, softmax, increase):
    model, images = tiny_model(), pictures(4)
    method = ScoreCam(
        layer=layer, score=score, channel_softmax=softmax, baseline=Zero() if increase else None
    )
    reading = {"score": score, "softmax": softmax, "increase": increase}
    expected = [
        plain(model, image, target, layer, **reading)
        for image, target in zip(images, TARGETS.tolist(), strict=True)
    ]
    maps = maps_of(method, model)
    torch.testing.assert_close(maps, torch.stack(expected), rtol=1e-9, atol=1e-13)


def test_the_baseline_drops_out_of_the_softmax_and_is_not_run_for_it():
    model, batch = tiny_model(), Batch.single(pictures(4), TARGETS)
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = [ScoreCam(baseline=baseline)(passes) for baseline in (Zero(), Blur(), None)]
        assert torch.equal(maps[0], maps[1])
        assert torch.equal(maps[0], maps[2])
        assert passes.counts.forwards == 4 + 4 * CHANNELS["final"]  # all three share the masks
        assert passes.counts.backwards == {}
        ScoreCam(channel_softmax=False)(passes)
        assert passes.counts.forwards == 4 + 4 * CHANNELS["final"] + 4


def test_all_targets_of_an_image_share_its_masks():
    model = tiny_model()
    batch = Batch(
        images=pictures(1),
        image_ids=["0"],
        image_index=torch.zeros(CLASSES, dtype=torch.long),
        targets=torch.arange(CLASSES),
    )
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = ScoreCam()(passes)
        assert passes.counts.forwards == 1 + CHANNELS["final"]
    assert maps.shape[0] == CLASSES
    assert (maps[0] - maps[1]).abs().max() > 1e-6


def test_slabs_of_one_copy_give_the_numbers_of_one_slab():
    large = maps_of(ScoreCam(layer="mid2"), tiny_model())
    small = maps_of(ScoreCam(layer="mid2"), tiny_model(), budget_bytes=1)
    torch.testing.assert_close(large, small, rtol=1e-9, atol=1e-14)


def test_the_channels_that_vary_most_can_be_tried_alone():
    model, images = tiny_model(), pictures(4)
    few = maps_of(ScoreCam(layer="mid2", channels=2), model)
    for n, (image, target) in enumerate(zip(images, TARGETS.tolist(), strict=True)):
        spread = feature_of(model, image, "mid2").flatten(1).var(1)
        expected = plain(model, image, target, "mid2", tried=spread.topk(2).indices.tolist())
        torch.testing.assert_close(few[n], expected, rtol=1e-9, atol=1e-13)
    many = maps_of(ScoreCam(channels=99), model)
    assert torch.equal(many, maps_of(ScoreCam(), model))


def test_constant_channels_and_a_dead_feature_are_finite():
    model = tiny_model()
    with torch.no_grad():
        for part in model.module.layer4[:2]:
            part.weight.zero_()
            part.bias.fill_(-1)
    for softmax in (True, False):
        assert maps_of(ScoreCam(channel_softmax=softmax), model).abs().max() == 0
        assert maps_of(ScoreCam(channel_softmax=softmax, normalize=True), model).abs().max() == 0
    with torch.no_grad():
        model.module.layer4[1].bias.fill_(1)
    constant = maps_of(ScoreCam(), model)
    assert torch.isfinite(constant).all()
    assert (constant == constant[:, :1, :1]).all()


def test_no_channel_at_all_is_refused():
    with pytest.raises(ValueError, match="channels = 0; expected None or 1 or more"):
        ScoreCam(channels=0)
