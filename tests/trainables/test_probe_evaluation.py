"""Maps of many probes over the images of a split: as each alone, and at the price of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from tests.trainables.plugins import Raising
from tests.trainables.probing import ProbeBench, colored, probe_training
from trainables.attribution.bcos import Bcos
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.lime import Lime
from trainables.attribution.score_cam import ScoreCam
from trainables.backbone import UntrainedBackbone
from trainables.gauge import Centered, Shifted
from trainables.metrics.complexity import Entropy, Gini
from trainables.metrics.grid_pg import GridPg
from trainables.metrics.localization import Epg
from trainables.metrics.pixel_deletion import PixelDeletion
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.probe import BcosProbe, ConventionalProbe
from trainables.pack_scorer import PackScored, PackScorer
from trainables.probe_evaluation import PROTOCOLS, ProbeEvaluation
from trainables.protocol_evaluation import ProtocolEvaluation

CE, BCE = probe_training(), probe_training(objective="bce", seed=1)
DEEP = probe_training(probe=BcosProbe(layers=2, hidden=6), objective="bce", seed=2)
ALL = (CE, BCE, DEEP)
DELETION = PixelDeletion(step=0.5)
TWO = 3
"""Images of two classes among the eight."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> ProbeBench:
    bench = ProbeBench(tmp_path_factory.mktemp("probes"), {"val": colored(8, 1, two=TWO)})
    bench.plant(*ALL)
    return bench


@pytest.fixture
def bench(planted: ProbeBench, tmp_path) -> ProbeBench:
    beside = planted.beside(tmp_path / "storage", *ALL)
    return ProbeBench(beside.storage, planted.splits)


def evaluation(of: Any = CE, method: Any = None, **changed: Any) -> ProbeEvaluation:
    return ProbeEvaluation(of=of, attribution=method or InputXGradient(), **changed)


def test_a_pack_scores_as_each_network_alone(bench):
    protocols = (*PROTOCOLS[:1], DELETION, replace(DELETION, output="hit"), *PROTOCOLS[2:])
    together = [evaluation(of, protocols=protocols) for of in ALL]
    bench.run_bundle(*together)
    for result in together:
        assert bench.told(result, "finished"), bench.events
        alone = ProtocolEvaluation(
            of=result.of, attribution=result.attribution, protocols=protocols
        )
        assert bench.run(alone), bench.events
        rows = bench.rows(result)
        assert len(rows) == len(protocols) * (8 + TWO)
        pd.testing.assert_frame_equal(rows, bench.rows(alone), rtol=1e-4, atol=1e-6)
        ((_, metrics),), ((_, expected),) = bench.history(result), bench.history(alone)
        for key, value in expected.items():
            assert metrics[key] == pytest.approx(value, rel=1e-4), key


@pytest.mark.slow
def test_methods_that_ask_for_probabilities_get_those_of_their_probe(bench):
    methods = (ScoreCam(), Lime(samples=10))
    together = [evaluation(of, m, protocols=(Epg(),)) for of in ALL for m in methods]
    bench.run_bundle(*together)
    for result in together:
        assert bench.told(result, "finished"), bench.events
        alone = ProtocolEvaluation(of=result.of, attribution=result.attribution, protocols=(Epg(),))
        assert bench.run(alone), bench.events
        pd.testing.assert_frame_equal(bench.rows(result), bench.rows(alone), rtol=1e-4, atol=1e-5)


def test_probes_on_a_bcos_network(bench):
    backbone = UntrainedBackbone(network=SmallBcosResNet(width=4))
    kinds = (BcosProbe(layers=2, hidden=8), ConventionalProbe(layers=2, hidden=8))
    probes = [probe_training(backbone=backbone, probe=p, seed=k) for k, p in enumerate(kinds)]
    bench.plant(*probes)
    together = [evaluation(of, Bcos(), protocols=(Epg(),)) for of in probes]
    bench.run_bundle(*together)
    for result in together:
        assert bench.told(result, "finished"), bench.events
        alone = ProtocolEvaluation(of=result.of, attribution=Bcos(), protocols=(Epg(),))
        assert bench.run(alone), bench.events
        pd.testing.assert_frame_equal(bench.rows(result), bench.rows(alone), rtol=1e-5, atol=1e-7)


def test_epg_is_told_by_box_size_and_the_maps_by_their_scale(bench):
    result = evaluation(method=GradCam(), protocols=(Epg(), Gini()))
    assert bench.run(result), bench.events
    ((_, metrics),) = bench.history(result)
    rows = bench.rows(result)
    assert set(rows["protocol_key"]) == {"epg", "gini"}
    epg = rows[rows["protocol_key"] == "epg"]
    small = epg[epg["box_area_fraction"] < 0.25]
    assert 0 < len(small) < len(epg)
    assert metrics["val/epg_area0-0.25"] == pytest.approx(small["score"].mean())
    assert metrics["val/epg_area0-0.25_rows"] == len(small)
    assert not [key for key in metrics if key.startswith("val/gini_area")]
    assert 0 <= metrics["val/dead_map_fraction"] < 1
    assert metrics["val/map_scale"] > 0
    assert result.directions["epg_area0.25-0.5"] == "max"
    assert result.directions["dead_map_fraction"] == "min"


def test_a_dead_map_is_counted(bench):
    """Far below zero every class has a map without a positive value."""
    result = evaluation(gauge=Shifted(alpha=-1e6), method=GradCam(), protocols=(Gini(),))
    assert bench.run(result), bench.events
    ((_, metrics),) = bench.history(result)
    assert metrics["val/dead_map_fraction"] == 1
    assert "val/map_scale" not in metrics
    assert metrics["val/gini_defined_fraction"] == 0


class TestForwards:
    """An image goes through the backbone once, whatever the number of probes and methods."""

    @pytest.fixture
    def forwards(self, monkeypatch) -> list[int]:
        counted: list[int] = []
        score = PackScorer.__call__

        def counting(self: PackScorer, batch: Any) -> PackScored:
            scored = score(self, batch)
            counted.append(scored.forwards)
            return scored

        monkeypatch.setattr(PackScorer, "__call__", counting)
        return counted

    @pytest.mark.parametrize("of", [ALL, ALL[:1]])
    def test_of_maps_that_are_only_looked_at(self, bench, forwards, of):
        protocols = (Epg(smooth_px=5), Gini(), Entropy())
        methods = (InputXGradient(), GradCam())
        results = [evaluation(one, m, protocols=protocols) for one in of for m in methods]
        bench.run_bundle(*results)
        assert sum(forwards) == 8

    def test_of_maps_by_which_pixels_are_deleted(self, bench, forwards):
        bench.run_bundle(*(evaluation(one, protocols=(DELETION,)) for one in ALL))
        # and by each probe: every image as it is, and each of its maps after one step
        assert sum(forwards) == 8 + len(ALL) * (8 + (8 + TWO))


class TestImages:
    """Which are judged."""

    def test_those_that_the_probe_or_all_compared_classify_correctly(self, bench):
        blind = probe_training(seed=9)
        bench.plant(blind, blind=True)
        results = [
            evaluation(CE, images="own", confidence=0.6, protocols=(Gini(),)),
            *(
                evaluation(of, images="common", compared=(CE, BCE), protocols=(Gini(),))
                for of in (CE, BCE)
            ),
            evaluation(blind, images="own", protocols=(Gini(),)),
        ]
        bench.run_bundle(*results)
        images = bench.splits["val"]
        single = set(images.image_ids[images.labels.sum(1) == 1])
        for result in results[:3]:
            assert set(bench.rows(result)["image_id"]) == single
        assert "none among 8 images of val that the probe classifies" in bench.reason(results[3])

    def test_some_of_all_are_drawn_as_in_a_protocol_evaluation(self, bench):
        some = evaluation(image_count=3, protocols=(Gini(),))
        assert bench.run(some), bench.events
        like = ProtocolEvaluation(of=CE, attribution=GradCam(), protocols=(Gini(),), images=3)
        ids = bench.splits["val"].image_ids.tolist()
        assert set(bench.rows(some)["image_id"]) == like.chosen_ids(ids)

    def test_a_damaged_image_is_told_and_counted(self, planted, tmp_path):
        images = replace(planted.splits["val"], skipped={"cut": "cut short"})
        bench = ProbeBench(planted.beside(tmp_path / "x", CE).storage, {"val": images})
        result = evaluation(protocols=(Gini(),))
        assert bench.run(result), bench.events
        assert bench.summary(result) == {"images": 9, "skipped": ["cut"]}


def test_a_method_that_raises_fails_its_result_alone(bench):
    results = [evaluation(CE, m, protocols=(Gini(),)) for m in (Raising(), GradCam())]
    bench.run_bundle(*results)
    assert bench.reason(results[0]) == "RuntimeError: no map today"
    assert bench.told(results[1], "finished")
    assert not list((bench.storage / "parts").iterdir())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"protocols": ()}, "at least one protocol"),
        ({"protocols": (GridPg(side=2),)}, "take probe_grid_evaluation"),
        ({"images": "common"}, "0 probes compared"),
        ({"of": DEEP, "gauge": Centered()}, "B-cos layer"),
        ({"method": Bcos()}, "B-cos"),
    ],
)
def test_what_cannot_work_is_refused(changed: dict[str, Any], reason: str):
    evaluation().check()
    with pytest.raises(ValueError, match=reason):
        evaluation(**changed).check()


def test_a_bundle_is_one_backbone_and_one_choice_of_images():
    one = evaluation()
    assert evaluation(DEEP, GradCam(), protocols=(Gini(),)).bundle == one.bundle
    others: list[dict[str, Any]] = [
        {"image_count": 3}, {"seed": 1}, {"split": "test"}, {"images": "own"},
        {"images": "common", "compared": (CE,)},
    ]  # fmt: skip
    assert len({evaluation(**changed).bundle for changed in others} | {one.bundle}) == 6
    assert one.tags == CE.tags | {"gauge": "as_trained", "images": "all"}
