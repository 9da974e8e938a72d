"""Analytic identities: what a method's maps must add up to, or equal, on a given model.

They are checked on a handful of images before maps of thousands are believed.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from data_pipelines.configuration import Configuration
from trainables.attribution.attribution import Attribution
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.lrp import Lrp, Relevance
from trainables.baselines import Baseline, Zero
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.passes import Gradient, Need, Passes

TAIL = ("interpolation", "absolute", "of_set")
"""Fields that change a map after the method has made it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Whether one method meets one identity on one model.

    Attributes:
        identity: name of the identity.
        method: key of the method.
        holds: whether the error is within the tolerance; a NaN is not.
        error: largest deviation over the explanations, relative to the largest expected value.
        tolerance: what the identity allows.
        reason: what was compared, in a line.
    """

    identity: str
    method: str
    holds: bool
    error: float
    tolerance: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Identity(Configuration, family=True):
    """Something that is true of a method's maps on some models, by analysis."""

    tolerance: float
    """Largest relative error at which it holds."""

    @abstractmethod
    def applies(self, method: Attribution, model: Model) -> bool:
        """Whether it says something of the method on a model of this kind."""

    def needs(self, method: Attribution) -> tuple[Need, ...]:
        """What it reads of the passes, beside the method's own needs."""
        return ()

    @abstractmethod
    def error(self, method: Attribution, passes: Passes) -> tuple[float, str] | None:
        """Relative error and what was compared; None where the model turns out not to be one."""


def check_identities(
    model: Model,
    batch: Batch,
    methods: Iterable[Attribution],
    identities: Iterable[Identity] | None = None,
) -> list[Finding]:
    """Every identity that applies to one of the methods, on the model in eval mode.

    All of them share one set of passes. A method without an identity is in no finding.

    Args:
        model: the model that is to be explained.
        batch: a handful of its images, and what is asked of them.
        methods: methods that suit the model.
        identities: which to check; by default all that are registered.

    Raises:
        ValueError: a method gave no finite maps.
    """
    known = [cls() for _, cls in sorted(Identity.registered.items())]
    chosen = known if identities is None else list(identities)
    pairs = [(i, m) for m in methods for i in chosen if i.applies(m, model)]
    findings = []
    with evaluating(model.module), Passes(model, batch) as passes:
        for identity, method in pairs:
            passes.expect((*identity.needs(method), *method.needs(model)))
        for identity, method in pairs:
            found = identity.error(method, passes)
            if found is not None:
                error, reason = found
                holds = error <= identity.tolerance
                findings.append(
                    Finding(
                        identity=identity.name,
                        method=method.key,
                        holds=holds,
                        error=error,
                        tolerance=identity.tolerance,
                        reason=reason,
                    )
                )
    return findings


@dataclass(frozen=True, kw_only=True)
class PathCompleteness(Identity):
    """Integrated gradients add up to the logit of the image minus that of the baseline.

    Where the method's steps do not suffice, four times as many are tried: an error of the
    quadrature shrinks, any other stays.

    Source: Sundararajan et al., 2017, proposition 1.
    """

    name: ClassVar[str] = "path_completeness"

    tolerance: float = 0.05

    def applies(self, method: Attribution, model: Model) -> bool:
        return (
            method.name == "integrated_gradients"
            and isinstance(getattr(method, "baseline", None), Baseline)
            and defaults_but(method, "baseline", "steps")
        )

    def error(self, method: Attribution, passes: Passes) -> tuple[float, str]:
        owned: Any = method
        expected = logits(passes) - logits(passes, owned.baseline)
        error = deviation(method(passes).sum((1, 2)), expected)
        steps = owned.steps
        if not error <= self.tolerance:
            steps *= 4
            finer = replace(owned, steps=steps)
            error = deviation(finer(passes).sum((1, 2)), expected)
        return error, f"sum of the map and logit minus the baseline's, {steps} steps"


@dataclass(frozen=True, kw_only=True)
class RelevanceConservation(Identity):
    """Relevance that every layer shares evenly adds up to the logit.

    Asked on the canonical form that the method uses: a residual sum that was overlooked doubles
    relevance, and a form that computes something else starts from another logit. Even shares
    conserve to rounding, whatever the weights; those of the method lose to biases and dead inputs.

    Source: Bach et al., 2015, equation 2; zennit's issue 236, a sum that no canonizer matched.
    """

    name: ClassVar[str] = "relevance_conservation"

    tolerance: float = 1e-3

    def applies(self, method: Attribution, model: Model) -> bool:
        return isinstance(method, Lrp)

    def error(self, method: Attribution, passes: Passes) -> tuple[float, str]:
        owned: Any = method
        even = passes.get(Relevance(composite="flat", residual=owned.residual))
        return deviation(even.sum((1, 2, 3)), logits(passes)), (
            "sum of evenly shared relevance and logit"
        )


@dataclass(frozen=True, kw_only=True)
class ContributionCompleteness(Identity):
    """Contributions of a B-cos network add up to the logit without its constant bias.

    The bias is what the network answers to zeros. Transformers are left out: their position code
    contributes, too.

    Source: Boehle et al., CVPR 2022, equation 13.
    """

    name: ClassVar[str] = "contribution_completeness"

    tolerance: float = 1e-3

    def applies(self, method: Attribution, model: Model) -> bool:
        return method.name == "bcos" and model.explaining is not None and model.tokens is None

    def error(self, method: Attribution, passes: Passes) -> tuple[float, str]:
        expected = logits(passes) - logits(passes, Zero())
        return deviation(method(passes).sum((1, 2)), expected), (
            "sum of the map and logit minus its constant bias"
        )


@dataclass(frozen=True, kw_only=True)
class PathIsProduct(Identity):
    """Integrated gradients from zero equal input times gradient where the network is homogeneous.

    That is, f(a x) - f(0) = a (f(x) - f(0)) for a > 0: no biases but one after the last layer.
    Whether that is so is found on the images and their halves.

    Source: Hesse, Schaub-Meyer & Roth, NeurIPS 2021 (X-DNN), proposition 3.2.
    """

    name: ClassVar[str] = "path_is_product"

    tolerance: float = 1e-3

    def applies(self, method: Attribution, model: Model) -> bool:
        return self._other(method) is not None

    def needs(self, method: Attribution) -> tuple[Need, ...]:
        return (Gradient(layer="input"),)

    def error(self, method: Attribution, passes: Passes) -> tuple[float, str] | None:
        other = self._other(method)
        if other is None or not passes.get(Homogeneous()):
            return None
        return deviation(method(passes), other(passes)), f"the map and that of {other.key}"

    def _other(self, method: Attribution) -> Attribution | None:
        """The method whose maps must be the same."""
        path = Attribution.registered.get("integrated_gradients")
        if path is None or not defaults_but(method, "baseline", "steps"):
            return None
        if method.name == InputXGradient.name:
            return path(baseline=Zero())
        from_zero = isinstance(method, path) and getattr(method, "baseline", None) == Zero()
        return InputXGradient() if from_zero else None


@dataclass(frozen=True, kw_only=True)
class PooledLinearHead(Identity):
    """Grad-CAM and XGrad-CAM are the positive part of sum g F before a pool and a linear layer.

    Hence equal there: the gradient is the same all over the plane, which is how such a layer is
    found.

    Source: Selvaraju et al., 2017, section 3; Fu et al., BMVC 2020, section 3.3.
    """

    name: ClassVar[str] = "pooled_linear_head"

    tolerance: float = 1e-3

    def applies(self, method: Attribution, model: Model) -> bool:
        return method.name in ("grad_cam", "xgrad_cam") and defaults_but(method, "layer", "relu")

    def error(self, method: Attribution, passes: Passes) -> tuple[float, str] | None:
        owned: Any = method
        gradient = passes.get(Gradient(layer=owned.layer))
        mean = gradient.mean((2, 3), keepdim=True)
        if gradient.shape[2:].numel() == 1 or deviation(gradient, mean.expand_as(gradient)) > 1e-4:
            return None
        expected = (gradient * passes.feature(owned.layer)).sum(1).relu()
        return deviation(method(passes).relu(), expected), "the map and the positive part of g F"


@dataclass(frozen=True)
class Homogeneous:
    """Whether f(x / 2) - f(0) is half of f(x) - f(0) for all images and classes asked about."""

    def compute(self, passes: Passes) -> bool:
        """One forward of the halved images, and one of zeros."""
        zero = logits(passes, Zero())
        half = on(passes, passes.batch.images / 2) - zero
        return deviation(2 * half, logits(passes) - zero) < 1e-4


@dataclass(frozen=True, kw_only=True)
class BaselineLogits:
    """Each target's logit for the baseline of its image, (N,)."""

    baseline: Baseline

    def compute(self, passes: Passes) -> Tensor:
        """One forward of the baselines."""
        return on(passes, self.baseline.images(passes.batch))


def logits(passes: Passes, baseline: Baseline | None = None) -> Tensor:
    """Each target's logit for its image, or for the image's baseline, (N,)."""
    if baseline is not None:
        return passes.get(BaselineLogits(baseline=baseline))
    batch = passes.batch
    return passes.logits[batch.image_index, batch.targets]


def on(passes: Passes, images: Tensor) -> Tensor:
    """Each target's logit for other images in place of the batch's, (N,)."""
    index = passes.batch.image_index
    every = torch.arange(len(index), device=index.device)
    return logits(passes.on(images, image_index=index, of=every))


def deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected magnitude; infinite where nothing is expected.

    Zero where both are zero throughout, and without explanations.
    """
    if not expected.numel():
        return 0.0
    difference = float((found - expected).abs().max())
    scale = float(expected.abs().max())
    return difference / scale if scale else (math.inf if difference else 0.0)


def defaults_but(method: Attribution, *free: str) -> bool:
    """Whether the method is as by default, but for these fields and what comes after its maps."""
    default: Any = type(method)()
    return all(
        getattr(method, f.name) == getattr(default, f.name)
        for f in fields(method)
        if f.name not in (*free, *TAIL)
    )
