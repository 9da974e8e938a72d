"""A Ray cluster of a test's own: its head and nodes are processes that end with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

RAY = (sys.executable, "-m", "ray.scripts.scripts")
START_S = 120
"""Against hanging for ever; a head is there in some seconds."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses: the system's own choice, beyond the workers' range."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@dataclass(frozen=True)
class Cluster:
    """A running head.

    Attributes:
        address: HOST:PORT for ``--address`` and RAY_ADDRESS.
        dashboard: http address that jobs are submitted to.
        folder: what Ray calls its temporary folder.
        variables: environment of whoever talks to it.
    """

    address: str
    dashboard: str
    folder: Path
    variables: Mapping[str, str]

    @contextmanager
    def node(self) -> Iterator[None]:
        """One more node on this machine."""
        with _started("--address", self.address, variables=self.variables, log=self.folder):
            yield


@contextmanager
def cluster(variables: Mapping[str, str]) -> Iterator[Cluster]:
    """A head with two CPUs and a dashboard, for clients that know its token.

    Args:
        variables: environment of the head, its workers and its clients.
    """
    # a short name: sockets lie in it, and their paths must not exceed 107 characters
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    known = dict(variables) | token_in(folder)
    port, dashboard, agent, agent_grpc, client, metrics = free_ports(6)
    flags = {
        "--port": port,
        "--dashboard-port": dashboard,
        "--dashboard-agent-listen-port": agent,
        "--dashboard-agent-grpc-port": agent_grpc,
        "--ray-client-server-port": client,
        "--metrics-export-port": metrics,
        "--temp-dir": folder,
        "--dashboard-host": "127.0.0.1",
        "--include-dashboard": "true",
    }
    words = [str(word) for pair in flags.items() for word in pair]
    try:
        with _started("--head", *words, variables=known, log=folder):
            yield Cluster(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", folder, known)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def token_in(folder: Path) -> dict[str, str]:
    """A token that all processes of a cluster must know, by their environment."""
    path = folder / "token"
    path.write_text("0123456789abcdef" * 4)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


NODES = """
import sys
from ray.cluster_utils import Cluster

ports = dict(zip(("dashboard_agent_listen_port", "metrics_export_port"), map(int, sys.argv[1:])))
cluster = Cluster(True, head_node_args={"num_cpus": 0, **ports})
for _ in range(2):
    cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def nodes(variables: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Ray's own cluster of several nodes on one machine: a head without work, two of one CPU each.

    Args:
        variables: environment of the nodes.

    Yields:
        HOST:PORT for ``--address``, and what a client's environment must hold.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    token = token_in(folder)
    process = subprocess.Popen(
        [sys.executable, "-c", NODES, *map(str, free_ports(2))],
        # sessions lie there, and the file with the address of the cluster that runs
        env=dict(variables) | token | {"RAY_TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None:
            raise AssertionError("asked for a pipe")
        address = process.stdout.readline().strip()
        if not address:
            raise AssertionError(process.communicate())
        yield address, token
    finally:
        try:
            process.communicate(timeout=60)  # closes its input, which it waits for
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_server(store: str, artifacts: Path, variables: Mapping[str, str]) -> Iterator[str]:
    """A tracking server on a store; what several nodes need.

    Yields:
        Its http address.
    """
    (port,) = free_ports(1)
    words = ("server", "--backend-store-uri", store, "--artifacts-destination", str(artifacts))
    place = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    log = artifacts.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, *place],
            env=dict(variables) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text())
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def _started(*flags: str, variables: Mapping[str, str], log: Path) -> Iterator[None]:
    """``ray start`` that stays in the foreground; it ends its processes when it is told to end."""
    words = ("--node-ip-address", "127.0.0.1", "--num-cpus", "2", "--disable-usage-stats")
    ranges = ("--min-worker-port", "0", "--max-worker-port", "0")
    path = log / f"start-{time.monotonic_ns()}.txt"
    with path.open("w") as output:
        process = subprocess.Popen(
            [*RAY, "start", "--block", *flags, *words, *ranges],
            env=dict(variables),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in path.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(path.read_text())
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
