"""A trial on several workers: Ray Train inside of the Tune function, a GPU or some CPUs each."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ray import train
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.queue import Empty, Queue

from trainables.result import Result
from trainables.source import source_fingerprint
from trainables.team import SOLO, Team
from trainables.training import Training
from trainables.trial import Event, Feed, FeedKey, run

PATIENCE_S = 24 * 3600
"""How long workers wait for the first, which evaluates alone. One that dies ends all at once."""
POLL_S = 0.2


@dataclass(frozen=True)
class WorkerGroup:
    """What each worker of a trial needs.

    Attributes:
        workers: of the trial.
        gpus: of each worker, 0 or 1.
        storage: folder of checkpoints and weights.
        feeds: what the results read.
        source: fingerprint of the driver's code.
    """

    workers: int
    gpus: int
    storage: Path
    feeds: Mapping[FeedKey, Feed]
    source: str

    def run_bundle(self, bundle: Sequence[Result], tell: Callable[[Event], None]) -> None:
        """Compute results in order; one that fails takes along only what depends on it.

        A result that fails ends the workers, which otherwise would wait for one another; the rest
        of the bundle gets new ones.

        Raises:
            RuntimeError: a worker died; its trial, tried again, goes on from the checkpoint.
        """
        ended: dict[str, str] = {}

        def note(event: Event) -> None:
            if event["event"] in ("finished", "failed"):
                if event["result_id"] in ended:  # several workers tell of the same failure
                    return
                ended[event["result_id"]] = event["event"]
            tell(event)

        while left := [result for result in bundle if result.result_id not in ended]:
            lost = [d.result_id for d in left[0].dependencies if ended.get(d.result_id) == "failed"]
            if lost:
                reason, result_id = f"not run: {lost[0]} failed", left[0].result_id
                note({"event": "failed", "result_id": result_id, "reason": reason})
                continue
            before = len(ended)
            error = self.run_together(left, note)
            if error is not None and len(ended) == before:
                raise RuntimeError(f"a worker of the trial died: {error}")

    def run_together(
        self, bundle: Sequence[Result], note: Callable[[Event], None]
    ) -> BaseException | None:
        """One group of workers, from start to end; what ended it, if not success."""
        name, scratch = f"workers-{uuid.uuid4().hex}", self.storage / "tune"
        events = Queue(actor_options={"num_cpus": 0})
        resources = {"CPU": max(result.threads for result in bundle), "GPU": self.gpus}
        trainer = TorchTrainer(
            partial(work, group=self, bundle=tuple(bundle), events=events),
            scaling_config=train.ScalingConfig(
                num_workers=self.workers, use_gpu=bool(self.gpus), resources_per_worker=resources
            ),
            torch_config=TorchConfig(timeout_s=PATIENCE_S),
            run_config=train.RunConfig(name=name, storage_path=str(scratch)),
        )
        try:
            with ThreadPoolExecutor(1) as thread:
                ending = thread.submit(trainer.fit)
                while True:
                    over = ending.done()
                    try:
                        while True:
                            note(events.get(timeout=POLL_S))
                    except Empty:
                        if over:
                            break
        finally:
            events.shutdown()
            shutil.rmtree(scratch / name, ignore_errors=True)
        return ending.exception()


def work(group: WorkerGroup, bundle: Sequence[Result], events: Queue) -> None:
    """What one worker does: its share of the trainings; the first also does what is left.

    Raises:
        RuntimeError: a result failed.
    """
    if source_fingerprint() != group.source:
        raise RuntimeError("this worker runs other code than the driver; run the command again")
    context = train.get_context()
    team = Team(context.get_world_rank(), context.get_world_size(), get_device())

    def tell(event: Event) -> None:
        if team.leads or event["event"] == "failed":
            events.put(event)

    for result in bundle:
        together = isinstance(result, Training) and result.workers > 1
        if not (together or team.leads):
            continue
        its = team if together else replace(SOLO, device=team.device)
        if not run(result, group.storage, group.feeds, tell, its):
            raise RuntimeError(f"{result.label} failed")
