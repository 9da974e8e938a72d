"""Look at attributions: a panel of maps, images by methods, written as a PNG.

    python -m trainables.attribution
    python -m trainables.attribution --methods grad_cam rise --model small_vit
    python -m trainables.attribution --model my_package.nets:build --checkpoint net.safetensors
        --classes 10 --images photos/*.jpg

Without --images the generated sample is looked at. A network that comes without --checkpoint is
trained on the sample first (as the baseline of the sample's sweeps: half a minute, and kept).
Analytic identities that the methods must meet on this network are checked and printed.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from platformdirs import user_data_path

import trainables.attribution
import trainables.models  # noqa: F401  (each registers its classes)
from data_pipelines.configuration import import_file
from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.image_set import load_locally
from data_pipelines.manifest import indexed
from data_pipelines.transforms import decode
from trainables.attribution.identity import check_identities
from trainables.attribution.panel import draw_panel
from trainables.attribution.sets import choose
from trainables.batch import Batch
from trainables.classifier_training import ClassifierTraining
from trainables.models.network import Model, Network, evaluating
from trainables.models.user_network import network_of
from trainables.models.weights_file import load_network_weights
from trainables.passes import Passes
from trainables.training import restore
from trainables.trial import Event, Trial, feed_key, run_locally

HOME = user_data_path("attribution-sweeps")
BAD_INPUT = 2


@dataclass(frozen=True, kw_only=True)
class Look:
    """Draw the maps of many methods on a few images."""

    model: str = "small_resnet"
    """A network by name, or package.module:build for a function that makes your own."""
    checkpoint: Path | None = None
    """Its weights: safetensors, or a torch file that holds tensors only."""
    classes: int = 10
    """Classes of the checkpoint; the sample has 10."""
    methods: tuple[str, ...] = ("all",)
    """Methods by name, a named set (idsds_as_run, corrected), or all that suit the network."""
    images: tuple[Path, ...] = ()
    """Image files. Empty: the first of the sample's validation split."""
    targets: tuple[int, ...] = ()
    """Class explained in each image. Empty: the sample's first label, else the predicted class."""
    count: int = 4
    """Images of the sample to show."""
    size_px: int = 0
    """Side that images are resized to. 0: 64 on the sample, 224 elsewhere."""
    epochs: int = 9
    """Epochs of training on the sample, where no checkpoint is given."""
    out: Path = Path("maps.png")
    """Where the panel goes."""
    storage_path: Path = HOME / "storage"
    """Where networks trained on the sample are kept."""
    plugins: tuple[Path, ...] = ()
    """Python files with your own methods or networks."""


def look(flags: Look) -> None:
    """Everything from flags to PNG.

    Raises:
        ValueError, FileNotFoundError: bad input.
    """
    for path in flags.plugins:
        import_file(path)
    network = network_of(flags.model)
    with torch.device("meta"):
        network.build(flags.classes)  # a network that cannot be built is refused once
    chosen = choose(flags.methods, network)
    for key, reason in chosen.refused.items():
        print(f"not {key}: {reason}")
    methods = chosen.methods
    if not flags.out.parent.is_dir():
        raise ValueError(f"--out {flags.out}: its folder does not exist; make it or name another")
    if flags.images and flags.checkpoint is None and ":" not in flags.model:
        raise ValueError("--images need --checkpoint: a network without weights explains nothing")
    size_px = flags.size_px or (224 if flags.images else 64)
    model, pictures, names, labels = (
        own_images(flags, network, size_px) if flags.images else sample(flags, network, size_px)
    )
    images = model.encode(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()))
    with evaluating(model.module), torch.no_grad():
        predicted = model.module(images).argmax(1)
    targets = torch.tensor(flags.targets or labels or predicted.tolist())
    if len(targets) != len(images):
        raise ValueError(f"--targets: {len(targets)} classes for {len(images)} images")
    batch = Batch.single(images, targets)
    maps, started = {}, time.monotonic()
    with evaluating(model.module):
        with Passes(model, batch) as passes:
            passes.expect(need for method in methods for need in method.needs(model))
            for number, method in enumerate(methods, 1):
                since = time.monotonic()
                full = method.at_image_size(method(passes), passes)
                maps[method.key] = full.numpy()
                seconds = time.monotonic() - since
                print(f"[{number}/{len(methods)}] {method.key} {seconds:.1f} s", flush=True)
            counts = passes.counts
        findings = check_identities(model, batch, methods)
    for found in findings:
        verdict = "holds" if found.holds else "BROKEN"
        print(
            f"self-check {verdict}: {found.method}, {found.identity} ({found.reason}): relative "
            f"error {found.error:.1e}, allowed {found.tolerance:g}"
        )
    headings = [f"{name}\nclass {target}" for name, target in zip(names, targets, strict=True)]
    figure = draw_panel(pictures, headings, maps, f"{network.key}: {len(maps)} attributions")
    figure.savefig(flags.out, dpi=100)
    print(
        f"wrote {flags.out}: {len(maps)} methods on {len(images)} images in "
        f"{time.monotonic() - started:.0f} s, {counts.forwards} image-forwards"
    )


Shown = tuple[Model, NDArray[np.uint8], list[str], list[int]]
"""A model with weights; pictures (I, H, W, 3); a name and, if known, a class for each."""


def own_images(flags: Look, network: Network, size_px: int) -> Shown:
    """The user's images and checkpoint."""
    pictures = []
    for path in flags.images:
        if not path.is_file():
            raise FileNotFoundError(f"--images {path}: no such file")
        try:
            pictures.append(decode(path.read_bytes(), size_px))
        except ValueError as error:
            raise ValueError(f"--images {path}: {error}") from None
    return with_checkpoint(flags, network), np.stack(pictures), [p.stem for p in flags.images], []


def with_checkpoint(flags: Look, network: Network) -> Model:
    """The network with the weights of the file."""
    model = network.build(flags.classes)
    if flags.checkpoint is not None:
        load_network_weights(model.module, flags.checkpoint)
    return model


def sample(flags: Look, network: Network, size_px: int) -> Shown:
    """Validation images of the sample, and a network trained on it unless weights are given."""
    index = flags.storage_path / "index"
    data, manifest = indexed(DigitScenes(), index)
    shown = load_locally(data, manifest, "val", size_px)
    rows = [i for i in range(len(shown)) if len(shown.positives(i))][: flags.count]
    pictures = shown.images(rows).transpose(0, 2, 3, 1)
    labels = [int(shown.positives(i)[0]) for i in rows]
    names = [str(shown.image_ids[i]) for i in rows]
    if flags.checkpoint is not None:
        return with_checkpoint(flags, network), pictures, names, labels
    training = ClassifierTraining(
        network=network,
        data=data,
        image_size_px=size_px,
        epochs=flags.epochs,
        batch_size=8,
        learning_rate=1.5e-3,
    )
    if not (flags.storage_path / training.result_id / "result.json").exists():
        print(f"training {network.key} on the sample: {flags.epochs} epochs", flush=True)
        train_images = load_locally(data, manifest, "train", size_px)
        feeds = {
            feed_key(training, split): Resident(images)
            for split, images in (("train", train_images), ("val", shown))
        }
        if not run_locally(training, flags.storage_path, feeds, tell):
            raise ValueError(f"{network.key} could not be trained on the sample; see above")
    trial = Trial(training, flags.storage_path, {}, tell)
    model, summary = network.build(len(shown.classes)), trial.summary_of(training)
    restore(trial, training, summary, summary["epoch"], model)
    return model, pictures, names, labels


@dataclass(frozen=True)
class Resident:
    """A split that lies in memory."""

    images: Any

    def load(self) -> Any:
        """The images."""
        return self.images


def tell(event: Event) -> None:
    """A line an epoch."""
    if event["event"] == "epoch":
        f1 = event["metrics"].get("val/f1", float("nan"))
        print(f"epoch {event['step']}: validation F1 {f1:.3f}", flush=True)
    elif event["event"] == "failed":
        print(event["reason"], file=sys.stderr)


def main() -> None:
    """Exit code 0, or 2 on bad input."""
    flags = tyro.cli(Look, description=__doc__)
    try:
        look(replace(flags, storage_path=flags.storage_path.absolute()))
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main()
