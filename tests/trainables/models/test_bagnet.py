"""BagNets: windows, published layout, and the answer for every pixel."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.trainables.networks import pictures
from trainables.flops import FlopCounter
from trainables.models.bagnet import BagNet, BagNet9, BagNet17, BagNet33, SmallBagNet
from trainables.models.network import Network
from trainables.models.window_net import WindowNet

EACH = [(BagNet9, 9), (BagNet17, 17), (BagNet33, 33)]


def random(net: WindowNet) -> WindowNet:
    """In eval mode, in float64, with running statistics of its own."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.double().eval().state_dict().items():
        if "running" in name or ".bn" in name or name.startswith("bn1"):
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(noise + 0.5 if tensor.is_floating_point() else tensor)
    return net


def meta(network: Network) -> WindowNet:
    """With 1000 classes, without values."""
    with torch.device("meta"):
        return network.module(1000).eval()


@pytest.mark.parametrize(("network", "side"), EACH)
def test_a_window_has_the_side_that_the_name_says(network, side):
    net = meta(network())
    assert net.window_px == side
    seen = []
    net.layer4.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape)))
    net(window(side))
    net(window(224))
    assert seen == [(1, 2048, 1, 1), (1, 2048, *[(224 - side) // 8 + 1] * 2)]
    with pytest.raises(RuntimeError, match="ernel size"):
        net(window(side - 1))


def window(side: int) -> torch.Tensor:
    return torch.empty(1, 3, side, side, device="meta")


def test_the_state_dict_is_laid_out_as_published():
    state = {key: tuple(tensor.shape) for key, tensor in meta(BagNet33()).state_dict().items()}
    assert sum(tensor.numel() for tensor in meta(BagNet33()).parameters()) == 18_310_184
    norms = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    keys = {"conv1.weight", "conv2.weight", "fc.weight", "fc.bias", *(f"bn1.{n}" for n in norms)}
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            keys |= {f"{at}.conv{k}.weight" for k in (1, 2, 3)}
            keys |= {f"{at}.bn{k}.{n}" for k in (1, 2, 3) for n in norms}
        keys |= {f"layer{layer}.0.downsample.0.weight"}
        keys |= {f"layer{layer}.0.downsample.1.{n}" for n in norms}
    assert state.keys() == keys
    assert state["conv1.weight"] == (64, 3, 1, 1)
    assert state["conv2.weight"] == (64, 64, 3, 3)
    assert state["layer3.0.conv2.weight"] == (256, 256, 3, 3)
    assert state["layer3.1.conv2.weight"] == (256, 256, 1, 1)
    assert state["layer4.0.downsample.0.weight"] == (2048, 1024, 1, 1)
    assert tuple(meta(BagNet17()).layer4[0].conv2.weight.shape) == (512, 512, 1, 1)
    assert meta(BagNet33()).bn1.momentum == 0.001
    assert meta(BagNet33()).layer1[0].bn1.momentum == 0.1


def test_the_logits_are_the_mean_over_windows():
    """Cut out by hand, with the last rows and columns that no window reaches left out."""
    net, image = random(SmallBagNet(width=2).module(3)), pictures_of(27)
    rows = range(0, 27 - 17 + 1, 4)
    windows = torch.cat([image[..., r : r + 17, c : c + 17] for r in rows for c in rows])
    torch.testing.assert_close(net(image)[0], net(windows).mean(0), rtol=1e-10, atol=1e-12)
    image[..., 25:, :] = 9.0
    torch.testing.assert_close(net(image)[0], net(windows).mean(0), rtol=1e-10, atol=1e-12)


def pictures_of(side: int) -> torch.Tensor:
    return functional.interpolate(pictures(1), size=(side, side), mode="bilinear")


@pytest.mark.parametrize("size", [(13, 13), (16, 9), (3, 20)])
def test_every_pixel_has_the_logits_of_its_window(size):
    """Stride 8 in all, 3x3 in every stage, two blocks in one: as the published ones."""
    torch.manual_seed(0)
    net = random(BagNet((2, 1, 1, 1), (2, 2, 2, 1), (3, 3, 3, 3), 2, 3))
    image = functional.interpolate(pictures(2), size=size, mode="bilinear")
    padded = functional.pad(image, [16] * 4)
    with torch.no_grad():
        dense = net.logits_at_every_pixel(image)
        windows = padded.unfold(2, 33, 1).unfold(3, 33, 1).permute(0, 2, 3, 1, 4, 5)
        alone = net(windows.flatten(0, 2)).unflatten(0, (2, *size)).movedim(-1, 1)
    assert dense.shape == (2, 3, *size)
    assert alone.std() > 1e-3 * alone.abs().max()  # the windows differ
    torch.testing.assert_close(dense, alone, rtol=1e-9, atol=1e-9)


def test_it_equals_64_passes_of_the_whole_network_at_fewer_operations():
    torch.manual_seed(0)
    net = random(BagNet((1, 1, 1, 1), (2, 2, 2, 1), (3, 3, 3, 3), 2, 3))

    class InOne(WindowNet):
        window_px, fc = net.window_px, net.fc

        def stages(self):
            def whole(x):
                for stage, _ in net.stages():
                    x = stage(x)
                return x

            return [(whole, 8)]

    image, flops = pictures_of(24), []
    maps = []
    for one in (net, InOne()):
        with FlopCounter() as counter, torch.no_grad():
            maps.append(one.logits_at_every_pixel(image))
        flops.append(counter.total)
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-10, atol=1e-12)
    assert flops[1] > 1.5 * flops[0]


def test_each_feature_is_computed_once_at_every_pixel():
    """Counted by hand: each convolution's multiplications, at as many places as it has outputs."""
    net = SmallBagNet(width=2).module(3).eval()
    places, expected = [], 0
    for name, part in net.named_modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(
                lambda m, _i, out, name=name: places.append((m.weight.numel(), out[0, 0].numel()))
            )
    with FlopCounter() as counter, torch.no_grad():
        net.logits_at_every_pixel(torch.zeros(1, 3, 24, 24))
    expected = sum(2 * weights * n for weights, n in places) + 2 * 64 * 3 * 24 * 24
    assert counter.total == expected
    assert max(n for _, n in places) == 40 * 40  # the stem, once over the padded image
    last = [n for weights, n in places if weights == net.layer4[0].conv3.weight.numel()]
    assert sum(last) == 24 * 24


def test_the_small_one_has_12_by_12_windows_at_64_px():
    net = SmallBagNet().module(10)
    seen = []
    net.layer4.register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    net(torch.zeros(1, 3, 64, 64))
    assert seen == [(1, 256, 12, 12)]
    assert 90_000 < sum(p.numel() for p in net.parameters()) < 110_000
