"""Pace: how much of a long piece of work is done, how fast it goes, how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable

QUIET_S = 3.0
"""Seconds before the first line and between two of them."""


class Pace:
    """Counts what is done, and says a line now and then; short work says nothing."""

    def __init__(self, what: str, total: int, say: Callable[[str], None]):
        self.what, self.total, self.say = what, total, say
        self.done = 0
        self.started = self.said = time.monotonic()

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        now = time.monotonic()
        if now - self.said >= QUIET_S:
            self.said = now
            self.say(self.line(now - self.started))

    def line(self, seconds: float) -> str:
        """``voc2007/train: 512 of 2501 images, 143.0 images/s, 14 s left``."""
        rate = self.done / max(seconds, 1e-9)
        if not self.total:
            return f"{self.what}: {self.done} images, {rate:.1f} images/s"
        left = minutes((self.total - self.done) / rate) if self.done else "time unknown:"
        return f"{self.what}: {self.done} of {self.total} images, {rate:.1f} images/s, {left} left"


def minutes(seconds: float) -> str:
    """``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
