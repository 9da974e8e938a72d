"""Sweeps that go well, sweeps that are disturbed: played once, looked at by many tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlflow.entities import Run

from tests.sweeps.clusters import RAY, cluster, mlflow_server, nodes
from tests.sweeps.launches import ROOT, TIMEOUT_S, Ended, Home, end_of, wait_until
from trainables.parts import about

ORPHANS_S = 240.0
"""Longer than Ray's agents of a killed node try to tell its control store, which is gone: 60 s."""
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
GRID = ("--smoke", "--losses", "energy", "--layers", "final")
"""A baseline, its evaluation, the control, its evaluation, and one guided training."""
BASELINE_EPOCHS, EPOCHS = 3, 16
FLAGS = (*GRID, "--baseline-epochs", str(BASELINE_EPOCHS), "--epochs", str(EPOCHS))

BROKEN_LOSS = '''
"""A loss that is no number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainables.losses.localization import Energy


@dataclass(frozen=True, kw_only=True)
class Broken(Energy):
    """Energy divided by nothing."""

    name: ClassVar[str] = "broken"

    def per_map(self, prepared: Tensor, masks: Tensor) -> Tensor:
        return super().per_map(prepared, masks) * float("nan")
'''


SLOW_METHOD = '''
"""A method that takes its time, so that there is some to be killed in."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainables.attribution.gradient import InputXGradient
from trainables.passes import Passes


@dataclass(frozen=True, kw_only=True)
class Slow(InputXGradient):
    """Input times gradient, three seconds later."""

    name: ClassVar[str] = "slow"

    def attribute(self, passes: Passes) -> Tensor:
        time.sleep(3)
        return super().attribute(passes)
'''
JUDGED = 24
"""Images that methods are judged on: a part of 16 and one of 8 for each network."""


@dataclass(frozen=True)
class Undisturbed:
    """A sweep from start to end on one worker, and the same command again."""

    home: Home
    first: Ended
    runs_of_first: dict[str, Run]
    again: Ended


@dataclass(frozen=True)
class Interrupted:
    """The same sweep: its driver killed, then stopped by Ctrl-C, then a worker killed.

    Attributes:
        left: commands of the processes that outlived the killed driver, by pid.
        finished: results that were finished when the driver was killed.
        stopped: runs after Ctrl-C.
        seen: epochs in the killed worker's checkpoint from then on, by the result it computed.
    """

    home: Home
    left: dict[int, str]
    finished: set[str]
    after_kill: dict[str, Run]
    stop: Ended
    stopped: dict[str, Run]
    last: Ended
    victim: str
    seen: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Faulty:
    """A sweep on damaged files, with a loss of somebody's own that is no number."""

    home: Home
    corrupt: str
    clipped: str
    broken: str
    ended: Ended


@dataclass(frozen=True)
class Clustered:
    """Sweeps on a running cluster, which is gone by now.

    Attributes:
        folder: Ray's temporary folder; gone, too.
        direct: ``python sweeps/guidance_lambda.py --address auto``.
        after_direct: runs after it.
        job: another loss by ``ray job submit``, from a copy of the project with one line more.
        after_job: runs after it.
        launches: launches after it, the newest first.
        crowded: one more by ``--address HOST:PORT`` when the cluster has two nodes.
    """

    home: Home
    folder: Path
    direct: Ended
    after_direct: dict[str, Run]
    job: Ended
    after_job: dict[str, Run]
    launches: list[Run]
    crowded: Ended


@dataclass(frozen=True)
class Streamed:
    """A sweep over methods from start to end, by as many actors as fit."""

    home: Home
    ended: Ended


@dataclass(frozen=True)
class Disturbed:
    """The same by one actor: the driver killed between two parts, later the actor.

    Attributes:
        left: parts that the killed launch left, with the time of each.
        images: images of each of these.
        seen: times of every part from then on.
        victim: the actor that was killed.
        scorers: actors that were seen after that.
    """

    home: Home
    left: dict[Path, int]
    images: dict[Path, tuple[str, ...]]
    seen: dict[Path, set[int]]
    victim: int
    scorers: set[int]
    last: Ended


STUDIES = {
    "guidance_lambda": ("--models", "vanilla", "--losses", "energy", "--layers", "final"),
    "guidance_annotations": (
        *("--models", "vanilla", "--losses", "energy", "--layers", "final"),
        *("--fractions", "0.1", "1", "--dilations", "0.5", "--dilated-layers", "final"),
    ),
    "waterbirds": ("--layers", "final"),
}
"""Sweeps that are run on several nodes, in this order on one storage, each as small as it gets."""


def spread(home: Home) -> dict[str, Ended]:
    """Each study on a cluster of several nodes that see one storage and one tracking server."""
    ended = {}
    artifacts, variables = home.path / "artifacts", home.variables()
    with (
        nodes(variables) as (address, token),
        mlflow_server(home.tracking_uri, artifacts, variables) as server,
    ):
        places = ("--address", address, "--tracking-uri", server)
        for name, flags in STUDIES.items():
            study = replace(home, script=ROOT / "sweeps" / f"{name}.py")
            ended[name] = study.run("--smoke", *flags, *places, **token)
    return ended


def methods_sweep(home: Home) -> tuple[Home, list[str]]:
    """The sweep over methods at this home, with its flags."""
    plugin = home.path / "slow_method.py"
    plugin.write_text(SLOW_METHOD)
    flags = ["--smoke", "--images", str(JUDGED), "--plugins", str(plugin)]
    flags += ["--methods", "input_x_gradient", "grad_cam", "slow"]
    flags += ["--protocols", "sds", "epg", "deletion"]
    return replace(home, script=ROOT / "sweeps" / "idsds_methods.py"), flags


def streamed(home: Home) -> Streamed:
    """Two actors where there are two CPUs."""
    home, flags = methods_sweep(home)
    return Streamed(home, home.run(*flags))


def disturbed(home: Home) -> Disturbed:
    """Killed when the classifier's first part is there; an actor, at the second network's."""
    home, flags = methods_sweep(home)
    flags += ["--max-concurrent", "1"]
    with home.started(*flags) as process:
        wait_until(lambda: len(home.parts()) == 1, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        workers_end(home)
    left = home.parts()
    images = {path: about(path).image_ids for path in left}
    seen: dict[Path, set[int]] = {path: {written} for path, written in left.items()}
    victim, scorers = 0, set[int]()
    with home.started(*flags) as process:
        while process.poll() is None:
            there = home.parts()
            for path, written in there.items():
                seen.setdefault(path, set()).add(written)
            others = [path for path in there if path.parent not in {p.parent for p in left}]
            if not victim and others and home.scoring():
                victim = home.scoring().pop()
                os.kill(victim, signal.SIGKILL)
            elif victim:
                scorers |= home.scoring() - {victim}
            time.sleep(0.05)
        last = end_of(process)
    return Disturbed(home, left, images, seen, victim, scorers, last)


def undisturbed(home: Home) -> Undisturbed:
    """With one trial at a time, so that one worker trains one after the other."""
    first = home.run(*FLAGS, "--max-concurrent", "1")
    return Undisturbed(home, first, home.runs(), home.run(*FLAGS, "--max-concurrent", "1"))


def interrupted(home: Home) -> Interrupted:
    """A guided training is some epochs further, then twice both are."""
    with home.started(*FLAGS) as process:
        wait_until(lambda: bool(both(home, 2)) and len(home.summaries()) == 2, process)
        finished = home.summaries().keys()
        process.send_signal(signal.SIGKILL)
        process.wait()
        orphans = home.processes()
        killed = time.monotonic()
        workers_end(home)
    after_kill = home.runs()
    with home.started(*FLAGS) as process:
        wait_until(lambda: len(both(home, 5)) == 2, process)
        process.send_signal(signal.SIGINT)
        stop = end_of(process)
    stopped = home.runs()
    with home.started(*FLAGS) as process:
        wait_until(lambda: bool(alive(home) and both(home, 8)), process)
        victim, pid = alive(home).popitem()
        reached = home.epochs()[victim]
        os.kill(pid, signal.SIGKILL)
        seen = [reached]
        while process.poll() is None:
            seen.append(home.epochs().get(victim, seen[-1]))
            time.sleep(0.05)
        last = end_of(process)
    while (left := still(home, orphans)) and time.monotonic() < killed + ORPHANS_S:
        time.sleep(0.2)
    return Interrupted(home, left, set(finished), after_kill, stop, stopped, last, victim, seen)


def workers_end(home: Home) -> None:
    """Wait for the workers of a killed driver; what else was of its Ray may still tell its end."""
    deadline = time.monotonic() + ORPHANS_S
    while time.monotonic() < deadline:
        if all(command.startswith(AGENTS) for command in home.processes().values()):
            return
        time.sleep(0.2)


def still(home: Home, processes: dict[int, str]) -> dict[int, str]:
    """Those of the processes that have not ended."""
    there = home.processes()
    return {pid: command for pid, command in processes.items() if pid in there}


def both(home: Home, epoch: int) -> dict[str, int]:
    """Unfinished trainings that have reached an epoch."""
    done = home.summaries()
    return {i: e for i, e in home.epochs().items() if e >= epoch and i not in done}


def alive(home: Home) -> dict[str, int]:
    """The worker of each guided training that runs and will for some epochs more."""
    workers, epochs = home.processes(), both(home, 8)
    found = {}
    for result_id, run in home.runs().items():
        pid = int(run.data.tags.get("pid", "0"))
        if run.info.status == "RUNNING" and pid in workers and epochs.get(result_id, EPOCHS) < 12:
            found[result_id] = pid
    return found


def faulty(home: Home, copy: Path) -> Faulty:
    """A JPEG cut short, a box beyond the image, an XML that is none, a loss that is NaN."""
    shutil.copytree(home.data_root, copy, dirs_exist_ok=True)
    lists = {path.stem: path.read_text().split() for path in copy.rglob("ImageSets/Main/t*.txt")}
    corrupt, clipped, broken = lists["train"][3], lists["train"][7], lists["test"][0]
    jpeg = next(copy.rglob(f"JPEGImages/{corrupt}.jpg"))
    jpeg.write_bytes(jpeg.read_bytes()[:200])
    xml = next(copy.rglob(f"Annotations/{clipped}.xml"))
    start, _, rest = xml.read_text().partition("<xmax>")
    xml.write_text(f"{start}<xmax>4000{rest[rest.index('<') :]}")
    next(copy.rglob(f"Annotations/{broken}.xml")).write_text("<annotation>")
    plugin = home.path / "somebodys_losses.py"
    plugin.write_text(BROKEN_LOSS)
    damaged = Home(home.path, copy)
    ended = damaged.run("--smoke", "--layers", "final", "--losses", "energy", "broken",
                        "--plugins", str(plugin))  # fmt: skip
    return Faulty(damaged, corrupt, clipped, broken, ended)


def clustered(home: Home, copy: Path) -> Clustered:
    """The head knows nothing of the project: what its workers run comes from the driver."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    bare = {k: v for k, v in home.variables().items() if k != "PYTHONPATH"} | {"PATH": path}
    ignored = shutil.ignore_patterns(".*", "__pycache__", "tests", "mlruns", "reports")
    shutil.copytree(ROOT, copy, ignore=ignored, dirs_exist_ok=True)
    with (copy / "trainables" / "__init__.py").open("a") as file:
        file.write("# one line more\n")
    with cluster(bare) as here:
        token = {k: v for k, v in here.variables.items() if k.startswith("RAY_AUTH_")}
        direct = home.run(*GRID, "--address", "auto", RAY_ADDRESS=here.address, **token)
        after_direct = home.runs()
        submit = [*RAY, "job", "submit", "--address", here.dashboard, "--working-dir", ".", "--"]
        sweep = ["python", "sweeps/guidance_lambda.py", "--data-root", str(home.data_root)]
        flags = ["--smoke", "--losses", "l1", "--layers", "final", "--address", "auto"]
        job = subprocess.run(
            [*submit, *sweep, *flags],
            cwd=copy,
            env=dict(here.variables),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        after_job, launches = home.runs(), home.launches()
        with here.node():
            crowded = home.run("--smoke", "--losses", "ppce", "--address", here.address, **token)
    return Clustered(
        home,
        here.folder,
        direct,
        after_direct,
        Ended(job.returncode, job.stdout, job.stderr),
        after_job,
        launches,
        crowded,
    )
