"""Which bundle is next: the first whose dependencies are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.search import Searcher

from trainables.result import Result

Bundle = list[Result]


class Queue(Searcher):
    """Gives Tune bundles one by one, each as soon as what it depends on is there.

    So one set of workers serves all stages: Ray ends those of a Tune run with it, and new ones take
    seconds to import what they need. No worker waits for the last trial of a stage either.

    Args:
        bundles: dependencies before what depends on them.
        startable: the results of a bundle that are to be computed, or None while something that
            they need is not there. It must answer for every bundle once no trial is left.
    """

    def __init__(self, bundles: Iterable[Bundle], startable: Callable[[Bundle], Bundle | None]):
        super().__init__()
        self._waiting, self._startable = list(bundles), startable

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """What a trial computes; None for now, or FINISHED if there is no more."""
        for bundle in list(self._waiting):
            results = self._startable(bundle)
            if results is not None:
                self._waiting.remove(bundle)
            if results:
                return {"bundle": results}
        if not self._waiting:
            return Searcher.FINISHED  # type: ignore[return-value]  # Ray's type forgets it
        return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing to learn from it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a launch goes on from what is finished, not from where Tune was."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as ``save``."""
