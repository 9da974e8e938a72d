"""Small networks in float64 with the five depths of the real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainables.models.bcos_layers import BcosConv2d, LogitLayer, explanation_mode
from trainables.models.bcos_norms import BatchNormUncentered2d
from trainables.models.network import DEPTHS, Model, Network, Tokens
from trainables.models.timm_vit import quarters
from trainables.models.window_net import Stage, WindowNet

CLASSES = 4
PATHS = dict(zip(DEPTHS, ("", "layer1", "layer2", "layer3", "layer4"), strict=True))


class TinyNet(nn.Module):
    """Four stages of convolution, norm and ReLU on (B, 3, 12, 12); global pooling, linear head."""

    def __init__(self, *, bias: bool = True, norm: bool = True) -> None:
        super().__init__()
        widths, strides = (3, 4, 5, 6, 7), (1, 2, 1, 2)
        for k, stride in enumerate(strides):
            stage = [nn.Conv2d(widths[k], widths[k + 1], 3, stride, padding=1, bias=bias)]
            stage += [nn.BatchNorm2d(widths[k + 1])] if norm else []
            setattr(self, f"layer{k + 1}", nn.Sequential(*stage, nn.ReLU()))
        self.pool = nn.AdaptiveAvgPool2d(1)  # a layer, for which LRP has a rule
        self.fc = nn.Linear(widths[-1], CLASSES, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        for k in range(1, 5):
            x = getattr(self, f"layer{k}")(x)
        return self.fc(self.pool(x).flatten(1))


def tiny_model(
    seed: int = 0, *, bias: bool = True, norm: bool = True, training: bool = False
) -> Model:
    """A TinyNet with random weights and running statistics."""
    module = randomized(TinyNet(bias=bias, norm=norm), seed)
    return Model(module.train(training), PATHS, lambda images: images.double() / 255)


class TinyBcos(nn.Module):
    """Four stages of B-cos convolution and norm on (B, 3, 12, 12); classifier, global pooling."""

    def __init__(self) -> None:
        super().__init__()
        widths, strides = (3, 4, 5, 6, 7), (1, 2, 1, 2)
        for k, stride in enumerate(strides):
            convolution = BcosConv2d(widths[k], widths[k + 1], 3, stride=stride, padding=1)
            stage = nn.Sequential(convolution, BatchNormUncentered2d(widths[k + 1]))
            setattr(self, f"layer{k + 1}", stage)
        self.fc, self.logit_layer = BcosConv2d(widths[-1], CLASSES), LogitLayer(bias=-1.5)

    def forward(self, x: Tensor) -> Tensor:
        for k in range(1, 5):
            x = getattr(self, f"layer{k}")(x)
        return self.logit_layer(self.fc(x).mean((2, 3)))


def tiny_bcos_model(seed: int = 0, *, training: bool = False) -> Model:
    """A TinyBcos with random weights and running variances."""
    module = randomized(TinyBcos(), seed).train(training)
    return Model(
        module, PATHS, lambda images: images.double() / 255, partial(explanation_mode, module)
    )


class TinyWindows(WindowNet):
    """Two strided convolutions without padding: windows of 5 px, 4 px apart."""

    window_px = 5

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(6, 7, 2, 2), nn.ReLU())
        self.fc = nn.Linear(7, CLASSES)

    def stages(self) -> Sequence[Stage]:
        return [(self.layer1, 2), (self.layer2, 2)]


def tiny_windows(seed: int = 0, *, training: bool = False) -> Model:
    """A TinyWindows with random weights."""
    depths = {"input": "", "mid1": "layer1", "final": "layer2"}
    module = randomized(TinyWindows(), seed).train(training)
    return Model(module, depths, lambda images: images.double() / 255)


def vit_model(module: nn.Module, encode: Callable[[Tensor], Tensor]) -> Model:
    """One of timm's vision transformers as a Model; its attention can be read."""
    paths = [f"blocks.{k}" for k in range(len(module.blocks))]
    for block in module.blocks:
        block.attn.fused_attn = False
    side = module.patch_embed.patch_size[0]
    attentions = tuple(f"{path}.attn.attn_drop" for path in paths)
    tokens = Tokens(side, module.num_prefix_tokens, tuple(paths), attentions)
    return Model(module, quarters(len(paths)), encode, tokens=tokens)


def tiny_vit(seed: int = 0, *, training: bool = False, **options: Any) -> Model:
    """timm's ViT on (B, 3, 12, 12): 3 x 3 patches, four blocks, two heads; random weights.

    Args:
        seed: of the weights.
        training: whether it is in train mode.
        options: of timm's VisionTransformer.
    """
    from timm.models.vision_transformer import VisionTransformer  # only here: takes seconds

    sizes = {"img_size": 12, "patch_size": 4, "embed_dim": 8, "depth": 4, "num_heads": 2}
    module = VisionTransformer(num_classes=CLASSES, **{**sizes, "mlp_ratio": 2, **options})
    return vit_model(randomized(module, seed).train(training), lambda images: images.double() / 255)


def randomized(module: nn.Module, seed: int) -> nn.Module:
    """The module in float64 with random weights and running statistics."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            spread = 0.5 + noise if name.endswith("running_var") else 0.8 * noise - 0.35
            tensor.copy_(spread)
    return module


def pictures(n: int, seed: int = 0) -> Tensor:
    """Signed encoded images, (n, 3, 12, 12)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 12, 12, generator=generator, dtype=torch.float64)


def gradient_of(model: Model, images: Tensor, targets: Tensor, layer: str) -> Tensor:
    """Plain torch: d sum of the targets' logits / d the layer's output, one row an image."""
    kept: list[Tensor] = []
    if layer == "input":
        images = images.detach().requires_grad_()
        kept.append(images)
        logits = model.module(images)
    else:
        path = model.module.get_submodule(model.path_of(layer))
        handle = path.register_forward_hook(lambda _module, _inputs, out: kept.append(out))
        logits = model.module(images)
        handle.remove()
    return torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), kept[0])[0]


def hooks_of(module: nn.Module) -> int:
    """Hooks on a module and everything below it."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)


def losses_of(network: Network) -> list[float]:
    """Cross-entropy of 15 steps on 16 images of two classes, one of them redder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = network.build(2).module
        x = torch.randn(16, 3, 16, 16)
        x[8:, 0] += 1
    y = torch.arange(16) // 8
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
