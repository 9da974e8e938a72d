"""The grid pointing game of many probes at once: as each alone, and at the price of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from tests.trainables.plugins import Raising
from tests.trainables.probing import ProbeBench, colored, leave, other_backbone, probe_training
from tests.trainables.scenes import SIZE_PX
from trainables import judging
from trainables.attribution.attention import Rollout
from trainables.attribution.bcos import Bcos
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.integrated_gradients import IntegratedGradients
from trainables.attribution.lrp import Lrp
from trainables.backbone import UntrainedBackbone
from trainables.gauge import Centered, Exchanged, Shifted
from trainables.grid_evaluation import GridEvaluation
from trainables.models.probe import BcosProbe, ConventionalProbe
from trainables.models.timm_vit import SmallViT
from trainables.pack_scorer import PackScored, PackScorer
from trainables.probe_grids import ProbeGridEvaluation

CE = probe_training()
BCE = probe_training(objective="bce", seed=1)
DEEP = probe_training(probe=ConventionalProbe(layers=2, hidden=40), seed=2)
ALL = (CE, BCE, DEEP)
GRIDS = 3


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> ProbeBench:
    bench = ProbeBench(tmp_path_factory.mktemp("probes"), {"val": colored(16, 1)})
    bench.plant(*ALL)
    return bench


@pytest.fixture
def bench(planted: ProbeBench, tmp_path) -> ProbeBench:
    """Three probes that know the colors."""
    beside = planted.beside(tmp_path / "storage", *ALL)
    return ProbeBench(beside.storage, planted.splits)


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """Image-forwards of each batch, as they come."""
    counted: list[int] = []
    score = PackScorer.__call__

    def counting(self: PackScorer, batch: Any) -> PackScored:
        scored = score(self, batch)
        counted.append(scored.forwards)
        return scored

    monkeypatch.setattr(PackScorer, "__call__", counting)
    return counted


def evaluation(of: Any = CE, method: Any = None, **changed: Any) -> ProbeGridEvaluation:
    fields: dict[str, Any] = {"of": of, "attribution": method or InputXGradient(), "side": 2}
    return ProbeGridEvaluation(**fields | {"grids": GRIDS, "confidence": 0.6} | changed)


def common(of: Any, method: Any = None, **changed: Any) -> ProbeGridEvaluation:
    return evaluation(of, method, images="common", compared=ALL, **changed)


class TestScores:
    """Whoever shares the work, the scores are those of one network."""

    @pytest.mark.parametrize(
        ("images", "methods"),
        [
            ("own", (GradCam(),)),
            pytest.param(
                *("common", (Lrp(), IntegratedGradients(steps=2))), marks=pytest.mark.slow
            ),
        ],
    )
    def test_a_pack_scores_as_each_network_alone(self, bench, images, methods):
        shared = {"images": images, "compared": ALL if images == "common" else (), "side": 2}
        together = [evaluation(of, m, **shared) for of in ALL for m in methods]
        bench.run_bundle(*together)
        for result in together:
            assert bench.told(result, "finished"), bench.events
            alone = GridEvaluation(
                of=result.of,
                attribution=result.attribution,
                grids=GRIDS,
                confidence=0.6,
                **shared,
            )
            assert bench.run(alone), bench.events
            rows = bench.rows(alone)
            pd.testing.assert_frame_equal(bench.rows(result), rows, rtol=1e-5, atol=1e-6)
            ((_, metrics),) = bench.history(result)
            assert metrics["val/grid_pg_n2"] == pytest.approx(rows["score"].mean(), rel=1e-5)
            assert metrics["val/grid_pg_n2_defined_fraction"] == 1
            assert metrics["val/dead_map_fraction"] == 0
            assert metrics["val/map_scale"] > 0

    def test_a_map_that_knows_no_probe_scores_chance(self, tmp_path):
        """Pure rollout: bitwise one map for all probes of a frozen transformer, and all cells."""
        backbone = UntrainedBackbone(network=SmallViT(size_px=SIZE_PX))
        probes = [probe_training(backbone=backbone, seed=seed) for seed in range(3)]
        bench = ProbeBench(tmp_path, {"val": colored(16, 1)})
        bench.plant(*probes)
        results = [
            evaluation(of, Rollout(), images="common", compared=tuple(probes)) for of in probes
        ]
        bench.run_bundle(*results)
        first = bench.rows(results[0])
        for result in results:
            assert bench.told(result, "finished"), bench.events
            assert bench.rows(result).equals(first)
            ((_, metrics),) = bench.history(result)
            assert metrics["val/grid_pg_n2"] == pytest.approx(1 / 4, abs=1e-7)


class TestSharing:
    """What is computed once, and what another's trouble does to a result."""

    def test_the_composition_changes_nothing(self, bench, planted, tmp_path):
        methods = (InputXGradient(), GradCam())
        together = [common(of, method) for of in ALL for method in methods]
        bench.run_bundle(*together)
        for number, chosen in enumerate((together[2:3], together[1::2])):
            other = planted.beside(tmp_path / str(number), *ALL)
            ProbeBench(other.storage, planted.splits).run_bundle(*chosen)
            for result in chosen:
                pd.testing.assert_frame_equal(
                    other.rows(result), bench.rows(result), check_exact=True
                )

    def test_a_mosaic_goes_through_the_backbone_once(self, bench, forwards):
        gauges = (Centered(), Exchanged(other=BCE), Shifted(alpha=2.0))
        results = [common(of, m) for of in ALL for m in (InputXGradient(), GradCam())]
        results += [common(CE, gauge=gauge) for gauge in gauges]
        assert len({result.bundle for result in results}) == 1
        bench.run_bundle(*results)
        assert all(bench.told(result, "finished") for result in results), bench.events
        # the second time for what the gauges are asked and the two methods are not
        assert sum(forwards) == 2 * GRIDS

    def test_more_probes_than_there_is_room_for(
        self, bench, planted, tmp_path, monkeypatch, forwards
    ):
        results = [common(of) for of in ALL]
        bench.run_bundle(*results)
        assert sum(forwards) == GRIDS
        forwards.clear()
        monkeypatch.setattr("trainables.pack_scorer.HOST_BYTES", 4 * 64 * (2 * SIZE_PX) ** 2)
        other = planted.beside(tmp_path / "other", *ALL)
        ProbeBench(other.storage, planted.splits).run_bundle(*results)
        assert sum(forwards) == len(ALL) * GRIDS
        for result in results:
            pd.testing.assert_frame_equal(other.rows(result), bench.rows(result))

    def test_what_a_killed_bundle_has_done_is_not_done_again(self, bench, monkeypatch, forwards):
        results = [common(of) for of in ALL]
        bench.run_bundle(*results)
        expected = [bench.rows(result) for result in results]
        monkeypatch.setattr(judging, "PART_IMAGES", 1)
        write, written = judging.write_part, list[Any]()

        def killed(*arguments: Any) -> None:
            if len(written) == 2:
                raise KeyboardInterrupt
            written.append(arguments)
            write(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(judging, "write_part", killed)
            with pytest.raises(KeyboardInterrupt):
                bench.run_bundle(*results[:2])
        forwards.clear()
        bench.run_bundle(*results)  # one of them has not begun
        assert sum(forwards) == 1 + GRIDS
        for result, rows in zip(results, expected, strict=True):
            pd.testing.assert_frame_equal(bench.rows(result), rows, check_exact=True)
        assert not list((bench.storage / "parts").iterdir())

    def test_a_probe_whose_weights_are_broken_fails_alone(self, bench):
        results = [common(of) for of in ALL]
        bench.run_bundle(*results)  # the logits are there
        head = CE.architecture.head_of(CE.model_at(bench.trial(CE), 4).module)
        torch.nn.init.constant_(head.last.weight, torch.nan)
        leave(bench.folder(CE), head)
        own = [evaluation(of) for of in ALL]
        bench.events.clear()
        bench.run_bundle(*own)
        assert "0 of 16 images" in bench.reason(own[0])
        assert all(bench.told(result, "finished") for result in own[1:])

    def test_a_method_that_raises_fails_its_results_alone(self, bench):
        results = [common(of, method) for of in ALL for method in (Raising(), GradCam())]
        bench.run_bundle(*results)
        for result in results[::2]:
            assert bench.reason(result) == "RuntimeError: no map today"
        assert all(bench.told(result, "finished") for result in results[1::2])
        assert not list((bench.storage / "parts").iterdir())

    def test_a_probe_that_knows_too_few_classes_fails_alone_and_says_of_how_many(self, bench):
        blind = probe_training(seed=9)
        bench.plant(blind, blind=True)
        results = [evaluation(of, confidence=0.9) for of in (blind, CE)]
        results += [evaluation(of, images="all") for of in (blind, CE)]
        bench.run_bundle(*results[:2])
        bench.run_bundle(*results[2:])
        reason = bench.reason(results[0])
        assert "0 of 16 images of val" in reason
        assert "they show 0 of 4 classes; a mosaic of 2 x 2 needs 4" in reason
        for result, share in zip(results[1:], (1, 1, 1), strict=True):
            ((_, metrics),) = bench.history(result)
            assert metrics["val/chosen_fraction"] == share
        on_all = [bench.rows(result)["image_id"].tolist() for result in results[2:]]
        assert on_all[0] == on_all[1]


class TestGauges:
    @pytest.mark.parametrize(
        "method", [InputXGradient(), pytest.param(Lrp(), marks=pytest.mark.slow)]
    )
    def test_all_gauges_of_a_probe_are_judged_on_its_own_images(self, bench, method):
        gauges = (Centered(), Shifted(alpha=1e6), Exchanged(other=BCE))
        results = [evaluation(CE, method), *(evaluation(CE, method, gauge=g) for g in gauges)]
        bench.run_bundle(*results)
        raw, *others = (bench.rows(result) for result in results)
        for other in others:
            assert other["image_id"].equals(raw["image_id"])
            assert not other["score"].equals(raw["score"])
        # as the shift grows every class has one map: the four cells of a mosaic share it
        assert others[1]["score"].mean() == pytest.approx(1 / 4, abs=1e-3)


class TestRefusals:
    """Said before anything is computed."""

    def test_what_works_is_not_refused(self):
        for gauge in (Centered(), Exchanged(other=BCE)):
            evaluation(gauge=gauge).check()
        common(CE, Lrp()).check()

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"grids": 0}, "grids = 0"),
            ({"confidence": 1.0}, "confidence = 1.0"),
            ({"images": "common"}, "0 probes compared"),
            ({"compared": (CE,)}, "images = 'own', 1 probes compared"),
            ({"images": "common", "compared": (BCE,)}, "this one among them"),
            (
                {"images": "common", "compared": (CE, replace(CE, image_size_px=32))},
                "no common images",
            ),
            ({"attribution": Bcos()}, "B-cos"),
            ({"of": probe_training(probe=BcosProbe()), "gauge": Centered()}, "B-cos layer"),
        ],
    )
    def test_a_choice_that_cannot_be(self, changed: dict[str, Any], reason: str):
        with pytest.raises(ValueError, match=reason):
            evaluation(**changed).check()


def test_a_bundle_is_one_backbone_and_one_choice_of_mosaics():
    one = evaluation()
    for same in ({"of": DEEP}, {"attribution": GradCam()}, {"gauge": Centered()}):
        assert evaluation(**same).bundle == one.bundle
    others: list[dict[str, Any]] = [
        {"side": 3}, {"seed": 1}, {"grids": 7}, {"confidence": 0.5},
        {"of": probe_training(backbone=other_backbone())}, {"images": "common", "compared": (CE,)},
    ]  # fmt: skip
    bundles = {evaluation(**changed).bundle for changed in others}
    assert len(bundles | {one.bundle}) == len(others) + 1


def test_tables_group_it_by_what_its_probe_is():
    tags = evaluation(BCE, gauge=Exchanged(other=CE)).tags
    assert tags == BCE.tags | {"gauge": f"exchanged_ce_{CE.result_id[:8]}", "images": "own"}
