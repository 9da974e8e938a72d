"""The two transformers of tests/golden/*/README.md with their arrays, in float64 unless asked."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.trainables.attribution.idsds_golden import arrays
from tests.trainables.networks import vit_model
from trainables.attribution.attribution import Attribution
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.passes import Passes

IDSDS = "idsds/vit"
METHODS = "explainer_and_vit/vit_methods"
CX = "explainer_and_vit/vit_cx"
SIZES = {
    IDSDS: {"img_size": 56, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 4}
    | {"mlp_ratio": 2},
    METHODS: {"img_size": 64, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3},
}


def network(path: str, dtype: torch.dtype = torch.float64) -> Model:
    """The transformer of a file with its weights."""
    from timm.models.vision_transformer import VisionTransformer

    module = VisionTransformer(num_classes=10, **SIZES[path]).to(dtype).eval()
    weights = {k[2:]: t for k, t in arrays(path).items() if k.startswith(("w.", "w/"))}
    module.load_state_dict(weights)
    return vit_model(module, lambda images: images)


def images(path: str) -> Tensor:
    """Encoded, (3, 3, H, W), float64."""
    return arrays(path)["images"] if path == IDSDS else 2 * arrays(path)["images01"] - 1


def passes_of(path: str, targets: Tensor, dtype: torch.dtype = torch.float64) -> Passes:
    """Passes about the images of a file."""
    return Passes(network(path, dtype), Batch.single(images(path).to(dtype), targets))


def maps_of(
    method: Attribution, path: str, targets: Tensor, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Native maps of the three images of a file, in float64."""
    passes = passes_of(path, targets, dtype)
    with evaluating(passes.model.module), passes:
        return method(passes).double()
