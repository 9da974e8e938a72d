"""A user's own network, brought as ``package.module:build``."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from trainables.models.network import DEPTHS, Model, Network, evaluating

PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
Encoding = Literal["imagenet", "half", "unit"]


@dataclass(frozen=True, kw_only=True)
class UserNetwork(Network):
    """Whatever a function of the user's makes: called ``build(classes)``, or ``build()``.

    It returns an ``nn.Module`` from encoded images (B, 3, H, W) to logits (B, K), or a `Model`,
    which says everything by itself. A module may say where its depths are, by an attribute
    ``depths`` such as ``{"mid2": "stages.1", "final": "stages.3"}``. Where it does not, ``final``
    is the last module to run whose output is 4-D with sides above 1, if there is one. Any module
    path is a layer, too. What the function does in the file is not part of a result's identity:
    give a changed network another name.
    """

    name: ClassVar[str] = "user"
    depths: ClassVar[Mapping[str, str]] = {"input": ""}

    build_path: str = "trainables.models.user_network:example"
    """Where the function is, ``package.module:build``; the default shows what one looks like."""
    encoding: Encoding = "imagenet"
    """How pixels enter a module: ``imagenet`` (its mean and deviation), ``half`` (-1 to 1) or
    ``unit`` (0 to 1)."""
    check_px: int = 64  # type: ignore[misc]  # the user knows what the network takes
    """Side of the images of zeros on which depths and shapes are found."""

    def __post_init__(self) -> None:
        """Refuse what is no path before anything is imported."""
        super().__post_init__()
        if not PATH.fullmatch(self.build_path):
            raise ValueError(
                f"UserNetwork.build_path = {self.build_path!r}: expected package.module:build"
            )
        if self.check_px < 1:
            raise ValueError(f"UserNetwork.check_px = {self.check_px}: expected at least 1")

    def module(self, classes: int) -> nn.Module:
        """The user's module.

        Raises:
            ValueError: there is no such function, or it makes something else.
        """
        made, _ = self._made(classes)
        return made.module if isinstance(made, Model) else made

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32, as ``encoding`` says."""
        if self.encoding == "imagenet":
            return super().encode(images)
        unit = images.float() / 255
        return unit if self.encoding == "unit" else 2 * unit - 1

    def build(self, classes: int) -> Model:
        """The user's network, in-place operations off, its depths found.

        Raises:
            ValueError: as `module`; or the module's ``depths`` name what it does not have; or it
                does not take images of ``check_px``; or it does not give logits (B, K), K being
                ``classes`` where the function was told them.
        """
        made, told = self._made(classes)
        module = made.module if isinstance(made, Model) else made
        for part in module.modules():
            if hasattr(part, "inplace"):
                part.inplace = False  # type: ignore[assignment]
        if isinstance(made, Model):
            return made
        shape, last = self._run(module)
        if len(shape) != 2 or shape[0] != 1 or (told and shape[1] != classes):
            raise ValueError(
                f"{self.build_path}: the network gave {shape} for one image; expected logits "
                f"(1, {classes if told else 'K'})"
            )
        return Model(module, self._depths(module, last), self.encode)

    def _made(self, classes: int) -> tuple[nn.Module | Model, bool]:
        """What the function returned, and whether it was told the number of classes."""
        build = function_at(self.build_path)
        told = accepts(build, classes)
        if not told and not accepts(build):
            raise ValueError(f"{self.build_path}: expected build(classes) or build()")
        made = build(classes) if told else build()
        if not isinstance(made, nn.Module | Model):
            raise ValueError(
                f"{self.build_path} returned a {type(made).__name__}; expected an nn.Module or a "
                "trainables.models.network.Model"
            )
        return made, told

    def _run(self, module: nn.Module) -> tuple[tuple[int, ...], str]:
        """Shape of the output for one image of zeros, and path of the last module with maps."""
        seen = [""]

        def keep(path: str, out: Any) -> None:
            if isinstance(out, Tensor) and out.ndim == 4 and min(out.shape[2:]) > 1:
                seen.append(path)

        handles = [
            part.register_forward_hook(lambda _module, _inputs, out, path=path: keep(path, out))
            for path, part in module.named_modules()
            if path
        ]
        like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
        try:
            with evaluating(module), torch.no_grad():
                out = module(like.new_zeros(1, 3, self.check_px, self.check_px))
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise ValueError(
                f"{self.build_path}: the network does not take encoded images "
                f"(1, 3, {self.check_px}, {self.check_px}) ({first_line(error)}); set check_px to "
                "a side that it takes"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        if not isinstance(out, Tensor):
            raise ValueError(
                f"{self.build_path}: the network gave a {type(out).__name__}; expected logits"
            )
        return tuple(out.shape), seen[-1]

    def _depths(self, module: nn.Module, last: str) -> Mapping[str, str]:
        """The module's own depths, checked, and ``final`` where it can be found."""
        said = getattr(module, "depths", None)
        paths = dict(said) if isinstance(said, Mapping) else {}  # else it is something else's name
        paths = {"input": ""} | ({"final": last} if last else {}) | paths
        known = dict(module.named_modules())
        for depth, path in paths.items():
            if depth not in DEPTHS or path not in known or bool(path) == (depth == "input"):
                raise ValueError(
                    f"{self.build_path}: depths {depth!r}: {path!r} is no depth of this network; "
                    f"expected module paths of {', '.join(DEPTHS[1:])}"
                )
        return {depth: paths[depth] for depth in DEPTHS if depth in paths}


def function_at(path: str) -> Callable[..., Any]:
    """The function at ``package.module:build``.

    Raises:
        ValueError: its module cannot be imported, or holds no such function.
    """
    name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{path}: cannot import {name} ({first_line(error)}); install it or put its folder on "
            "PYTHONPATH"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        what = "is no function" if hasattr(module, attribute) else "does not exist"
        own = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ValueError(f"{path}: {attribute} {what}; {name} has {', '.join(own) or 'none'}")
    return found


def accepts(build: Callable[..., Any], *arguments: Any) -> bool:
    """Whether the function can be called with these arguments."""
    try:
        inspect.signature(build).bind(*arguments)
    except (TypeError, ValueError):  # they do not fit, or it does not say what it takes
        return False
    return True


def first_line(error: Exception) -> str:
    """An error in a line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def example(classes: int) -> nn.Module:
    """A network such as a user brings: four convolutions, the mean, a linear head."""
    net = nn.Sequential()
    for k, (inputs, outputs) in enumerate(((3, 8), (8, 16), (16, 16), (16, 32))):
        convolution = nn.Conv2d(inputs, outputs, 3, 2 if k != 2 else 1, padding=1)
        net.add_module(f"stage{k}", nn.Sequential(convolution, nn.ReLU()))
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(32, classes))
    net.depths = {  # type: ignore[assignment]
        "mid1": "stage0", "mid2": "stage1", "mid3": "stage2", "final": "stage3",
    }  # fmt: skip
    return net


def network_of(text: str) -> Network:
    """A registered network by name, or the user's own as ``package.module:build``.

    Raises:
        ValueError: neither; the known names are listed.
    """
    return UserNetwork(build_path=text) if ":" in text else Network.named(text)
