"""Fine-tuning with deleted cells: the draws, the steps, the accuracies, and who may be judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.image_set import ImageSet
from sweeps.launch.plan import has_files
from sweeps.launch.weights import prune
from tests.trainables.conftest import Bench
from tests.trainables.scenes import BASELINE, CONTROL, GUIDED, SIZE_PX, Feed, squares
from trainables.baselines import Baseline, Blur, ColorAndInverse, Random, Zero
from trainables.batch import Batch
from trainables.classifier_training import ClassifierTraining, single_labels
from trainables.deletion_protocol import check_deletion_protocol, deletion_protocol
from trainables.idsds_finetuning import IdsdsFinetuning, draw_deletions
from trainables.losses.classification import classification_loss
from trainables.metrics.single_deletion import Idsds, Sds
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.network import Model
from trainables.training import DELETED, SHUFFLE, best_epoch
from trainables.trial import Trial, feed_key

START = replace(BASELINE, data=DigitScenes(layout="imagenet"), objective="ce", epochs=2)
TUNED = IdsdsFinetuning(
    start=START, epochs=3, batch_size=16, learning_rate=1e-2, step_epochs=1, step_factor=0.5
)
CELL_PX = SIZE_PX // 4
GOLDEN = Path(__file__).parents[1] / "golden" / "idsds" / "train_aug.npz"


@dataclass
class SingleBench(Bench):
    """Feeds of one class an image."""

    @property
    def feeds(self) -> dict[Any, Feed]:
        return {feed_key(START, split): Feed(images) for split, images in self.splits.items()}


def singles(n: int, seed: int) -> ImageSet:
    """The first n of the generated images that hold one square."""
    images = squares(4 * n, seed)
    chosen = np.flatnonzero(images.labels.sum(1) == 1)[:n]
    assert len(chosen) == n
    return replace(
        images,
        image_ids=images.image_ids[chosen],
        labels=images.labels[chosen],
        boxes=images.boxes[images.box_offsets[chosen]],
        box_offsets=np.arange(n + 1),
        rows=images.rows[chosen],
    )


@pytest.fixture(scope="module")
def single_splits() -> dict[str, ImageSet]:
    return {"train": singles(40, 0), "val": singles(16, 1)}


@pytest.fixture(scope="module")
def started(single_splits, tmp_path_factory) -> Path:
    """Storage that holds the classifier."""
    bench = SingleBench(tmp_path_factory.mktemp("started"), single_splits)
    assert bench.run(START), bench.events
    return bench.storage


@pytest.fixture
def bench(single_splits, started, tmp_path) -> SingleBench:
    """The classifier is there."""
    empty = SingleBench(started, single_splits)
    return SingleBench(empty.beside(tmp_path / "storage", START).storage, single_splits)


@pytest.fixture
def trial(bench) -> Trial:
    return Trial(TUNED, bench.storage, bench.feeds, bench.events.append)


def shown(
    tuned: IdsdsFinetuning, trial: Trial, model: Model, images: ImageSet, epoch: int, chosen: Any
) -> Batch:
    """What the network sees of some images in an epoch."""
    return tuned.deleted(trial, model, images, tuned.plan(trial, images, epoch), chosen)


class TestStart:
    """The classifier of one class an image."""

    def test_cross_entropy_selects_by_accuracy(self, bench):
        history = [{"val/f1": 0.9, "val/accuracy": 0.1}, {"val/f1": 0.1, "val/accuracy": 0.9}]
        history.append({"val/f1": 0.0, "val/accuracy": 0.0})
        assert START.keeps(history) == {2, 3}
        assert BASELINE.keeps(history) == {1, 3}
        bench.run(START)
        metrics = [metrics for _, metrics in bench.history(START)]
        assert bench.summary(START)["epoch"] == best_epoch(metrics, "val/accuracy")
        assert START.directions["accuracy"] == "max"

    def test_losses_are_the_formulas(self):
        logits, classes = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
        labels = functional.one_hot(classes, 3).float()
        picked = logits.log_softmax(1)[torch.arange(5), classes]
        torch.testing.assert_close(classification_loss("ce", logits, labels), -picked.mean())
        signs = torch.where(labels == 1, logits, -logits)
        torch.testing.assert_close(
            classification_loss("bce", logits, labels), -functional.logsigmoid(signs).mean()
        )

    def test_the_default_objective_is_no_part_of_the_id(self):
        assert BASELINE.objective == "bce"
        assert "objective" not in BASELINE.canonical()
        assert replace(BASELINE, objective="ce").result_id != BASELINE.result_id

    @pytest.mark.parametrize("result", [START, TUNED], ids=lambda result: result.name)
    def test_an_image_of_two_classes_is_refused_and_named(self, bench, result):
        images = bench.splits["train"]
        labels = images.labels.copy()
        labels[7] = 1
        splits = bench.splits | {"train": replace(images, labels=labels)}
        other = SingleBench(bench.storage, splits)
        other.run(result)
        assert f"image {str(images.image_ids[7])!r} has 3 classes" in other.reason(result)
        assert "expected exactly one" in other.reason(result)

    def test_the_classes_are_those_of_the_labels(self, bench):
        images = bench.splits["val"]
        classes = single_labels(images)
        assert [images.positives(i).tolist() for i in range(len(images))] == [[c] for c in classes]


class TestDraws:
    """A cell and a coin for each image of an epoch."""

    def test_cells_are_uniform_and_a_fair_coin_is_independent_of_them(self, trial):
        cells, whole = draw_deletions(trial, 16, 1, 40_000)
        counts = np.bincount(cells, minlength=16)
        assert len(counts) == 16
        assert np.abs(counts - 2500).max() < 5 * 50
        assert abs(whole.mean() - 0.5) < 5 * 0.0025
        of_whole = np.bincount(cells[whole], minlength=16)
        assert np.abs(of_whole - counts / 2).max() < 5 * 25

    def test_they_follow_from_seed_epoch_and_image(self, trial, bench):
        first = draw_deletions(trial, 16, 1, 40)
        again = draw_deletions(trial, 16, 1, 40)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        other = Trial(replace(TUNED, seed=1), bench.storage, bench.feeds, bench.events.append)
        for changed in (draw_deletions(trial, 16, 2, 40), draw_deletions(other, 16, 1, 40)):
            assert not np.array_equal(first[0], changed[0])
            assert not np.array_equal(first[1], changed[1])

    def test_a_batch_gets_what_its_images_drew(self, trial, bench):
        images, model = bench.splits["train"], START.network.build(3)
        cells, whole = draw_deletions(trial, 16, 5, 40)
        chosen = np.array([31, 4, 17, 9, 22, 0, 8])
        encoded = model.encode(torch.from_numpy(images.images(chosen)))
        mixed = shown(TUNED, trial, model, images, 5, chosen).images
        for row, image in enumerate(chosen):
            expected = encoded[row].clone()
            if not whole[image]:
                top, left = cells[image] // 4 * CELL_PX, cells[image] % 4 * CELL_PX
                expected[:, top : top + CELL_PX, left : left + CELL_PX] = 0
            assert torch.equal(mixed[row], expected)
        assert 0 < whole[chosen].sum() < len(chosen)

    def test_a_random_baseline_is_drawn_anew_for_each_image_and_epoch(self, trial, bench):
        images, model = bench.splits["train"], START.network.build(3)
        random, both = replace(TUNED, baseline_image=Random()), np.arange(2)
        batches = [shown(random, trial, model, images, epoch, both) for epoch in (3, 3, 4)]
        one, again, later = (Random().images(batch) for batch in batches)
        assert torch.equal(one, again)
        assert torch.equal(batches[0].images, batches[1].images)
        assert not torch.equal(one, later)
        assert not torch.equal(one[0], one[1])
        whole, taken = model.encode(torch.from_numpy(images.images(both))), batches[0].images
        assert ((taken == whole) | (taken == one)).all()


@pytest.fixture
def theirs(monkeypatch) -> dict[str, np.ndarray]:
    """What the authors' loop drew for 32 images of 224 px, in place of our draws, and deleted."""
    with np.load(GOLDEN, allow_pickle=False) as file:
        golden = dict(file)
    cells = golden["rows"] * int(golden["grid"]) + golden["cols"]
    drawn = (cells, golden["keep_clean"].astype(bool))
    monkeypatch.setattr("trainables.idsds_finetuning.draw_deletions", lambda *_: drawn)
    return golden


@pytest.fixture(scope="module")
def large() -> ImageSet:
    """32 images of their size, noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3), dtype=np.uint8)
    return replace(singles(32, 0), size_px=224, blocks=[pixels], rows=np.arange(32))


class TestAuthorsDraws:
    """Rows, columns and coins of their code; a coin of 1 keeps the image whole."""

    def test_their_pixels_are_deleted_and_no_other(self, trial, theirs, large):
        model = START.network.build(3)
        whole = model.encode(torch.from_numpy(large.images(np.arange(32))))
        assert (whole != 0).all()
        mixed = shown(TUNED, trial, model, large, 1, np.arange(32)).images
        mask = torch.from_numpy(theirs["deleted_mask"])[:, None].expand_as(mixed)
        assert torch.equal(mixed == 0, mask)
        assert torch.equal(mixed[~mask], whole[~mask])
        kept = torch.from_numpy(theirs["keep_clean"].astype(bool))
        assert torch.equal(mixed[kept], whole[kept])
        assert mask[~kept].flatten(1).sum(1).tolist() == [3 * 56 * 56] * int((~kept).sum())

    @pytest.mark.parametrize("name", sorted(Baseline.registered))
    def test_whatever_stands_there_is_the_baselines(self, trial, theirs, large, name):
        baseline = Baseline.named(name)
        network = SmallBcosResNet(width=4) if name == ColorAndInverse.name else START.network
        model, chosen = network.build(3), np.array([2, 9, 11])
        assert {0, 1} == set(theirs["keep_clean"][chosen])
        encoded = model.encode(torch.from_numpy(large.images(chosen)))
        names = [f"{large.image_ids[index]} in epoch 7" for index in chosen]
        none = torch.empty(0, dtype=torch.long)
        batch = Batch(images=encoded, image_ids=names, image_index=none, targets=none)
        blank = baseline.images(batch)
        mixed = replace(TUNED, baseline_image=baseline).deleted(
            trial, model, large, TUNED.plan(trial, large, 7), chosen
        )
        for row, image in enumerate(chosen):
            for y in range(0, 224, 56):
                for x in range(0, 224, 56):
                    cell = (row, ..., slice(y, y + 56), slice(x, x + 56))
                    gone = theirs["deleted_mask"][image, y, x]
                    source = blank if gone else encoded
                    assert torch.equal(mixed.images[cell], source[cell])


def plain_training(bench: SingleBench) -> dict[str, torch.Tensor]:
    """The same in plain torch, image by image, with torch's own schedule."""
    images = bench.splits["train"]
    model = START.network.build(3)
    model.module.load_state_dict(bench.weights(START, bench.summary(START)["epoch"]))
    optimizer = torch.optim.SGD(model.module.parameters(), lr=1e-2, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    model.module.train()
    for epoch in (1, 2, 3):
        order = np.random.default_rng([0, SHUFFLE, epoch]).permutation(40)
        draws = np.random.default_rng([0, DELETED, epoch])
        cells, whole = draws.integers(16, size=40), draws.integers(2, size=40)
        for start in range(0, 40, 16):
            batch = order[start : start + 16]
            x = model.encode(torch.from_numpy(images.images(batch)))
            for row, image in enumerate(batch):
                if whole[image] == 0:
                    top, left = cells[image] // 4 * CELL_PX, cells[image] % 4 * CELL_PX
                    x[row, :, top : top + CELL_PX, left : left + CELL_PX] = 0
            optimizer.zero_grad()
            classes = torch.from_numpy(images.labels[batch].argmax(1))
            functional.cross_entropy(model.module(x), classes).backward()
            optimizer.step()
        schedule.step()
    return dict(model.module.state_dict())


class TestTraining:
    def test_it_is_plain_descent_on_images_with_deleted_cells(self, bench):
        assert bench.run(TUNED), bench.events[-1]
        expected, found = plain_training(bench), bench.weights(TUNED, 3)
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7)

    def test_a_resumed_one_equals_an_undisturbed_one(self, bench, tmp_path):
        class Killed(BaseException):
            pass

        def emit(event):
            if event["event"] == "epoch" and event["result_id"] == TUNED.result_id:
                raise Killed

        other = SingleBench(bench.beside(tmp_path / "beside", START).storage, bench.splits)
        assert bench.run(TUNED)
        with pytest.raises(Killed):
            other.run_with(emit, TUNED)
        assert other.run(TUNED)
        assert other.history(TUNED) == bench.history(TUNED)
        assert other.summary(TUNED) == bench.summary(TUNED)  # digests of the weights among it

    def test_the_rate_falls_in_steps(self):
        paper = IdsdsFinetuning(start=START)
        rates = [paper.rate_at(epoch) for epoch in (1, 10, 11, 20, 21, 30)]
        assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])

    @pytest.mark.parametrize("kept", ["last", "best"])
    def test_the_last_or_the_best_epoch_is_the_result_and_alone_is_kept(self, bench, kept):
        result = replace(TUNED, kept_epoch=kept)
        assert bench.run(result)
        trained = [m for _, m in bench.history(result) if "train/loss" in m]
        best = best_epoch(trained, "val/accuracy")
        chosen = 3 if kept == "last" else best
        assert bench.summary(result)["epoch"] == chosen
        assert set(bench.kept_epochs(result)) == {chosen}
        prune([result], {}, bench.storage)
        assert has_files(result, bench.storage)  # one more evaluation trains nothing again


def test_its_defaults_are_the_papers():
    paper = IdsdsFinetuning(start=START)
    assert (paper.epochs, paper.batch_size, paper.learning_rate) == (30, 256, 1e-3)
    assert (paper.momentum, paper.weight_decay) == (0.9, 1e-4)
    assert (paper.step_epochs, paper.step_factor) == (10, 0.1)
    assert (paper.patches, paper.baseline_image) == (16, Zero())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"momentum": 1.0}, r"momentum = 1.0.*in \[0, 1\)"),
        ({"weight_decay": -1e-4}, r"weight_decay = -0.0001.*not be negative"),
        ({"step_epochs": 0}, r"step_epochs = 0.*at least 1 epoch"),
        ({"step_factor": 0.0}, r"step_factor = 0.0.*in \(0, 1\]"),
        ({"patches": 9}, r"patches = 9: expected one of 4, 16, 64"),
        ({"epochs": 0}, r"epochs = 0: must be positive"),
    ],
)
def test_what_cannot_train_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        replace(TUNED, **changed)


def test_a_grid_that_the_images_are_too_small_for_is_refused_before_anything_runs():
    TUNED.check()
    small = replace(TUNED, start=replace(START, image_size_px=7), patches=64)
    with pytest.raises(ValueError, match=r"7 x 7 px has no grid of 8 x 8 cells"):
        small.check()


class TestProtocol:
    """``idsds`` on the network that knows the deletions, ``sds`` on any other."""

    def test_it_follows_from_the_training(self):
        assert deletion_protocol(TUNED) == Idsds()
        assert deletion_protocol(TUNED, 4) == Sds(patches=4)
        assert deletion_protocol(TUNED, 16, Blur()) == Sds(baseline=Blur())
        assert deletion_protocol(START) == Sds()
        assert deletion_protocol(GUIDED, 64, Random()) == Sds(patches=64, baseline=Random())
        fine = replace(TUNED, patches=4, baseline_image=Blur())
        assert deletion_protocol(fine, 4, Blur(), undefined="zero") == Idsds(
            patches=4, baseline=Blur(), undefined="zero"
        )
        assert deletion_protocol(fine, drop_output="probability") == Sds(drop_output="probability")

    @pytest.mark.parametrize(
        ("training", "patches", "baseline", "message"),
        [
            (START, 16, Zero(), r"idsds needs a network .* 16 patches .* was not fine-tuned"),
            (CONTROL, 16, Zero(), r"'control small_resnet.*was not fine-tuned"),
            (TUNED, 4, Zero(), r"idsds_p4 .* 4 patches .* fine-tuned with 16 patches, zero"),
            (TUNED, 16, Blur(), r"baseline blur.* fine-tuned with 16 patches, zero"),
        ],
    )
    def test_idsds_is_refused_elsewhere_with_what_is_missing(
        self, training, patches, baseline, message
    ):
        with pytest.raises(ValueError, match=message) as told:
            deletion_protocol(training, patches, baseline, name="idsds")
        assert "\n" not in str(told.value)
        with pytest.raises(ValueError, match="ask for sds"):
            check_deletion_protocol(Idsds(patches=patches, baseline=baseline), training)

    def test_sds_is_refused_where_it_would_be_idsds(self):
        with pytest.raises(ValueError, match="is called idsds"):
            deletion_protocol(TUNED, name="sds")
        check_deletion_protocol(Sds(patches=4), TUNED)
        check_deletion_protocol(Idsds(), TUNED)


def test_it_starts_from_a_classifier_and_is_judged_like_any_training():
    assert TUNED.dependencies == (START,)
    assert TUNED.baseline is START
    assert isinstance(TUNED.baseline, ClassifierTraining)
    assert TUNED.splits == ("train", "val")
    assert TUNED.label == "idsds finetuning 16 patches, zero small_resnet_width4 seed 0"
    assert TUNED.cost({"train": 100, "val": 10}) == 3 * (300 + 10)


class TestWhatAnEpochSees:
    """Crops and held-out images are functions of the seed, whatever the batches are."""

    @pytest.mark.parametrize("augmentation", ["none", "crop"])
    def test_images_do_not_depend_on_the_batch(self, bench, single_splits, augmentation):
        tuned = replace(TUNED, augmentation=augmentation, crop_scale=0.3)
        trial = Trial(tuned, bench.storage, bench.feeds, bench.events.append)
        images, model = single_splits["train"], START.network.build(3)
        together = shown(tuned, trial, model, images, 2, np.arange(6)).images
        alone = shown(tuned, trial, model, images, 2, np.array([4])).images
        assert torch.equal(together[[4]], alone)
        again = shown(tuned, trial, model, images, 3, np.arange(6)).images
        assert not torch.equal(together, again)

    def test_without_crops_only_one_cell_is_other_than_the_image(self, trial, single_splits):
        images, model = single_splits["train"], START.network.build(3)
        plain = model.encode(torch.from_numpy(images.images(np.arange(8))))
        seen = shown(TUNED, trial, model, images, 1, np.arange(8)).images
        assert set((seen != plain).any(1).flatten(1).sum(1).tolist()) == {0, CELL_PX**2}
        cropped = replace(TUNED, augmentation="crop")
        other = shown(cropped, trial, model, images, 1, np.arange(8)).images
        assert ((other != plain).any(1).flatten(1).sum(1) > CELL_PX**2).any()

    def test_held_out_images_select_and_are_in_no_step(self, bench, single_splits, monkeypatch):
        tuned = replace(TUNED, kept_epoch="held_out", held_out_share=0.25)
        trial = Trial(tuned, bench.storage, bench.feeds, bench.events.append)
        held = tuned.held_out(trial, 40)
        assert len(held) == 10
        assert len(TUNED.held_out(trial, 40)) == 0
        stepped: list[int] = []
        deleted = IdsdsFinetuning.deleted

        def noting(self, trial, model, images, epoch, chosen):
            stepped.extend(chosen.tolist())
            return deleted(self, trial, model, images, epoch, chosen)

        monkeypatch.setattr(IdsdsFinetuning, "deleted", noting)
        assert bench.run(tuned), bench.events
        assert sorted(set(stepped)) == sorted(set(range(40)) - set(held.tolist()))
        metrics = [metrics for _, metrics in bench.history(tuned)][: tuned.epochs]
        assert bench.summary(tuned)["epoch"] == best_epoch(metrics, "held_out/accuracy")

    @pytest.mark.parametrize(
        ("field", "value"), [("crop_scale", 0.0), ("held_out_share", 1.0), ("held_out_share", 0.0)]
    )
    def test_shares_are_checked(self, field, value):
        with pytest.raises(ValueError, match=f"{field} = {value}"):
            replace(TUNED, **{field: value})
