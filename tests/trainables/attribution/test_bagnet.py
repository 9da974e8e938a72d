"""The map of windows against the authors' array, and against each window alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.trainables.networks import CLASSES, pictures, tiny_model, tiny_windows
from trainables.attribution.bagnet import BagNet
from trainables.batch import Batch
from trainables.models.bagnet import SmallBagNet
from trainables.models.network import Model, evaluating
from trainables.models.small_resnet import SmallResNet
from trainables.models.window_net import Stage, WindowNet
from trainables.passes import Passes

GOLDEN = Path(__file__).parents[2] / "golden" / "idsds" / "bagnet_window.npz"


class OneConvolution(WindowNet):
    """Convolution, ReLU, mean, linear head: the network behind the golden array."""

    window_px = 33

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 33), nn.Linear(6, 10)

    def stages(self) -> Sequence[Stage]:
        return [(lambda x: self.conv(x).relu(), 1)]


def one_by_one(net: WindowNet, image: Tensor, target: int) -> Tensor:
    """The target's logit of each window, cut out of the padded image, as if it were the image."""
    side, (height, width) = net.window_px, image.shape[1:]
    padded = functional.pad(image, [side // 2] * 4)
    out = image.new_empty(height, width)
    for row in range(height):
        for column in range(width):
            window = padded[:, row : row + side, column : column + side]
            out[row, column] = net(window[None])[0, target]
    return out


def test_the_authors_map_of_every_window():
    with np.load(GOLDEN, allow_pickle=False) as file:
        golden = {name: torch.from_numpy(file[name]) for name in file.files}
    net = OneConvolution()
    net.load_state_dict({k[2:]: t for k, t in golden.items() if k.startswith("w.")})
    image = (golden["image_u8"].float() / 255 - golden["mean"]) / golden["std"]
    model = Model(net.eval(), {"input": ""}, lambda images: images)
    with evaluating(net), Passes(model, Batch.single(image, golden["target"][None])) as passes:
        method = BagNet()
        maps = method.at_image_size(method(passes), passes)
    torch.testing.assert_close(maps, golden["heatmap"][0], rtol=0, atol=1e-4)


def test_a_pixel_has_the_logit_of_its_window_alone():
    model = tiny_windows()
    images = pictures(2)[:, :, :11, :9].contiguous()  # sides that 4 does not divide
    index, targets = torch.tensor([1, 0, 1]), torch.tensor([3, 1, 0])
    batch = Batch(images=images, image_ids=["a", "b"], image_index=index, targets=targets)
    with evaluating(model.module), Passes(model, batch) as passes:
        maps = BagNet()(passes)
        assert passes.counts.forwards == 0
    for n, (image, target) in enumerate(zip(index.tolist(), targets.tolist(), strict=True)):
        with torch.no_grad():
            alone = one_by_one(model.module, images[image], target)
        torch.testing.assert_close(maps[n], alone, rtol=0, atol=1e-12)


def test_the_bias_of_the_head_counts():
    model = tiny_windows()
    with torch.no_grad():
        model.module.fc.weight.zero_()
        model.module.fc.bias.copy_(torch.arange(CLASSES))
    with Passes(model, Batch.single(pictures(1), torch.tensor([2]))) as passes:
        assert (BagNet()(passes) == 2).all()


def test_slabs_keep_the_budget_and_give_the_same_maps():
    model, seen = tiny_windows(), []
    model.module.layer1.register_forward_hook(lambda _m, x, _o: seen.append(len(x[0])))
    batch = Batch.single(pictures(6), torch.tensor([0, 1, 2, 3, 0, 1]))
    maps = []
    for budget in (1, 80_000, 2**30):
        seen.clear()
        with evaluating(model.module), Passes(model, batch, budget_bytes=budget) as passes:
            maps.append(BagNet()(passes))
        assert sum(seen) == 4 * 6  # each image once a shift
        assert max(seen) == {1: 1, 80_000: 2, 2**30: 5}[budget]  # the first is measured alone
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(maps[0], maps[2], rtol=1e-12, atol=1e-14)


def test_images_that_nobody_asks_about_cost_nothing():
    model, seen = tiny_windows(), []
    model.module.layer1.register_forward_hook(lambda _m, x, _o: seen.append(len(x[0])))
    batch = Batch(
        images=pictures(3),
        image_ids=["a", "b", "c"],
        image_index=torch.tensor([2, 2]),
        targets=torch.tensor([0, 1]),
    )
    with Passes(model, batch) as passes:
        assert BagNet()(passes).shape == (2, 12, 12)
    assert seen == [1] * 4


def test_a_bagnet_is_accepted_and_other_networks_are_refused():
    BagNet().check(SmallBagNet(width=2))
    with pytest.raises(ValueError, match=r"needs a network of windows .*; a ResNet sees the image"):
        BagNet().check(SmallResNet(width=2))
    with (
        Passes(tiny_model(), Batch.single(pictures(1), torch.tensor([0]))) as passes,
        pytest.raises(ValueError, match=r"a TinyNet sees the image as a whole"),
    ):
        BagNet()(passes)


def test_nothing_is_left_behind_after_an_exception():
    model = tiny_windows()
    handle = model.module.layer2.register_forward_hook(lambda *_: 1 / 0)
    with Passes(model, Batch.single(pictures(2), torch.tensor([0, 1]))) as passes:
        with pytest.raises(ZeroDivisionError):
            BagNet()(passes)
        assert torch.is_grad_enabled()
    handle.remove()
    assert all(p.requires_grad and p.grad is None for p in model.module.parameters())
