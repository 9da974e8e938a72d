"""Scores of several methods by several protocols at once, against one pair after the other.

    python tests/benchmarks/shared_protocols.py                   # half a minute
    python tests/benchmarks/shared_protocols.py --actor           # and an actor against a loop
    python tests/benchmarks/shared_protocols.py --model resnet50 --size-px 224 --images 8

Counted: FLOPs of the shared passes over the least that the group needs, written out by hand as
forwards and backwards (goal 1.0). Timed, alternating, in one process: the loop that gives each pair
of method and protocol its own passes, over the shared passes; as a share of the gain that the
counted FLOPs allow (goal at least 0.9). With ``--actor``: images a second of one actor that Ray
Data feeds, over those of the same scorer in this process (goal at least 0.9 of a minute's work).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
import tyro

import trainables.attribution
import trainables.metrics
import trainables.models  # noqa: F401  (each registers its classes)
from data_pipelines.digit_scenes import DigitScenes
from data_pipelines.image_set import load_locally
from data_pipelines.manifest import indexed
from trainables.attribution.attribution import Attribution
from trainables.attribution.cam import GradCam, LayerCam
from trainables.attribution.gradient import InputXGradient, Saliency
from trainables.batch import Batch
from trainables.classifier_training import ClassifierTraining
from trainables.evaluator import Evaluator
from trainables.flops import FlopCounter
from trainables.metrics.complexity import Entropy, Gini
from trainables.metrics.localization import BoxIou, Epg
from trainables.metrics.metric import Metric
from trainables.metrics.perturbation_curves import Deletion, Insertion, Neg, Pos
from trainables.metrics.pointing_game import PointingGame
from trainables.metrics.single_deletion import Sds
from trainables.models.network import Model, Network, evaluating
from trainables.protocol_evaluation import PART_IMAGES, ProtocolEvaluation
from trainables.scorer import Scorer
from trainables.trial import Trial, environment, feed_key, run_locally

CLASSES = 10
METHODS = (InputXGradient(), Saliency(), GradCam(), LayerCam())
GROUPS: dict[str, tuple[Metric, ...]] = {
    "deletion": (Sds(), Sds(drop_output="probability")),
    "curves": (Pos(), Deletion(), Neg(), Insertion()),
    "localization": (Epg(), Epg(smooth_px=5), BoxIou(), PointingGame(), Gini(), Entropy()),
}


@dataclass(frozen=True, kw_only=True)
class SharedProtocols:
    """What is measured."""

    model: str = "small_resnet"
    size_px: int = 64
    images: int = 16
    groups: tuple[str, ...] = tuple(GROUPS)
    """deletion, curves, localization."""
    repeats: int = 3
    actor: bool = False
    """Also an actor's throughput, on generated scenes."""
    actor_images: int = 192
    actor_method: str = "integrated_gradients"
    """A method that takes some time an image, as those do that a sweep waits for."""


def least(group: str, model: Model, batch: Batch) -> int:
    """FLOPs that a group needs, written out by hand.

    All maps come from one forward and one backward to the input; at the last layer of a ResNet a
    backward costs a linear layer: none is counted. Deletions are 16 forwards an image, whoever
    asks. A curve of ten points, the first of them the image itself, is 9 forwards an image, method
    and order; two protocols follow each of the two orders. Localization asks the model nothing.
    """
    forward, backward = pass_flops(model, batch)
    further = {"deletion": 16, "curves": 2 * 9 * len(METHODS), "localization": 0}[group]
    return forward * (1 + further) + backward


def pass_flops(model: Model, batch: Batch) -> tuple[int, int]:
    """FLOPs of one forward of the batch, and of one backward to the input, in plain torch."""
    images = batch.images.detach().requires_grad_()
    with FlopCounter() as forward:
        logits = model.module(images)
    with FlopCounter() as backward:
        torch.autograd.grad(logits.gather(1, batch.targets[:, None]).sum(), images)
    return forward.total, backward.total


Protocols = Mapping[Attribution, tuple[Metric, ...]]


def together(model: Model, batch: Batch, asked: Protocols) -> None:
    """All methods and protocols in the same passes."""
    scored = Evaluator(model, asked)(batch)
    if scored.failed:
        raise RuntimeError(scored.failed)


def alone(model: Model, batch: Batch, asked: Protocols) -> None:
    """Each method with each protocol in passes of its own."""
    for method, protocols in asked.items():
        for protocol in protocols:
            together(model, batch, {method: (protocol,)})


def main() -> None:
    """One block of lines a group."""
    flags = tyro.cli(SharedProtocols, description=__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Network.named(flags.model).build(CLASSES)
    batch = generated(model, flags.images, flags.size_px)
    with evaluating(model.module):
        for group in flags.groups:
            measure(flags, group, model, batch)
    if flags.actor:
        actor_against_loop(flags)


def generated(model: Model, images: int, size_px: int) -> Batch:
    """Noise with a box in each image."""
    generator = torch.Generator().manual_seed(0)
    size = (images, 3, size_px, size_px)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, CLASSES, (images,), generator=generator)
    masks = torch.zeros(images, size_px, size_px, dtype=torch.bool)
    masks[:, : size_px // 2, : size_px // 3] = True
    single = Batch.single(model.encode(pixels), targets, masks)
    return replace(single, labels=targets)


def measure(flags: SharedProtocols, group: str, model: Model, batch: Batch) -> None:
    """Count, time and print."""
    asked = dict.fromkeys(METHODS, GROUPS[group])
    ways: dict[str, Callable[[Model, Batch, Protocols], None]] = {
        "alone": alone,
        "shared": together,
    }
    flops = {}
    for way, run in ways.items():  # also warms everything up
        with FlopCounter() as counter:
            run(model, batch, asked)
        flops[way] = counter.total
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(flags.repeats):
        for way, run in ways.items():
            started = time.perf_counter()
            run(model, batch, asked)
            seconds[way].append(time.perf_counter() - started)
    took = {way: median(values) for way, values in seconds.items()}
    counted, gain = flops["alone"] / flops["shared"], took["alone"] / took["shared"]
    print(
        f"\n{group}: {len(METHODS)} methods x {len(GROUPS[group])} protocols, {flags.model}, "
        f"{flags.images} images of {flags.size_px} px"
    )
    needed = flops["shared"] / least(group, model, batch)
    print(f"  FLOPs shared / least      {needed:.4f}  (goal 1.0)")
    print(f"  counted gain              {counted:.2f}")
    print(
        f"  wall-time gain            {gain:.2f}  "
        f"({took['alone']:.2f} s / {took['shared']:.2f} s, median of {flags.repeats})"
    )
    print(f"  share of the counted gain {gain / counted:.2f}  (goal >= 0.9)")


@dataclass(frozen=True)
class Loaded:
    """A split that lies in this process."""

    images: object

    def load(self) -> object:
        """The same arrays for everybody."""
        return self.images


def actor_against_loop(flags: SharedProtocols) -> None:
    """Images a second of one actor, from its first part to its last, and of the plain loop.

    What each does once (starting, building the model) is left out of both: the clock runs from the
    first part that is finished.
    """
    import ray

    from trainables.streamed_evaluation import stream

    with tempfile.TemporaryDirectory(prefix="shared-protocols-") as folder:
        home = Path(folder)
        data = DigitScenes(
            root=str(home), layout="imagenet", images_train=64, images_val=flags.actor_images
        )
        dataset, manifest = indexed(data, home / "index")
        classifier = ClassifierTraining(
            network=Network.named(flags.model),
            data=dataset,
            objective="ce",
            image_size_px=flags.size_px,
            epochs=1,
            batch_size=16,
            learning_rate=1e-3,
        )
        evaluation = ProtocolEvaluation(
            of=classifier,
            attribution=Attribution.named(flags.actor_method),
            protocols=(Sds(), Pos(), Deletion(), Epg()),
        )
        feeds = {
            feed_key(classifier, split): Loaded(
                load_locally(dataset, manifest, split, flags.size_px)
            )
            for split in dataset.splits()
        }
        if not run_locally(classifier, home / "storage", feeds, print_failure):
            raise RuntimeError("the classifier failed")
        images = feeds[feed_key(classifier, "val")].load()
        trial = Trial(evaluation, home / "storage", feeds, print_failure)
        times = []
        with environment(evaluation):
            scorer, ids = Scorer((evaluation,), trial, images), images.image_ids.tolist()
            for start in range(0, len(ids), PART_IMAGES):
                rows = list(range(start, min(start + PART_IMAGES, len(ids))))
                scorer(home / "loop", [ids[row] for row in rows], images.images(rows), {})
                times.append((rows[-1] + 1, time.perf_counter()))
        plain = speed_of(times)
        times = []

        def listen(event: dict[str, object]) -> None:
            print_failure(event)
            if event["event"] == "progress":
                done = round(float(str(event["share"])) * len(ids))
                times.append((done, time.perf_counter()))

        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        stream(
            *((evaluation,), home / "storage", dataset, manifest, listen),
            **{"actors": 1, "cpus": 1.0, "gpus": 0.0},
        )
        ray.shutdown()
        actor = speed_of(times)
    print(f"\nactor: {flags.actor_method}, {flags.actor_images} images of {flags.size_px} px")
    print(f"  plain loop                {plain:.2f} images/s")
    print(f"  one actor                 {actor:.2f} images/s")
    print(f"  throughput                {actor / plain:.2f}  (goal >= 0.9)")


def speed_of(times: list[tuple[int, float]]) -> float:
    """Images a second, from the first part's end to the last's; (images done, when)."""
    (first, started), (last, ended) = times[0], times[-1]
    return (last - first) / (ended - started)


def print_failure(event: Mapping[str, object]) -> None:
    """Failures are told, not raised: here they must not pass unseen."""
    if event["event"] == "failed":
        print(event["reason"], event.get("traceback", ""))


if __name__ == "__main__":
    main()
