"""Attributions, losses and the training step against arrays made by the authors' code.

The networks of tests/golden/guidance/README.md as plain modules, in float64.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import trainables.losses  # noqa: F401  registers
from data_pipelines.boxes import box_mask
from trainables.attribution.attribution import Attribution
from trainables.batch import Batch
from trainables.guided_training import guided_step
from trainables.losses.loss import Loss
from trainables.models.network import Model
from trainables.passes import Passes

GOLDEN = Path(__file__).parent.parent / "golden" / "guidance"
LOSSES = {"Energy": "energy", "L1": "l1", "PPCE": "ppce", "RRR": "rrr_star"}
METHODS = {"IxG": "input_x_gradient", "GradCam": "grad_cam"}
LAYERS = {"Input": "input", "Mid1": "mid1", "Final": "final"}
DEPTHS = {"input": "", "mid1": "layer1", "final": "layer2"}

each_loss = pytest.mark.parametrize("loss", LOSSES)
each_layer = pytest.mark.parametrize("layer", LAYERS)


class TinyBn(nn.Sequential):
    """Convolution, norm, ReLU three times; pooling; linear head."""

    name: ClassVar[str] = "attr_tiny_bn"

    def __init__(self) -> None:
        def conv(a: int, b: int) -> nn.Conv2d:
            return nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False)

        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(conv(6, 8), nn.BatchNorm2d(8), nn.ReLU())
        self.layer2 = nn.Sequential(conv(8, 10), nn.BatchNorm2d(10), nn.ReLU())
        self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(10, 5)


class Residual(nn.Module):
    """ReLU of (convolutions with ReLUs between them, plus a projection); no norm, no bias."""

    def __init__(self, shortcut: nn.Conv2d, *convolutions: nn.Conv2d) -> None:
        super().__init__()
        self.downsample, self.depth = shortcut, len(convolutions)
        for k, convolution in enumerate(convolutions, 1):
            setattr(self, f"conv{k}", convolution)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for k in range(1, self.depth + 1):
            out = getattr(self, f"conv{k}")(out)
            out = out.relu() if k < self.depth else out
        return (out + self.downsample(x)).relu()


class TinyXdnn(nn.Sequential):
    """A bottleneck and a basic block without biases; the head has one."""

    name: ClassVar[str] = "attr_tiny_xdnn"

    def __init__(self) -> None:
        def conv(a: int, b: int, size: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(a, b, size, stride, padding=size // 2, bias=False)

        super().__init__()
        self.conv1, self.relu, self.pool = conv(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        bottleneck = Residual(conv(4, 8, 1), conv(4, 2, 1), conv(2, 2, 3), conv(2, 8, 1))
        basic = Residual(conv(8, 8, 1, 2), conv(8, 8, 3, 2), conv(8, 8, 3))
        self.layer1, self.layer2 = nn.Sequential(bottleneck), nn.Sequential(basic)
        self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(8, 5)


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / f"{name}.npz", allow_pickle=False))


def model_of(net: type[TinyBn] | type[TinyXdnn], *, training: bool = False) -> Model:
    module = net().double()
    weights = {
        key.removeprefix("w/"): torch.from_numpy(value).double()
        for key, value in golden(net.name).items()
        if key.startswith("w/")
    }
    missing, unexpected = module.load_state_dict(weights, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing)
    assert unexpected == []
    return Model(module.train(training), DEPTHS, lambda images: images)


def batch_of(arrays: dict[str, np.ndarray]) -> Batch:
    size = int(arrays["out_hw"][0])
    masks = [
        box_mask(boxes[:n], size)
        for boxes, n in zip(arrays["boxes"], arrays["n_boxes"], strict=True)
    ]
    return Batch.single(
        torch.from_numpy(arrays["x"]).double(),
        torch.from_numpy(arrays["classes"]),
        torch.from_numpy(np.stack(masks)),
    )


def close(ours: Tensor, theirs: np.ndarray) -> None:
    torch.testing.assert_close(ours.detach(), torch.from_numpy(theirs), rtol=1e-6, atol=1e-9)


def check_against_golden(net, mode: str, layer: str, method: str, loss_name: str) -> None:
    """Logits, raw map, value of each image and gradient of the first weights."""
    arrays, where = golden(net.name), f"{mode}/{layer}"
    model, batch = model_of(net, training=mode == "train"), batch_of(arrays)
    attribution = Attribution.named(METHODS[method], layer=LAYERS[layer])
    loss = Loss.named(LOSSES[loss_name])
    with Passes(model, batch, create_graph=True) as passes:
        raw = attribution(passes)
        values = loss(attribution.at_image_size(loss.prepare(raw), passes), batch.masks)
        close(passes.logits, arrays[f"{where}/logits"])
        close(raw, arrays[f"{where}/{method}/attr"])
        close(values, arrays[f"{where}/{method}/{loss_name}/values"])
        values.sum().backward()
    close(model.module.conv1.weight.grad, arrays[f"{where}/{method}/{loss_name}/grad_first"])


@each_loss
@pytest.mark.parametrize("method", METHODS)
@each_layer
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_guided_maps_equal_those_of_the_authors(mode, layer, method, loss):
    check_against_golden(TinyBn, mode, layer, method, loss)


@each_loss
@each_layer
def test_guided_maps_of_a_network_without_biases_equal_those_of_the_authors(layer, loss):
    check_against_golden(TinyXdnn, "eval", layer, "IxG", loss)


def test_without_biases_input_x_gradient_is_integrated_gradients():
    arrays = golden(TinyXdnn.name)
    with Passes(model_of(TinyXdnn), batch_of(arrays)) as passes:
        maps = Attribution.named("input_x_gradient")(passes)
    close(maps, arrays["intgrad_captum_64_steps"])
    close(maps.sum((1, 2)), arrays["logit_minus_bias"])


@each_loss
def test_a_training_step_equals_that_of_the_authors(loss):
    arrays = golden(TinyBn.name)
    weight, classification, localization, total = arrays[f"joint/{loss}"]
    model, batch = model_of(TinyBn, training=True), batch_of(arrays)
    ours = guided_step(
        model,
        batch,
        torch.from_numpy(arrays["joint/labels"]).double(),
        torch.tensor([True, False, True]),  # image 1 has no boxes
        Attribution.named("input_x_gradient", layer="final"),
        Loss.named(LOSSES[loss]),
        float(weight),
    )
    np.testing.assert_allclose(ours, (classification, localization), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours[0] + weight * ours[1], total, rtol=1e-6, atol=1e-9)
    close(model.module.conv1.weight.grad, arrays[f"joint/{loss}/grad_conv1"])
    close(model.module.fc.weight.grad, arrays[f"joint/{loss}/grad_fc"])


def test_labels_alone_train_the_head_as_plain_cross_entropy_does():
    arrays = golden(TinyBn.name)
    model, batch = model_of(TinyBn, training=True), batch_of(arrays)
    labels = torch.from_numpy(arrays["joint/labels"]).double()
    nobody = torch.zeros(3, dtype=torch.bool)
    method, loss = Attribution.named("input_x_gradient", layer="final"), Loss.named("energy")
    value, localization = guided_step(model, batch, labels, nobody, method, loss, 1.0)
    plain = model_of(TinyBn, training=True)
    expected = functional.binary_cross_entropy_with_logits(plain.module(batch.images), labels)
    expected.backward()
    assert (value, localization) == (expected.item(), 0.0)
    assert torch.equal(model.module.fc.weight.grad, plain.module.fc.weight.grad)
    assert torch.equal(model.module.conv1.weight.grad, plain.module.conv1.weight.grad)
