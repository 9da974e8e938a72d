"""Whether the images of a batch see each other between a layer and the logits."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from trainables.models.network import Model, evaluating

_behind: WeakKeyDictionary[nn.Module, dict[str, frozenset[str]]] = WeakKeyDictionary()


def coupled_behind(model: Model, layers: Iterable[str], images: Tensor) -> bool:
    """Whether batch statistics lie between one of the layers and the logits, as the model stands.

    Where none do, an image's map is the same whoever else is explained, and only the images whose
    maps are used need one. What counts is a batch norm, or any part with running statistics, that
    is in train mode and runs after the layer; the first question about a layer takes a forward of
    one image to find out. A network whose images see each other in another way is not recognized.

    Args:
        model: in the mode that it trains in.
        layers: depths or module paths.
        images: encoded images, (B, C, H, W), of which the first is run.
    """
    coupled = {path for path, part in model.module.named_modules() if by_batch(part)}
    paths = {model.path_of(layer) for layer in layers}
    if not coupled or "" in paths:
        return bool(coupled)
    known = _behind.setdefault(model.module, {})
    if not paths <= known.keys():
        known |= run_behind(model.module, paths, images[:1])
    return any(coupled & known[path] for path in paths)


def by_batch(part: nn.Module) -> bool:
    """Whether a part, as it stands, normalizes by the batch that it is given."""
    if isinstance(part, _InstanceNorm):
        return False
    if isinstance(part, _BatchNorm) and part.running_mean is None:
        return True
    kept = (getattr(part, name, None) for name in ("running_mean", "running_var"))
    return part.training and any(isinstance(value, Tensor) for value in kept)


def run_behind(module: nn.Module, paths: Iterable[str], image: Tensor) -> dict[str, frozenset[str]]:
    """For each path the paths of all parts that end after it, found by a forward in eval mode."""
    order: list[str] = []
    handles = [
        part.register_forward_hook(lambda _module, _inputs, _out, path=path: order.append(path))
        for path, part in module.named_modules()
        if path
    ]
    try:
        with evaluating(module), torch.no_grad():
            module(image)
    finally:
        for handle in handles:
            handle.remove()
    return {
        path: frozenset(order[order.index(path) + 1 :] if path in order else order)
        for path in paths
    }
