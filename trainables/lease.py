"""One live launch per experiment: a lease in a tag of the experiment."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from trainables.tracking import Entry, Tracking

TAG = "lease"
HEARTBEAT_S, STALE_S, READ_BACK_S = 10.0, 60.0, 0.3


class HeldError(ValueError):
    """Another live launch holds the experiment."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease: enough to tell whether it still lives."""

    host: str
    pid: int
    process_start: str
    boot_id: str
    pid_namespace: str
    launch: str
    heartbeat: float
    """Seconds since the epoch."""

    @classmethod
    def me(cls, launch: str) -> Holder:
        """This process, now."""
        return cls(
            host=platform.node(),
            pid=os.getpid(),
            process_start=_process_start(os.getpid()),
            boot_id=_read("/proc/sys/kernel/random/boot_id"),
            pid_namespace=_link("/proc/self/ns/pid"),
            launch=launch,
            heartbeat=time.time(),
        )

    @property
    def seconds_left(self) -> float:
        """How long until it may be taken over; 0 where it is free already.

        On the same host the process decides at once, so that a lease left by a killed launch never
        blocks; elsewhere only the age of its heartbeat can.
        """
        here = Holder.me("")
        same = (here.host, here.boot_id, here.pid_namespace) == (
            self.host,
            self.boot_id,
            self.pid_namespace,
        )
        if same and _process_start(self.pid) != self.process_start:
            return 0.0
        return max(0.0, self.heartbeat + STALE_S - time.time())


class Lease:
    """Held from ``acquire`` to ``release``, kept alive by a thread."""

    def __init__(self, tracking: Tracking):
        self._tracking = tracking
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._launch = ""

    def acquire(self) -> None:
        """Write, wait, read back: of several at once one wins.

        Raises:
            HeldError: another launch is alive; says who and how long to wait.
        """
        holder = holder_of(self._tracking)
        if holder is not None and holder.seconds_left > 0:
            raise HeldError(_refusal(holder))
        self._launch = f"{platform.node()}-{os.getpid()}-{time.time_ns()}"
        written = self._write()
        time.sleep(READ_BACK_S)
        if not written or not self._is_ours():
            raise HeldError(
                "another launch of this experiment started at the same moment; run the command "
                "again"
            )
        self._thread.start()

    def release(self) -> None:
        """Give the experiment free."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._is_ours():  # a launch that slept too long may have lost it
            self._tracking.set_experiment_tag(TAG, "")

    def _is_ours(self) -> bool:
        holder = holder_of(self._tracking)
        return holder is not None and holder.launch == self._launch

    def _write(self) -> bool:
        text = json.dumps(asdict(Holder.me(self._launch)))
        return self._tracking.set_experiment_tag(TAG, text)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S) and self._is_ours():
            self._write()


def holder_of(tracking: Tracking, experiment_id: str = "") -> Holder | None:
    """Who holds an experiment (the tracking's own by default), alive or not."""
    text = tracking.experiment_tag(TAG, experiment_id)
    return Holder(**json.loads(text)) if text else None


def computed_elsewhere(
    tracking: Tracking, missing: Iterable[str], known: Mapping[str, Entry]
) -> set[str]:
    """Missing results that a live launch of another experiment has taken on."""
    alive: dict[str, bool] = {
        tracking.experiment_id: False
    }  # of our own experiment we hold the lease
    taken = set()
    for result_id in missing:
        entry = known.get(result_id)
        if entry is None or entry.status not in ("RUNNING", "SCHEDULED"):
            continue
        if entry.experiment_id not in alive:
            holder = holder_of(tracking, entry.experiment_id)
            alive[entry.experiment_id] = holder is not None and holder.seconds_left > 0
        if alive[entry.experiment_id]:
            taken.add(result_id)
    return taken


def _refusal(holder: Holder) -> str:
    return (
        f"another launch of this sweep is alive (process {holder.pid} on {holder.host}); "
        f"wait for it, stop it, or retry in {holder.seconds_left:.0f} s if it is dead"
    )


def _process_start(pid: int) -> str:
    """When the process started, in clock ticks since boot; empty if it is gone.

    ``alive`` on systems that do not tell.
    """
    if Path("/proc/self/stat").exists():
        stat = _read(f"/proc/{pid}/stat")
        fields = stat.rpartition(")")[2].split()
        return "" if not fields or fields[0] == "Z" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
