"""Every class that our packages register, and an example of each."""

from __future__ import annotations

from dataclasses import MISSING
from typing import Any, get_args, get_origin

import trainables.attribution
import trainables.grid_evaluation
import trainables.group_training
import trainables.idsds_finetuning
import trainables.knn_evaluation
import trainables.losses
import trainables.metrics
import trainables.models
import trainables.network_comparison
import trainables.probe_evaluation
import trainables.probe_grids
import trainables.probe_training
import trainables.published_classifier
import trainables.published_finetuning
import trainables.ssl_training  # noqa: F401
from data_pipelines.configuration import Configuration, annotated_fields, default_of
from data_pipelines.dataset import Dataset
from tests.trainables.scenes import BASELINE, BIRDS
from trainables.attribution.attribution import Attribution
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.identity import Identity
from trainables.attribution.segmentation import Segmentation
from trainables.backbone import Backbone, UntrainedBackbone
from trainables.baselines import Baseline
from trainables.gauge import Gauge
from trainables.losses.loss import Loss
from trainables.metrics.classification import ClassificationMetric
from trainables.metrics.localization import Epg
from trainables.metrics.metric import Metric
from trainables.metrics.network_response import NetworkResponse
from trainables.models.network import Network
from trainables.models.pretrained import PretrainedWeights
from trainables.models.probe import ConventionalProbe, Probe
from trainables.probe_training import ProbeTraining
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.result import Result
from trainables.ssl.method import SslMethod
from trainables.ssl.moco_v2 import MocoV2

FAMILIES: list[Any] = [
    *(Dataset, Network, Baseline, Segmentation, Attribution, Identity),
    *(Loss, Metric, ClassificationMetric, Probe, Gauge, Backbone, SslMethod, Result),
]
UNTRAINED = UntrainedBackbone(network=BASELINE.network)
EVALUATED = ProtocolEvaluation(
    of=BASELINE, attribution=InputXGradient(), protocols=(NetworkResponse(),)
)
PROBED = ProbeTraining(backbone=UNTRAINED, probe=ConventionalProbe(), data=BASELINE.data)
REQUIRED = (
    *(BASELINE.network, BASELINE.data, InputXGradient(), BASELINE, BIRDS, Epg(), "supervised_ce"),
    *(ConventionalProbe(), UNTRAINED, PROBED, EVALUATED, MocoV2(), 1.0),
    PretrainedWeights(sha256=64 * "0"),
)
"""What stands for the required fields of a class."""


def registered_classes() -> list[type[Configuration]]:
    """By family and name; plug-ins of tests are left out."""
    return [
        cls
        for family in FAMILIES
        for _, cls in sorted(family.registered.items())
        if cls.__module__.split(".")[0] in ("trainables", "data_pipelines")
    ]


def stand_in(hint: Any) -> Any:
    """What REQUIRED has for a type, or a tuple of one for a tuple of any number."""
    if get_origin(hint) is tuple:
        return (stand_in(get_args(hint)[0]),)
    return next(one for one in REQUIRED if isinstance(one, hint))


def example(cls: type[Configuration]) -> Configuration:
    """The class with its defaults, and something fitting where there is none."""
    required = {
        f.name: stand_in(hint) for f, hint in annotated_fields(cls) if default_of(f) is MISSING
    }
    return cls(**required)
