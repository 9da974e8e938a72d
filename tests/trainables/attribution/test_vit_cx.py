"""ViT-CX against the authors' arrays with their noise, a plain loop, and its edge cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.trainables.attribution.idsds_golden import arrays
from tests.trainables.attribution.vit_golden import CX, METHODS, images, network
from tests.trainables.networks import pictures, tiny_model, tiny_vit
from trainables.attribution import vit_cx
from trainables.attribution.vit_cx import ChannelClusters, ViTCX, clustered, stretched
from trainables.batch import Batch
from trainables.models.network import evaluating
from trainables.models.small_resnet import SmallResNet
from trainables.models.timm_vit import SmallViT
from trainables.noise import normal
from trainables.passes import Passes, upsample


def first_seen(labels: Tensor) -> list[int]:
    """Labels in the order of their first appearance."""
    return list(dict.fromkeys(labels.tolist()))


class TestAuthorsArrays:
    @pytest.fixture
    def passes(self):
        golden = arrays(METHODS)
        batch = Batch(
            images=images(METHODS)[:1],
            image_ids=["image"],
            image_index=torch.tensor([0, 0]),
            targets=torch.stack([golden["pred"][0], golden["second"][0]]),
        )
        model = network(METHODS)
        with evaluating(model.module), Passes(model, batch) as passes:
            passes.expect(ViTCX().needs(model))
            yield passes

    def test_channels(self, passes):
        found = passes.feature("final")[0]
        torch.testing.assert_close(found, arrays(CX)["feature_map"], rtol=0, atol=1e-5)

    @pytest.mark.parametrize(("threshold", "name"), [(0.1, "t10"), (0.02, "t02")])
    def test_clusters_of_their_distances(self, threshold, name):
        golden = arrays(CX)
        labels = clustered(golden["distance"], threshold)
        order = first_seen(golden[f"labels_{name}"])
        assert len(order) == int(golden[f"n_clusters_{name}"])
        assert [order[k] for k in labels.tolist()] == golden[f"labels_{name}"].tolist()

    def test_masks(self, passes):
        clusters = passes.get(ChannelClusters(layer="final", threshold=0.1))
        masks = stretched(upsample(clusters[0], (64, 64), "bilinear"))
        golden = arrays(CX)
        expected = golden["cluster_masks_t10"][first_seen(golden["labels_t10"])]
        torch.testing.assert_close(masks, expected, rtol=0, atol=1e-5)

    def test_maps(self, passes, monkeypatch):
        golden = arrays(CX)
        noise = golden["noise_t10"][first_seen(golden["labels_t10"])]
        monkeypatch.setattr(vit_cx, "normal", lambda like, seed, ids, samples, _: noise[samples])
        maps = ViTCX()(passes)
        assert passes.counts.forwards == 1 + 2 * 12
        expected = torch.stack([golden["sal_t10_pred"], golden["sal_t10_second"]])
        torch.testing.assert_close(maps, expected, rtol=0, atol=1e-6)
        certain = passes.logits[0].softmax(0)[passes.batch.targets]
        expected = torch.stack([golden["class_p_t10_pred"], golden["class_p_t10_second"]])
        torch.testing.assert_close(certain, expected, rtol=0, atol=1e-6)


def batch_of(n: int = 2) -> Batch:
    return Batch.single(pictures(n), torch.arange(n))


def maps_of(method: ViTCX, batch: Batch, budget_bytes: int = 2**30) -> Tensor:
    model = tiny_vit()
    with Passes(model, batch, budget_bytes=budget_bytes) as passes:
        return method(passes)


def slow_map(image: Tensor, target: int, name: str, method: ViTCX) -> Tensor:
    """One mask at a time, clusters from scipy."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    model = tiny_vit()
    with Passes(model, Batch.single(image[None], torch.tensor([target]))) as passes:
        channels = passes.feature("final")[0]
    masks = [stretched(upsample(channel[None], (12, 12), "bilinear"))[0] for channel in channels]
    distance = pdist(torch.stack(masks).flatten(1).numpy(), "cosine")
    labels = fcluster(linkage(distance, "complete"), method.threshold, "distance").tolist()

    def probability(x: Tensor) -> Tensor:
        with torch.no_grad():
            return functional.softmax(model.module(x[None]), 1)[0, target]

    total, cover = torch.zeros(12, 12).double(), torch.zeros(12, 12).double()
    for k, label in enumerate(dict.fromkeys(labels)):
        members = [mask for mask, own in zip(masks, labels, strict=True) if own == label]
        mask = stretched(sum(members)[None])[0]
        noise = method.std * normal(image[None], method.seed, [name], [k], "vit_cx")[0]
        noisy = noise * (1 - mask)
        score = probability(image * mask + noisy) - probability(image + noisy) + probability(image)
        total, cover = total + score * mask, cover + mask
    return torch.where(cover > 0, total / cover, 0) / len(set(labels))


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.3])
def test_the_plain_loop(threshold):
    method = ViTCX(threshold=threshold, seed=3)
    batch = batch_of()
    for n, found in enumerate(maps_of(method, batch)):
        expected = slow_map(batch.images[n], n, str(n), method)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_slabs_of_any_size_give_the_same_maps():
    whole = maps_of(ViTCX(), batch_of())
    torch.testing.assert_close(maps_of(ViTCX(), batch_of(), 1), whole, rtol=1e-9, atol=1e-12)


def test_the_seed_matters_and_targets_share_their_forwards():
    batch = Batch(
        images=pictures(2),
        image_ids=["a", "b"],
        image_index=torch.tensor([1, 1, 1]),  # nobody asks about image 0
        targets=torch.tensor([0, 1, 2]),
    )
    with Passes(tiny_vit(), batch) as passes:
        maps = ViTCX()(passes)
        clusters = passes.get(ChannelClusters(layer="final", threshold=0.1))
        assert list(clusters) == [1]
        assert passes.counts.forwards == 2 + 2 * len(clusters[1])
    assert not torch.equal(maps, maps_of(ViTCX(seed=1), batch))


def test_a_constant_added_to_all_logits_changes_nothing():
    maps = []
    for constant in (0, 5):
        model = tiny_vit()
        with torch.no_grad():
            model.module.head.bias.add_(constant)
        with Passes(model, batch_of()) as passes:
            maps.append(ViTCX()(passes))
    torch.testing.assert_close(*maps, rtol=1e-9, atol=1e-12)


def clusters_of(channels: Tensor) -> Tensor:
    return ChannelClusters(layer="final", threshold=0.1)._of_image(channels, (12, 12))


def test_constant_channels_are_left_out():
    channels = torch.randn(6, 3, 3, generator=torch.Generator().manual_seed(0))
    constant = torch.cat([channels[:2], torch.full((1, 3, 3), 0.7), channels[2:]])
    torch.testing.assert_close(clusters_of(constant), clusters_of(channels))
    assert clusters_of(constant[2:3]).shape == (0, 3, 3)
    assert clusters_of(constant[2:4]).shape == (1, 3, 3)


def test_a_map_without_any_mask_is_zero(monkeypatch):
    empty = torch.zeros(0, 3, 3).double()
    monkeypatch.setattr(ChannelClusters, "_of_image", lambda self, channels, size: empty)
    assert not maps_of(ViTCX(), batch_of()).any()


def test_a_pixel_in_no_mask_is_zero(monkeypatch):
    one = torch.zeros(1, 3, 3).double()
    one[0, 0, 0] = 1
    monkeypatch.setattr(ChannelClusters, "_of_image", lambda self, channels, size: one)
    maps = maps_of(ViTCX(), batch_of())
    covered = upsample(one, (12, 12), "bilinear")[0] > 0
    assert not maps[:, ~covered].any()
    # a single mask: its score wherever it is
    for found in maps:
        torch.testing.assert_close(found[covered], found[0, 0].expand(int(covered.sum())))
        assert found[0, 0] > 0


def test_unsuited_networks_are_refused():
    ViTCX().check(SmallViT())
    ViTCX().suit(tiny_vit(class_token=False, global_pool="avg"))
    with pytest.raises(ValueError, match="the network has no tokens"):
        ViTCX().check(SmallResNet(width=2))
    with pytest.raises(ValueError, match="the network has no tokens"):
        ViTCX().suit(tiny_model())
