"""Scores of a split: every pair once, the same whatever the batches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from tests.reference import box_iou, epg, micro_f1
from tests.trainables.networks import hooks_of
from tests.trainables.scenes import squares
from trainables import scoring
from trainables.attribution.cam import GradCam
from trainables.attribution.gradient import InputXGradient
from trainables.attribution_evaluation import guidance_protocols
from trainables.batch import Batch
from trainables.models.network import Model, evaluating
from trainables.models.small_resnet import SmallResNet
from trainables.passes import Passes
from trainables.scoring import batches, score

METHOD = InputXGradient(layer="mid1")
PROTOCOLS = guidance_protocols(0.2)


@pytest.fixture(scope="module")
def images():
    return squares(11, 3, unlabeled=(4,))


@pytest.fixture(scope="module")
def model() -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallResNet(width=4).build(3)
    model.module.double()
    return Model(model.module, model.depths, lambda pixels: model.encode(pixels).double())


@pytest.fixture(scope="module")
def scores(model, images):
    return score(model, images, torch.device("cpu"), METHOD, PROTOCOLS)


def test_every_pair_of_image_and_positive_class_has_its_own_score(model, images, scores):
    for key, of_protocol in scores.rows.groupby("protocol_key", sort=False):
        assert len(of_protocol) == images.labels.sum()
        for (index, target), row in zip(
            zip(*images.pairs(), strict=True), of_protocol.itertuples(), strict=True
        ):
            assert (row.image_id, row.target) == (images.image_ids[index], target)
            x = model.encode(torch.from_numpy(images.images([index])))
            with (
                evaluating(model.module),
                Passes(model, Batch.single(x, torch.tensor([target]))) as passes,
            ):
                map_ = METHOD.at_image_size(METHOD(passes), passes)[0].numpy()
            mask = images.mask(int(index), int(target))
            expected = {
                "epg": epg(map_, mask),
                "box_iou": box_iou(map_, mask, 0.5),
                "box_iou_tuned": box_iou(map_, mask, 0.2),
            }[key]
            assert row.score == pytest.approx(expected, rel=1e-9)
            assert row.box_area_fraction == pytest.approx(mask.mean())


def test_means_are_over_pairs_and_classification_over_all_images(model, images, scores):
    rows = scores.rows
    for key in PROTOCOLS:
        column = rows[rows["protocol_key"] == key]["score"]
        assert scores.means[key] == pytest.approx(column.fillna(0).mean())
        assert scores.means[f"{key}_defined_fraction"] == pytest.approx(column.notna().mean())
    with torch.no_grad(), evaluating(model.module):
        logits = model.module(model.encode(torch.from_numpy(images.images(range(11))))).numpy()
    expected = micro_f1(logits, images.labels) if (logits >= 0).any() else 0.0
    assert scores.means["f1"] == pytest.approx(expected)
    assert set(scores.as_metrics("val")) == {f"val/{key}" for key in scores.means}


@pytest.mark.parametrize("size", [1, 4, 11])
def test_scores_do_not_depend_on_the_batches(model, images, scores, size, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH_SIZE", size)
    other = score(model, images, torch.device("cpu"), METHOD, PROTOCOLS)
    pd.testing.assert_frame_equal(other.rows, scores.rows, rtol=1e-9)
    assert other.means == pytest.approx(scores.means, rel=1e-9)


def test_targets_of_an_image_share_its_forward(model, images, monkeypatch):
    counts = []

    class Counted(Passes):
        def __exit__(self, *exception):
            counts.append(self.counts)
            super().__exit__(*exception)

    monkeypatch.setattr(scoring, "Passes", Counted)
    score(model, images, torch.device("cpu"), GradCam(), PROTOCOLS)
    assert sum(c.forwards for c in counts) == len(images)
    counts.clear()
    score(model, images, torch.device("cpu"), METHOD, PROTOCOLS)
    assert sum(c.forwards for c in counts) == len(images)
    assert len(set(images.labels.sum(1))) > 2
    assert sum(c.backwards["mid1"] for c in counts) == images.labels.sum()  # no image for nothing
    counts.clear()
    score(model, images, torch.device("cpu"))
    assert sum(c.forwards for c in counts) == len(images)
    assert not any(c.backwards for c in counts)  # nobody asked for a map


def test_batches_hold_every_image_once_with_all_its_pairs_and_masks(model, images, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH_SIZE", 4)
    numbers = {name: k for k, name in enumerate(images.image_ids.tolist())}
    seen, names = [], []
    for batch in batches(model, images, torch.device("cpu")):
        assert len(batch.images) <= 4
        assert len(set(batch.image_index.bincount(minlength=len(batch.images)).tolist())) == 1
        of = np.array([numbers[batch.image_ids[i]] for i in batch.image_index.tolist()], dtype=int)
        seen += list(zip(of.tolist(), batch.targets.tolist(), strict=True))
        names += list(batch.image_ids)
        assert np.array_equal(
            batch.masks.numpy(), images.masks(np.array(of), batch.targets.numpy())
        )
    assert sorted(names) == images.image_ids.tolist()
    assert sorted(seen) == list(zip(*(part.tolist() for part in images.pairs()), strict=True))


def test_batches_without_explanations_go_through_the_images_in_order(model, images, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH_SIZE", 4)
    silent = list(batches(model, images, torch.device("cpu"), explained=False))
    assert [name for batch in silent for name in batch.image_ids] == images.image_ids.tolist()
    assert all(len(batch.targets) == 0 for batch in silent)


def test_a_split_without_any_label_has_no_map_scores(model):
    nobody = squares(3, 0, unlabeled=range(3))
    scores = score(model, nobody, torch.device("cpu"), METHOD, PROTOCOLS)
    assert len(scores.rows) == 0
    assert np.isnan(scores.means["epg"])
    assert np.isnan(scores.means["map"])


def test_scoring_leaves_the_model_as_it_was(model, images):
    model.module.train()
    score(model, images, torch.device("cpu"), METHOD, PROTOCOLS)
    assert model.module.training
    assert all(p.requires_grad and p.grad is None for p in model.module.parameters())
    assert hooks_of(model.module) == 0
    model.module.eval()
