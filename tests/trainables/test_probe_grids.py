"""The grid pointing game of many probes at once: as each alone, and at the price of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import nn

from tests.trainables.plugins import Raising
from tests.trainables.probing import ProbeBench, colored, other_backbone, probe_training
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.integrated_gradients import IntegratedGradients
from trainables.attribution.lrp import Lrp
import importlib.util as _u; _s=_u.spec_from_file_location("stub","/tmp/scratch/stub_model_at.py"); _m=_u.module_from_spec(_s); _s.loader.exec_module(_m)  # TEMP
from trainables.gauge import Centered, Shifted
from trainables.grid_evaluation import GridEvaluation
from trainables.models.probe import BcosProbe, ConventionalProbe
from trainables.passes import Passes
from trainables.probe_grids import ProbeGridEvaluation
from trainables.probe_judgement import ProbeJudgement
from trainables.result import Result

CE = probe_training()
BCE = probe_training(objective="bce", seed=1, probe=ConventionalProbe(layers=2, hidden=40))
DEEP = probe_training(probe=ConventionalProbe(layers=3, hidden=40), seed=2)
ALL = (CE, BCE, DEEP)


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> ProbeBench:
    bench = ProbeBench(tmp_path_factory.mktemp("probes"), {"val": colored(24, 1)})
    bench.plant(*ALL)
    return bench


@pytest.fixture
def bench(planted: ProbeBench, tmp_path) -> ProbeBench:
    """Three probes that know the colors."""
    beside = planted.beside(tmp_path / "storage", *ALL)
    return ProbeBench(beside.storage, planted.splits)


def evaluation(of: Any = CE, method: Any = None, **changed: Any) -> ProbeGridEvaluation:
    fields: dict[str, Any] = {"of": of, "attribution": method or InputXGradient(), "side": 2}
    return ProbeGridEvaluation(**fields | {"grids": 5, "confidence": 0.6} | changed)


def common(of: Any, method: Any = None, **changed: Any) -> ProbeGridEvaluation:
    return evaluation(of, method, images="common", compared=ALL, **changed)


@pytest.mark.parametrize("method", [InputXGradient(), GradCam(), Lrp(), IntegratedGradients(steps=3)])
@pytest.mark.parametrize("images", ["own", "common"])
def test_a_pack_scores_as_each_network_alone(bench, method, images):
    compared = ALL if images == "common" else ()
    together = [evaluation(of, method, images=images, compared=compared) for of in ALL]
    bench.run_bundle(*together)
    for result in together:
        assert bench.told(result, "finished"), bench.events
        shared = {"images": images, "compared": compared, "confidence": 0.6, "grids": 5}
        alone = GridEvaluation(of=result.of, attribution=method, side=2, **shared)
        assert bench.run(alone), bench.events
        pd.testing.assert_frame_equal(
            bench.rows(result), bench.rows(alone), rtol=1e-4, atol=1e-6
        )
        ((_, metrics),), ((_, expected),) = bench.history(result), bench.history(alone)
        assert metrics["val/grid_pg_n2"] == pytest.approx(expected["val/grid_pg_n2"], rel=1e-5)
        assert metrics["val/dead_map_fraction"] == 0
        assert metrics["val/map_scale"] > 0
