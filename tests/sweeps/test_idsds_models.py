"""The sweep over network designs: what it asks for, and bad input in one line."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch

from sweeps.idsds_models import IdsdsModels, asked
from sweeps.idsds_recipes import IMAGENET, SAMPLE
from sweeps.launch import launch
from trainables.attribution.after_softmax import AfterSoftmax
from trainables.attribution.cam import GradCam
from trainables.attribution.sets import choose
from trainables.baselines import Blur, ColorAndInverse, Zero
from trainables.classifier_training import ClassifierTraining
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.models.network import Network
from trainables.models.pretrained import pretrained_of
from trainables.network_comparison import NetworkComparison
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.published_finetuning import PublishedFinetuning
from trainables.result import Result


def results(*, stability: bool = False, **flags) -> list[Result]:
    """What the sweep asks for; no file is read."""
    sweep = IdsdsModels(data_root="nowhere", stability=stability, **flags)
    return list(sweep.results(sweep.data()))


def of(kind: type, found: list[Result]) -> list:
    return [result for result in found if isinstance(result, kind)]


def test_every_contrast_has_its_networks_and_all_methods_that_suit():
    found = results()
    assert len({result.result_id for result in found}) == len(found)
    trained = [r.network.name for r in of(ClassifierTraining, found)]
    assert trained == list(SAMPLE.designs)
    assert [r.start.network.name for r in of(IdsdsFinetuning, found)] == list(SAMPLE.designs)
    for network in map(Network.named, SAMPLE.designs):
        suiting = {
            method.key
            for method in choose(SAMPLE.methods, network).methods
            if method.name not in SAMPLE.left_out
        }
        judged = [
            r.attribution.key
            for r in of(ProtocolEvaluation, found)
            if r.network == network and isinstance(r.of, IdsdsFinetuning)
            and not isinstance(r.attribution, AfterSoftmax)
        ]  # fmt: skip
        assert set(judged) == suiting
        assert len(judged) == len(suiting) > 0
    for result in of(NetworkComparison, found):
        result.check()


def test_each_network_has_one_comparison_and_the_first_two_are_the_yardstick():
    pairs = of(NetworkComparison, results())
    tuned = [pair for pair in pairs if pair.related]
    assert [pair.second.network.name for pair in tuned] == list(SAMPLE.designs)
    (unrelated,) = [pair for pair in pairs if not pair.related]
    assert unrelated.first.network != unrelated.second.network
    assert isinstance(unrelated.first.attribution, GradCam)


def test_what_is_left_out_is_said():
    said = IdsdsModels().notes()
    assert "left out on the sample for their cost: rise, smooth_grad_integrated_gradients" in said
    assert len(IdsdsModels(methods=("rise",)).notes()) == len(said) - 1
    assert len(IdsdsModels(dataset="imagenet").notes()) == len(said) - 1


def test_a_bundle_is_a_network_with_all_its_methods():
    bundles = Counter(r.bundle for r in of(ProtocolEvaluation, results()))
    assert len(bundles) == 2 * len(SAMPLE.designs)


def test_networks_are_judged_by_what_they_are():
    for evaluation in of(ProtocolEvaluation, results(models=("small_resnet",))):
        evaluation.check()
        tuned = isinstance(evaluation.of, IdsdsFinetuning)
        keys = [protocol.key for protocol in evaluation.protocols]
        assert keys[0] == ("idsds" if tuned else "sds")
        assert ("ids" in keys) != tuned
        assert not (isinstance(evaluation.attribution, AfterSoftmax) and not tuned)


def test_incremental_deletion_is_for_the_network_on_which_methods_are_ranked():
    for evaluation in of(ProtocolEvaluation, results(models=("small_vgg",))):
        assert "ids" not in [protocol.key for protocol in evaluation.protocols]


def test_bcos_networks_are_deleted_to_black_as_they_read_it():
    found = results(models=("small_bcos_resnet",))
    (tuned,) = of(IdsdsFinetuning, found)
    assert tuned.baseline_image == ColorAndInverse(of=Zero())
    assert tuned.start.objective == "bce"
    evaluation = of(ProtocolEvaluation, found)[-1]
    assert evaluation.protocols[0].baseline == tuned.baseline_image
    assert evaluation.tags["finetuned"] == "p16_zero"


def test_the_papers_network_is_fine_tuned_in_other_ways_one_thing_at_a_time():
    tuned = of(IdsdsFinetuning, found := results(stability=True, seeds=(3, 8)))
    ways: dict[str, list[tuple[int, str, int]]] = {}
    for one in tuned:
        way = (one.patches, one.baseline_image.key, one.seed)
        ways.setdefault(f"{one.start.network.name} {one.start.seed}", []).append(way)
    zero = (16, "zero")
    varied = [(4, "zero", 3), (64, "zero", 3), (16, "random", 3), (16, "blur", 3)]
    assert ways["small_resnet 3"] == [(*zero, 3), *varied, (*zero, 4)]
    assert ways["small_resnet 8"] == [(*zero, 8)]
    assert ways["small_vgg 3"] == [(*zero, 3)]
    for pair in of(NetworkComparison, found):
        pair.check()


def test_the_yardstick_is_the_papers_pair_or_the_first_two_that_were_asked_alike():
    def unrelated(*models: str) -> list[tuple[str, str]]:
        pairs = of(NetworkComparison, results(models=models))
        names = [(pair.first.network.name, pair.second.network.name) for pair in pairs]
        return [pair for pair, of_pair in zip(names, pairs, strict=True) if not of_pair.related]

    assert unrelated(*SAMPLE.designs) == [("small_resnet", "small_vgg")]
    (pair,) = (pair for pair in of(NetworkComparison, results(stability=True)) if not pair.related)
    assert (pair.first.network.name, pair.second.network.name) == ("small_resnet", "small_vgg")
    pair.check()  # the first was asked about more deletions than the second
    three = ("small_bcos_resnet", "small_deep_resnet", "small_vgg")
    assert unrelated(*three) == [("small_deep_resnet", "small_vgg")]
    assert unrelated(*three[:2]) == []


def test_what_explains_no_logit_has_no_second_arm():
    found = results(methods=("rise", "rollout", "grad_cam"), softmax_models=("small_vit",))
    arms = [e.attribution.of.name for e in of(ProtocolEvaluation, found)
            if isinstance(e.attribution, AfterSoftmax)]  # fmt: skip
    assert arms == ["grad_cam"]


def test_several_grids_and_baselines_for_the_stability():
    found = results(models=("small_resnet",), patches=(4, 16, 4), baselines=("zero", "blur"))
    tuned = of(IdsdsFinetuning, found)
    assert {(t.patches, t.baseline_image.name) for t in tuned} == {
        (4, "zero"), (4, "blur"), (16, "zero"), (16, "blur"),
    }  # fmt: skip
    before = [e for e in of(ProtocolEvaluation, found) if e.of == tuned[0].start and asked(e)]
    assert len(asked(before[0])) == 4
    pairs = of(NetworkComparison, found)
    assert len(pairs) == 4
    for pair in pairs:
        pair.check()


def test_a_published_classifier_is_fine_tuned_with_every_seed(tmp_path):
    model = Network.named("small_resnet").build(10)
    torch.save(model.module.state_dict(), tmp_path / "small.pth")
    weights = (f"small_resnet={tmp_path / 'small.pth'}",)
    found = results(models=("small_resnet",), weights=weights, seeds=(0, 1, 2))
    assert len({r.result_id for r in of(ClassifierTraining, found)}) == 1
    assert [t.seed for t in of(IdsdsFinetuning, found)] == [0, 1, 2]
    assert len({pair.result_id for pair in of(NetworkComparison, found) if pair.related}) == 3


@pytest.mark.parametrize(("how", "expected"), [("logit", "logit"), ("as_explained", "probability")])
def test_drops_are_of_the_logit_or_of_what_is_explained(how, expected):
    found = results(models=("small_resnet",), methods=("grad_cam",), drop_output=how)
    (after,) = [e for e in of(ProtocolEvaluation, found) if isinstance(e.attribution, AfterSoftmax)]
    assert after.protocols[0].drop_output == expected


def test_the_papers_networks_on_imagenet():
    sweep = IdsdsModels(dataset="imagenet", data_root="nowhere")
    data = replace(sweep.data())
    found = list(sweep.results(data))
    assert [r.network.name for r in of(ClassifierTraining, found)] == list(IMAGENET.designs)
    rates = {t.start.network.name: t.learning_rate for t in of(IdsdsFinetuning, found)}
    assert rates["resnet50"] == 1e-3
    assert rates["bcos_resnet50"] == 1e-2
    assert {t.augmentation for t in of(IdsdsFinetuning, found)} == {"crop"}
    evaluation = next(e for e in of(ProtocolEvaluation, found) if e.attribution.name == "rise")
    assert evaluation.attribution.of_set == "idsds_as_run"


@pytest.fixture
def file(tmp_path) -> str:
    """What is in it is read later."""
    (tmp_path / "w.pth").write_bytes(b"weights")
    return f"small_resnet={tmp_path / 'w.pth'}"


def test_published_fine_tuned_networks_are_judged_as_they_are(file):
    names = ("small_resnet", "small_bcos_resnet")
    found = results(
        models=names, weights=(file,), finetuned_weights=(file,), patches=(4,), baselines=("blur",)
    )
    ready, tuned = of(IdsdsFinetuning, found)
    assert isinstance(ready, PublishedFinetuning)
    assert (ready.patches, ready.baseline_image, ready.epochs) == (4, Blur(), 1)
    assert ready.start.pretrained == ready.pretrained == pretrained_of(file.partition("=")[2])
    assert not isinstance(tuned, PublishedFinetuning)
    judged = [e for e in of(ProtocolEvaluation, found) if e.of == ready]
    assert {e.protocols[0].key for e in judged} == {"idsds_p4_blur"}
    related = [pair for pair in of(NetworkComparison, found) if pair.related]
    assert [pair.second.of for pair in related] == [ready, tuned]


def test_published_fine_tuned_networks_need_their_originals_and_one_grid(file):
    with pytest.raises(ValueError, match=r"--finetuned-weights small_resnet: .* --weights small_r"):
        results(models=("small_resnet",), finetuned_weights=(file,))
    both = {"models": ("small_resnet",), "weights": (file,), "finetuned_weights": (file,)}
    for several in ({"patches": (4, 16)}, {"baselines": ("zero", "blur")}):
        with pytest.raises(ValueError, match=r"--finetuned-weights small_resnet: .*one of --patch"):
            results(**both, **several)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset", "voc"], ["'voc'", "digit_scenes, imagenet"]),
        (["--dataset", "imagenet"], ["--data-root"]),
        (["--models", "nope"], ["'nope'", "small_resnet"]),
        (["--methods", "nope"], ["'nope'", "grad_cam"]),
        (["--methods", "rollout", "--models", "small_resnet"], ["none of rollout", "small_resnet"]),
        (["--methods", "after_softmax"], ["after_softmax", "none by itself", "it needs of"]),
        (["--softmax-models", "resnet50"], ["--softmax-models resnet50", "small_vgg"]),
        (["--attribution-output", "probability"], ["--attribution-output probability", "logit"]),
        (["--baselines"], ["--baselines", "at least one"]),
        (["--weights", "resnet50=x.pth"], ["resnet50", "not a network of this sweep"]),
        (["--weights", "small_resnet=gone.pth"], ["gone.pth", "no such file"]),
        (["--finetuned-weights", "small_vgg=gone.pth"], ["--finetuned-weights", "no such file"]),
        (["--finetuned-weights", "gone.pth"], ["--finetuned-weights gone.pth", "MODEL=FILE"]),
    ],
    ids=lambda value: " ".join(value) if value[:1] and value[0].startswith("--") else "",
)
def test_bad_input_is_refused_in_one_line(monkeypatch, capsys, tmp_path, flags, words):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    places = ["--storage-path", str(tmp_path), "--tracking-uri", f"sqlite:///{tmp_path}/m.db"]
    monkeypatch.setattr(sys, "argv", ["idsds_models.py", *places, *flags])
    with pytest.raises(SystemExit) as ended:
        launch(IdsdsModels)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    for word in words:
        assert word in line
