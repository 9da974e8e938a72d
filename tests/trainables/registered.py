"""Every class that our packages register, and an example of each."""

from __future__ import annotations

from dataclasses import MISSING
from typing import Any

import data_pipelines.digit_scenes  # noqa: F401  (these register their classes)
import trainables.attribution
import trainables.idsds_finetuning
import trainables.losses
import trainables.metrics
import trainables.models
import trainables.protocol_evaluation  # noqa: F401
from data_pipelines.configuration import Configuration, annotated_fields, coerce, default_of
from data_pipelines.dataset import Dataset
from tests.trainables.scenes import BASELINE
from trainables.attribution.attribution import Attribution
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.identity import Identity
from trainables.attribution.segmentation import Segmentation
from trainables.baselines import Baseline
from trainables.losses.loss import Loss
from trainables.metrics.classification import ClassificationMetric
from trainables.metrics.complexity import Gini
from trainables.metrics.metric import Metric
from trainables.models.network import Network
from trainables.result import Result

FAMILIES: list[Any] = [
    *(Dataset, Network, Baseline, Segmentation, Attribution, Identity),
    *(Loss, Metric, ClassificationMetric, Result),
]
REQUIRED = (BASELINE.network, BASELINE.data, InputXGradient(), BASELINE, (Gini(),))
"""What stands for the required fields of a class."""


def registered_classes() -> list[type[Configuration]]:
    """By family and name; plug-ins of tests are left out."""
    return [
        cls
        for family in FAMILIES
        for _, cls in sorted(family.registered.items())
        if cls.__module__.split(".")[0] in ("trainables", "data_pipelines")
    ]


def example(cls: type[Configuration]) -> Configuration:
    """The class with its defaults, and something fitting where there is none."""
    required = {
        f.name: next(one for one in REQUIRED if fits(one, hint))
        for f, hint in annotated_fields(cls)
        if default_of(f) is MISSING
    }
    return cls(**required)


def fits(value: Any, hint: Any) -> bool:
    """Whether a field of this type takes the value."""
    try:
        coerce(value, hint)
    except ValueError:
        return False
    return True
