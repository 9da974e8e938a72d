"""Where the tracking store is and whether it answers: MLflow itself hangs on a dead one."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import ssl
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

from platformdirs import user_data_path

DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306}
"""Servers that MLflow can keep its runs in, with the ports they listen at unless told otherwise."""


class Unavailable(RuntimeError):  # noqa: N818
    """What was asked for is not there: a store, an experiment, runs. One line, with the remedy."""


def default_tracking_uri() -> str:
    """The store unless one is named: MLFLOW_TRACKING_URI, else SQLite in the user's data folder."""
    return (
        os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{user_data_path('attribution-sweeps') / 'mlflow.db'}"
    )


def redacted(tracking_uri: str) -> str:
    """The address without its password, fit for messages and reports."""
    return re.sub(r"://([^:/@]*):[^/]*@", r"://\1:***@", tracking_uri)


def probe(tracking_uri: str, timeout_s: float = 5.0) -> None:
    """Ask the store for a sign of life; nothing is created.

    Args:
        tracking_uri: sqlite:///file, http(s)://host:port, or postgresql:// and mysql:// addresses.
        timeout_s: how long a server may take to answer, in seconds.

    Raises:
        Unavailable: the file is missing or no MLflow store, the server does not answer, or the
            scheme is unknown.
    """
    scheme = tracking_uri.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        _probe_sqlite(tracking_uri)
    elif scheme in ("http", "https"):
        _probe_http(tracking_uri, timeout_s)
    elif scheme in DATABASE_PORTS:
        _probe_database(tracking_uri, DATABASE_PORTS[scheme], timeout_s)
    else:
        raise Unavailable(
            f"tracking URI {redacted(tracking_uri)!r}: expected sqlite:///FILE, "
            "http(s)://HOST:PORT or postgresql://...; name one with --tracking-uri"
        )


def _probe_sqlite(tracking_uri: str) -> None:
    path = Path(tracking_uri.partition(":///")[2].split("?")[0])
    if not path.is_file():
        raise Unavailable(
            f"no MLflow store at {path}: run a sweep first, or name its store with --tracking-uri"
        )
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        try:
            found = connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'experiments'"
            ).fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise Unavailable(
            f"{path} cannot be read as an MLflow store ({error}): check --tracking-uri"
        ) from None
    if found is None:
        raise Unavailable(f"{path} is a database without MLflow's tables: check --tracking-uri")


def _probe_http(tracking_uri: str, timeout_s: float) -> None:
    # Nothing is sent but the question, so names, passwords and certificates are left to MLflow.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    url = re.sub(r"://[^/]*@", "://", tracking_uri).rstrip("/")
    try:
        urlopen(f"{url}/health", timeout=timeout_s, context=context).close()
    except HTTPError as error:
        error.close()
        if error.code >= 500:
            raise _unreachable(tracking_uri, f"status {error.code}") from None
    except (URLError, OSError, HTTPException, ValueError) as error:
        raise _unreachable(tracking_uri, getattr(error, "reason", error)) from None


def _probe_database(tracking_uri: str, default_port: int, timeout_s: float) -> None:
    try:
        parts = urlsplit(tracking_uri)
        address = (parts.hostname or "localhost", parts.port or default_port)
        socket.create_connection(address, timeout=timeout_s).close()
    except (OSError, ValueError) as error:
        raise _unreachable(tracking_uri, error) from None


def _unreachable(tracking_uri: str, reason: object) -> Unavailable:
    return Unavailable(
        f"no MLflow at {redacted(tracking_uri)} ({reason}): start the server or name another store "
        "with --tracking-uri"
    )
