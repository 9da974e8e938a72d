"""Named sets of methods: as a paper's code ran them, and as they are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from trainables.attribution.attribution import Attribution
from trainables.baselines import Uniform

AS_RUN = "idsds_as_run"


def idsds_as_run() -> tuple[Attribution, ...]:
    """The 23 methods of IDSDS exactly as the authors' code ran them, every deviation on.

    Source: Hesse et al., NeurIPS D&B 2024, tables 4 to 6 and figure 3a; settings of the code.
    """
    named = Attribution.named
    # captum's default: deviation 1 in the encoded space
    noise = {"samples": 4, "std": 1.0, "relative": False}
    signed = [
        named("input_x_gradient"),
        named("smooth_grad_input_x_gradient", **noise),
        named("integrated_gradients"),
        named("integrated_gradients", baseline=Uniform()),
        named("smooth_grad_integrated_gradients", **noise),
    ]
    methods = [
        *signed,
        *(replace(method, absolute=True) for method in signed),
        named("smooth_grad_integrated_gradients", squared=True, **noise),
        named("saliency", channels="sum"),
        named("rise"),
        named("rise", baseline=Uniform()),
        named("grad_cam", normalize=True),
        named("grad_cam_pp", weights="torchcam", normalize=True),
        named("smooth_grad_cam_pp", samples=4, std=0.3, last_sample=True, normalize=True),
        named("xgrad_cam", normalize=True),
        named("layer_cam", normalize=True),
        named("rollout", start_layer=1, interpolation="nearest"),
        named("transformer_attribution", start_layer=1, interpolation="nearest"),
        named("bcos"),
        named("bagnet"),
    ]
    return tuple(replace(method, of_set=AS_RUN) for method in methods)


def corrected() -> tuple[Attribution, ...]:
    """The same 23 with the published formulas; keys without a set's name.

    What the code did otherwise is a field of each method, here at its default.
    """
    named = Attribution.named
    signed = [
        named("input_x_gradient"),
        named("smooth_grad_input_x_gradient"),
        named("integrated_gradients"),
        named("integrated_gradients", baseline=Uniform()),
        named("smooth_grad_integrated_gradients"),
    ]
    methods = [
        *signed,
        *(replace(method, absolute=True) for method in signed),
        named("smooth_grad_integrated_gradients", squared=True),
        named("saliency"),
        named("rise"),
        named("rise", baseline=Uniform()),
        *(named(name) for name in ("grad_cam", "grad_cam_pp", "smooth_grad_cam_pp")),
        *(named(name) for name in ("xgrad_cam", "layer_cam")),
        *(named(name) for name in ("rollout", "transformer_attribution", "bcos", "bagnet")),
    ]
    return tuple(methods)


SETS: Mapping[str, Callable[[], tuple[Attribution, ...]]] = {
    AS_RUN: idsds_as_run,
    "corrected": corrected,
}
"""What ``--methods`` takes beside the names of methods."""
