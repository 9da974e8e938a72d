"""One line that says what is done, what runs, what failed, and how long it will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from data_pipelines.pace import minutes
from trainables.result import Result

QUIET_S = 15.0
"""Where the output is no terminal, how often a line is printed at most, but for finished
results."""


class Progress:
    """Follows results by their cost; the time left comes from the work done so far."""

    def __init__(self, results: Mapping[str, Result], images: dict[str, int]):
        self._results = results
        self._cost = {i: r.cost(images) for i, r in results.items()}
        self._share = dict.fromkeys(results, 0.0)
        self._state = dict.fromkeys(results, "waiting")
        self._started = 0.0
        self._printed = 0.0
        self._terminal = sys.stdout.isatty()

    def event(self, result_id: str, state: str, share: float, text: str = "") -> None:
        """A result changed: running, finished or failed, and the share of it that is done."""
        if not self._started:
            self._started = time.monotonic()
        changed = state != self._state[result_id]
        self._state[result_id], self._share[result_id] = state, share
        if state == "failed":
            self.say(f"failed: {self._results[result_id].label}: {text}")
        self._show(
            f"{self._results[result_id].label} {text}", at_once=changed and state != "running"
        )

    def say(self, line: str) -> None:
        """Print a line of its own."""
        if self._terminal:
            sys.stdout.write("\r\x1b[K")
        print(line, flush=True)

    def line(self, text: str) -> str:
        """The line itself."""
        states = list(self._state.values())
        counts = ", ".join(
            f"{states.count(s)} {w}" for s, w in (("running", "running"), ("failed", "failed"))
        )
        return (
            f"[{states.count('finished')}/{len(states)} done, {counts}, {self.left()} left] {text}"
        )

    def left(self) -> str:
        """Time left, for people."""
        done = sum(self._cost[i] * share for i, share in self._share.items())
        over = sum(
            self._cost[i] * (1 - self._share[i]) for i, s in self._state.items() if s != "failed"
        )
        if done == 0:
            return "time unknown"
        return minutes((time.monotonic() - self._started) * over / done)

    def end(self) -> None:
        """Leave the line."""
        if self._terminal:
            sys.stdout.write("\n")

    def _show(self, text: str, *, at_once: bool) -> None:
        now = time.monotonic()
        if self._terminal:
            sys.stdout.write("\r\x1b[K" + self.line(text)[:119])
            sys.stdout.flush()
        elif at_once or now - self._printed > QUIET_S:
            print(self.line(text), flush=True)
            self._printed = now
