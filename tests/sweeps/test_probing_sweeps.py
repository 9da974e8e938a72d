"""The sweeps on backbones and probes: what they ask for, share and refuse; nothing is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from data_pipelines.dataset import Dataset
from data_pipelines.digit_scenes import DigitScenes
from sweeps.launch.command import run
from sweeps.launch.plan import closure, make_plan
from sweeps.launch.sweep import Sweep
from sweeps.pretraining import Pretraining
from sweeps.pretraining_recipes import RECIPES as PRETRAINING_RECIPES
from sweeps.probe_depth import ProbeDepth
from sweeps.probe_objective import ProbeObjective
from sweeps.probing_recipes import PROBES, RECIPES
from trainables.backbone import TrainedBackbone, UntrainedBackbone
from trainables.classifier_training import ClassifierTraining
from trainables.gauge import AsTrained, Centered, Exchanged, Shifted
from trainables.grid_evaluation import GridEvaluation
from trainables.knn_evaluation import KnnEvaluation
from trainables.models.small_resnet import SmallResNet
from trainables.probe_evaluation import ProbeEvaluation
from trainables.probe_grids import ProbeGridEvaluation
from trainables.probe_training import ProbeTraining
from trainables.result import Result
from trainables.ssl_training import SslTraining

DATA = DigitScenes(layout="imagenet")
SEVERAL = DigitScenes(layout="voc")
IMAGES = {"train": 1200, "val": 200}
ONE: dict[str, Any] = {"networks": ("small_resnet",), "attributions": ("grad_cam",)}
"""Flags of a grid that is quickly looked at."""


def asked(sweep: Sweep, data: Dataset = DATA) -> list[Result]:
    return list(sweep.results(data))


def probes(results: Sequence[Result]) -> list[ProbeTraining]:
    return [one for one in results if isinstance(one, ProbeTraining)]


def judgements(results: Sequence[Result]) -> list[ProbeEvaluation | ProbeGridEvaluation]:
    return [one for one in results if isinstance(one, ProbeEvaluation | ProbeGridEvaluation)]


@pytest.fixture(scope="module")
def objective() -> list[Result]:
    return asked(ProbeObjective(**ONE, blind=False))


@pytest.fixture(scope="module")
def depth() -> list[Result]:
    return asked(ProbeDepth(**ONE))


class TestPretraining:
    def test_every_backbone_is_judged_beside_the_untrained_one(self):
        results = asked(Pretraining(networks=("small_resnet", "small_bcos_resnet")))
        pairs = Counter(
            (one.backbone.architecture.name, one.backbone.pretraining)
            for one in results
            if isinstance(one, KnnEvaluation)
        )
        names = ("none", "supervised_ce", "moco_v3")
        networks = ("small_resnet", "small_bcos_resnet")
        assert pairs == {(network, name): 1 for network in networks for name in names}
        for one in results:
            one.check()

    def test_images_of_several_classes_are_learned_by_bce(self):
        results = asked(Pretraining(layout="voc", methods=("supervised",)), SEVERAL)
        (training,) = {one for one in results if isinstance(one, ClassifierTraining)} & {
            one.backbone.of
            for one in results
            if isinstance(one, KnnEvaluation) and isinstance(one.backbone, TrainedBackbone)
            if one.backbone.architecture == SmallResNet()
        }
        assert training.objective == "bce"

    def test_fewer_epochs_end_the_warm_up_before(self):
        flags = {"dataset": "imagenet", "data_root": "nowhere", "methods": ("byol", "dino")}
        results = asked(Pretraining(**flags, pretraining_epochs=1))
        trainings = [one for one in results if isinstance(one, SslTraining)]
        assert {(one.epochs, one.warmup_epochs) for one in trainings} == {(1, 0)}

    def test_published_data_have_the_papers_recipes(self):
        results = asked(Pretraining(dataset="imagenet", data_root="nowhere"))
        epochs = {one.epochs for one in results if isinstance(one, SslTraining)}
        rates = {
            (one.network.name, one.method.name): (one.optimizer_name, one.learning_rate)
            for one in results
            if isinstance(one, SslTraining)
        }
        assert epochs == {200}
        assert rates["resnet50", "dino"] == ("sgd", 0.03)
        assert rates["bcos_resnet50", "dino"] == ("adamw", 1e-3)
        assert rates["resnet50", "byol"] == ("lars", 0.3)


class TestObjective:
    def test_every_backbone_has_every_kind_and_loss(self, objective):
        found = Counter(
            (p.backbone.pretraining, p.probe.key, p.loss_name) for p in probes(objective)
        )
        assert found == {
            (pretraining, kind, loss): 1
            for pretraining in ("supervised_ce", "moco_v3", "none")
            for kind in ("conventional", "bcos")
            for loss in ("ce", "bce", "bce_uniform")
        }

    def test_maps_of_the_control_are_not_judged(self, objective):
        assert any(isinstance(p.backbone, UntrainedBackbone) for p in probes(objective))
        backbones = {one.of.backbone.pretraining for one in judgements(objective)}
        assert backbones == {"supervised_ce", "moco_v3"}

    def test_linear_probes_are_judged_in_other_gauges_too(self, objective):
        gauged = [one for one in judgements(objective) if one.gauge != AsTrained()]
        kinds = Counter(
            (one.of.backbone.pretraining, type(one.gauge), one.of.loss_name) for one in gauged
        )
        for backbone in ("supervised_ce", "moco_v3"):
            for loss in ("ce", "bce", "bce_uniform"):
                assert kinds[backbone, Centered, loss] == 1
            assert kinds[backbone, Exchanged, "ce"] == 1
        assert {one.of.probe.name for one in gauged} == {"conventional"}
        shifted = [one for one in gauged if isinstance(one.gauge, Shifted)]
        assert {one.of.backbone for one in shifted} == {shifted[0].of.backbone}
        assert len(shifted) == 4
        assert all(isinstance(one, ProbeGridEvaluation) for one in gauged)

    def test_all_probes_of_a_backbone_are_judged_on_equal_mosaics(self, objective):
        grids = [one for one in objective if isinstance(one, ProbeGridEvaluation)]
        for pretraining in ("supervised_ce", "moco_v3"):
            of = [one for one in grids if one.of.backbone.pretraining == pretraining]
            assert len({one.bundle for one in of}) == 1
            assert {(p.probe.key, p.loss_name) for p in of[0].compared} == {
                (kind, loss) for kind in ("conventional", "bcos") for loss in ("ce", "bce")
            }

    def test_networks_trained_as_a_whole_stand_beside(self, objective):
        whole = {one for one in objective if isinstance(one, ClassifierTraining)}
        assert {one.objective for one in whole} == {"ce", "bce"}
        supervised = next(p for p in probes(objective) if p.backbone.pretraining == "supervised_ce")
        assert isinstance(supervised.backbone, TrainedBackbone)
        assert supervised.backbone.of in whole
        grids = [one for one in objective if isinstance(one, GridEvaluation)]
        assert {one.of for one in grids} == whole
        assert all(set(one.compared) == whole for one in grids)

    def test_everything_could_be_computed(self, objective):
        assert len({one.result_id for one in objective}) == len(set(objective))
        for one in objective:
            one.check()

    def test_methods_are_those_that_suit_the_probed_network(self):
        sweep = ProbeObjective(
            attributions=("bcos", "lrp"), pretrainings=("supervised",), losses=("ce",), blind=False
        )
        found = {(m.network.network.name, m.attribution.name) for m in judgements(asked(sweep))}
        assert found == {
            ("small_resnet", "lrp"),
            ("small_bcos_resnet", "bcos"),
        }

    def test_rollout_is_judged_on_any_images_under_every_probe(self):
        flags = {**ONE, "pretrainings": ("none",), "references": False}
        found = judgements(asked(ProbeObjective(**flags)))
        assert {(one.attribution.name, one.images, one.compared) for one in found} == {
            ("rollout", "all", ())
        }
        assert len({one.bundle for one in found}) == 1
        assert len({one.of for one in found}) == 6
        for one in found:
            one.check()

    def test_own_images_are_another_choice(self):
        results = asked(
            ProbeObjective(**ONE, pretrainings=("supervised",), grid_images=("own",), blind=False)
        )
        grids = [one for one in results if isinstance(one, ProbeGridEvaluation)]
        assert {(one.images, one.compared) for one in grids} == {("own", ())}

    def test_a_smoke_run_has_no_mosaics(self):
        results = asked(ProbeObjective(smoke=True, data_root="nowhere").small())
        assert not [r for r in results if isinstance(r, ProbeGridEvaluation | GridEvaluation)]
        assert {(p.backbone.pretraining, p.epochs) for p in probes(results)} == {
            ("supervised_ce", 2)
        }


class TestDepth:
    def test_twelve_probes_a_backbone(self, depth):
        found = Counter(one.backbone for one in probes(depth))
        assert list(found.values()) == [12, 12, 12]
        assert {(p.probe.key, p.loss_name) for p in probes(depth)} == {
            (f"{kind}{layers}", loss)
            for kind in ("conventional", "bcos")
            for layers in ("", "_l2", "_l3")
            for loss in ("ce", "bce")
        }

    def test_images_of_several_classes_leave_ce_and_mosaics_out(self):
        results = asked(ProbeDepth(**ONE, layout="voc"), SEVERAL)
        assert {p.loss_name for p in probes(results)} == {"bce"}
        (kind,) = {type(one) for one in judgements(results)}
        assert kind is ProbeEvaluation
        assert {one.split for one in judgements(results)} == {"test"}
        for one in results:
            one.check()

    def test_what_the_two_studies_share_is_one_result(self, depth, objective):
        ids = {one.result_id for one in objective}
        both = {one for one in closure(depth) if one.result_id in ids}
        assert {p for p in probes(depth) if p.probe.layers == 1} <= both
        linear = [one for one in judgements(depth) if one.of.probe.layers == 1]
        assert linear
        assert set(linear) <= both

    def test_a_probe_that_joins_is_all_that_is_trained(self, depth, tmp_path):
        """With its own maps; what chose the mosaics stays, and so do all other results."""
        before = {one.result_id for one in closure(depth)}
        more = asked(ProbeDepth(**ONE, losses=("ce", "bce", "bce_uniform"), layers=(1, 2, 3)))
        plan = make_plan(more, lambda one: one.result_id in before, tmp_path, IMAGES)
        found = [one for one in plan.missing.values() if one.result_id not in before]
        losses = {one.loss_name for one in probes(found)}
        assert losses == {one.of.loss_name for one in judgements(found)} == {"bce_uniform"}
        assert len(found) == len(probes(found)) + len(judgements(found))

    def test_a_pack_saves_all_forwards_but_one_of_its_probes(self, depth):
        (line,) = ProbeDepth(**ONE).savings(probes(depth), IMAGES)
        epochs = PROBES["sample"]["epochs"]
        assert f"{3 * epochs * 1200:,} forwards" in line
        assert f"save {3 * 11 * epochs * 1200:,}" in line


@pytest.mark.parametrize("recipe", ["paper", "code_step"])
def test_published_data_have_the_papers_numbers(recipe):
    sweep = ProbeObjective(
        dataset="imagenet",
        data_root="nowhere",
        networks=("small_resnet",),
        pretrainings=("moco_v2",),
        attributions=("integrated_gradients",),
        recipe_of_probes=recipe,
        references=False,
    )
    results = asked(sweep)
    optimizers = {"paper": ("adam", 1e-3, 256), "code_step": ("sgd", 30.0, 512)}
    assert {(p.optimizer_name, p.learning_rate, p.batch_size) for p in probes(results)} == {
        optimizers[recipe]
    }
    grids = [one for one in results if isinstance(one, ProbeGridEvaluation)]
    assert {(one.grids, one.side, one.smooth_px) for one in grids} == {(500, 3, 129)}


def test_every_dataset_has_both_recipes():
    assert RECIPES.keys() == PRETRAINING_RECIPES.keys()
    assert {recipe.probes for recipe in RECIPES.values()} <= PROBES.keys()


@pytest.mark.parametrize(
    ("sweep", "flags", "words"),
    [
        (Pretraining, {"methods": ("nope",)}, ["'nope'", "moco_v2"]),
        (Pretraining, {"networks": ("nope",)}, ["'nope'", "small_resnet"]),
        (Pretraining, {"networks": ("bagnet9",)}, ["bagnet9", "--networks", "probed_at"]),
        (Pretraining, {"dataset": "waterbirds"}, ["waterbirds", "digit_scenes, imagenet"]),
        (Pretraining, {"dataset": "imagenet"}, ["--data-root", "class"]),
        (Pretraining, {"pretraining_epochs": -1}, ["--pretraining-epochs -1"]),
        (Pretraining, {"layout": "voc", "methods": ("supervised_ce",)}, ["supervised_bce"]),
        (ProbeObjective, {"layout": "voc"}, ["several classes", "probe_depth"]),
        (ProbeObjective, {"losses": ()}, ["--losses", "bce_uniform"]),
        (ProbeObjective, {"losses": ("nope",)}, ["--losses", "'nope'", "bce_uniform"]),
        (ProbeObjective, {"probes": ("nope",)}, ["'nope'", "conventional"]),
        (ProbeObjective, {"probes": ()}, ["--probes", "conventional"]),
        (ProbeObjective, {"pretrainings": ()}, ["--pretrainings", "--backbones"]),
        (ProbeObjective, {"pretrainings": ("nope",)}, ["'nope'", "moco_v2"]),
        (ProbeObjective, {"attributions": ("nope",)}, ["'nope'", "grad_cam"]),
        (ProbeObjective, {"attributions": ("bcos",)}, ["--attributions", "suits no"]),
        (ProbeObjective, {"recipe_of_probes": "nope"}, ["--recipe-of-probes", "'nope'", "paper"]),
        (ProbeObjective, {"backbones": ("resnet50",)}, ["--backbones", "NETWORK=PRETRAINING"]),
        (ProbeObjective, {"epochs": -1}, ["--epochs -1"]),
        (ProbeObjective, {"images": -1}, ["--images -1"]),
        (ProbeDepth, {"layers": (4,)}, ["--layers", "4"]),
        (ProbeDepth, {"layers": ()}, ["--layers"]),
        (ProbeDepth, {"layout": "voc", "losses": ("ce",)}, ["several classes", "bce"]),
    ],
    ids=lambda value: value.question if isinstance(value, type) else "",
)
def test_bad_input_is_refused_in_one_line_before_data_are_looked_at(sweep, flags, words, tmp_path):
    small: dict[str, Any] = {"networks": ("small_resnet",)}
    if sweep is not Pretraining:
        small["attributions"] = ("grad_cam",)
    asked_for = sweep(storage_path=str(tmp_path / "storage"), **small | flags)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        run(asked_for)
    for word in words:
        assert word in str(refused.value)
    assert not (tmp_path / "storage").exists()
