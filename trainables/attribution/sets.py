"""Which methods: by name, all of them, or a paper's set as its code ran or as it is right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, replace

from data_pipelines.configuration import annotated_fields, default_of
from trainables.attribution.attribution import Attribution
from trainables.baselines import Uniform
from trainables.models.network import Network

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


@dataclass(frozen=True)
class Chosen:
    """Methods for a network.

    Attributes:
        methods: those that suit it.
        refused: why the others of a set do not, by key.
    """

    methods: tuple[Attribution, ...]
    refused: dict[str, str]


def choose(
    names: Iterable[str],
    network: Network,
    adapt: Callable[[Attribution], Attribution] = lambda method: method,
) -> Chosen:
    """The methods of these names that suit the network, each once.

    Args:
        names: names of methods and of SETS, or ``all``: every registered method that needs nothing
            to be told, with its defaults.
        network: what is to be explained.
        adapt: changes a method's fields, but not those of a set.

    Raises:
        ValueError: an unknown name, or a method asked for by its own name that does not suit.
    """
    methods: dict[str, Attribution] = {}
    refused: dict[str, str] = {}
    for name in names:
        if name != "all" and name not in SETS:
            method = adapt(Attribution.named(name))
            try:
                method.check(network)
            except ValueError as reason:
                raise ValueError(f"{name} on {network.key}: {reason}") from None
            methods[method.key] = method
            continue
        found = SETS[name]() if name in SETS else map(adapt, with_defaults())
        for method in found:
            try:
                method.check(network)
            except ValueError as reason:
                refused[method.key] = str(reason)
            else:
                methods[method.key] = method
    return Chosen(tuple(methods.values()), refused)


def with_defaults() -> list[Attribution]:
    """The registered methods whose fields all have defaults, by name."""
    return [cls() for _, cls in sorted(Attribution.registered.items()) if has_defaults(cls)]


def has_defaults(cls: type[Attribution]) -> bool:
    """Whether a method needs nothing to be told."""
    return not any(default_of(f) is MISSING for f, _ in annotated_fields(cls))
