"""Which trainings each named grid asks for, and how flags change that."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from safetensors.torch import save_file

from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.manifest import Manifest
from sweeps.guidance_lambda import GuidanceLambda
from sweeps.recipes import RECIPES, kind_of
from trainables.checkpoint import sha256_of
from trainables.guided_training import GuidedTraining
from trainables.models.bcos_resnet import BcosResNet50, SmallBcosResNet
from trainables.models.fixup_resnet import XResNet50
from trainables.result import Result

DATA = DigitScenes(fingerprint="0123456789abcdef")


def results_of(**flags: Any) -> dict[str, Result]:
    return {r.result_id: r for r in GuidanceLambda(**flags).results(DATA)}


def guided_of(**flags: Any) -> list[GuidedTraining]:
    every = results_of(**flags).values()
    return [r for r in every if isinstance(r, GuidedTraining) and r.loss is not None]


def maps_of(training: GuidedTraining) -> tuple[str, str]:
    assert training.attribution is not None
    return training.attribution.name, training.attribution.layer


def test_the_demo_repeats_every_lambda_of_each_loss_and_layer_for_each_seed():
    assert Counter(r.seed for r in guided_of()) == dict.fromkeys((0, 1, 2), 4 * 3 * 2)
    assert len(results_of()) == 90


def test_later_seeds_repeat_the_largest_lambda_alone_on_demand():
    counts = Counter(r.seed for r in guided_of(repeat="largest"))
    assert counts == {0: 24, 1: 4 * 2, 2: 4 * 2}


def test_lambda_zero_is_the_one_control_of_a_seed():
    found = results_of(lambda_loc=(0.0,), seeds=(3,)).values()
    assert [r.loss for r in found if isinstance(r, GuidedTraining)] == [None]


def test_the_grid_of_kinds_has_four_losses_two_lambdas_and_two_layers_of_each():
    guided = guided_of(grid="kinds")
    assert Counter(r.start.network.name for r in guided) == dict.fromkeys(
        ("small_resnet", "small_xresnet", "small_bcos_resnet"), 4 * 2 * 2
    )
    assert {r.seed for r in guided} == {0}
    assert {r.lambda_loc for r in guided if r.loss.name == "energy"} == {5e-4, 5e-3}


@pytest.mark.parametrize(
    ("dataset", "between"), [("voc2007", 3), ("voc", 3), ("coco2014", 0), ("coco", 0)]
)
def test_the_papers_grid_is_what_published_data_get(dataset, between):
    """72 and Grad-CAM's 36 on both; the depths between on VOC alone."""
    guided = guided_of(dataset=dataset, data_root="nowhere")
    assert len(guided) == 72 + 36 + 36 * between
    layers = Counter(layer for method, layer in map(maps_of, guided) if method != "grad_cam")
    assert layers == dict.fromkeys(("input", "final", "mid1", "mid2", "mid3")[: 2 + between], 36)
    methods = Counter((r.start.network.name, maps_of(r)[0]) for r in guided)
    assert methods == {
        ("resnet50", "input_x_gradient"): 24 + 12 * between,
        ("xresnet50", "input_x_gradient"): 24 + 12 * between,
        ("bcos_resnet50", "bcos"): 24 + 12 * between,
    } | {(name, "grad_cam"): 12 for name in ("resnet50", "xresnet50", "bcos_resnet50")}
    references = len(results_of(dataset=dataset, data_root="nowhere")) - len(guided)
    assert references == 3 * (2 + 2 * (3 + between))


@pytest.mark.parametrize(
    ("dataset", "baseline", "guided", "rates"),
    [
        ("voc2007", 300, 50, {"vanilla": 1e-4, "xdnn": 1e-4, "bcos": 1e-4}),
        ("coco2014", 60, 10, {"vanilla": 1e-4, "xdnn": 1e-5, "bcos": 1e-4}),
    ],
)
def test_published_data_are_trained_on_as_in_the_paper(dataset, baseline, guided, rates):
    for training in guided_of(dataset=dataset, data_root="nowhere", losses=("l1",)):
        start = training.start
        assert (start.epochs, start.batch_size, start.size_px) == (baseline, 64, 224)
        assert (training.epochs, training.batch_size, training.learning_rate) == (guided, 64, 1e-4)
        assert start.learning_rate == rates[kind_of(start.network)]
        assert training.lambda_scale == 1


def test_the_baselines_rate_can_be_chosen_and_guided_trainings_keep_theirs():
    plain, chosen = guided_of(seeds=(0,)), guided_of(seeds=(0,), baseline_learning_rate=1e-5)
    assert {r.start.learning_rate for r in chosen} == {1e-5}
    assert {r.learning_rate for r in chosen} == {r.learning_rate for r in plain} == {1.5e-3}


def test_flags_stand_before_the_grid():
    flags: dict[str, Any] = {"losses": ("l1",), "lambda_loc": (0.1,), "seeds": (7,)}
    guided = guided_of(grid="paper", models=("bcos", "small_resnet"), **flags)
    assert {(r.loss.name, r.lambda_loc, r.seed) for r in guided} == {("l1", 0.1, 7)}
    assert len(guided) == 2 * (2 + 1 + 3)


def test_a_flag_that_names_layers_or_a_method_leaves_the_supplement_out():
    assert {maps_of(r) for r in guided_of(grid="paper", layers=("mid1",), models=("bcos",))} == {
        ("bcos", "mid1")
    }
    assert {maps_of(r) for r in guided_of(grid="paper", attribution="grad_cam")} == {
        ("grad_cam", "input"), ("grad_cam", "final"),
    }  # fmt: skip


def test_a_kind_its_network_and_both_mean_the_same():
    one, two = guided_of(models=("bcos",)), guided_of(models=("small_bcos_resnet", "bcos"))
    assert one == two


def test_any_other_network_is_trained_and_explained_as_its_kind():
    network = "bcos_resnet18"
    (start,) = {r.start for r in guided_of(models=(network,), seeds=(0,))}
    assert start.learning_rate == RECIPES["digit_scenes"].kinds["bcos"].baseline_learning_rate
    assert {maps_of(r)[0] for r in guided_of(models=(network,))} == {"bcos"}


def test_networks_have_the_heads_of_the_paper():
    models = ("xresnet50", "bcos_resnet50", "xdnn", "bcos")
    for dataset in ("digit_scenes", "voc2007"):
        flags: dict[str, Any] = {"dataset": dataset, "data_root": "nowhere", "models": models}
        networks = {r.start.network for r in guided_of(**flags)}
        assert {XResNet50().with_new_head(), BcosResNet50().with_new_head()} <= networks
        assert len(networks) == (4 if dataset == "digit_scenes" else 2)


def test_a_users_network_is_conventional():
    build = "trainables.models.user_network:example"
    guided = guided_of(models=(build,), seeds=(0,), layers=("input",))
    assert {maps_of(r)[0] for r in guided} == {"input_x_gradient"}


def test_a_smoke_run_of_published_data_takes_one_network():
    sweep = GuidanceLambda(smoke=True, dataset="voc", data_root="nowhere").small()
    networks = {r.start.network.name for r in sweep.results(DATA) if isinstance(r, GuidedTraining)}
    assert networks == {"resnet50"}


def test_cocos_validation_can_be_chosen_where_the_published_files_are_read(tmp_path):
    sweep = GuidanceLambda(dataset="coco2014", data_root=str(tmp_path), split_file="val.txt")
    assert sweep.data().split_file == "val.txt"
    manifest = Manifest(tmp_path, {}, (), "", "", {}, shards={"train": {"0": 1}})
    with pytest.raises(ValueError, match=r"--split-file val\.txt: the shards at .* leave it out"):
        sweep.check_data(manifest)
    replace(sweep, split_file="").check_data(manifest)
    sweep.check_data(replace(manifest, shards={}))


def test_a_networks_kind_is_that_of_its_recipe():
    for recipe in RECIPES.values():
        found = {name: kind_of(kind.network) for name, kind in recipe.kinds.items()}
        assert found == {name: name for name in ("vanilla", "xdnn", "bcos")}


@pytest.mark.parametrize("kind", ["vanilla", "xdnn", "bcos"])
def test_every_method_and_layer_suits_the_samples_networks(kind):
    for result in guided_of(grid="paper", models=(kind,), losses=("l1",), lambda_loc=(0.1,)):
        result.check()


def test_a_baseline_starts_from_its_file_and_others_from_random_weights(tmp_path):
    path = tmp_path / "bcos.safetensors"
    save_file(SmallBcosResNet().module(10).state_dict(), path)
    guided = guided_of(grid="kinds", weights=(f"bcos={path}",))
    starts = {r.start.network.name: r.start for r in guided}
    weights = starts["small_bcos_resnet"].pretrained
    assert weights is not None
    assert (weights.path, weights.sha256) == (str(path), sha256_of(path))
    assert starts["small_resnet"].pretrained is starts["small_xresnet"].pretrained is None
    starts["small_bcos_resnet"].check()
