"""The engine: the Ray cluster that an address means, and what its workers are given."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
EXCLUDED = [
    ".git",
    ".venv",
    "tests",
    "**/__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
]
"""Not sent to the workers of a cluster."""
CLUSTER_FILE = "ray_current_cluster"


def check_address(address: str) -> None:
    """Ask a cluster for a sign of life: Ray itself takes two minutes over a dead address.

    Raises:
        ValueError: nothing answers; names the address and the remedy.
    """
    if not address:
        return
    target = address
    if address == "auto":
        target = os.environ.get("RAY_ADDRESS") or _current_cluster()
        if not target:
            raise ValueError(
                "--address auto: no Ray cluster runs here; start one with `ray start --head`, "
                "or leave the flag out"
            )
    parts = urlsplit(target if "://" in target else f"ray://{target}")
    try:
        if parts.hostname is None or parts.port is None:
            raise ValueError("expected HOST:PORT")
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--address {address}: no Ray cluster answers at {target} ({error}); "
            "check the address, or leave the flag out to start a local Ray"
        ) from None


def runtime_env() -> dict[str, Any] | None:
    """What brings our code to a cluster's workers; a submitted job has brought it already."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return None
    return {"working_dir": str(ROOT), "excludes": EXCLUDED}


def _current_cluster() -> str:
    """Address that `ray start` left for this user; empty where none runs."""
    temporary = os.environ.get("RAY_TMPDIR", "/tmp")
    path = Path(temporary, "ray", CLUSTER_FILE)
    return path.read_text().strip() if path.exists() else ""
