from collections import Counter

import pytest

from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.manifest import Manifest, SplitSummary
from data_pipelines.waterbirds import Waterbirds as Published
from sweeps.waterbirds import Waterbirds
from trainables.group_training import GroupEvaluation, GroupTraining
from trainables.models.pretrained import pretrained_of
from trainables.result import Result


def results(**flags) -> list[Result]:
    """Each result once."""
    dataset = flags.get("dataset", "digit_scenes")
    data = DigitScenes(layout="waterbirds") if dataset == "digit_scenes" else Published(root="no")
    return list({r.result_id: r for r in Waterbirds(**flags).results(data)}.values())


def trainings(found: list[Result], guided: bool) -> list[GroupTraining]:
    return [r for r in found if isinstance(r, GroupTraining) and (r.loss is not None) == guided]


def test_seeds_and_drawings_are_crossed_and_a_baseline_serves_both_settings():
    found = results()
    assert len(trainings(found, guided=False)) == 2
    assert len([r for r in found if isinstance(r, GroupEvaluation)]) == 2 * 2 * 2
    guided = trainings(found, guided=True)
    cells = Counter((r.attribution.layer, r.loss.name, r.setting) for r in guided)
    assert len(cells) == 2 * 2 * 2
    assert set(cells.values()) == {4}
    assert {(r.seed, r.annotation_seed) for r in guided} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert {r.baseline.result_id for r in guided} == {
        r.result_id for r in trainings(found, guided=False)
    }


def test_published_data_are_trained_on_as_in_the_paper():
    found = results(dataset="waterbirds", data_root="no")
    guided = trainings(found, guided=True)
    assert len(guided) == 96
    assert len(trainings(found, guided=False)) == 6
    methods = {(r.network.name, r.attribution.name) for r in guided}
    assert methods == {
        ("resnet50", "input_x_gradient"),
        ("xresnet50", "input_x_gradient"),
        ("bcos_resnet50", "bcos"),
    }
    assert {(r.epochs, r.batch_size, r.annotated_fraction, r.crop_px) for r in guided} == {
        (350, 64, 0.01, 224)
    }
    (bias,) = {r.network.logit_bias for r in guided if r.network.name == "bcos_resnet50"}
    assert bias == pytest.approx(-6.9068, abs=1e-4)
    assert all(r.network.fresh_head for r in guided if r.network.name == "xresnet50")


def test_baseline_and_guided_trainings_start_from_one_file(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"known by its bytes alone")
    found = results(weights=(f"small_resnet={file}",))
    starts = {r.pretrained for r in found if isinstance(r, GroupTraining)}
    assert starts == {pretrained_of(file)}


def test_the_smoke_grid_is_small_and_of_the_reversed_setting():
    small = Waterbirds(smoke=True).small()
    found = list(small.results(small.data()))
    assert len(trainings(found, guided=True)) == 2
    assert small.data().images_train == 64


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"lambda_loc": (0.0,)}, "--lambda-loc 0: must be positive"),
        ({"lambda_loc": ()}, "--lambda-loc needs at least one value"),
        ({"settings": ()}, "--settings needs at least one value"),
        ({"annotation_seeds": ()}, "--annotation-seeds needs at least one value"),
        ({"losses": ("enrgy",)}, "unknown loss 'enrgy'; known: "),
        ({"weights": ("small.pth",)}, "--weights small.pth: expected MODEL=FILE, as in"),
        ({"weights": ("vgg0=a.pth",)}, "--weights: .*'vgg0'.*; or a kind: vanilla, xdnn, bcos"),
        ({"weights": ("bcos=a.pth",)}, r"small_bcos_resnet: not a .* sweep \(small_resnet\)"),
        ({"weights": ("vanilla=no.pth",)}, "--weights vanilla: .*no.pth"),
        ({"models": ("vanila",)}, "--models: .*'vanila'.*; or a kind: vanilla, xdnn, bcos"),
    ],
)
def test_a_bad_grid_is_refused_by_flag(flags, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        results(**flags)


def test_a_second_file_for_one_network_is_refused(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"known by its bytes alone")
    with pytest.raises(ValueError, match=r"--weights small_resnet=.* has a file already"):
        results(weights=(f"vanilla={file}", f"small_resnet={file}"))


def test_kinds_are_the_datasets_own_networks():
    found = results(models=("vanilla", "small_resnet", "xdnn", "bcos"), seeds=(0,))
    methods = {(r.network.name, r.attribution.name) for r in trainings(found, guided=True)}
    assert methods == {
        ("small_resnet", "input_x_gradient"),
        ("small_xresnet", "input_x_gradient"),
        ("small_bcos_resnet", "bcos"),
    }


def test_the_notes_tell_each_losss_factor():
    losses = ("energy", "rrr_star")
    notes = Waterbirds(losses=losses).notes()
    told = {line.partition(":")[0]: line for line in notes}
    assert told["lambda of energy"].endswith("x 4 (64/16 images)")
    assert told["lambda of rrr_star"].endswith("x 64 (64/16 images x (224/56)^2 pixels)")
    guided = trainings(results(losses=losses), guided=True)
    assert {r.loss.name: r.lambda_scale for r in guided} == {"energy": 4, "rrr_star": 64}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dataset": "ducks"}, "unknown --dataset 'ducks'; known: digit_scenes, waterbirds"),
        ({"dataset": "waterbirds"}, "needs --data-root, the folder that holds metadata.csv"),
    ],
)
def test_bad_data_are_refused_by_flag(flags, message):
    with pytest.raises(ValueError, match=message):
        Waterbirds(**flags).data()


def test_a_share_that_comes_to_no_image_is_refused_once_these_are_counted(tmp_path):
    sweep = Waterbirds(annotated_fraction=0.01)
    counts = {"train": SplitSummary(99, 99, 99, {}, {})}
    with pytest.raises(ValueError, match=r"--annotated-fraction 0\.01: of 99 .* at least 0\.0102"):
        sweep.check_data(Manifest(tmp_path, {}, (), "", "", counts))
